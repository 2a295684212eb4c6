"""Vectors that remember which reference network they come from."""

import re

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

# Functions that put rows below one another, and so leave columns as they are.
_STACKING = (np.concatenate, np.vstack)


class Vectors(NDArrayOperatorsMixin):
    """Summaries of datasets, one a row, and the reference network behind them.

    Vectors of different reference networks look alike, and comparing them would give a
    wrong ranking without any error. So they carry the network's fingerprint, through
    everything that leaves their columns alone: choosing rows, copies, pickles, stacking
    vectors of one network. Whatever else is done with them gives a plain ndarray, as
    ``numpy.asarray(vectors)`` does: with other columns, or columns in another order,
    they would no longer be what the fingerprint says.

    Parameters
    ----------
    array : array-like of shape (n_datasets, n_features) or (n_features,)
        The summaries, or one of them.

    fingerprint : str or None
        What they depend on, as ``DatasetEmbedder.fingerprint_`` says it; None if
        unknown.

    class_means : sequence of n_datasets arrays, or None, default=None
        The class means of each dataset, of shape (n_means, n_features), or None where
        they are unknown; None where all are. Of one summary, its own.

    Examples
    --------
    >>> from sklearn_p2l.embedding import Vectors
    >>> vectors = Vectors([[1.0, 2.0], [3.0, 4.0]], fingerprint="vgg16")
    >>> vectors[[1]].fingerprint
    'vgg16'
    >>> vectors[:, ::-1]
    array([[2., 1.],
           [4., 3.]])
    """

    def __init__(self, array, fingerprint, class_means=None):
        self._array = np.asarray(array)
        self.fingerprint = fingerprint
        if self.ndim == 2 and class_means is not None:
            class_means = tuple(class_means)
            if len(class_means) != len(self):
                raise ValueError(
                    f"class_means must have one entry per dataset ({len(self)}), got "
                    f"{len(class_means)}."
                )
            widths = {np.shape(m)[-1] for m in class_means if m is not None}
            if widths - {self.shape[1]}:
                raise ValueError(
                    f"class_means must be as wide as the summaries, {self.shape[1]}, "
                    f"got {sorted(widths)}."
                )
        self._class_means = class_means

    @property
    def shape(self):
        """Number of datasets, number of features."""
        return self._array.shape

    @property
    def ndim(self):
        """Number of axes: 2, or 1 for a single summary."""
        return self._array.ndim

    @property
    def dtype(self):
        """Type of the values."""
        return self._array.dtype

    @property
    def class_means(self):
        """Class means of each dataset, or of the one; None where unknown."""
        return self._class_means

    def __len__(self):
        return len(self._array)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype=None, copy=None):
        if copy:
            return np.array(self._array, dtype=dtype)
        return np.asarray(self._array, dtype=dtype)

    def __getitem__(self, key):
        part = self._array[key]
        rows, columns = key if isinstance(key, tuple) and len(key) == 2 else (key, ...)
        chooses_rows = np.ndim(rows) <= 1 and not isinstance(rows, tuple)
        all_columns = columns is Ellipsis or (
            isinstance(columns, slice) and columns == slice(None)
        )
        if rows is None or rows is Ellipsis or self.ndim != 2:
            return part
        if chooses_rows and all_columns:
            means, chosen = self._class_means, np.arange(len(self))[rows]
            if means is not None:
                means = [means[i] for i in chosen] if part.ndim == 2 else means[chosen]
            return Vectors(part, self.fingerprint, means)
        return part

    def copy(self):
        """Copy the vectors.

        Returns
        -------
        vectors : Vectors
            Of the same network, with values of their own.
        """
        return Vectors(self._array.copy(), self.fingerprint, self._class_means)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return getattr(ufunc, method)(*map(_plain, inputs), **_plain(kwargs))

    def __array_function__(self, function, types, args, kwargs):
        result = function(*_plain(args), **_plain(kwargs))
        if function not in _STACKING or kwargs.keys() - {"axis", "arrays", "tup"}:
            return result
        parts, *axis = [*args, *kwargs.values()] if args else [*kwargs.values()]
        if axis not in ([], [0]) or not isinstance(parts, (list, tuple)):
            return result
        known = {getattr(part, "fingerprint", None) for part in parts}
        if len(known) > 1 or result.ndim != 2 or any(np.ndim(p) != 2 for p in parts):
            return result
        return Vectors(result, known.pop(), _stacked_means(parts))

    def __repr__(self):
        body = repr(self._array)
        return f"Vectors({body.removeprefix('array(')[:-1]}, {self.fingerprint!r})"


def _stacked_means(parts):
    means = []
    for part in parts:
        own = getattr(part, "class_means", None)
        means += [None] * len(part) if own is None else own
    return means if any(m is not None for m in means) else None


def _plain(value):
    """`value` with ndarrays in place of vectors, also within sequences."""
    if isinstance(value, Vectors):
        return np.asarray(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def fingerprint_of(X):
    """Return the fingerprint that vectors carry, or None if they carry none.

    Vectors carry it themselves, a DataFrame of a DatasetEmbedder in the names of its
    columns, "<fingerprint>#<number>". Where columns are missing, it carries none.

    Raises
    ------
    ValueError
        If the columns of a DataFrame are of several networks, or out of order.
    """
    if isinstance(X, Vectors):
        return X.fingerprint
    if not hasattr(X, "columns"):
        return None
    names = [re.fullmatch(r"(.+)#(\d+)", str(column)) for column in X.columns]
    if not names or None in names:
        return None
    stems, numbers = zip(*((name[1], int(name[2])) for name in names))
    if len(set(stems)) > 1:
        raise ValueError(
            "the columns of a DataFrame must come from one reference network, got "
            f"{sorted(set(stems))}."
        )
    if list(numbers) != sorted(set(numbers)):
        raise ValueError(
            f"the columns of a DataFrame must be in order, {X.columns[0]!r} comes too "
            "early or late; sort them by the number at their end."
        )
    return stems[0] if list(numbers) == list(range(len(numbers))) else None


def check_same_fingerprint(given, expected, what):
    """Raise unless both fingerprints are the same or one is unknown (None)."""
    if given is not None and expected is not None and given != expected:
        raise ValueError(
            f"{what} must come from the same reference network as the catalog, "
            f"{expected!r}, got {given!r}; embed all datasets with the same backbone, "
            "weights (random ones with the same random_state), layer, summary and "
            "image_size."
        )
