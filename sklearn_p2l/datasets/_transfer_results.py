"""A measured transfer matrix, to try selection on at once."""

from importlib import resources

import numpy as np
from sklearn.utils import Bunch

from sklearn_p2l._provenance import Vectors
from sklearn_p2l.catalog import SourceCatalog


def load_transfer_results():
    """Load what transfer gained among real images: 17 targets by 15 sources.

    Every source network was fine-tuned on every target, three times, and so were random
    weights; all images passed through one reference network, SqueezeNet trained on
    ImageNet. Seven targets show the same classes as a source in other images, to learn
    k on; ten are held out, of which five show what no source has seen. How it was
    measured, and the script that did it, is in ``benchmarks/transfer`` of the source
    repository. No image and no network is part of the package.

    Returns
    -------
    results : Bunch
        With the attributes

        - `sources`: SourceCatalog of the 15 sources with sizes, numbers of classes,
          vectors and class means, without checkpoints;
        - `vectors`: Vectors of shape (17, 512), the summaries of the targets, with
          their class means;
        - `improvements`: ndarray of shape (17, 15), the accuracy after fine-tuning a
          source, less the `baseline`, mean of three seeds;
        - `baseline`: ndarray of shape (17,), the accuracy of random weights;
        - `target_names`: list of 17 str;
        - `target_sizes`: ndarray of shape (17,), the numbers of training images;
        - `training`: ndarray of bool of shape (17,), False for held-out targets.

    Examples
    --------
    >>> from sklearn_p2l import SourceSelector
    >>> from sklearn_p2l.datasets import load_transfer_results
    >>> results = load_transfer_results()
    >>> results.improvements.shape
    (17, 15)
    >>> selector = SourceSelector(results.sources)
    >>> selector = selector.fit(
    ...     results.vectors[results.training], results.improvements[results.training]
    ... )
    >>> vegetables = results.target_names.index("vegetables")
    >>> selector.predict_top(results.vectors[[vegetables]], n_top=1)
    array([['photos_merged']], dtype='<U13')
    """
    path = resources.files("sklearn_p2l.datasets") / "data" / "transfer_results.npz"
    with path.open("rb") as file, np.load(file) as content:
        content = dict(content)
    fingerprint = str(content["fingerprint"])
    ends = np.cumsum(content["n_class_means"])[:-1]
    means = np.split(content["class_means"].astype(np.float32), ends)
    n_sources = len(content["source_names"])
    sources = SourceCatalog.from_arrays(
        content["source_vectors"],
        class_means=means[:n_sources],
        sizes=content["source_sizes"],
        names=content["source_names"].tolist(),
        architectures="small_resnet",
        n_classes=content["source_n_classes"].tolist(),
        fingerprint=fingerprint,
    )
    return Bunch(
        sources=sources,
        vectors=Vectors(content["target_vectors"], fingerprint, means[n_sources:]),
        improvements=content["improvements"],
        baseline=content["baseline"],
        target_names=content["target_names"].tolist(),
        target_sizes=content["target_sizes"],
        training=content["training"],
    )
