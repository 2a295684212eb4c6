"""A zoo of small networks that comes with the package."""

from importlib import resources
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from sklearn_p2l._provenance import Vectors
from sklearn_p2l.catalog import SourceCatalog
from sklearn_p2l.embedding import DatasetEmbedder


class _Zoo(Bunch):
    """A Bunch that does not print all the numbers in it."""

    def __repr__(self):
        return f"Bunch(sources={self.sources!r}, {', '.join(list(self)[1:])})"


def load_zoo():
    """Load a zoo of small networks, with what each of them gained for real targets.

    Sixteen residual networks of 78 thousand weights, for images of 24 pixels, trained
    on drawings, glyphs, clothes, fruit, vegetables, waste and hand signs: large sources
    and small ones, and several in one. One of them, "everything", is the reference
    network that describes data. Each was fine-tuned on fourteen targets, and so were
    random weights, by the default recipe of :class:`~sklearn_p2l.NetworkClassifier`:
    what weights of signals are learned from. All images are openly licensed, and none
    is part of the package; ``README.md`` in the folder of the zoo names their origins
    and licences, and ``benchmarks/zoo`` of the source repository makes it.

    It is there to begin with, and for small images. For photographs, published networks
    are better sources: see :meth:`SourceCatalog.from_published
    <sklearn_p2l.SourceCatalog.from_published>`. A dataset of yours that shares images
    with a source makes that source look better than it is.

    Returns
    -------
    zoo : Bunch
        With the attributes

        - `sources`: SourceCatalog of 16 sources with checkpoints, sizes, vectors, class
          means, numbers of classes and the column "score", the accuracy on images of
          the same kinds;
        - `embedder`: DatasetEmbedder of the reference network, not fitted;
        - `vectors`: Vectors of shape (14, 64), the summaries of the targets, with their
          class means;
        - `improvements`: ndarray of shape (14, 16), the accuracy after fine-tuning a
          source, less the `baseline`, by one seed;
        - `scores`: dict of str to ndarray of shape (14, 16), how well the features of
          each source tell the classes of each target, for
          :meth:`EvidenceSelector.fit <sklearn_p2l.EvidenceSelector.fit>`;
        - `baseline`: ndarray of shape (14,), the accuracy of random weights;
        - `target_names`: list of 14 str; those in "_b" show classes of no source;
        - `target_sizes`: ndarray of shape (14,), the numbers of training images;
        - `folder`: str, where the files are.

    See Also
    --------
    load_transfer_results : A larger matrix, without networks.

    Examples
    --------
    >>> from sklearn_p2l import EvidenceSelector
    >>> from sklearn_p2l.datasets import load_zoo
    >>> zoo = load_zoo()
    >>> selector = EvidenceSelector(zoo.sources, embedder=zoo.embedder)
    >>> selector = selector.fit(zoo.vectors, zoo.improvements, scores=zoo.scores)
    >>> selector.signals_
    ['size', 'prior', 'similar_targets', 'kl', 'separability', 'logme', 'probe', 'knn']
    """
    folder = Path(str(resources.files("sklearn_p2l.datasets") / "zoo"))
    sources = SourceCatalog.load(folder)
    with np.load(folder / "measured.npz") as content:
        content = dict(content)
    ends = np.cumsum(content["n_class_means"])[:-1]
    means = np.split(content["class_means"].astype(np.float32), ends)
    reference = sources[str(content["reference"])]
    return _Zoo(
        sources=sources,
        embedder=DatasetEmbedder(reference.checkpoint, class_means=True),
        vectors=Vectors(content["vectors"], sources.fingerprint, means),
        improvements=content["improvements"].astype(np.float64),
        scores=dict(
            zip(content["score_names"].tolist(), content["scores"].astype(np.float64))
        ),
        baseline=content["baseline"].astype(np.float64),
        target_names=content["target_names"].tolist(),
        target_sizes=content["target_sizes"],
        folder=str(folder),
    )
