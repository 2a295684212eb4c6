"""The paper's evaluation for any zoo: who picks well, measured against the truth."""

import warnings
from math import comb
from numbers import Integral, Real

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import Bunch, check_random_state

from sklearn_p2l._alignment import (
    align_columns,
    last_step,
    reorder_rows,
    source_labels,
)
from sklearn_p2l._compat import (
    Interval,
    _safe_indexing,
    import_pandas,
    validate_params,
)
from sklearn_p2l.exceptions import (
    LearnedWeightWarning,
    SignedFeaturesWarning,
    TiedRankingWarning,
)
from sklearn_p2l.metrics import picks_to_best_loss, spearman_score
from sklearn_p2l.selection._pipeline import check_signs

__all__ = ["evaluate_selectors"]

# Columns of `targets` that are averaged in `summary`.
_MEASURES = [
    "performance",
    "picked_best",
    "spearman",
    "picks_to_best",
    "regret_at_1",
    "regret_at_2",
    "regret_at_3",
]


@validate_params(
    {
        "n_bootstraps": [Interval(Integral, 1, None, closed="left")],
        "confidence_level": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
    },
    prefer_skip_nested_validation=True,
)
def evaluate_selectors(
    selectors,
    X,
    improvements,
    *,
    baseline=None,
    training=None,
    n_bootstraps=2000,
    confidence_level=0.95,
    random_state=0,
):
    """Judge selectors by measured improvements, on targets they have not learned from.

    Each selector is cloned and fitted on training targets alone: on the group
    `training` names, and then judged on all others, as in the paper; or, by default,
    on all targets but the one it is judged on. All that the paper reports follows from
    the tables returned.

    Parameters
    ----------
    selectors : mapping of str to estimator
        Selectors by name, such as SourceSelector, the baselines, a pipeline or a grid
        search over them. The first is the one that others are compared with.

    X : array-like of shape (n_targets, n_features), or sequence of datasets or tasks
        What the selectors take, one row per target; rows of a DataFrame whose index
        names the targets are matched by name.

    improvements : DataFrame of shape (n_targets, n_sources)
        Measured improvements I(t, s), as ``measure_improvement`` returns them: rows in
        the order of `X`, columns named after the sources; NaN where not measured. What
        was not measured, or what a selector excludes (E = -inf), is no candidate and
        takes no part in judging it.

    baseline : array-like of shape (n_targets,), default=None
        Performance without transfer P(M(t, ∅)), in the order of `X`. Added to the
        improvements it gives the performances that gains and regret are relative to;
        None takes the improvements themselves as performances.

    training : sequence of names, or mask of shape (n_targets,), default=None
        The training targets, by name or mask; None means leave-one-target-out.

    n_bootstraps : int, default=2000
        Resamples of the judged targets that the intervals of `summary` rest on.

    confidence_level : float, default=0.95
        Level of these intervals.

    random_state : int, RandomState instance or None, default=0
        Decides the resamples.

    Returns
    -------
    result : Bunch
        targets : DataFrame
            One row per selector and judged target: "pick" (missing where several
            sources share the best score; None for no transfer), "picked_best" (1 if
            the pick is the best source), "performance" of the pick, "best_performance",
            "baseline", "spearman" (Table 2), "picks_to_best" (Figure 7), "regret_at_1",
            "regret_at_2", "regret_at_3" (relative loss of the best of so many first
            picks), and the "k" that was learned, with "k_low" and "k_high".
        gains : DataFrame
            One row per judged target: "picked_best" of the first selector, and under
            the name of each other one the relative gain (P - B) / B of the first over
            it (Tables 3 and 4); its last row is the mean.
        summary : DataFrame
            One row per selector and measure (Table 1): "mean" over targets with a
            bootstrap interval "low", "high"; and "difference" to the first selector,
            paired by target, with its interval.
        scores : DataFrame
            One row per selector, judged target and measured source: "score" E and
            "improvement" I (Figure 6).

    Notes
    -----
    Sources with equal scores are taken in random order, and "performance",
    "picked_best" and regret are the expected values; so a constant score is judged as
    the mean over all sources (B3). A constant score has Spearman correlation 0.

    References
    ----------
    Bhattacharjee et al., "P2L: Predicting Transfer Learning for Images and Semantic
    Relations", section 4.3, Tables 1 to 4 and Figures 6 and 7.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_p2l import SourceCatalog, SourceSelector
    >>> from sklearn_p2l.selection import LargestSource
    >>> from sklearn_p2l.evaluation import evaluate_selectors
    >>> zoo = SourceCatalog.from_arrays(
    ...     [[8, 1, 1], [1, 8, 1], [1, 1, 8]],
    ...     sizes=[2_000, 3_000, 4_000],
    ...     names=["birds", "cars", "scenes"],
    ... )
    >>> X = [[8, 1, 3], [1, 8, 3], [1, 2, 8]]
    >>> improvements = pd.DataFrame(
    ...     [[0.30, 0.05, 0.25], [0.05, 0.25, 0.15], [0.02, 0.04, 0.20]],
    ...     index=["finches", "vans", "beaches"],
    ...     columns=zoo.names,
    ... )
    >>> selectors = {"P2L": SourceSelector(zoo, k=-1.0), "B1": LargestSource(zoo)}
    >>> result = evaluate_selectors(selectors, X, improvements)
    >>> result.targets.query("selector == 'B1'")["picked_best"].tolist()
    [0.0, 0.0, 1.0]
    """
    pd = import_pandas()
    if not hasattr(selectors, "items") or not selectors:
        raise ValueError(
            f"selectors must be a non-empty mapping of names to estimators, got "
            f"{type(selectors).__name__}."
        )
    if "picked_best" in selectors:
        raise ValueError("'picked_best' must not name a selector: `gains` uses it.")
    if not hasattr(improvements, "columns"):
        raise ValueError(
            "improvements must be a DataFrame whose columns are named after the "
            f"sources, got {type(improvements).__name__}."
        )
    if len(X) != len(improvements):
        raise ValueError(
            f"X and improvements must have one row per target, got {len(X)} and "
            f"{len(improvements)}."
        )
    X = reorder_rows(X, improvements.index)
    targets = [str(name) for name in improvements.index]
    if len(set(targets)) < len(targets):
        raise ValueError(
            "improvements must have one row per target, got repeated names in its "
            f"index: {sorted({t for t in targets if targets.count(t) > 1})}."
        )
    baseline = _check_baseline(baseline, improvements)
    folds = _folds(reorder_rows(training, improvements.index), targets)
    rows, scores = [], []
    for name, selector in selectors.items():
        check_signs(selector, X)
        for train, test in folds:
            judged, judged_scores = _judge_fold(
                name, selector, X, improvements, baseline, train, test
            )
            rows += judged
            scores += judged_scores
    frame = pd.DataFrame(rows)
    frame["pick"] = pd.Series([row["pick"] for row in rows], dtype=object)
    return Bunch(
        targets=frame,
        gains=_gains(pd, frame, list(selectors)),
        summary=_summarize(
            pd, frame, list(selectors), n_bootstraps, confidence_level, random_state
        ),
        scores=pd.DataFrame(scores),
    )


