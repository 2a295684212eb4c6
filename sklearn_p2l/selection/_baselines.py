"""The paper's baselines B1 to B5, with the contract of SourceSelector.

Each stands wherever a SourceSelector does: behind a DatasetEmbedder in a pipeline, as
the `selector` of a FineTuner, under the metrics and scorers, in ``evaluate_selectors``.
"""

from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from sklearn_p2l._alignment import align_improvements
from sklearn_p2l._compat import Interval, StrOptions, _fit_context
from sklearn_p2l.catalog import SourceCatalog
from sklearn_p2l.divergence import EPSILON, METRICS
from sklearn_p2l.selection._ranker import DivergenceMixin, RankingMixin, known_sizes


class _Baseline(RankingMixin, BaseEstimator):
    """A ranker that learns nothing but its sources."""

    _parameter_constraints: dict = {
        "sources": [SourceCatalog, "array-like", None],
        "sizes": ["array-like", None],
    }
    metric = None  # X is not looked at, whatever it holds

    def __init__(self, sources=None, *, sizes=None):
        self.sources = sources
        self.sizes = sizes

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn the sources; improvements are not looked at.

        Parameters
        ----------
        X : array-like of shape (n_targets, n_features)
            Summaries of targets.

        y : ignored
            Present for API consistency.

        Returns
        -------
        self : object
            Fitted ranker.
        """
        self._check_targets(X, reset=True)
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.metric is None and self.sources is not None
        return tags

    def _constant(self, X, scores):
        return np.tile(np.asarray(scores, dtype=float), (len(X), 1))


class LargestSource(_Baseline):
    """Rank the sources by the size of their training data alone: baseline B1.

    Parameters
    ----------
    sources : SourceCatalog or array-like of shape (n_sources, n_features), \
            default=None
        The candidate sources, as in :class:`~sklearn_p2l.SourceSelector`.

    sizes : array-like of shape (n_sources,), default=None
        Numbers of training examples, where `sources` is not a catalog.

    Attributes
    ----------
    sources_ : SourceCatalog
        The sources that are ranked.

    source_labels_ : ndarray of shape (n_sources,)
        What `predict` calls them.

    References
    ----------
    Bhattacharjee et al., "P2L: Predicting Transfer Learning for Images and Semantic
    Relations", section 4.3.

    Examples
    --------
    >>> from sklearn_p2l.selection import LargestSource
    >>> LargestSource([[1, 0], [0, 1]], sizes=[10, 200]).fit([[1, 1]]).predict([[1, 0]])
    array([[1, 0]])
    """

    def _decision_terms(self, X):
        return {"size": self._constant(X, np.log(known_sizes(self.sources_)))}


class FixedSource(_Baseline):
    """Always pick one named source, such as the ImageNet one: baseline B2.

    Parameters
    ----------
    sources : SourceCatalog or array-like of shape (n_sources, n_features), \
            default=None
        The candidate sources, as in :class:`~sklearn_p2l.SourceSelector`.

    source : str or int, default=0
        Its name, or its position among sources without names.

    sizes : array-like of shape (n_sources,), default=None
        Numbers of training examples, where `sources` is not a catalog.

    Attributes
    ----------
    sources_ : SourceCatalog
        The sources that are ranked; all but the named one share the second place.

    source_labels_ : ndarray of shape (n_sources,)
        What `predict` calls them.

    Examples
    --------
    >>> from sklearn_p2l.selection import FixedSource
    >>> FixedSource([[1, 0], [0, 1]], source=1).fit([[1, 1]]).predict([[1, 0]])
    array([[1, 0]])
    """

    _parameter_constraints: dict = {
        **_Baseline._parameter_constraints,
        "source": [str, Interval(Integral, 0, None, closed="left")],
    }

    def __init__(self, sources=None, *, source=0, sizes=None):
        super().__init__(sources, sizes=sizes)
        self.source = source

    def fit(self, X, y=None):
        """Learn the sources, and find the named one among them.

        Parameters
        ----------
        X : array-like of shape (n_targets, n_features)
            Summaries of targets.

        y : ignored
            Present for API consistency.

        Returns
        -------
        self : object
            Fitted ranker.

        Raises
        ------
        ValueError
            If there is no such source.
        """
        super().fit(X, y)
        names = self.sources_.names
        if self.source not in (*names, *range(len(names))):
            raise ValueError(
                f"source must be one of {list(names)}, got {self.source!r}."
            )
        return self

    def _decision_terms(self, X):
        names = np.array(self.sources_.names)
        position = np.arange(len(names))
        chosen = names if isinstance(self.source, str) else position
        return {"fixed": self._constant(X, chosen == self.source)}


class RandomSource(_Baseline):
    """Pick any source: baseline B3.

    All sources have the same score, so ``evaluate_selectors`` takes the expected value
    over them, not one draw. For whoever has to pick one, `fit` draws an order.

    Parameters
    ----------
    sources : SourceCatalog or array-like of shape (n_sources, n_features), \
            default=None
        The candidate sources, as in :class:`~sklearn_p2l.SourceSelector`.

    sizes : array-like of shape (n_sources,), default=None
        Numbers of training examples, where `sources` is not a catalog.

    random_state : int, RandomState instance or None, default=None
        Decides the order.

    Attributes
    ----------
    order_ : ndarray of shape (n_sources,)
        Positions of the sources in the order that was drawn.

    sources_ : SourceCatalog
        The sources that are ranked.

    source_labels_ : ndarray of shape (n_sources,)
        What `predict` calls them.

    Examples
    --------
    >>> from sklearn_p2l.selection import RandomSource
    >>> ranker = RandomSource([[1, 0], [0, 1]], random_state=0).fit([[1, 1]])
    >>> ranker.decision_function([[1, 0]])
    array([[0., 0.]])
    """

    _parameter_constraints: dict = {
        **_Baseline._parameter_constraints,
        "random_state": ["random_state"],
    }

    def __init__(self, sources=None, *, sizes=None, random_state=None):
        super().__init__(sources, sizes=sizes)
        self.random_state = random_state

    def fit(self, X, y=None):
        """Learn the sources, and draw their order.

        Parameters
        ----------
        X : array-like of shape (n_targets, n_features)
            Summaries of targets.

        y : ignored
            Present for API consistency.

        Returns
        -------
        self : object
            Fitted ranker.
        """
        super().fit(X)
        rng = check_random_state(self.random_state)
        self.order_ = rng.permutation(len(self.sources_))
        return self

    def _order(self, E, n_top=None):
        return np.tile(self.order_[:n_top], (len(E), 1))

    def _decision_terms(self, X):
        return {"constant": self._constant(X, np.zeros(len(self.sources_)))}


class NoTransfer(_Baseline):
    """Pick no source, but random weights: baseline B4.

    `predict` ranks None first, for which FineTuner starts from random weights, then
    the sources in the order of the catalog.

    Parameters
    ----------
    sources : SourceCatalog or array-like of shape (n_sources, n_features), \
            default=None
        The candidate sources, as in :class:`~sklearn_p2l.SourceSelector`.

    sizes : array-like of shape (n_sources,), default=None
        Numbers of training examples, where `sources` is not a catalog.

    Attributes
    ----------
    sources_ : SourceCatalog
        The sources that are not used.

    source_labels_ : ndarray of shape (n_sources,)
        Their names.

    Examples
    --------
    >>> from sklearn_p2l.selection import NoTransfer
    >>> NoTransfer([[1, 0], [0, 1]]).fit([[1, 1]]).predict([[1, 0]])
    array([[None, 0, 1]], dtype=object)
    """

    def _order(self, E, n_top=None):
        order = np.insert(super()._order(E), 0, -1, axis=1)  # -1: random weights
        return order[:, :n_top]

    def _decision_terms(self, X):
        return {"constant": self._constant(X, np.zeros(len(self.sources_)))}


class NearestSource(DivergenceMixin, _Baseline):
    """Rank the sources by their divergence from the target alone: baseline B5.

    Parameters
    ----------
    sources : SourceCatalog or array-like of shape (n_sources, n_features), \
            default=None
        The candidate sources, as in :class:`~sklearn_p2l.SourceSelector`.

    sizes : array-like of shape (n_sources,), default=None
        Numbers of training examples; they do not matter here.

    metric : str, default="kl"
        The divergence, as in :class:`~sklearn_p2l.SourceSelector`.

    epsilon : float, default=1e-12
        Smallest component of a summary for ``metric="kl"``.

    exclude_self : bool, default=False
        True ranks the target itself last, where it is among the sources, as in
        :class:`~sklearn_p2l.SourceSelector`.

    Attributes
    ----------
    sources_ : SourceCatalog
        The sources that are ranked.

    source_labels_ : ndarray of shape (n_sources,)
        What `predict` calls them.

    Examples
    --------
    >>> from sklearn_p2l.selection import NearestSource
    >>> NearestSource([[1, 0], [0, 1]]).fit([[1, 1]]).predict([[1, 9]])
    array([[1, 0]])
    """

    _parameter_constraints: dict = {
        **_Baseline._parameter_constraints,
        "metric": [StrOptions({*METRICS, "precomputed"})],
        "epsilon": [Interval(Real, 0, 1, closed="left")],
        "exclude_self": ["boolean"],
    }

    def __init__(
        self,
        sources=None,
        *,
        sizes=None,
        metric="kl",
        epsilon=EPSILON,
        exclude_self=False,
    ):
        super().__init__(sources, sizes=sizes)
        self.metric = metric
        self.epsilon = epsilon
        self.exclude_self = exclude_self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn the sources, and check that X can be compared with them.

        Parameters
        ----------
        X : array-like of shape (n_targets, n_features)
            Summaries of targets, or with ``metric="precomputed"`` their distances from
            the sources.

        y : ignored
            Present for API consistency.

        Returns
        -------
        self : object
            Fitted ranker.
        """
        self._divergences(self._check_targets(X, reset=True))
        return self

    def _decision_terms(self, X):
        D = self._divergences(X)
        return {"divergence": np.where(np.isnan(D), -np.inf, -D)}


