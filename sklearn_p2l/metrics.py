"""How well predicted scores rank the sources of each target.

Every metric compares `y_true`, measured improvements (or performances), with
`y_score`, predicted scores, both of shape (n_targets, n_sources) and higher for
better sources. Cells that are NaN in `y_true` were not measured and are skipped. A
target with fewer than two measured sources says nothing about a ranking and is left
out. Columns are matched by name where both sides name them (DataFrames), else by
position; what a selector's `decision_function` returns is a plain array, whose columns
are those of its ``source_labels_``. The scorers know them, and match a DataFrame of
improvements by name.

Functions named ``*_score`` are better when higher, ``*_loss`` when lower.

The scorers (``*_scorer``) serve as ``scoring=`` in scikit-learn's model selection;
those of a loss return it negated, so that higher is better. They take no part in
metadata routing: weights of targets reach the selector's own `score` only.
"""

import warnings
from functools import partial

import numpy as np
from scipy.stats import rankdata, weightedtau
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import check_array

from sklearn_p2l._alignment import align_columns, source_labels
from sklearn_p2l._compat import _check_sample_weight

__all__ = [
    "picks_to_best_loss",
    "picks_to_best_scorer",
    "regret_loss",
    "regret_scorer",
    "spearman_score",
    "spearman_scorer",
    "top_accuracy_score",
    "top_accuracy_scorer",
    "weighted_tau_score",
    "weighted_tau_scorer",
]


def spearman_score(y_true, y_score, *, top=None, sample_weight=None, average="mean"):
    """Spearman rank correlation of measured and predicted order, mean over targets.

    Ties get their average rank. The paper's measure of a ranking (section 3.1,
    Table 2).

    Parameters
    ----------
    y_true : array-like or DataFrame of shape (n_targets, n_sources)
        Measured improvements, higher is better; NaN where not measured.

    y_score : array-like of shape (n_targets, n_sources)
        Predicted scores, higher is better.

    top : int, default=None
        Judge only the order of each target's `top` best measured sources (and those
        that tie with the last of them); None judges all.

    sample_weight : array-like of shape (n_targets,), default=None
        Weights of the targets in the mean.

    average : {"mean", None}, default="mean"
        None returns one value per target.

    Returns
    -------
    score : float or ndarray of shape (n_targets,)
        Between -1 and 1. A target whose measured or predicted values are all equal
        scores 0, with an UndefinedMetricWarning; one with fewer than two measured
        sources is left out of the mean and is NaN without averaging.

    Examples
    --------
    >>> from sklearn_p2l.metrics import spearman_score
    >>> spearman_score([[0.3, 0.1, 0.2]], [[3.0, 1.0, 2.0]])
    1.0
    """
    y_true, y_score = check_matrices(y_true, y_score)
    if top is not None:
        top = _check_top(top, minimum=2)
        y_true = keep_top(y_true, top)

    def spearman(truth, score):
        if _is_constant(truth) or _is_constant(score):
            return _undefined()
        return np.corrcoef(rankdata(truth), rankdata(score))[0, 1]

    return _over_targets(spearman, y_true, y_score, sample_weight, average)


def top_accuracy_score(y_true, y_score, *, top=1, sample_weight=None, average="mean"):
    """Share of targets whose best source is among the first `top` predicted.

    Ties in `y_score` count against the ranking (of equally scored sources the worst
    is taken first), ties for the best source in its favour (any of them will do).

    Parameters
    ----------
    y_true : array-like or DataFrame of shape (n_targets, n_sources)
        Measured improvements, higher is better; NaN where not measured.

    y_score : array-like of shape (n_targets, n_sources)
        Predicted scores, higher is better.

    top : int, default=1
        Number of sources looked at.

    sample_weight : array-like of shape (n_targets,), default=None
        Weights of the targets in the mean.

    average : {"mean", None}, default="mean"
        None returns one value per target.

    Returns
    -------
    score : float or ndarray of shape (n_targets,)
        Between 0 and 1. A target with a constant prediction scores 0, with an
        UndefinedMetricWarning.

    Examples
    --------
    >>> from sklearn_p2l.metrics import top_accuracy_score
    >>> top_accuracy_score([[0.3, 0.1], [0.1, 0.2]], [[2.0, 1.0], [2.0, 1.0]])
    0.5
    """
    y_true, y_score = check_matrices(y_true, y_score)
    top = _check_top(top)

    def hit(truth, score):
        if _is_constant(score):
            return _undefined()
        return truth[_picks(truth, score)[:top]].max() == truth.max()

    return _over_targets(hit, y_true, y_score, sample_weight, average)


