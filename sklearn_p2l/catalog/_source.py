"""One source: a dataset, and usually the network trained on it."""

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real

import numpy as np
from sklearn.utils import check_array

from sklearn_p2l._compat import is_missing
from sklearn_p2l._provenance import check_same_fingerprint, fingerprint_of

# What else a source has; no numeric column is called so.
_RESERVED = (
    "name",
    "size",
    "n_classes",
    "checkpoint",
    "architecture",
    "embedding",
    "class_means",
    "metadata",
    "fingerprint",
    "columns",
)


@dataclass(frozen=True, eq=False)
class Source:
    """One candidate source: a dataset, and usually the network trained on it.

    All but the name may be unknown. What is given is checked and copied.

    Parameters
    ----------
    name : str
        Unique name within a catalog.

    size : int or float, default=None
        Number of training examples, ``|s|`` in the paper; positive. None if unknown.

    embedding : array-like of shape (n_features,), default=None
        Summary vector of the source's data, as a DatasetEmbedder returns it; None if
        unknown.

    class_means : array-like of shape (n_means, n_features), default=None
        Means of the source's classes, as a DatasetEmbedder with ``class_means=True``
        finds them; None takes those that such a vector carries, if any.

    checkpoint : str or path-like, default=None
        The trained weights: a file (safetensors or a torch state dict), kept with its
        absolute path, or the name of published weights, kept as it is. A str is such a
        name if it has "://" in it ("hf://timm/resnet50") or neither a path separator
        nor a dot ("IMAGENET1K_V2"), and no file is called so.

    architecture : str, default=None
        Name of the network that the checkpoint belongs to, such as "resnet18". Needed
        where the checkpoint is published.

    n_classes : int, default=None
        Number of classes that the source network was trained on.

    columns : mapping of str to float, default=None
        Other numbers worth ranking or choosing by, such as the accuracy on its own
        task; None or NaN where unknown. Kept as a dict, with None where unknown.

    metadata : dict, default=None
        Anything else worth keeping (JSON types): licence, date.

    fingerprint : str, default=None
        Fingerprint of the reference network behind `embedding`; None takes the one
        that vectors of a DatasetEmbedder carry.

    Raises
    ------
    ValueError
        If something is of a wrong type or out of range, or if a published checkpoint
        comes without an architecture.

    See Also
    --------
    SourceCatalog : The candidate sources of one zoo.
    NetworkClassifier.to_source : Makes the source of a trained network.

    Examples
    --------
    >>> from sklearn_p2l import Source
    >>> Source("birds", size=5994, embedding=[0.25, 0.75]).size
    5994
    >>> Source("imagenet", checkpoint="IMAGENET1K_V2", architecture="resnet50")
    Source(name='imagenet', checkpoint='IMAGENET1K_V2', architecture='resnet50')
    """

    name: str
    size: float | None = None
    embedding: np.ndarray | None = None
    class_means: np.ndarray | None = None
    checkpoint: str | None = None
    architecture: str | None = None
    n_classes: int | None = None
    columns: Mapping | None = None
    metadata: Mapping | None = None
    fingerprint: str | None = None
    # What a file said of the source that this release does not know.
    _unknown: Mapping = field(default_factory=dict, init=False)

    def __post_init__(self):
        name = check_name(self.name)
        own = None if self.embedding is None else fingerprint_of(self.embedding)
        check_same_fingerprint(own, self.fingerprint, f"source {name!r}")
        checkpoint = as_checkpoint(name, self.checkpoint)
        means = self.class_means
        if means is None:
            means = getattr(self.embedding, "class_means", None)
        vector, means = (
            _check_vector(name, self.embedding),
            check_means_of_classes(means),
        )
        if vector is not None and means is not None and means.shape[1] != len(vector):
            raise ValueError(
                f"class_means of source {name!r} must be as wide as its embedding, got "
                f"{means.shape[1]} and {len(vector)}."
            )
        self.__dict__.update(
            name=name,
            size=check_size(self.size, f"size of source {name!r}"),
            embedding=vector,
            class_means=means,
            columns=check_columns(name, self.columns),
            fingerprint=check_fingerprint(self.fingerprint) or own,
            **check_details(
                name,
                checkpoint=checkpoint,
                architecture=self.architecture,
                n_classes=self.n_classes,
                metadata=self.metadata,
            ),
        )

    @classmethod
    def _from_checked(cls, **content):
        """Make a source of what a catalog has checked before."""
        source = object.__new__(cls)
        content["metadata"] = copy.deepcopy(content["metadata"])
        source.__setstate__(content)
        return source

    def _details(self):
        """What a catalog keeps of a source besides numbers and its vector."""
        return {
            "checkpoint": self.checkpoint,
            "architecture": self.architecture,
            "n_classes": self.n_classes,
            "metadata": check_metadata(self.name, self.metadata),
            "unknown": self._unknown,
        }

    def __eq__(self, other):
        if not isinstance(other, Source):
            return NotImplemented
        return (
            self._key() == other._key()
            and same_or_unknown(self.embedding, other.embedding)
            and same_or_unknown(self.class_means, other.class_means)
        )

    def _key(self):
        columns = {key: v for key, v in self.columns.items() if v is not None}
        rest = {"embedding": None, "class_means": None, "columns": columns}
        return self.__dict__ | rest

    def __hash__(self):
        return hash((self.name, self.size, self.fingerprint))

    def __repr__(self):
        hidden = ("embedding", "class_means", "_unknown")
        known = [
            f"{key}={value!r}"
            for key, value in self.__dict__.items()
            if key not in hidden and value is not None and value != {}
        ]
        return f"Source({', '.join(known)})"

    def __setstate__(self, state):
        for array in (state["embedding"], state["class_means"]):
            if array is not None:
                array.flags.writeable = False
        self.__dict__.update(state)