class ConstantRanking(_Baseline):
    """Rank the sources by their mean improvement on the training targets.

    The same ranking for every target: what can be had without looking at it. A method
    that does not beat this has learned which sources are good, not which fits.

    Parameters
    ----------
    sources : SourceCatalog or array-like of shape (n_sources, n_features), \
            default=None
        The candidate sources, as in :class:`~sklearn_p2l.SourceSelector`.

    sizes : array-like of shape (n_sources,), default=None
        Numbers of training examples; they do not matter here.

    Attributes
    ----------
    mean_improvement_ : ndarray of shape (n_sources,)
        Mean over the training targets on which a source was measured, each target's
        own mean taken off first; NaN for sources that were never measured, which
        rank last.

    sources_ : SourceCatalog
        The sources that are ranked.

    source_labels_ : ndarray of shape (n_sources,)
        What `predict` calls them.

    Examples
    --------
    >>> from sklearn_p2l.selection import ConstantRanking
    >>> ranker = ConstantRanking([[1, 0], [0, 1]])
    >>> ranker.fit([[1, 1], [1, 2]], [[0.1, 0.3], [0.2, 0.1]]).predict([[1, 0]])
    array([[1, 0]])
    """

    def fit(self, X, y):
        """Learn the sources, and their mean improvements.

        Parameters
        ----------
        X : array-like of shape (n_targets, n_features)
            Summaries of the training targets.

        y : array-like or DataFrame of shape (n_targets, n_sources)
            Measured improvements, NaN where not measured, as in SourceSelector.

        Returns
        -------
        self : object
            Fitted ranker.

        Raises
        ------
        ValueError
            If `y` is missing or misaligned.
        """
        super().fit(X)
        if y is None:
            raise ValueError(
                "ConstantRanking requires y to be passed, but the target y is None; "
                "pass measured improvements of shape (n_targets, n_sources)."
            )
        y = align_improvements(y, self.source_labels_.tolist(), X)
        measured = ~np.isnan(y)
        level = _mean(y, measured, axis=1)[:, np.newaxis]
        mean = _mean(y - level, measured, axis=0)
        # Rounding keeps sources tied that are equal but for round-off.
        mean = np.round(mean, 10)
        self.mean_improvement_ = np.where(measured.any(axis=0), mean, np.nan)
        return self

    def _decision_terms(self, X):
        known = ~np.isnan(self.mean_improvement_)
        last = self.mean_improvement_[known].min(initial=1.0) - 1.0
        scores = np.where(known, self.mean_improvement_, last)
        return {"prior": self._constant(X, scores)}

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.two_d_labels = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        return tags


def _mean(values, measured, axis):
    total = np.where(measured, values, 0.0).sum(axis=axis)
    return total / np.maximum(measured.sum(axis=axis), 1)