def picks_to_best_loss(y_true, y_score, *, sample_weight=None, average="mean"):
    """Number of predicted sources to try until the best one is reached (Figure 7).

    Ties in `y_score` are taken in random order, and the expected number counts; of
    several best sources the one reached first counts.

    Parameters
    ----------
    y_true : array-like or DataFrame of shape (n_targets, n_sources)
        Measured improvements, higher is better; NaN where not measured.

    y_score : array-like of shape (n_targets, n_sources)
        Predicted scores, higher is better.

    sample_weight : array-like of shape (n_targets,), default=None
        Weights of the targets in the mean.

    average : {"mean", None}, default="mean"
        None returns one value per target.

    Returns
    -------
    loss : float or ndarray of shape (n_targets,)
        At least 1, which is perfect. A constant prediction needs
        ``(n_sources + 1) / 2`` picks.

    Examples
    --------
    >>> from sklearn_p2l.metrics import picks_to_best_loss
    >>> picks_to_best_loss([[0.3, 0.1, 0.2]], [[2.0, 1.0, 3.0]])
    2.0
    """
    y_true, y_score = check_matrices(y_true, y_score)

    def picks(truth, score):
        best = truth == truth.max()
        reached = score[best].max()
        n_tied, n_best = (score == reached).sum(), (best & (score == reached)).sum()
        # Of n places in random order, the first of m ones is at (n + 1) / (m + 1).
        return (score > reached).sum() + (n_tied + 1) / (n_best + 1)

    return _over_targets(picks, y_true, y_score, sample_weight, average)


def regret_loss(
    y_true, y_score, *, top=1, baseline=0.0, sample_weight=None, average="mean"
):
    """Relative loss of the best of the first `top` predicted sources: regret\\@top.

    ``(best - best of the first top) / |best|``. Ties in `y_score` count against the
    ranking: of equally scored sources the worst is taken first.

    Parameters
    ----------
    y_true : array-like or DataFrame of shape (n_targets, n_sources)
        Measured improvements or performances, higher is better; NaN where not
        measured.

    y_score : array-like of shape (n_targets, n_sources)
        Predicted scores, higher is better.

    top : int, default=1
        Number of sources looked at.

    baseline : float or array-like of shape (n_targets,), default=0.0
        Performance without transfer, P(M(t, ∅)). Added to improvements, it makes the
        loss relative to the best performance, as it is mostly quoted.

    sample_weight : array-like of shape (n_targets,), default=None
        Weights of the targets in the mean.

    average : {"mean", None}, default="mean"
        None returns one value per target.

    Returns
    -------
    loss : float or ndarray of shape (n_targets,)
        At least 0, which is perfect. Where the best is exactly 0 the relative loss is
        undefined: 0 if nothing is lost, else infinite.

    Examples
    --------
    >>> from sklearn_p2l.metrics import regret_loss
    >>> regret_loss([[0.8, 0.4]], [[1.0, 2.0]])
    0.5
    """
    y_true, y_score = check_matrices(y_true, y_score)
    top = _check_top(top)
    baseline = np.asarray(baseline, dtype=float)
    if (
        baseline.ndim not in (0, 1)
        or baseline.size not in (1, len(y_true))
        or not np.isfinite(baseline).all()
    ):
        raise ValueError(
            f"baseline must be a finite number or one per target ({len(y_true)}), got "
            f"{baseline.tolist()}."
        )
    y_true = y_true + np.broadcast_to(baseline.reshape(-1, 1), (len(y_true), 1))

    def regret(truth, score):
        best = truth.max()
        lost = best - truth[_picks(truth, score)[:top]].max()
        if lost == 0:
            return 0.0
        return lost / abs(best) if best != 0 else np.inf

    return _over_targets(regret, y_true, y_score, sample_weight, average)


