"""Class means: where the classes of a dataset lie among the features of a network."""

import numpy as np
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize

from sklearn_p2l.task import Task

# Of more classes, as many centres of their means are kept.
MOST_MEANS = 64


def labels_of(item):
    """The labels of a task, as an array; None for any other dataset."""
    return np.asarray(item.y) if isinstance(item, Task) else None


def check_labels_stay(class_means, on_error):
    """Refuse to leave samples out where each must keep its label."""
    if class_means and on_error == "skip":
        raise ValueError(
            "on_error must be 'raise' for class_means=True, got 'skip': every sample "
            "must keep its label."
        )


class ClassMeans:
    """The means over each class of features of unit length, as they stream by.

    Parameters
    ----------
    y : ndarray
        Labels (n_samples,) in the order of the features, or an indicator of several
        (n_samples, n_labels).
    """

    def __init__(self, y):
        if y.ndim == 2:
            self._y = y.astype(np.float64)
        else:
            classes, self._y = np.unique(y, return_inverse=True)
            self._one_hot = np.eye(len(classes))
        self._done, self._sums, self._counts = 0, 0.0, 0.0

    def following(self, batches):
        """Yield batches of features as they are, and learn from each."""
        for features in batches:
            rows = self._y[self._done : self._done + len(features)]
            indicator = self._one_hot[rows] if self._y.ndim == 1 else rows
            self._sums = self._sums + indicator.T @ normalize(features.astype(float))
            self._counts = self._counts + indicator.sum(axis=0)
            self._done += len(features)
            yield features

    def result(self):
        """The means (n_means, n_features) in float32, of the classes that came by.

        None where no class did.
        """
        there = self._counts > 0
        if not np.any(there):
            return None
        counts = self._counts[there]
        means = self._sums[there] / counts[:, np.newaxis]
        if len(means) > MOST_MEANS:
            centres = KMeans(MOST_MEANS, n_init=1, random_state=0)
            means = centres.fit(means, sample_weight=counts).cluster_centers_
        return means.astype(np.float32)
