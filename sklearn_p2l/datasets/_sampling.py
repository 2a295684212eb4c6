"""A random part of a dataset, in every form that datasets have."""

import os

import numpy as np
from sklearn.utils import check_random_state

from sklearn_p2l.datasets._bags import is_bags, read_bags
from sklearn_p2l.datasets._images import expand, is_sequence


def random_part(dataset, n_samples, random_state, *, on_error="raise"):
    """Draw samples of a dataset at random, without replacement.

    What is not drawn is not read, except from a stream (an iterable Dataset, a file of
    bags), which is read to its end while `n_samples` of it are kept.

    Parameters
    ----------
    dataset : dataset
        Images or bags, in any form.

    n_samples : int or None
        How many to draw, if there are more; None for all in random order, where
        streams are left as they are.

    random_state : int or RandomState instance
        Decides what is drawn, and the order.

    on_error : {"raise", "skip"}, default="raise"
        What to do with a malformed line of a file of bags.

    Returns
    -------
    part : dataset
        A list, a Dataset, or the stream as it is.

    n_total : int or None
        Number of samples of the whole dataset; None for a stream.
    """
    rng = check_random_state(random_state)
    stream = dataset
    if is_bags(dataset) and isinstance(dataset, (str, os.PathLike)):
        if n_samples is not None:
            stream = read_bags(dataset, on_error=on_error)
    else:
        dataset = expand(dataset)
        is_array = isinstance(dataset, np.ndarray) or is_sequence(dataset)
        if is_array or not hasattr(dataset, "__iter__"):
            order = rng.permutation(len(dataset))[:n_samples]
            if is_array:
                return [dataset[i] for i in order], len(dataset)
            return _Part(dataset, order), len(dataset)
        stream = dataset
    if n_samples is None:
        return stream, None
    return _reservoir(stream, n_samples, rng), None


class _Part:
    """A part of a map-style torch Dataset."""

    def __init__(self, dataset, order):
        self.dataset, self.order = dataset, order

    def __len__(self):
        return len(self.order)

    def __getitem__(self, i):
        return self.dataset[int(self.order[i])]


def _reservoir(stream, n_samples, rng):
    """Keep each sample of a stream with equal probability (Vitter's algorithm R)."""
    kept = []
    for i, sample in enumerate(stream):
        if len(kept) < n_samples:
            kept.append(sample)
        elif (j := rng.randint(i + 1)) < n_samples:
            kept[j] = sample
    return kept
