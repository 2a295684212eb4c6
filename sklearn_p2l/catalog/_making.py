"""How a catalog is made: of arrays, of a table, of the names of published networks."""

from collections.abc import Mapping
from types import NoneType

import numpy as np

from sklearn_p2l._compat import load_networks
from sklearn_p2l.catalog._inputs import (
    arguments_of_frame,
    check_unique,
    details_per_name,
    per_name,
)
from sklearn_p2l.catalog._source import check_means_of_classes, check_name


class MakingMixin:
    """Mixin of a catalog, whose `_make` takes what is kept."""

    @classmethod
    def from_arrays(
        cls,
        embeddings,
        *,
        sizes,
        names,
        class_means=None,
        checkpoints=None,
        architectures=None,
        n_classes=None,
        columns=None,
        metadata=None,
        fingerprint=None,
    ):
        """Build a catalog from arrays, one entry per source.

        Whatever is indexed by names, as a Series or DataFrame may be, is matched by
        name, and all else by position. None and NaN stand for what is unknown.

        Parameters
        ----------
        embeddings : array-like of shape (n_sources, n_features) or None
            Summary vectors, as a DatasetEmbedder returns them, with rows of NaN where
            unknown; None where all are.

        sizes : array-like of shape (n_sources,) or None
            Numbers of training examples; positive.

        names : sequence of str
            Unique names.

        class_means : sequence of (array-like or None), default=None
            Means of each source's classes, of shape (n_means, n_features); None takes
            those that `embeddings` carry, if any.

        checkpoints : sequence of (str or path-like or None), or str, default=None
            Files with the trained weights, or names of published ones; one str serves
            all.

        architectures : sequence of (str or None), or str, default=None
            Names of the networks; one str serves all.

        n_classes : sequence of (int or None), default=None
            Numbers of classes of the source networks.

        columns : mapping of str to array-like of shape (n_sources,), default=None
            Other numbers worth ranking or choosing by, such as accuracies; a DataFrame
            is one, too.

        metadata : sequence of (dict or None), default=None
            Anything else worth keeping, as JSON types.

        fingerprint : str, default=None
            Fingerprint of the reference network; None takes the one that vectors of
            a DatasetEmbedder carry.

        Returns
        -------
        catalog : SourceCatalog

        Raises
        ------
        ValueError
            For repeated names, sizes that are not positive, lengths that differ, or
            vectors of another reference network than `fingerprint`.

        Examples
        --------
        >>> from sklearn_p2l import SourceCatalog
        >>> catalog = SourceCatalog.from_arrays(
        ...     None,
        ...     sizes=None,
        ...     names=["resnet18", "resnet50"],
        ...     architectures=["resnet18", "resnet50"],
        ...     checkpoints="DEFAULT",
        ...     columns={"accuracy": [0.698, None]},
        ... )
        >>> catalog
        SourceCatalog(2 sources, no vectors, column accuracy: resnet18, resnet50)
        """
        names = [check_name(name) for name in names]
        details = details_per_name(
            names,
            checkpoints=checkpoints,
            architectures=architectures,
            n_classes=n_classes,
            metadata=metadata,
        )
        if class_means is None:
            class_means = getattr(embeddings, "class_means", None)
        if embeddings is None:
            embeddings = np.empty((len(names), 0))
        elif hasattr(embeddings, "loc"):
            embeddings = per_name("embeddings", embeddings, names)
        given = per_name("class_means", class_means, names)
        return cls._make(
            names=names,
            sizes=per_name("sizes", sizes, names),
            embeddings=embeddings,
            class_means=[check_means_of_classes(means) for means in given],
            details=details,
            columns={
                key: per_name(f"columns[{key!r}]", values, names)
                for key, values in ({} if columns is None else columns).items()
            },
            fingerprint=fingerprint,
        )

    @classmethod
    def from_frame(cls, frame, *, features=None, columns=None, fingerprint=None):
        """Build a catalog from a pandas DataFrame, one row per source.

        Parameters
        ----------
        frame : DataFrame
            The index holds the names (or a column "name" does); columns "size",
            "checkpoint", "architecture", "n_classes" and "metadata", where there are
            any, what they say. The others are features or numeric columns.

        features : sequence of column names, default=None
            The features. None takes those whose names say so: "<fingerprint>#<number>",
            as a DatasetEmbedder names them, or a bare number, as pandas does where an
            array becomes a DataFrame. Where there are none, but `columns` is given, all
            others are features.

        columns : sequence of column names, default=None
            The numeric columns. None takes all others, if any column is a feature by
            its name or by `features`. Others are left out where both are given.

        fingerprint : str, default=None
            Fingerprint of the reference network; None takes the one in the names of
            features.

        Returns
        -------
        catalog : SourceCatalog

        Raises
        ------
        ValueError
            If nothing tells features from numeric columns, if one of them is not
            numeric, or for whatever :meth:`from_arrays` refuses.

        Examples
        --------
        >>> import pandas as pd
        >>> from sklearn_p2l import SourceCatalog
        >>> frame = pd.DataFrame(
        ...     {"size": [5994, 8144], "red": [0.25, 0.5], "score": [0.7, 0.9]},
        ...     index=["birds", "cars"],
        ... )
        >>> SourceCatalog.from_frame(frame, features=["red"])
        SourceCatalog(2 sources, 1 feature, column score: birds (5,994), cars (8,144))
        """
        return cls.from_arrays(
            **arguments_of_frame(frame, features, columns), fingerprint=fingerprint
        )

    @classmethod
    def from_published(cls, names, *, checkpoints=None):
        """Build a catalog of published networks, of which nothing is downloaded yet.

        What is known of them is taken from torchvision, timm or a Hugging Face
        configuration, and what they were pre-trained on from the names of their
        weights. They have no vectors: rank them by
        :class:`~sklearn_p2l.EvidenceSelector`, which opens them, or try them by
        :class:`~sklearn_p2l.FineTuner`.

        Parameters
        ----------
        names : sequence of str
            Names of networks, with a dot and the name of weights where these are not
            the usual ones: "resnet50" or "resnet50.IMAGENET1K_V1" of torchvision,
            "timm/convnext_atto.d2_in1k" of timm, "hf/microsoft/resnet-18" or
            "hf/<folder>" of Hugging Face. They are the names of the sources.

        checkpoints : mapping of str to path-like, default=None
            Files of weights that are here already, by the names of networks; the
            others are downloaded when they are opened.

        Returns
        -------
        catalog : SourceCatalog
            With architectures, weights, numbers of classes, and the columns
            "parameters" and "accuracy" (top-1 on ImageNet-1k, of 1) where they are
            published; `size` is the number of images that a network was pre-trained on
            first, and `metadata` says which, and whose number that is.

        Raises
        ------
        ValueError
            If a network is not known, or has no published weights.
        ImportError
            If the package that a network comes from is not installed.
        OSError
            If the configuration of a network on the hub cannot be downloaded.

        Examples
        --------
        >>> from sklearn_p2l import SourceCatalog
        >>> zoo = SourceCatalog.from_published(["squeezenet1_1", "vit_b_16"])
        >>> zoo.column("parameters")
        array([ 1235496., 86567656.])
        >>> zoo["squeezenet1_1"].metadata["images"]
        'ImageNet-1k'
        """
        if isinstance(names, str):
            raise ValueError(f"names must be a list of names, got {names!r}.")
        names = check_unique([check_name(name) for name in names])
        if not isinstance(checkpoints, (Mapping, NoneType)):
            raise ValueError(
                "checkpoints must be a mapping of names of networks to files, such as "
                f"{{'resnet50': 'weights.pth'}}, got {checkpoints!r}."
            )
        files = {} if checkpoints is None else dict(checkpoints)
        if unknown := set(files) - set(names):
            raise ValueError(
                f"checkpoints must be of names in {list(names)}, got {sorted(unknown)}."
            )
        facts = [load_networks().published_facts(name) for name in names]
        return cls.from_arrays(
            None,
            sizes=[f.images.size if f.images else None for f in facts],
            names=names,
            checkpoints=[files.get(n, f.weights) for n, f in zip(names, facts)],
            architectures=[f.architecture for f in facts],
            n_classes=[f.n_classes for f in facts],
            columns={
                "parameters": [f.n_parameters for f in facts],
                "accuracy": [f.accuracy for f in facts],
            },
            metadata=[_metadata_of(f) for f in facts],
        )


def _metadata_of(facts):
    """What else is known of a published network."""
    known = {"licence": facts.licence}
    if facts.images is not None:
        known |= {"images": facts.images.name, "size_from": facts.images.reference}
    return {key: value for key, value in known.items() if value is not None} or None
