"""Ready features: datasets that need no network, as 2-D arrays."""

import os

import joblib
import numpy as np

from sklearn_p2l.samples._modality import Modality


class _Features(Modality):
    """Rows of features that were computed elsewhere."""

    name, sample, unit = "features", "row", "row"

    def recognises(self, dataset):
        if hasattr(dataset, "columns") and hasattr(dataset, "to_numpy"):
            return column_of(dataset) is None
        return hasattr(dataset, "__array__") and getattr(dataset, "ndim", None) == 2

    def as_samples(self, X):
        return X

    def random_part(self, dataset, n_samples, rng, on_error):
        return dataset, len(dataset)  # they cost nothing, and are taken whole

    def content_key(self, dataset):
        return joblib.hash(np.asarray(dataset))


def column_of(frame):
    """The only column of a DataFrame that holds no numbers, such as paths; or None.

    Raises
    ------
    ValueError
        If there are others beside it, such as labels.
    """
    values = frame.to_numpy()
    if values.dtype.kind not in "OUST":
        return None
    if len(frame.columns) == 1:
        return values[:, 0]
    if any(isinstance(v, (str, os.PathLike)) for v in values[:1].ravel()):
        columns = list(frame.columns)
        raise ValueError(
            "a dataset given as a DataFrame must hold one column of paths, or numbers "
            f"alone, got columns {columns}; pass the one of the paths, such as "
            f"frame[{columns[0]!r}]."
        )
    return None


FEATURES = _Features()
