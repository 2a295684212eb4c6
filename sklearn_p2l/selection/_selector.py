"""SourceSelector: learns k and ranks sources. Needs numpy, scipy, scikit-learn only."""

import copy
import warnings
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from sklearn_p2l._alignment import align_improvements
from sklearn_p2l._compat import Interval, StrOptions, _fit_context
from sklearn_p2l._provenance import check_same_fingerprint
from sklearn_p2l.catalog import SourceCatalog
from sklearn_p2l.divergence import EPSILON, METRICS
from sklearn_p2l.exceptions import TiedRankingWarning
from sklearn_p2l.metrics import keep_top
from sklearn_p2l.selection._ranker import (
    DivergenceMixin,
    RankingMixin,
    as_catalog,
    known_sizes,
    zscore,
)
from sklearn_p2l.selection._sweep import sweep, widest_best


class SourceSelector(DivergenceMixin, RankingMixin, BaseEstimator):
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
        True leaves the target itself out, where it is among the sources: out of z, and
        ranked last with E = -inf. A source is the target itself where their distance
        is at most 1e-6: the cityblock distance of their summaries, or the one given
        with ``metric="precomputed"``. Otherwise it has D = 0 and wins for any large
        negative k.

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

    Scores of several targets are a plain array; its columns are those of
    ``source_labels_``, and `score` and the scorers of :mod:`sklearn_p2l.metrics` match
    a DataFrame of improvements to them by name.

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
        known_sizes(self.sources_)
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
                "SourceSelector requires y to be passed, but the target y is None: k "
                "is learned from measured improvements of shape (n_targets, "
                "n_sources); pass them, or a number for k."
            )
        y = align_improvements(y, self.source_labels_.tolist(), given)
        y = np.where(np.isnan(D), np.nan, y)  # a source that is the target itself
        if self.top is not None:
            y = keep_top(y, self.top)
        size_term, divergence_term = self._terms(D)
        self.k_curve_ = sweep(size_term, divergence_term, y)
        self.k_, self.k_interval_ = widest_best(self.k_curve_)
        return self

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
            TiedRankingWarning,
            stacklevel=3,
        )

    def _decision_terms(self, X):
        size_term, divergence_term = self._terms(self._divergences(X))
        return {"size": size_term, "divergence": self.k_ * divergence_term}

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
        known_sizes(catalog)
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
        sizes = known_sizes(self.sources_)
        size_term = zscore(np.where(excluded, np.nan, np.log(sizes)))
        scale = self.divergence_scale_ if self.standardize == "training" else ()
        return np.where(excluded, -np.inf, size_term), zscore(D, *scale)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.k == "auto"
        tags.target_tags.two_d_labels = True  # one row of improvements per target
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        return tags
