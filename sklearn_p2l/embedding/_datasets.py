"""The datasets given to an embedder: checked, before any passes through a network."""

from contextlib import contextmanager
from numbers import Integral

import numpy as np
from sklearn.utils import check_array

from sklearn_p2l._compat import progress_bar
from sklearn_p2l.samples import Bag, length_of, modality_of
from sklearn_p2l.task import dataset_of


def check_datasets(X):
    """Return X as a list of datasets, of tasks their samples.

    Refuses one dataset given as X itself.
    """
    if isinstance(X, np.ndarray) and X.dtype.kind == "O" and X.ndim == 1:
        X = list(X)
    if not isinstance(X, (list, tuple)):
        raise ValueError(
            "X must be a list of datasets, one row of the result each, got "
            f"{type(X).__name__}; pass [X] to embed one dataset."
        )
    if not len(X):
        raise ValueError("X must hold at least one dataset, got an empty list.")
    for i, dataset in enumerate(X):
        if hasattr(dataset, "getbands") or isinstance(dataset, Bag):
            what = "a bag" if isinstance(dataset, Bag) else "an image"
            raise ValueError(
                f"X must be a list of datasets, got {what} as dataset {i}; pass [X] to "
                "embed one dataset."
            )
    return [dataset_of(item) for item in X]


def check_kinds(datasets, wanted):
    """Refuse datasets of another kind of samples than those given to `fit`."""
    for i, dataset in enumerate(datasets):
        got = modality_of(dataset).name
        if got != wanted:
            raise ValueError(
                f"dataset {i} must hold {wanted} as the datasets given to fit, got "
                f"{got}."
            )


def width_of_features(datasets):
    """The number of columns that ready features have, all of them the same."""
    widths = {np.shape(dataset)[1] for dataset in datasets}
    if len(widths) > 1:
        raise ValueError(
            "ready features must all be of one width, got datasets of "
            f"{sorted(widths)} columns."
        )
    return widths.pop()


def check_feature_names(datasets, names=None):
    """Return the names of the columns of ready features, None where none has any.

    Refuses datasets that name them otherwise, or in another order.
    """
    for i, dataset in enumerate(datasets):
        own = list(getattr(dataset, "columns", ()))
        if not own or not all(isinstance(name, str) for name in own):
            continue
        names = own if names is None else names
        differ = [j for j, pair in enumerate(zip(own, names)) if len({*pair}) > 1]
        if differ:
            j = differ[0]
            raise ValueError(
                f"dataset {i}: columns of ready features must have the same names in "
                f"all datasets, in one order, got {own[j]!r} in place of {names[j]!r} "
                f"as column {j}; put them in one order, such as frame[columns]."
            )
    return names


def check_features(dataset, n_features):
    """Return ready features as an array of float64, of the width seen in `fit`."""
    if getattr(dataset, "dtype", None) == np.uint8:
        raise ValueError(
            "ready features must not be uint8, as grey images are; a dataset of "
            "grey images is one array (n, H, W) or one list: pass [images]."
        )
    features = check_array(dataset, dtype=np.float64, input_name="features")
    if features.shape[1] != n_features:
        raise ValueError(
            f"features must be {n_features} wide as those given to fit, got "
            f"{features.shape[1]}."
        )
    return features


@contextmanager
def naming(number):
    """Name the dataset in what is said to be wrong with it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"dataset {number}: {error}") from error


def progress_over(datasets, n_jobs, max_samples, verbose):
    """A progress bar of samples, or where several jobs run of datasets."""
    unit, total = " samples", None
    if n_jobs > 1:
        unit, total = " datasets", len(datasets)
    elif verbose:
        lengths = [length_of(dataset) for dataset in datasets]
        if isinstance(max_samples, Integral):
            lengths = [n and min(n, max_samples) for n in lengths]
        if None not in lengths and max_samples != "auto":
            total = sum(lengths)
    return progress_bar(desc="embedding", unit=unit, total=total, disable=not verbose)