def is_published(checkpoint):
    """Tell whether a checkpoint is the name of published weights, and no file.

    A str with "://" in it is, and so is a bare name: one without a path separator or a
    dot, where no file is called so. What the name means is for networks to know.

    Parameters
    ----------
    checkpoint : str, path-like or None
        What a source has as its checkpoint.

    Returns
    -------
    published : bool

    Examples
    --------
    >>> from sklearn_p2l.catalog import is_published
    >>> is_published("IMAGENET1K_V2"), is_published("hf://timm/resnet50.a1_in1k")
    (True, True)
    >>> is_published("birds.safetensors"), is_published("./weights")
    (False, False)
    """
    if not isinstance(checkpoint, str) or not is_published_name(checkpoint):
        return False
    return "://" in checkpoint or not os.path.isfile(checkpoint)


def has_weights(source):
    """Tell whether a source has weights to start from: a file that is there, or a name.

    Parameters
    ----------
    source : Source
        What may have a checkpoint.

    Returns
    -------
    has_weights : bool
    """
    start = source.checkpoint
    return start is not None and (is_published(start) or os.path.isfile(start))


def is_published_name(checkpoint):
    """Tell by the letters alone, which is enough where files have absolute paths."""
    return "://" in checkpoint or bool(checkpoint) and not set(checkpoint) & set("/\\.")


def as_checkpoint(name, checkpoint):
    """Return a checkpoint as it is kept: a published name, or an absolute path."""
    if checkpoint is None:
        return None
    if is_published(checkpoint):
        return str(checkpoint)
    try:
        path = os.fsdecode(checkpoint)
    except TypeError:
        path = ""
    if not path:
        raise ValueError(
            f"checkpoint of source {name!r} must be a file, the name of published "
            f"weights or None, got {checkpoint!r}."
        )
    return os.path.abspath(path)