def _judge_fold(name, selector, X, improvements, baseline, train, test):
    """Fit a selector on some targets and judge it on others: rows of two tables."""
    selector = clone(selector)
    with warnings.catch_warnings():
        # Weights without bound or of the wrong sign are reported as k_low and k_high,
        # ties by the measures themselves.
        warnings.simplefilter("ignore", LearnedWeightWarning)
        warnings.simplefilter("ignore", TiedRankingWarning)
        warnings.simplefilter("ignore", SignedFeaturesWarning)  # the metric takes them
        selector.fit(_safe_indexing(X, train), improvements.iloc[train])
        E = np.asarray(selector.decision_function(_safe_indexing(X, test)))
    labels = source_labels(selector) or list(improvements.columns)
    truth = align_columns(improvements.iloc[test], labels)
    truth[np.isneginf(E)] = np.nan
    ranker = last_step(selector)
    order = ranker._order(E) if hasattr(ranker, "_order") else np.argsort(-E, axis=1)
    rows, scores = [], []
    for i, target in enumerate(test):
        measured = ~np.isnan(truth[i])
        known = {"selector": name, "target": str(improvements.index[target])}
        if not measured.any():
            raise ValueError(
                "improvements must hold a measured candidate for every judged "
                f"target, got none for {known['target']!r} and {name!r}."
            )
        judged = _judge(
            E[i, measured],
            truth[i, measured],
            [label for label, m in zip(labels, measured) if m],
            baseline[target],
            transfer=order[i, 0] >= 0,
        )
        rows.append(known | judged | _learned_k(ranker))
        scores += [
            known | {"source": s, "score": e, "improvement": t}
            for s, e, t, m in zip(labels, E[i], truth[i], measured)
            if m
        ]
    return rows, scores


def _check_baseline(baseline, improvements):
    if baseline is None:
        return np.zeros(len(improvements))
    if hasattr(baseline, "loc") and set(baseline.index) != set(improvements.index):
        raise ValueError(
            "baseline must name the same targets as improvements, got "
            f"{list(baseline.index)}."
        )
    baseline = np.asarray(reorder_rows(baseline, improvements.index), dtype=float)
    if baseline.shape != (len(improvements),) or not np.isfinite(baseline).all():
        raise ValueError(
            "baseline must hold one finite performance per target "
            f"({len(improvements)}), got {baseline.tolist()}."
        )
    return baseline


