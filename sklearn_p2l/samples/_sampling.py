"""A part of a dataset: chosen samples, or random ones."""

import numpy as np

from sklearn_p2l._compat import _safe_indexing


class Subset:
    """Some samples of a map-style torch Dataset, by their numbers."""

    def __init__(self, dataset, rows):
        self.dataset, self.rows = dataset, np.asarray(rows)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.dataset[int(self.rows[i])]


class Drawn(list):
    """Samples that were drawn from a dataset, and the numbers they have in it."""

    def __init__(self, samples, rows):
        super().__init__(samples)
        self.rows = np.asarray(rows)


def numbers_of(dataset):
    """The numbers that errors call samples by, one for each; None for 0, 1, ..."""
    return dataset.rows if isinstance(dataset, (Drawn, Subset)) else None


def is_sequence(dataset):
    """Tell whether a dataset is a plain sequence of samples."""
    return isinstance(dataset, (list, tuple)) or (
        isinstance(dataset, np.ndarray) and dataset.ndim == 1
    )


def is_map_style(dataset):
    """Tell whether samples of a Dataset can be had by their number.

    torch gives streams, too, a `__getitem__`, but not this: they are iterated over.
    Datasets of Hugging Face can be both.
    """
    return (
        hasattr(dataset, "__getitem__")
        and hasattr(dataset, "__len__")
        and (not hasattr(dataset, "__iter__") or hasattr(dataset, "column_names"))
    )


def take(samples, rows):
    """Return the samples of these numbers, from an array, a sequence or a Dataset."""
    if is_map_style(samples):
        return Subset(samples, rows)
    return _safe_indexing(samples, rows)


def random_rows(samples, n_samples, rng):
    """Draw samples of anything that has a length, all in random order for None."""
    order = rng.permutation(len(samples))[:n_samples]
    if is_map_style(samples):
        return Subset(samples, order)
    return Drawn([samples[i] for i in order], order)


def reservoir(stream, n_samples, rng):
    """Keep each sample of a stream with equal probability (Vitter's algorithm R)."""
    kept = []
    for i, sample in enumerate(stream):
        if len(kept) < n_samples:
            kept.append((sample, i))
        elif (j := rng.randint(i + 1)) < n_samples:
            kept[j] = (sample, i)
    return Drawn([sample for sample, _ in kept], [i for _, i in kept])
