"""EvidenceSelector: equation 2 with more than one k."""

import copy
import os
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from sklearn_p2l._alignment import align_columns, align_improvements
from sklearn_p2l._compat import HasMethods, Interval, StrOptions, _fit_context
from sklearn_p2l._provenance import check_same_fingerprint, fingerprint_of
from sklearn_p2l.catalog import SourceCatalog
from sklearn_p2l.selection._chances import ChancesMixin
from sklearn_p2l.selection._opened import SCORES, score_sources
from sklearn_p2l.selection._ranker import RankingMixin, are_same, zscore
from sklearn_p2l.selection._signals import (
    FROM_MEASURED,
    ONE_PASS,
    Known,
    Measured,
    Targets,
    are_vectors,
    has_known_sign,
    lacking,
    values_of,
)
from sklearn_p2l.selection._weights import (
    equal_weights,
    learn_weights,
    levels_of,
)


class EvidenceSelector(ChancesMixin, RankingMixin, BaseEstimator):
    r"""Rank pre-trained sources by several signals with learned weights.

    .. math:: E(t, s) = \sum_j k_j \, z(S_j(t, s))

    with each signal :math:`S_j` standardised over the sources of a target, as the two
    of equation 2 are. Weights are learned from measured improvements by ridge
    regression that is pulled to equal weights, as strongly as leaving out one target at
    a time finds best, so few measurements do no harm; without any, weights are equal.

    Parameters
    ----------
    sources : SourceCatalog
        The sources to rank.

    embedder : DatasetEmbedder, default=None
        The reference network that the catalog's vectors are from, for signals that
        compare vectors where targets are given as tasks. It is cloned and fitted. None
        serves where targets are given as vectors, or no signal needs any.

    signals : "auto" or sequence of str, default="auto"
        What is known of a source and a target; see the notes. "auto" takes all of
        "size", "prior", "similar_targets", "kl" (of features that have a sign
        "cosine"), "separability", "logme", "probe" and "knn" for which there is what
        they need.

    weights : {"learned", "equal"} or mapping of str to float, default="learned"
        How the signals are weighed: as measured improvements teach, equally, or by
        these numbers, those that are not named by 0. "learned" without improvements is
        "equal".

    n_opened : int, default=None
        Open the networks of only so many sources for each target: those with the
        highest score by the other signals; the rest rank behind them, by these, and
        how sure the ranking is cannot be told. None opens all. Training targets have
        all those opened that were measured.

    exclude_self : bool, default=False
        Whether a source whose vector is that of the target is no candidate for it: it
        ranks last, with E = -inf, and nothing is learned from its improvement.

    no_transfer : bool, default=False
        Whether what improvements were measured against, such as random weights, is a
        candidate, too: None in a ranking, behind the sources that are more likely than
        not to be better. Rankings have one entry more then. Needs learned weights.

    image_size : int, default=None
        Height and width of images in the sources' networks; None is that which a
        network was trained with. Give what you will fine-tune with.

    memory : str or joblib.Memory, default=None
        Keeps the features of samples, by source checkpoint and content of the target.

    device : str or torch.device, default="auto"
        Where networks compute.

    n_jobs : int, default=None
        Sources that are opened at a time.

    verbose : int, default=0
        Whether to show progress.

    Attributes
    ----------
    signals_ : list of str
        The signals in use.

    weights_ : dict of str to float
        The weight of each.

    strength_ : float
        How strongly weights were pulled to equal ones; inf is all the way. Only if
        weights were learned.

    left_out_errors_ : ndarray of shape (n_strengths,)
        Mean squared error of z-scored improvements of left-out targets, for each
        strength that was tried, from weak to inf. Only if weights were learned.

    prior_ : ndarray of shape (n_sources,)
        Mean z-scored improvement of each source on the training targets, shrunk by how
        often it was measured; 0 for those that were not. Only if `fit` was given any.

    scores_ : dict of str to ndarray of shape (n_targets, n_sources)
        What the signals of opened networks were on the training targets, NaN where a
        source was not opened. Passed to another `fit`, they spare it the opening. Only
        if weights were learned.

    noise_ : float
        Standard deviation of z-scored improvements around what was predicted for
        targets that were left out. Only if weights were learned.

    spread_ : float
        Mean standard deviation of the improvements of a target, in their own unit.
        Only if weights were learned.

    no_transfer_score_ : float
        The score E of a source that is as likely better as worse than no transfer. Only
        if weights were learned.

    embedder_ : DatasetEmbedder
        The fitted embedder, where there is one and `fit` was given tasks.

    sources_ : SourceCatalog
        The sources that are ranked.

    source_labels_ : ndarray of shape (n_sources,)
        Their names.

    fingerprint_ : str or None
        Of the reference network behind the catalog's vectors, where known.

    See Also
    --------
    SourceSelector : Equation 2 with its two terms, exactly.
    sklearn_p2l.transferability : The scores of features.

    Notes
    -----
    Signals, by their names; where higher is better unless said otherwise:

    - "size": the logarithm of the number of samples the source was trained on;
    - any numeric column of the catalog, such as the source's own accuracy: unknown
      values count as the mean, and its weight is 0 unless it is learned, or given;
    - "prior": the mean improvement of the source on the training targets, each counted
      without itself while weights are learned; "similar_targets": the same, where a
      training target counts the more, the nearer its vector is to that of the target;
    - a divergence by the name of its metric, "kl", "cosine", ...: of vectors of the
      reference network, lower is better;
    - "separability": the share of the spread of the target's class means, in the
      features of the reference network, that lies in the directions in which those of
      the source differ; "coverage": how near the target's class means are to the
      nearest of the source's. Need class means of both
      (``DatasetEmbedder(class_means=True)``);
    - "logme", "probe", "knn", "h_score": how well the features of the source's own
      network tell the target's labels apart. Needs checkpoints, and targets with
      labels; of more than 2,000 samples, 2,000 are used;
    - "leep": how well the classes of the source tell them apart, for which the
      checkpoint must have its own last layer, of one class per sample; it favours
      sources of many classes.

    Scores of opened networks are remembered for as long as the process lives, features
    in `memory`; so folds of a cross-validation compute none of them twice.

    References
    ----------
    Bhattacharjee et al., "P2L: Predicting Transfer Learning for Images and Semantic
    Relations", equation 2.

    Examples
    --------
    >>> from sklearn_p2l import EvidenceSelector, SourceCatalog
    >>> zoo = SourceCatalog.from_arrays(
    ...     [[8, 1, 1], [1, 8, 1], [1, 1, 8]],
    ...     sizes=[2_000, 3_000, 9_000],
    ...     names=["birds", "cars", "scenes"],
    ... )
    >>> vectors = [[8, 1, 3], [1, 8, 3], [1, 2, 8]]
    >>> improvements = [[0.20, 0.05, 0.15], [0.05, 0.25, 0.10], [0.02, 0.04, 0.20]]
    >>> selector = EvidenceSelector(zoo).fit(vectors, improvements)
    >>> selector.signals_
    ['size', 'prior', 'similar_targets', 'kl']
    >>> selector.predict([[1, 9, 2]])
    array([['cars', 'scenes', 'birds']], dtype='<U6')
    >>> selector.predict_proba([[1, 9, 2]]).round(1)
    array([[0. , 0.9, 0.1]])
    """

    _parameter_constraints: dict = {
        "sources": [SourceCatalog],
        "embedder": [HasMethods(["fit", "transform"]), None],
        "signals": [StrOptions({"auto"}), "array-like"],
        "weights": [StrOptions({"learned", "equal"}), Mapping],
        "n_opened": [Interval(Integral, 1, None, closed="left"), None],
        "exclude_self": ["boolean"],
        "no_transfer": ["boolean"],
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "memory": [str, os.PathLike, HasMethods(["cache"]), None],
        "device": "no_validation",
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        sources=None,
        *,
        embedder=None,
        signals="auto",
        weights="learned",
        n_opened=None,
        exclude_self=False,
        no_transfer=False,
        image_size=None,
        memory=None,
        device="auto",
        n_jobs=None,
        verbose=0,
    ):
        self.sources = sources
        self.embedder = embedder
        self.signals = signals
        self.weights = weights
        self.n_opened = n_opened
        self.exclude_self = exclude_self
        self.no_transfer = no_transfer
        self.image_size = image_size
        self.memory = memory
        self.device = device
        self.n_jobs = n_jobs
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, *, scores=None):
        """Learn the weights of the signals from measured improvements.

        Parameters
        ----------
        X : sequence of n_targets tasks or datasets, or array-like of shape \
                (n_targets, n_features)
            The training targets; as vectors of the reference network where no signal
            needs their samples.

        y : array-like or DataFrame of shape (n_targets, n_sources), default=None
            Measured improvements I(t, s), higher is better; NaN where not measured.
            Columns of a DataFrame are matched to the sources by name. None is for
            weights that are not learned.

        scores : mapping of str to array-like, default=None
            What the signals of opened networks are on the training targets, each of
            shape (n_targets, n_sources), as the `scores_` of an earlier fit: no network
            is opened for these, and vectors do as X. NaN where not known; columns of a
            DataFrame are matched by name.

        Returns
        -------
        self : object
            Fitted selector.

        Raises
        ------
        ValueError
            If a signal is not known or lacks what it needs, or improvements do not fit
            sources and targets.
        """
        for attribute in (
            *("prior_", "strength_", "left_out_errors_", "noise_", "spread_"),
            *("no_transfer_score_", "embedder_", "scores_", "_learned", "_levels"),
        ):
            vars(self).pop(attribute, None)
        self._late_embedder = self._measured = None
        self.sources_ = self.sources
        self.source_labels_ = np.array(self.sources.names)
        self.fingerprint_ = self.sources.fingerprint
        if self.embedder is not None and not are_vectors(X):
            self.embedder_ = clone(self.embedder).fit(X)
        if y is not None:
            y = align_improvements(y, self.sources.names, X)
            self._remember(y)
        targets = self._as_targets(X)
        targets = replace(targets, scores=self._check_scores(scores, len(targets)))
        self.signals_ = self._choose_signals(self._known(targets))
        targets = self._embedded(targets)
        if "similar_targets" in self.signals_ and self.fingerprint_ is None:
            self.fingerprint_ = targets.fingerprint
        if y is not None:
            y = np.where(targets.candidates, y, np.nan)
            self._remember(y, targets.vectors)
        free = np.array([not has_known_sign(name) for name in self.signals_])
        if y is None or self.weights != "learned":
            self._check_no_transfer()
            self.weights_ = self._given_weights(free)
            return self
        values = self._cheap_signals(targets)
        candidates, measured = targets.candidates, ~np.isnan(y)
        self.scores_ = self._opened_signals(targets, opened=measured)
        values |= self.scores_
        for scored in self.scores_.values():  # but not those that could not be opened
            candidates = candidates & ~(measured & np.isnan(scored))
        y = np.where(candidates, y, np.nan)
        self._remember(y, targets.vectors)
        known = replace(self._known(targets), nested=True)
        values |= {n: values_of(n, known) for n in FROM_MEASURED & set(values)}
        z = np.array([_zscore_of(values[n], candidates) for n in self.signals_])
        learned = learn_weights(z, y, free)
        self.weights_ = dict(zip(self.signals_, learned.values.tolist()))
        self.strength_, self.noise_ = learned.strength, learned.noise
        self.left_out_errors_, self._learned = learned.left_out_errors, learned
        self._levels = levels_of(y)
        self.spread_ = float(self._levels[:, 1].mean()) if len(self._levels) else 0.0
        self.no_transfer_score_ = self._score_of_no_transfer()
        self._check_no_transfer()
        return self

    def _remember(self, y, vectors=None):
        self._measured = Measured.of(y, vectors)
        self.prior_ = self._measured.prior()[0]

    def _check_scores(self, scores, n_targets):
        """Known scores of training targets as arrays."""
        shape, checked = (n_targets, len(self.sources)), {}
        for name, values in ({} if scores is None else scores).items():
            if name not in SCORES:
                raise ValueError(
                    f"scores must be of signals among {list(SCORES)}, got {name!r}."
                )
            checked[name] = align_columns(values, list(self.sources.names))
            if checked[name].shape != shape:
                raise ValueError(
                    f"scores[{name!r}] must be of shape {shape}, got "
                    f"{checked[name].shape}."
                )
        return checked

    def _check_no_transfer(self):
        """Refuse to rank no transfer where it is not known what transfer gains."""
        if not self.no_transfer:
            return
        if not hasattr(self, "no_transfer_score_"):
            raise ValueError(
                "no_transfer must be False unless weights='learned' and y is given: "
                "what transfer gains is learned from measured improvements."
            )
        if self._some_stay_closed:
            raise ValueError(
                f"n_opened must be None for no_transfer=True, got {self.n_opened}: "
                "what transfer gains is learned with all sources opened."
            )

    @property
    def _some_stay_closed(self):
        opens = set(self.signals_) & set(SCORES)
        n_opened = self.n_opened or len(self.sources_)
        return bool(opens) and n_opened < len(self.sources_)

    def _given_weights(self, free):
        if isinstance(self.weights, Mapping):
            unknown = set(self.weights) - set(self.signals_)
            if unknown:
                raise ValueError(
                    f"weights must be of signals in use, {self.signals_}, got "
                    f"{sorted(unknown)}."
                )
            for name, weight in self.weights.items():
                if not isinstance(weight, Real) or not np.isfinite(weight):
                    raise ValueError(
                        f"weights must be finite numbers, got {weight!r} for {name!r}."
                    )
            return {name: float(self.weights.get(name, 0)) for name in self.signals_}
        return dict(zip(self.signals_, equal_weights(free).tolist()))

    def _choose_signals(self, known):
        """The names of signals, after a look at whether each has what it needs."""
        if isinstance(self.signals, str):
            absent = {name: lacking(name, known) for name in _AUTO}
            if absent["kl"] is not None and lacking("cosine", known) is None:
                absent = {"cosine" if n == "kl" else n: w for n, w in absent.items()}
                absent["cosine"] = None
            chosen = [name for name, what in absent.items() if what is None]
            if not chosen:
                raise ValueError(
                    "signals must have something to go by, but 'auto' finds nothing: "
                    f"{'; '.join(absent.values())}."
                )
        else:
            chosen = list(self.signals)
        if not chosen or len(set(chosen)) < len(chosen):
            raise ValueError(
                f"signals must be different names, at least one, got {chosen}."
            )
        self._check_nothing_lacks(known.targets, chosen)
        return chosen

    def _known(self, targets):
        return Known(self.sources_, targets, self._measured)

    def _as_targets(self, X):
        """Targets in the forms that they are given in."""
        if are_vectors(X):
            check_same_fingerprint(fingerprint_of(X), self.fingerprint_, "X")
            if np.ndim(X) > 2:
                raise ValueError(
                    f"{_TARGETS}, got an array of shape {np.shape(X)}; pass images "
                    "with their labels as [Task(images, labels)]."
                )
            vectors = check_array(np.asarray(X), dtype=np.float64, input_name="X")
            means, fingerprint = getattr(X, "class_means", None), fingerprint_of(X)
            return Targets(len(X), vectors, means, fingerprint=fingerprint)
        if not isinstance(X, (list, tuple)) or not len(X):
            raise ValueError(
                f"{_TARGETS}, got {type(X).__name__}; pass [task] for a single one."
            )
        return Targets(
            len(X),
            tasks=list(X),
            can_be_embedded=self.embedder is not None,
            can_have_class_means=getattr(self.embedder, "class_means", False),
        )

    def _check_targets(self, X):
        """Targets in the forms that the signals in use need."""
        targets = self._as_targets(X)
        self._check_nothing_lacks(targets)
        return self._embedded(targets)

    def _check_nothing_lacks(self, targets, signals=None):
        known = self._known(targets)
        for name in self.signals_ if signals is None else signals:
            absent = lacking(name, known)
            if absent is not None:
                raise ValueError(f"{absent}.")
        if self.exclude_self:
            absent = lacking("cityblock", known)
            if absent is not None:
                raise ValueError(f"exclude_self=True compares vectors: {absent}.")

    def _embedded(self, targets):
        """Targets with their candidates, and vectors where signals in use need any."""
        needs_vectors = self.exclude_self or set(self.signals_) & ONE_PASS
        if targets.vectors is None and needs_vectors:
            embedded = self._embedder_for(targets.tasks).transform(targets.tasks)
            own = self._as_targets(embedded)
            targets = replace(own, tasks=targets.tasks, scores=targets.scores)
            self._check_nothing_lacks(targets)
        candidates = np.ones((len(targets), len(self.sources_)), dtype=bool)
        if self.exclude_self:
            candidates = ~are_same(self.sources_, targets.vectors)
        return replace(targets, candidates=candidates)

    def _embedder_for(self, tasks):
        """The fitted embedder; one that `fit` had no tasks for is fitted once."""
        if not hasattr(self, "embedder_") and self._late_embedder is None:
            self._late_embedder = clone(self.embedder).fit(tasks)
        return getattr(self, "embedder_", self._late_embedder)

    def _cheap_signals(self, targets):
        """Values of signals that open no network, by name, (n_targets, n_sources)."""
        known = self._known(targets)
        return {n: values_of(n, known) for n in self.signals_ if n not in SCORES}

    def _opened_signals(self, targets, *, opened):
        """Values of the others by name, NaN where a source is not opened."""
        known = {n: v for n, v in targets.scores.items() if n in self.signals_}
        names = [n for n in self.signals_ if n in SCORES and n not in known]
        if not names:
            return known
        return known | score_sources(
            list(self.sources_),
            targets.tasks,
            names,
            opened,
            image_size=self.image_size,
            memory=self.memory,
            device=self.device,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )

    def _decision_terms(self, X):
        z, opened, candidates = self._standardised(X)
        terms = {name: self.weights_[name] * values for name, values in z.items()}
        if not opened.all():
            terms["unopened"] = _behind(sum(terms.values()), opened)
        if not candidates.all():
            terms["excluded"] = np.where(candidates, 0.0, -np.inf)
        return terms

    def _order(self, E, n_top=None):
        self._check_no_transfer()
        if not self.no_transfer:
            return super()._order(E, n_top)
        order = super()._order(E)
        n_better = np.sum(self.no_transfer_score_ <= E, axis=1)
        with_none = [np.insert(row, n, -1) for row, n in zip(order, n_better)]
        return np.array(with_none)[:, :n_top]

    def _standardised(self, targets):
        """z-scores of the signals by name, which sources were opened, and candidates.

        A source that cannot be opened is no candidate.
        """
        candidates, cheap = targets.candidates, self._cheap_signals(targets)
        opened = candidates.copy()
        if self._some_stay_closed:
            weighed = (
                self.weights_[name] * _zscore_of(values, candidates)
                for name, values in cheap.items()
            )
            E = np.where(candidates, sum(weighed, np.zeros(opened.shape)), -np.inf)
            opened[:] = False
            first = super()._order(E, self.n_opened)
            np.put_along_axis(opened, first, True, axis=1)
            opened &= candidates
        scores = self._opened_signals(targets, opened=opened)
        for scored in scores.values():
            candidates = candidates & ~(opened & np.isnan(scored))
        z = {name: _zscore_of(values, candidates) for name, values in cheap.items()}
        z |= {name: zscore(values) for name, values in scores.items()}
        in_order = {name: z[name] for name in self.signals_}
        return in_order, opened | ~candidates, candidates

    def with_sources(self, sources):
        """Return a fitted selector for other sources, with the weights learned here.

        Parameters
        ----------
        sources : SourceCatalog
            The new candidates; a source that has the name of one that was measured
            keeps its prior, the others have the mean.

        Returns
        -------
        selector : EvidenceSelector
            Fitted selector with the same ``weights_`` and the new ``sources_``.
        """
        check_is_fitted(self)
        selector = copy.copy(self)
        selector.sources = selector.sources_ = sources
        selector.source_labels_ = np.array(sources.names)
        selector.fingerprint_ = sources.fingerprint
        if "similar_targets" in self.signals_:
            check_same_fingerprint(sources.fingerprint, self.fingerprint_, "sources")
            selector.fingerprint_ = self.fingerprint_
        if self._measured is not None:
            names = self.sources_.names, sources.names
            selector._measured = self._measured.for_sources(*names)
            selector.prior_ = selector._measured.prior()[0]
        return selector

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        tags.target_tags.two_d_labels = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        return tags


_TARGETS = "X must be a list of Tasks, one for each target, or an array of vectors"

_AUTO = (
    *("size", "prior", "similar_targets", "kl", "separability"),
    *("logme", "probe", "knn"),
)


def _zscore_of(values, candidates):
    """z-scores over the candidates of each target, 0 of the others."""
    return zscore(np.where(candidates, values, np.nan))


def _behind(E, opened):
    """What takes every source that was not opened behind those that were."""
    last = np.where(opened, E, np.inf).min(axis=1, keepdims=True)
    first = np.where(opened, -np.inf, E).max(axis=1, keepdims=True)
    return np.where(opened, 0.0, np.minimum(last - first - 1.0, 0.0))