def weighted_tau_score(y_true, y_score, *, sample_weight=None, average="mean"):
    """Kendall's tau with hyperbolic weights: exchanges at the top count most.

    As :func:`scipy.stats.weightedtau`, averaged over both orders of ranking.

    Parameters
    ----------
    y_true : array-like or DataFrame of shape (n_targets, n_sources)
        Measured improvements, higher is better; NaN where not measured.

    y_score : array-like of shape (n_targets, n_sources)
        Predicted scores, higher is better.

    sample_weight : array-like of shape (n_targets,), default=None
        Weights of the targets in the mean.

    average : {"mean", None}, default="mean"
        None returns one value per target.

    Returns
    -------
    score : float or ndarray of shape (n_targets,)
        Between -1 and 1. A target whose measured or predicted values are all equal
        scores 0, with an UndefinedMetricWarning.

    Examples
    --------
    >>> from sklearn_p2l.metrics import weighted_tau_score
    >>> weighted_tau_score([[0.3, 0.1, 0.2]], [[3.0, 1.0, 2.0]])
    1.0
    """
    y_true, y_score = check_matrices(y_true, y_score)

    def tau(truth, score):
        if _is_constant(truth) or _is_constant(score):
            return _undefined()
        return weightedtau(truth, score).statistic

    return _over_targets(tau, y_true, y_score, sample_weight, average)


def _score_ranking(metric, sign, estimator, X, y, sample_weight=None):
    E = estimator.decision_function(X)
    names = source_labels(estimator)
    if hasattr(y, "columns") and names is not None:
        y = align_columns(y, names)
    return sign * metric(y, E, sample_weight=sample_weight)


# Until 1.9, scorers of sklearn.metrics.make_scorer ask for the decision_function of
# classifiers and outlier detectors only, which a selector is neither of.
spearman_scorer = partial(_score_ranking, spearman_score, 1)
top_accuracy_scorer = partial(_score_ranking, top_accuracy_score, 1)
picks_to_best_scorer = partial(_score_ranking, picks_to_best_loss, -1)
regret_scorer = partial(_score_ranking, regret_loss, -1)
weighted_tau_scorer = partial(_score_ranking, weighted_tau_score, 1)


def keep_top(y_true, top):
    """Set to NaN all but each row's `top` best values and those that tie with them."""
    y_true = y_true.copy()
    for row in y_true:
        measured = ~np.isnan(row)
        if measured.sum() > top:
            threshold = np.sort(row[measured])[-top]
            row[row < threshold] = np.nan
    return y_true


def check_matrices(y_true, y_score):
    names = list(y_score.columns) if hasattr(y_score, "columns") else None
    y_score = check_array(
        y_score, dtype=np.float64, ensure_all_finite=False, input_name="y_score"
    )
    if np.isnan(y_score).any() or np.isposinf(y_score).any():
        raise ValueError("y_score must not hold NaN or inf; -inf ranks a source last.")
    if hasattr(y_true, "columns") and names is not None:
        y_true = align_columns(y_true, names)
    y_true = check_array(
        y_true, dtype=np.float64, ensure_all_finite="allow-nan", input_name="y_true"
    )
    if y_true.shape != y_score.shape:
        raise ValueError(
            "y_true and y_score must have the same shape (n_targets, n_sources), got "
            f"{y_true.shape} and {y_score.shape}."
        )
    return y_true, y_score


def _check_top(top, minimum=1):
    if not isinstance(top, (int, np.integer)) or isinstance(top, bool) or top < minimum:
        raise ValueError(f"top must be an int of at least {minimum}, got {top!r}.")
    return int(top)


def _picks(truth, score):
    """Order of picks: best score first, the truly worst first among equal scores."""
    return np.lexsort((truth, -score))


def _is_constant(values):
    return values.min() == values.max()


def _undefined():
    warnings.warn(
        "A ranking of equal values is undefined and set to 0; leave such targets "
        "out to judge by the others alone.",
        UndefinedMetricWarning,
        stacklevel=2,
    )
    return 0.0


def _over_targets(function, y_true, y_score, sample_weight, average):
    """Apply `function` to the measured cells of each target, then average."""
    if average not in ("mean", None):
        raise ValueError(f"average must be 'mean' or None, got {average!r}.")
    values = np.full(len(y_true), np.nan)
    for i, (truth, score) in enumerate(zip(y_true, y_score)):
        measured = ~np.isnan(truth)
        if measured.sum() > 1:
            values[i] = function(truth[measured], score[measured])
    if average is None:
        return values
    weight = _check_sample_weight(sample_weight, y_true, dtype=np.float64)
    if (weight < 0).any():
        raise ValueError(f"sample_weight must not be negative, got {weight.min():g}.")
    judged = ~np.isnan(values) & (weight > 0)
    if not judged.any():
        warnings.warn(
            "No target with two measured sources and weight: the mean is NaN; measure "
            "more sources, or give such a target weight.",
            UndefinedMetricWarning,
            stacklevel=3,
        )
        return float("nan")
    return float(np.average(values[judged], weights=weight[judged]))
