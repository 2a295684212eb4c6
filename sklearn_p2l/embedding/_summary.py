"""What a summary holds: one statistic of each feature over the samples of a dataset.

To add one, write a function of a block of columns (n_samples, n_columns) and name it in
`STATISTICS`.
"""

import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import trim_mean
from sklearn.preprocessing import normalize

from sklearn_p2l.embedding._class_means import ClassMeans
from sklearn_p2l.exceptions import SkippedSamplesWarning
from sklearn_p2l.samples import modality_of

# Order statistics read back this many values at a time (128 MiB as float64).
_BLOCK_VALUES = 2**24


@dataclass(frozen=True)
class Summary:
    """What is kept of a dataset."""

    #: (n_features,), not normalised.
    vector: np.ndarray
    #: (n_means, n_features), where there are labels.
    class_means: np.ndarray | None
    #: What was said of samples that were left out.
    skipped: tuple = ()


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
    y: np.ndarray | None = None,
) -> Summary:
    """Summarise batches of features (n, n_features) in one vector (n_features,).

    With labels `y` of the samples, their class means are kept as well.

    The mean is accumulated in float64, in memory that does not grow with the number
    of rows; with a `tolerance`, only until `mean_error` is at most that. The other
    statistics need all rows: these go to a temporary file, 4 bytes a value, and are
    read back in blocks of columns.
    """
    if statistic not in STATISTICS:
        raise ValueError(
            f"summary must be one of {sorted(STATISTICS)}, got {statistic!r}."
        )
    if y is not None:
        classes = ClassMeans(y)
        batches = classes.following(batches)
    if statistic == "mean":
        vector = _streamed_mean(batches, tolerance, n_total)
    else:
        vector = _of_all(batches, STATISTICS[statistic], proportion)
    return Summary(vector, None if y is None else classes.result())


def _of_all(batches, function, proportion):
    """A statistic that needs all samples at once."""
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
            result[start : start + step] = function(block, proportion)
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


def finish(summary: Summary, dataset: Any, number: int) -> np.ndarray:
    """Tell of skipped samples, check a vector and normalise it, as (1, n_features)."""
    vector, skipped = summary.vector, summary.skipped
    if skipped:
        unit = modality_of(dataset).unit
        warnings.warn(
            f"Skipped {len(skipped)} {unit}(s) that cannot be used; the first: "
            f"{skipped[0].rstrip('.')}. Mend or remove them, or pass "
            "on_error='raise' to stop at the first.",
            SkippedSamplesWarning,
            stacklevel=3,
        )
    if not np.isfinite(vector).all():
        raise ValueError(
            f"dataset {number}: the summary must be finite, got NaN or infinity "
            "from the network; pass precision='float32' or check the weights."
        )
    if not vector.any():
        raise ValueError(
            f"dataset {number}: the summary must not be all zero: no unit of the "
            "layer responds to any sample; choose another layer or other weights."
        )
    return normalize(vector[np.newaxis], norm="l1")