def _folds(training, targets):
    """Pairs of positions: targets to learn from, targets to judge on."""
    everyone = np.arange(len(targets))
    if training is None:
        if len(targets) < 2:
            raise ValueError(
                "improvements must have at least two targets to leave one out, got "
                f"{len(targets)}."
            )
        return [(np.delete(everyone, i), everyone[[i]]) for i in everyone]
    if isinstance(training, str):
        raise ValueError(
            f"training must be names of several targets or a mask, got {training!r}; "
            f"pass [{training!r}]."
        )
    training = np.asarray(training)
    if training.dtype != bool:
        training = training.astype(str)
        unknown = sorted(set(training.tolist()) - set(targets))
        if unknown:
            raise ValueError(
                f"training must name targets of improvements, got unknown {unknown}."
            )
        training = np.isin(targets, training)
    if training.shape != everyone.shape or training.all() or not training.any():
        raise ValueError(
            "training must leave targets to learn from and targets to judge on, got "
            f"{int(training.sum())} of {len(targets)} for training."
        )
    return [(everyone[training], everyone[~training])]


def _learned_k(ranker):
    """The weight that a ranker has learned and its interval, where it has one."""
    low, high = getattr(ranker, "k_interval_", (np.nan, np.nan))
    return {"k": getattr(ranker, "k_", np.nan), "k_low": low, "k_high": high}


def _judge(E, truth, labels, baseline, *, transfer):
    """All measures of one ranking of one target, over its measured sources."""
    performance = truth + baseline
    best = performance.max()
    leaders = np.flatnonzero(E == E.max())
    record = {
        "pick": labels[leaders[0]] if len(leaders) == 1 else np.nan,
        "picked_best": _expected_best(E, performance == best, 1),
        "performance": _expected_best(E, performance, 1),
        "best_performance": best,
        "baseline": baseline,
        "spearman": np.nan,
        "picks_to_best": np.nan,
    }
    if not transfer:
        record |= {"pick": None, "picked_best": 0.0, "performance": baseline}
    elif len(E) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)
            record["spearman"] = spearman_score([truth], [E])
            record["picks_to_best"] = picks_to_best_loss([truth], [E])
    for top in (1, 2, 3):
        reached = _expected_best(E, performance, top) if transfer else baseline
        record[f"regret_at_{top}"] = _relative(best - reached, best)
    return record


def _expected_best(E, values, top):
    """Expected maximum of the values of the `top` best-scored, ties in random order."""
    values = np.asarray(values, dtype=float)
    top = min(top, len(E))
    threshold = np.sort(E)[-top]
    sure = values[E > threshold]
    tied = np.sort(values[E == threshold])
    n_drawn = top - len(sure)
    if len(sure):
        tied = np.maximum(tied, sure.max())
    # The i-th smallest is the largest of the drawn in comb(i, n_drawn - 1) cases.
    cases = np.array([comb(i, n_drawn - 1) for i in range(len(tied))], dtype=float)
    return float((tied * cases).sum() / cases.sum())


def _relative(difference, reference):
    if difference == 0:
        return 0.0
    return difference / abs(reference) if reference != 0 else np.inf


def _gains(pd, frame, names):
    performance = frame.pivot(index="target", columns="selector", values="performance")
    own = frame[frame["selector"] == names[0]].set_index("target")
    gains = pd.DataFrame({"picked_best": own["picked_best"]})
    for other in names[1:]:
        values = zip(own["performance"], performance[other].loc[own.index])
        gains[other] = [_relative(mine - theirs, theirs) for mine, theirs in values]
    mean = gains.mean().to_frame("mean").T
    return pd.concat([gains, mean]).rename_axis("target")


def _summarize(pd, frame, names, n_bootstraps, confidence_level, random_state):
    """Means over targets, with percentile intervals from resampled targets."""
    targets = frame["target"].unique()
    rng = check_random_state(random_state)
    uniform = rng.random_sample(size=(n_bootstraps, len(targets)))
    tails = [(1 - confidence_level) / 2, (1 + confidence_level) / 2]

    def mean_and_interval(values):
        values = values[~np.isnan(values)]  # targets without this measure
        if len(values) < 2:  # one target tells nothing about others
            return [values.mean() if len(values) else np.nan, np.nan, np.nan]
        drawn = (uniform[:, : len(values)] * len(values)).astype(int)
        means = values[drawn].mean(axis=1)
        return [values.mean(), *np.quantile(means, tails, method="nearest")]

    rows = []
    for measure in _MEASURES:
        table = frame.pivot(index="target", columns="selector", values=measure)
        table = table.loc[targets].astype(float)
        for name in names:
            values = table[name].to_numpy()
            with np.errstate(invalid="ignore"):  # infinite regret on both sides
                difference = values - table[names[0]].to_numpy()
            row = {"selector": name, "measure": measure}
            row |= dict(zip(["mean", "low", "high"], mean_and_interval(values)))
            columns = ["difference", "difference_low", "difference_high"]
            rows.append(row | dict(zip(columns, mean_and_interval(difference))))
    return pd.DataFrame(rows)
