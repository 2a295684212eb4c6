"""What a summary holds: one statistic of each feature over the samples of a dataset.

To add one, write a function of a block of columns (n_samples, n_columns) and name it in
`STATISTICS`.
"""

import tempfile
from collections.abc import Iterable

import numpy as np
from scipy.stats import trim_mean

# Order statistics read back this many values at a time (128 MiB as float64).
_BLOCK_VALUES = 2**24


def _median(block, proportion):
    return np.median(block, axis=0)


def _trimmed_mean(block, proportion):
    return trim_mean(block, proportion, axis=0)


# Statistics that need all samples at once; "mean" streams and has code of its own.
STATISTICS = {"mean": None, "trimmed_mean": _trimmed_mean, "median": _median}


def statistic_name(statistic: str, proportion: float) -> str:
    """Name a statistic with the parameters that it depends on, for fingerprints."""
    if statistic == "trimmed_mean":
        return f"trimmed_mean({proportion:g})"
    return statistic


def summarize(
    batches: Iterable[np.ndarray],
    statistic: str,
    proportion: float,
    *,
    tolerance: float = 0.0,
    n_total: int | None = None,
) -> np.ndarray:
    """Summarise batches of features (n, n_features) in one vector (n_features,).

    The mean is accumulated in float64, in memory that does not grow with the number
    of rows; with a `tolerance`, only until `mean_error` is at most that. The other
    statistics need all rows: these go to a temporary file, 4 bytes a value, and are
    read back in blocks of columns.
    """
    if statistic not in STATISTICS:
        raise ValueError(
            f"summary must be one of {sorted(STATISTICS)}, got {statistic!r}."
        )
    if statistic == "mean":
        return _streamed_mean(batches, tolerance, n_total)
    with tempfile.TemporaryFile() as file:
        n_rows = 0
        for features in batches:
            file.write(np.ascontiguousarray(features, dtype=np.float32).data)
            n_rows += len(features)
            n_columns = features.shape[1]
        file.flush()
        rows = np.memmap(file, np.float32, mode="r", shape=(n_rows, n_columns))
        result = np.empty(n_columns)
        step = max(1, _BLOCK_VALUES // n_rows)
        for start in range(0, n_columns, step):
            block = rows[:, start : start + step].astype(np.float64)
            result[start : start + step] = STATISTICS[statistic](block, proportion)
        del rows, block
    return result


def _streamed_mean(batches, tolerance, n_total):
    total, squares, n_rows = 0.0, 0.0, 0
    for features in batches:
        total = total + features.sum(axis=0, dtype=np.float64)
        n_rows += len(features)
        if tolerance:
            squares = squares + np.square(features, dtype=np.float64).sum(axis=0)
            if mean_error(total, squares, n_rows, n_total) <= tolerance:
                break
    return total / n_rows


def mean_error(total, squares, n_rows, n_total):
    """Estimate how far the mean of a random part is from that of the whole.

    The expected L1 distance of the two, over the L1 norm of the mean: each feature is
    off by a normal error whose standard deviation is its standard error (with the
    correction for finite populations), and so by sqrt(2 / pi) times that on average.
    That summaries are normalised afterwards can only take some of it away.
    """
    if n_rows < 2:
        return np.inf
    mean = total / n_rows
    variance = np.maximum(squares / n_rows - mean**2, 0) * n_rows / (n_rows - 1)
    share_unread = 1 - n_rows / n_total
    error = np.sqrt(2 / np.pi * variance / n_rows * share_unread).sum()
    norm = np.abs(mean).sum()
    return error / norm if norm > 0 else np.inf
