"""SourceSelector: learns k and ranks sources. Needs numpy, scipy, scikit-learn only."""

import copy
import warnings
from numbers import Integral, Real

import numpy as np
from scipy.stats import rankdata
from sklearn.base import BaseEstimator, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from sklearn_p2l._frames import import_pandas
from sklearn_p2l._ranking import RankingMixin, as_catalog, check_improvements, zscore
from sklearn_p2l.catalog import SourceCatalog, check_same_fingerprint
from sklearn_p2l.divergence import EPSILON, METRICS, NON_NEGATIVE
from sklearn_p2l.metrics import keep_top

# Breakpoints of more pairs than this are thinned to this many candidates for k.
_MAX_BREAKPOINTS = 5_000_000
# Breakpoints that differ by less, relatively, are one crossing seen through round-off.
_RESOLUTION = 1e-9
# Mean correlations that differ by less are the same one seen through round-off.
_SCORE_RESOLUTION = 1e-10


class SourceSelector(RankingMixin, BaseEstimator):
    """Rank the sources to fine-tune for a target, before training anything.

    The score of source s for target t is the paper's equation 2,

    ``E(t, s) = z(log|s|) + k * z(D(t, s))``,

    with the size \\|s\\| of the source's training data, the divergence D between the
    summaries of target and source, and z the scaling to mean 0 and (population)
    standard deviation 1 over the sources. Lower D is nearer, so k is mostly negative.
    k is learned once from measured improvements I(t, s), equation 1, and then serves
    targets and sources never measured.

    Parameters
    ----------
    sources : SourceCatalog or array-like of shape (n_sources, n_features), \
            default=None
        The candidate sources. None means that the rows given to `fit` are also the
        sources; `y` is then square, with NaN on its diagonal. With distances given
        (``metric="precomputed"``), None means that their columns are the sources.

    sizes : array-like of shape (n_sources,), default=None
        Numbers of training examples where `sources` is an array or None; None makes
        all sizes equal, so that the divergence alone ranks. A catalog brings its own.

    metric : {"kl", "js", "chi2", "euclidean", "cityblock", "hellinger", "cosine", \
            "precomputed"}, default="kl"
        The divergence D, see :func:`~sklearn_p2l.divergence.pairwise_divergence`.
        "precomputed" takes `X` as D itself, of shape (n_targets, n_sources): smaller
        is nearer, and NaN means that the source is no candidate for that target (it
        ranks last, with E = -inf). Columns of a DataFrame are matched by name.

    k : "auto" or float, default="auto"
        Weight of the divergence. "auto" learns it exactly: the mean Spearman
        correlation over targets is piecewise constant in k, with breakpoints where two
        sources of one target tie; all are swept and k becomes the middle of the widest
        best interval. A number is used as it is (P2L with a borrowed k).

    epsilon : float, default=1e-12
        Smallest component of a summary for ``metric="kl"``.

    standardize : {"target", "training"}, default="target"
        "target" takes z over the sources for each target alone, so that no row depends
        on others. "training" scales D by its mean and deviation over all cells of the
        training targets instead.

    top : int, default=None
        Judge rankings by the order of each target's `top` best measured sources only
        (paper, section 3.1), when learning k and in `score`. At least 2.

    exclude_self : bool, default=False
        Whether a source whose summary equals the target's takes part for that target.
        True leaves it out of z and ranks it last, with E = -inf; otherwise it has
        D = 0 and wins for any large negative k.

    Attributes
    ----------
    k_ : float
        The weight in use.

    k_interval_ : tuple of float
        The widest interval of best weights around `k_`; infinite ends where nothing
        bounds it, and then `k_` is -1 if that is inside, else within a step of the
        other end. Only if k was learned.

    k_curve_ : ndarray of shape (n_intervals, 3)
        Left end, right end and mean Spearman correlation of every interval of k, in
        order (Figure 1). Only if k was learned.

    sources_ : SourceCatalog
        The sources that are ranked.

    source_labels_ : ndarray of shape (n_sources,)
        What `predict` calls them: their names, or their positions where they came as
        an array without names.

    fingerprint_ : str or None
        Fingerprint of the reference network behind the vectors, where known.

    divergence_scale_ : tuple of float
        Mean and standard deviation of D over all cells of the training targets, used
        where ``standardize="training"``.

    n_features_in_ : int
        Width of the summaries.

    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where `X` was a DataFrame.

    See Also
    --------
    DatasetEmbedder : Turns datasets into the summaries used here.
    FineTuner : Trains the chosen source.

    Notes
    -----
    Up to 5 million breakpoints (1,000 targets with 100 sources have about that many)
    the sweep is exact; above, at most that many of them, evenly thinned, bound the
    intervals, and the correlation in the middle of each is still exact.

    ``cross_val_predict(..., method="decision_function")`` serves classifiers only; to
    predict each target without it, loop over the splits of LeaveOneOut.

    References
    ----------
    Bhattacharjee et al., "P2L: Predicting Transfer Learning for Images and Semantic
    Relations", section 3.1.

    Examples
    --------
    >>> from sklearn_p2l import SourceCatalog, SourceSelector
    >>> zoo = SourceCatalog.from_arrays(
    ...     [[8, 1, 1], [1, 8, 1], [1, 1, 8]],
    ...     sizes=[2_000, 3_000, 9_000],
    ...     names=["birds", "cars", "scenes"],
    ... )
    >>> targets = [[8, 1, 3], [1, 8, 3], [1, 2, 8]]
    >>> improvements = [[0.20, 0.05, 0.25], [0.05, 0.25, 0.15], [0.02, 0.04, 0.20]]
    >>> selector = SourceSelector(zoo, metric="js").fit(targets, improvements)
    >>> selector.score(targets, improvements)
    1.0
    >>> selector.k_interval_
    (-1.368..., -0.999...)
    >>> selector.predict([[1, 9, 2]])
    array([['cars', 'scenes', 'birds']], dtype='<U6')
    """

    _parameter_constraints: dict = {
        "sources": [SourceCatalog, "array-like", None],
        "sizes": ["array-like", None],
        "metric": [StrOptions({*METRICS, "precomputed"})],
        "k": [StrOptions({"auto"}), Interval(Real, None, None, closed="neither")],
        "epsilon": [Interval(Real, 0, 1, closed="left")],
        "standardize": [StrOptions({"target", "training"})],
        "top": [Interval(Integral, 2, None, closed="left"), None],
        "exclude_self": ["boolean"],
    }

    def __init__(
        self,
        sources=None,
        *,
        sizes=None,
        metric="kl",
        k="auto",
        epsilon=EPSILON,
        standardize="target",
        top=None,
        exclude_self=False,
    ):
        self.sources = sources
        self.sizes = sizes
        self.metric = metric
        self.k = k
        self.epsilon = epsilon
        self.standardize = standardize
        self.top = top
        self.exclude_self = exclude_self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn k from measured improvements, or take the given one.

        Parameters
        ----------
        X : array-like of shape (n_targets, n_features)
            Summaries of the training targets, or with ``metric="precomputed"`` their
            distances from the sources, (n_targets, n_sources).

        y : array-like or DataFrame of shape (n_targets, n_sources), default=None
            Measured improvements I(t, s), higher is better; NaN where not measured.
            Columns of a DataFrame are matched to the sources by name, and sources
            without a column were not measured; rows are those of `X`, in its order.
            Ignored where `k` is a number.

        Returns
        -------
        self : object
            Fitted selector.

        Raises
        ------
        ValueError
            If `y` is missing or misaligned, if no target has two measured sources of
            different improvement, or if vectors come from another reference network
            than those of the catalog.
        """
        given, X = X, self._check_targets(X, reset=True)
        D = self._divergences(X)
        self.divergence_scale_ = (0.0, 0.0)
        if not np.isnan(D).all():
            self.divergence_scale_ = float(np.nanmean(D)), float(np.nanstd(D))
        for attribute in ("k_interval_", "k_curve_"):
            vars(self).pop(attribute, None)
        if self.k != "auto":
            self.k_ = float(self.k)
            return self
        if y is None:
            raise ValueError(
                "y must be given to learn k, got None; pass measured improvements of "
                "shape (n_targets, n_sources), or a number for k."
            )
        y = check_improvements(y, self.source_labels_, given)
        y = np.where(np.isnan(D), np.nan, y)  # a source that is the target itself
        if self.top is not None:
            y = keep_top(y, self.top)
        size_term, divergence_term = self._terms(D)
        self.k_curve_ = _sweep(size_term, divergence_term, y)
        self.k_, self.k_interval_ = _widest_best(self.k_curve_)
        return self

    def decision_terms(self, X):
        """Compute the two terms whose sum is E.

        Parameters
        ----------
        X : array-like of shape (n_targets, n_features)
            Summaries of the targets.

        Returns
        -------
        size_term : ndarray of shape (n_targets, n_sources)
            ``z(log|s|)``.
        divergence_term : ndarray of shape (n_targets, n_sources)
            k * z(D(t, s)).
        """
        check_is_fitted(self)
        D = self._divergences(self._check_targets(X))
        size_term, divergence_term = self._terms(D)
        return size_term, self.k_ * divergence_term

    def explain(self, X):
        """Rank the sources for every target, and tell what each score is made of.

        Parameters
        ----------
        X : array-like of shape (n_targets, n_features)
            As in `decision_function`.

        Returns
        -------
        ranking : pandas.DataFrame
            One row per target and candidate, best first, with the columns "target"
            (the index of a DataFrame, else the number of the row), "rank" (from 1),
            "source", "size", "E", "size_term", "divergence_term" (their sum is E) and
            "margin", by how much E is above that of the next source.

        Raises
        ------
        ImportError
            If pandas is not installed.

        Examples
        --------
        >>> from sklearn_p2l import SourceSelector
        >>> selector = SourceSelector(
        ...     [[8, 1, 1], [1, 8, 1], [1, 1, 8]], sizes=[2_000, 3_000, 9_000], k=-2.0
        ... ).fit([[1, 9, 2]])
        >>> selector.explain([[1, 9, 2]]).round(2)  # doctest: +NORMALIZE_WHITESPACE
           target  rank  source  size     E  size_term  divergence_term  margin
        0       0     1       1  3000  2.45      -0.36             2.81    2.20
        1       0     2       2  9000  0.24       1.37            -1.12    2.93
        2       0     3       0  2000 -2.69      -1.00            -1.69     NaN
        """
        pd = import_pandas()
        size_term, divergence_term = self.decision_terms(X)
        scores = size_term + divergence_term
        self._check_pick(scores)
        targets = X.index if hasattr(X, "columns") else range(len(scores))
        tables = []
        for target, *terms, E in zip(targets, size_term, divergence_term, scores):
            order = np.argsort(-E, kind="stable")[: np.isfinite(E).sum()]
            table = {
                "target": target,
                "rank": np.arange(1, len(order) + 1),
                "source": self.source_labels_[order],
                "size": self.sources_.sizes[order],
                "E": E[order],
                "size_term": terms[0][order],
                "divergence_term": terms[1][order],
                "margin": np.append(-np.diff(E[order]), np.nan),
            }
            tables.append(pd.DataFrame(table))
        return pd.concat(tables, ignore_index=True)

    def _check_pick(self, E):
        best = E == E.max(axis=1, keepdims=True)
        tied = np.flatnonzero(best.sum(axis=1) > 1)
        if not len(tied):
            return
        names = self.source_labels_[best[tied[0]]].tolist()
        warnings.warn(
            f"Several sources have the highest E for {len(tied)} of {len(E)} targets "
            f"(row {tied[0]}: {', '.join(map(str, names[:5]))}"
            f"{', ...' if len(names) > 5 else ''}), and the first of them in the "
            "catalog is the pick. Unless they are alike in both, their size and "
            f"divergence weigh each other up at k = {self.k_:.4g}: pass a lower k to "
            "prefer the nearer one, a higher k for the larger.",
            UserWarning,
            stacklevel=3,
        )

    def _scores(self, X):
        size_term, divergence_term = self._terms(self._divergences(X))
        return size_term + self.k_ * divergence_term

    def with_sources(self, sources, *, sizes=None):
        """Return a fitted selector for other sources, with the k learned here.

        The paper learns k on one set of sources and uses it on others. This selector
        is not changed.

        Parameters
        ----------
        sources : SourceCatalog or array-like of shape (n_sources, n_features)
            The new candidates. They may come from another reference network, which
            all further targets must then come from, too.

        sizes : array-like of shape (n_sources,), default=None
            Numbers of training examples, where `sources` is an array.

        Returns
        -------
        selector : SourceSelector
            Fitted selector with the same ``k_`` and the new ``sources_``.
        """
        check_is_fitted(self)
        if sources is None:
            raise ValueError("sources must be a SourceCatalog or an array, got None.")
        precomputed = self.metric == "precomputed"
        catalog, labels = as_catalog(
            sources, sizes, None, None, precomputed=precomputed
        )
        if self.standardize == "training":
            check_same_fingerprint(
                catalog.fingerprint, self.sources_.fingerprint, "new sources"
            )
        selector = copy.copy(self)
        selector.sources, selector.sizes = sources, sizes
        selector.sources_, selector.source_labels_ = catalog, labels
        selector.fingerprint_ = catalog.fingerprint
        selector.n_features_in_ = len(catalog) if precomputed else catalog.n_features
        same_network = catalog.fingerprint == self.fingerprint_
        same_width = selector.n_features_in_ == self.n_features_in_
        if precomputed or not (same_network and same_width):
            vars(selector).pop("feature_names_in_", None)
        return selector

    def _terms(self, D):
        """z(log|s|) and z(D), both (n_targets, n_sources); excluded: -inf and 0."""
        excluded = np.isnan(D)
        size_term = zscore(np.where(excluded, np.nan, np.log(self.sources_.sizes)))
        scale = self.divergence_scale_ if self.standardize == "training" else ()
        return np.where(excluded, -np.inf, size_term), zscore(D, *scale)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.k == "auto"
        tags.input_tags.positive_only = self.metric in NON_NEGATIVE
        tags.input_tags.allow_nan = self.metric == "precomputed"
        return tags


def _sweep(size_term, divergence_term, y):
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
            UserWarning,
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


def _widest_best(curve):
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
        warnings.warn(note, UserWarning, stacklevel=4)
    return k, (low, high)
