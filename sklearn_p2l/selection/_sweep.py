"""The exact search for k: mean Spearman correlation as a function of the weight."""

import warnings

import numpy as np
from scipy.stats import rankdata

from sklearn_p2l.exceptions import LearnedWeightWarning

# Breakpoints of more pairs than this are thinned to this many candidates for k.
_MAX_BREAKPOINTS = 5_000_000
# Breakpoints that differ by less, relatively, are one crossing seen through round-off.
_RESOLUTION = 1e-9
# Mean correlations that differ by less are the same one seen through round-off.
_SCORE_RESOLUTION = 1e-10


def sweep(size_term, divergence_term, y):
    """Mean Spearman correlation of size_term + k * divergence_term with y, for all k.

    Between two neighbouring breakpoints the order of the sources is fixed. At a
    breakpoint one pair of sources of one target changes places: the rank of the one
    with the larger divergence term rises by 1, the other's falls by 1, and with it the
    sum of rank products that Spearman's correlation consists of. So each pair adds one
    step to the curve, and the curve is a sum of steps: no order is ever sorted again.

    Returns
    -------
    curve : ndarray of shape (n_intervals, 3)
        Left end, right end and mean correlation of each interval.
    """
    judged = [
        i
        for i, row in enumerate(y)
        if np.unique(row[~np.isnan(row)]).size > 1  # at least two, not all equal
    ]
    dropped = sorted(set(range(len(y))) - set(judged))
    if not judged:
        raise ValueError(
            "y must hold a target with at least two measured sources of different "
            "improvement, got none; measure more, or pass a number for k."
        )
    if dropped:
        warnings.warn(
            f"{len(dropped)} of {len(y)} targets do not help to learn k (fewer than "
            f"two measured sources of different improvement): rows {dropped[:10]}"
            f"{'...' if len(dropped) > 10 else ''}; measure more sources for them, or "
            "leave them out.",
            LearnedWeightWarning,
            stacklevel=4,
        )
    rows = [(size_term[i], divergence_term[i], y[i]) for i in judged]
    n_known = (~np.isnan(y[judged])).sum(axis=1)
    stride = 1 + (n_known * (n_known - 1) // 2).sum() // (_MAX_BREAKPOINTS + 1)
    if stride == 1:
        steps = [_merged([_steps(*row) for row in rows])]
        breakpoints = steps[0][0]
    else:  # too many to keep: made twice, target by target
        steps = (_steps(*row) for row in rows)
        thinned = [np.sort(_steps(*row)[0])[::stride] for row in rows]
        breakpoints = np.sort(np.concatenate(thinned))
    left = np.append(-np.inf, breakpoints)
    right = np.append(breakpoints, np.inf)
    # Crossings that differ by round-off alone enclose no interval.
    with np.errstate(invalid="ignore"):
        wide = right - left > _RESOLUTION * np.maximum(1.0, np.abs(left))
    wide |= np.isinf(left) | np.isinf(right)
    left, right = left[wide], right[wide]
    inside = _representative(left, right)
    # gain[m] is what the m-th interval adds to the one before it, the first to 0.
    gain = np.zeros(len(inside) + 1)
    for at, step, start in steps:
        np.add.at(gain, np.searchsorted(inside, at), step)
        gain[0] += start
    score = np.cumsum(gain[:-1]) / len(judged)
    if stride > 1:  # between the candidates, nothing is known
        return np.column_stack([left, right, score])
    # Neighbours of equal score are one interval.
    start = np.flatnonzero(np.append(True, np.abs(np.diff(score)) > _SCORE_RESOLUTION))
    end = np.append(start[1:] - 1, len(score) - 1)
    return np.column_stack([left[start], right[end], score[start]])


def _steps(size_term, divergence_term, y):
    """Where in k, and by how much, one target's Spearman correlation changes.

    Returns the breakpoints, the steps at them, and the value for k -> -inf.
    """
    known = ~np.isnan(y)
    size_term, divergence_term = size_term[known], divergence_term[known]
    truth = rankdata(y[known])
    # For k -> -inf the larger divergence term ranks lower, size decides among equals.
    lines = np.column_stack([-divergence_term, size_term])
    rank = rankdata(np.unique(lines, axis=0, return_inverse=True)[1].ravel())
    truth = truth - truth.mean()
    rank = rank - rank.mean()
    norm = np.sqrt((truth**2).sum() * (rank**2).sum())
    if norm == 0:  # all sources are one and the same to E
        return np.empty(0), np.empty(0), 0.0
    i, j = np.triu_indices(len(truth), k=1)
    slope = divergence_term[i] - divergence_term[j]
    step = np.sign(slope) * (truth[i] - truth[j]) / norm
    crossing = step != 0
    i, j = i[crossing], j[crossing]
    at = (size_term[j] - size_term[i]) / slope[crossing] + 0.0  # no -0.0
    return at, step[crossing], (truth * rank).sum() / norm


def _merged(steps):
    """The steps of all targets as those of one, in the order of k."""
    at, step, start = zip(*steps)
    at, step = np.concatenate(at), np.concatenate(step)
    order = np.argsort(at)
    return at[order], step[order], sum(start)


def _representative(left, right):
    """The middle of an interval; of one without bounds -1, or a step from its end."""
    with np.errstate(invalid="ignore"):
        step_down = right - np.maximum(1.0, np.abs(right))
        step_up = left + np.maximum(1.0, np.abs(left))
        middle = left + (right - left) / 2
        step_up = np.where(left < 0, left / 2, step_up)
    middle = np.where(np.isinf(left), step_down, middle)
    middle = np.where(np.isinf(right), step_up, middle)
    unbounded = np.isinf(left) | np.isinf(right)
    return np.where(unbounded & (left < -1) & (right > -1), -1.0, middle)


def widest_best(curve):
    """Choose k: the middle of the widest interval of the best correlation."""
    left, right, score = curve.T
    best = np.flatnonzero(score >= score.max() - _SCORE_RESOLUTION)
    chosen = best[np.argmax((right - left)[best])]
    low, high = float(left[chosen]), float(right[chosen])
    k = float(_representative(low, high))
    notes = []
    if len(curve) == 1:
        notes.append(
            "The correlation does not depend on k, which is set to -1. Give more "
            "measured targets, or pass a number for k."
        )
    elif np.isinf(low) or np.isinf(high):
        alone = "the size" if low < 0 < high else "the divergence"
        notes.append(
            f"The best interval of k, ({low:.4g}, {high:.4g}), has no bound: on these "
            f"targets {alone} of the sources alone ranks them as well (are the sizes "
            f"given?). k is set to {k:.4g}."
        )
    if low >= 0:
        notes.append(
            f"The learned k = {k:.4g} is positive: on these targets, more distant "
            "sources improved more. Check that y is higher for better sources, or try "
            "another metric."
        )
    for note in notes:
        warnings.warn(note, LearnedWeightWarning, stacklevel=4)
    return k, (low, high)