def check_name(name):
    """Return the name of a source, if it is one."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"names of sources must be non-empty str, got {name!r}.")
    return str(name)  # NumPy's str, too


def check_details(name, *, checkpoint, architecture, n_classes, metadata):
    """Check what else a catalog keeps of a source, as it is kept.

    The checkpoint is given as `as_checkpoint` returns it.
    """
    if architecture is not None and not isinstance(architecture, str):
        raise ValueError(
            f"architecture of source {name!r} must be a str or None, got "
            f"{architecture!r}."
        )
    published = checkpoint is not None and is_published_name(checkpoint)
    if published and architecture is None:
        raise ValueError(
            f"architecture of source {name!r} must be given, since its checkpoint "
            f"{checkpoint!r} is the name of published weights; if it is a file, pass "
            f"its path: './{checkpoint}'."
        )
    classes = check_number(n_classes, f"n_classes of source {name!r}")
    if not (np.isnan(classes) or (classes >= 1 and classes % 1 == 0)):
        raise ValueError(
            f"n_classes of source {name!r} must be a positive int or None, got "
            f"{n_classes!r}."
        )
    return {
        "checkpoint": checkpoint,
        "architecture": architecture,
        "n_classes": None if np.isnan(classes) else int(classes),
        "metadata": check_metadata(name, metadata),
    }


def check_metadata(name, metadata):
    """Return a copy of the metadata of a source, as JSON keeps it."""
    if metadata is None:
        return None
    try:
        if not isinstance(metadata, Mapping):
            raise TypeError(f"a {type(metadata).__name__}")
        return json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"metadata of source {name!r} must be a dict of JSON types or None, got "
            f"{error}."
        ) from error


def check_fingerprint(fingerprint):
    """Return a fingerprint, if it is one."""
    if fingerprint is not None and not isinstance(fingerprint, str):
        raise ValueError(
            f"fingerprint must be a str or None, got {type(fingerprint).__name__}."
        )
    return fingerprint


def check_column_name(name):
    """Return the name of a numeric column, if it is one."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"names of columns must be non-empty str, got {name!r}.")
    if name in _RESERVED:
        raise ValueError(
            f"names of columns must not be {', '.join(_RESERVED)}, got {name!r}; a "
            "source has that besides its columns."
        )
    return str(name)


def check_columns(name, columns):
    """Return the columns of one source as a dict of floats, None where unknown."""
    if columns is None:
        return {}
    if not isinstance(columns, Mapping):
        raise ValueError(
            f"columns of source {name!r} must be a mapping of str to number or None, "
            f"got {columns!r}."
        )
    numbers = {
        check_column_name(key): check_number(v, f"column {key!r} of source {name!r}")
        for key, v in columns.items()
    }
    return {key: None if np.isnan(v) else v for key, v in numbers.items()}


def check_number(value, what):
    """Return a number as a float, NaN where it is unknown (None or NaN)."""
    if is_missing(value):
        return np.nan
    try:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError
        number = float(value)
        if np.isinf(number):
            raise OverflowError
    except (TypeError, OverflowError):
        raise ValueError(
            f"{what} must be a finite number, or None where unknown, got {value!r}."
        ) from None
    return number


def check_size(size, what):
    """Return a number of examples, an int where it is whole; None where unknown."""
    number = check_number(size, what)
    if np.isnan(number):
        return None
    if number <= 0:
        raise ValueError(
            f"{what} must be positive (numbers of training examples), or None where "
            f"unknown, got {size}."
        )
    return int(number) if number % 1 == 0 else number


def check_means_of_classes(means):
    """Return a copy of class means as a read-only array of float32; None as it is."""
    if means is None:
        return None
    means = check_array(
        np.asarray(means), dtype=np.float32, copy=True, input_name="class_means"
    )
    means.flags.writeable = False
    return means


def same_or_unknown(one, other):
    """Tell whether two arrays are equal, or both None."""
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)


def _check_vector(name, embedding):
    """Return a read-only copy of a source's vector."""
    if embedding is None:
        return None
    if np.ndim(embedding) != 1 or not np.size(embedding):
        raise ValueError(
            f"embedding of source {name!r} must be one vector, or None where unknown, "
            f"got shape {np.shape(embedding)}."
        )
    vector = check_array(
        np.asarray(embedding),
        dtype=[np.float64, np.float32],
        copy=True,
        ensure_2d=False,
        input_name=f"embedding of source {name!r}",
    )
    vector.flags.writeable = False
    return vector
