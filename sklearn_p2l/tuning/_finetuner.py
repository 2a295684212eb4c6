"""FineTuner: chooses the source that fits a task best, and trains it."""

import os
import warnings
from contextlib import nullcontext
from numbers import Integral
from tempfile import TemporaryDirectory

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    get_routing_for_object,
    process_routing,
)
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from sklearn_p2l._compat import (
    HasMethods,
    Interval,
    _fit_context,
    _routing_enabled,
    load_networks,
)
from sklearn_p2l.catalog import SourceCatalog, has_weights
from sklearn_p2l.samples import keeping_images
from sklearn_p2l.selection._pipeline import check_signs
from sklearn_p2l.task import Task, as_judged, as_labelled
from sklearn_p2l.tuning._classifier import NetworkClassifier
from sklearn_p2l.tuning._trials import run_trials, table_of, trial_splits

# Of so many samples trials keep what image files became, 150 kB each at 224 pixels.
_MOST_KEPT = 5000


class FineTuner(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """Fine-tune the source that fits a task best, as a classifier.

    The selector ranks the sources for the task; the first one is the start from which
    `estimator` is trained. Or the first `n_candidates` are tried: each is trained on a
    part of the task and judged on the rest, and the best one is trained on everything.

    Parameters
    ----------
    selector : estimator, default=None
        Ranks the sources: its ``predict([task])`` returns their names, best first (None
        for no transfer), for the :class:`~sklearn_p2l.Task` at hand, whose labels it
        may look at. Mostly a pipeline of DatasetEmbedder and SourceSelector. A fitted
        one is used as it is; wrap it in :class:`~sklearn.frozen.FrozenEstimator` where
        the tuner is cloned, as in a grid search, which would otherwise lose its fit. An
        unfitted one is cloned and fitted on ``[task]``, which needs a number for its
        `k`. A catalog of one source needs none.

    sources : SourceCatalog, default=None
        The sources with their checkpoints; ``catalog[["birds"]]`` forces one of them.

    estimator : NetworkClassifier, default=None
        How the source is trained; not fitted. Its `backbone` and `weights` are set to
        those of the source: the architecture that the catalog names, else its own
        `backbone`. Where no transfer is advised, it is trained as it is. None is
        ``NetworkClassifier()``.

    n_candidates : int, default=1
        How many of the ranking are tried, each with the full training; no transfer is
        one of them where the selector ranks it so. 1 tries none; more than there are
        sources tries all of them, for which no selector is needed.

    cv : int, cross-validator or None, default=None
        Parts that they are tried on: stratified, and by groups where there are groups.
        None is three folds below 1,000 samples, and a single part of a fifth of the
        samples from there on.

    scoring : str or callable, default=None
        What decides among them: a scorer, as in scikit-learn; None is the estimator's
        `score`. Of equal ones the one with the lower log loss wins, then the one that
        was ranked before.

    n_jobs : int, default=None
        Trials at a time, as in joblib.

    verbose : int, default=0
        1 shows a progress bar over trials.

    Attributes
    ----------
    candidates_ : list of dict
        One row per source tried: "source", "score" (mean over the parts), "log_loss",
        "scores" (one per part), "seconds", "error" (None, or why it could not be tried)
        and "chosen". Empty where none was tried.

    estimator_ : NetworkClassifier
        The fitted classifier.

    interrupted_ : bool
        Whether the keyboard stopped the trials or the training.

    source_ : str or None
        Name of the source trained from; None for no transfer.

    ranking_ : ndarray of shape (n_sources,) or None
        Names of the sources, best first; None where no selector was asked.

    selector_ : estimator or None
        The fitted selector; None where none was asked.

    classes_ : ndarray of shape (n_classes,)
        Class labels; for multilabel targets the numbers of the labels.

    See Also
    --------
    NetworkClassifier : Trains one start.
    SourceSelector : Ranks the sources.
    SourceCatalog : Holds the sources and their checkpoints.

    Notes
    -----
    With metadata routing, `fit` and `score` pass on what `estimator` requests, such as
    ``estimator.set_fit_request(sample_weight=True)``; without, they pass on everything.

    References
    ----------
    Bhattacharjee et al., "P2L: Predicting Transfer Learning for Images and Semantic
    Relations", sections 3.1 and 4.2.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from sklearn_p2l import FineTuner, NetworkClassifier, SourceCatalog
    >>> rng = np.random.default_rng(0)
    >>> X = rng.integers(0, 128, size=(40, 16, 16), dtype=np.uint8)
    >>> y = np.repeat(["dark", "light"], 20)
    >>> X[20:] += 128
    >>> classifier = NetworkClassifier("small_resnet", image_size=16, epochs=3)
    >>> source = classifier.fit(X, y).to_source(
    ...     "grey", checkpoint=f"{tempfile.mkdtemp()}/grey.safetensors"
    ... )
    >>> tuner = FineTuner(sources=SourceCatalog([source]), estimator=classifier)
    >>> tuner.fit(X, y).source_
    'grey'
    """

    _parameter_constraints: dict = {
        "selector": [HasMethods(["fit", "predict"]), None],
        "sources": [SourceCatalog, None],
        "estimator": [HasMethods(["fit", "predict", "set_params"]), None],
        "n_candidates": [Interval(Integral, 1, None, closed="left")],
        "cv": ["cv_object"],
        "scoring": [str, callable, None],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        selector=None,
        sources=None,
        estimator=None,
        *,
        n_candidates=1,
        cv=None,
        scoring=None,
        n_jobs=None,
        verbose=0,
    ):
        self.selector = selector
        self.sources = sources
        self.estimator = estimator
        self.n_candidates = n_candidates
        self.cv = cv
        self.scoring = scoring
        self.n_jobs = n_jobs
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, *, groups=None, **fit_params):
        """Choose the source and fine-tune it.

        Interrupted by the keyboard during the trials, it is fitted with the best that
        was trained so far, on a part of the samples, and warns.

        Parameters
        ----------
        X : dataset of n_samples samples
            The task: samples, or samples and labels together, as
            :meth:`NetworkClassifier.fit` takes them.

        y : array-like of shape (n_samples,) or (n_samples, n_labels), default=None
            Labels; None where `X` holds them.

        groups : array-like of shape (n_samples,), default=None
            Samples of one group are never on both sides of a trial. None takes those of
            a Task. Passed on to an `estimator` whose `fit` takes them.

        **fit_params : dict
            Passed on to the `fit` of `estimator`.

        Returns
        -------
        self : object
            Fitted tuner.

        Raises
        ------
        ValueError
            If there is no source to start from, its weights do not fit its
            architecture, or the task cannot be trained on.

        Warns
        -----
        ConvergenceWarning
            If the trials were interrupted, or training has learned nothing.
        UserWarning
            If a source could not be tried, with the reason; the others are.
        """
        if _routing_enabled():
            fit_params = process_routing(self, "fit", **fit_params).estimator.fit
        vars(self).pop("estimator_", None)  # not fitted until trained again
        X, y, groups = as_labelled(X, y, groups)
        if groups is not None and self._passes_on_groups():
            fit_params = fit_params | {"groups": groups}
        self.selector_ = self.ranking_ = None
        task = Task(X, y, groups)
        y = task.y
        names = self._candidates(task)
        starts = [self._start(name) for name in names]
        chosen, self.candidates_ = 0, []
        keep = len(names) > 1 and len(y) <= _MOST_KEPT
        with TemporaryDirectory() if keep else nullcontext() as images:
            if len(names) > 1:
                splits = trial_splits(y, groups, self.cv)
                trials = run_trials(
                    starts,
                    X,
                    y,
                    splits=splits,
                    images=images,
                    fit_params=fit_params,
                    scoring=self.scoring,
                    n_jobs=self.n_jobs,
                    verbose=self.verbose,
                )
                self.candidates_ = table_of(trials, names, len(splits))
                if len(trials) < len(starts) * len(splits) or trials[-1].interrupted:
                    return self._settle(trials, names)
                chosen = self._chosen(trials)
            self.source_ = names[chosen]
            with keeping_images(images):
                self.estimator_ = starts[chosen].fit(X, y, **fit_params)
        self.interrupted_ = getattr(self.estimator_, "interrupted_", False)
        return self

    def _passes_on_groups(self):
        if not has_fit_parameter(self._estimator, "groups"):
            return False
        if not _routing_enabled():
            return True
        requests = get_routing_for_object(self._estimator).fit.requests
        return requests.get("groups") is not False

    def _chosen(self, trials):
        """Number of the candidate that won; warns of those that could not be tried."""
        failed = {
            row["source"]: row["error"] for row in self.candidates_ if row["error"]
        }
        if len(failed) == len(self.candidates_):
            raise next(trial.error for trial in trials if trial.error)
        for name, error in failed.items():
            warnings.warn(
                f"Source {name!r} could not be tried, and is passed over: {error}",
                UserWarning,
                stacklevel=4,
            )
        return next(i for i, row in enumerate(self.candidates_) if row["chosen"])

    def _settle(self, trials, names):
        """Take the best that was trained before the interrupt, of whatever there is."""
        won = [i for i, row in enumerate(self.candidates_) if row["chosen"]]
        usable = [
            trial
            for trial in trials
            if trial.trained is not None
            and getattr(trial.trained, "history_", True)  # an epoch, at least
            and (not won or trial.candidate == won[0])
        ]
        if not usable:
            raise KeyboardInterrupt
        self.source_, self.estimator_ = names[usable[0].candidate], usable[0].trained
        self.interrupted_ = True
        warnings.warn(
            f"Trials were interrupted: the classifier is the best so far, from "
            f"{self.source_!r}, trained on a part of the samples. Call fit again to "
            "try all, and to train on everything.",
            ConvergenceWarning,
            stacklevel=4,
        )
        return self

    def _candidates(self, task):
        """Return names of the sources to start from, best first; None: no transfer."""
        if self.sources is None:
            raise ValueError(
                "sources must be a SourceCatalog with checkpoints to start from, got "
                "None; pass one, or train NetworkClassifier itself for no transfer."
            )
        if self.selector is None:
            if len(self.sources) > self.n_candidates:
                raise ValueError(
                    "selector must be given to choose among several sources, got None; "
                    "pass a selector, or one source: sources[[name]], or try them all: "
                    f"n_candidates={len(self.sources)}."
                )
            return list(self.sources.names)
        self.selector_ = self._fitted_selector(task)
        check_signs(self.selector_, [task])
        self.ranking_ = np.asarray(self.selector_.predict([task]))[0]
        names = [n if n is None else str(n) for n in self.ranking_[: self.n_candidates]]
        for name in names:
            if name is not None and name not in self.sources:
                raise ValueError(
                    f"the source must be in the catalog, got {name!r}; sources holds "
                    f"{list(self.sources.names)}."
                )
        return names

    def _fitted_selector(self, task):
        try:
            check_is_fitted(self.selector)
        except NotFittedError as error:
            if isinstance(self.selector, FrozenEstimator):
                raise NotFittedError(
                    "selector must be fitted before it is frozen, got an unfitted one. "
                    "A grid over selectors must hold each one frozen: {'selector': "
                    "[FrozenEstimator(a), FrozenEstimator(b)]}."
                ) from error
            check_signs(self.selector, [task])
            try:
                return clone(self.selector).fit([task])
            except ValueError as failure:
                raise ValueError(
                    "selector must be fitted, or able to rank without training targets "
                    f"(a number for its k), got: {failure} Wrap a fitted one in "
                    "FrozenEstimator, which keeps its fit where the tuner is cloned."
                ) from failure
        return self.selector

    def _start(self, name):
        """The estimator, unfitted, at its start."""
        estimator = clone(self._estimator)
        return estimator if name is None else start_from(estimator, self.sources[name])

    @property
    def _estimator(self):
        return NetworkClassifier() if self.estimator is None else self.estimator

    @property
    def classes_(self):
        """Class labels; for multilabel targets the numbers of the labels."""
        return self.estimator_.classes_

    def predict(self, X):
        """Predict labels.

        Parameters
        ----------
        X : dataset of n_samples samples
            As :meth:`NetworkClassifier.predict` takes them.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_labels)
            Class labels, or the multilabel indicator of probabilities above one half.
        """
        check_is_fitted(self)
        return self.estimator_.predict(X)

    def predict_proba(self, X):
        """Compute probabilities.

        Parameters
        ----------
        X : dataset of n_samples samples
            As in `predict`.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_outputs)
            One column per class, rows summing to 1, or per label, each for itself.
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    def predict_log_proba(self, X):
        """Compute logarithms of probabilities.

        Parameters
        ----------
        X : dataset of n_samples samples
            As in `predict`.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_outputs)
        """
        check_is_fitted(self)
        return self.estimator_.predict_log_proba(X)

    def decision_function(self, X):
        """Compute the outputs of the network before the softmax.

        Parameters
        ----------
        X : dataset of n_samples samples
            As in `predict`.

        Returns
        -------
        scores : ndarray of shape (n_samples, n_outputs) or (n_samples,)
            One column per class or label; for two classes the difference, positive
            for ``classes_[1]``.
        """
        check_is_fitted(self)
        return self.estimator_.decision_function(X)

    def score(self, X, y=None, **params):
        """Compute the score of the trained classifier.

        Parameters
        ----------
        X : dataset of n_samples samples
            As in `predict`.

        y : array-like of shape (n_samples,) or (n_samples, n_labels), default=None
            True labels; None where `X` holds them, as in `fit`. Of a Task that has a
            test part, this is what counts.

        **params : dict
            Passed on to the `score` of `estimator`, such as `sample_weight`.

        Returns
        -------
        score : float
            Accuracy; for multilabel targets the micro-averaged average precision.
        """
        check_is_fitted(self)
        if _routing_enabled():
            params = process_routing(self, "score", **params).estimator.score
        X, y = as_judged(X, y)
        return self.estimator_.score(X, y, **params)

    def to_source(self, name, **params):
        """Write the trained weights and return the entry for a SourceCatalog.

        Parameters
        ----------
        name : str
            Name of the source.

        **params : dict
            As :meth:`NetworkClassifier.to_source` takes them; `checkpoint` is needed.

        Returns
        -------
        source : Source
        """
        check_is_fitted(self)
        return self.estimator_.to_source(name, **params)

    def get_metadata_routing(self):
        """Say what is passed on to the estimator.

        Returns
        -------
        routing : MetadataRouter
        """
        mapping = MethodMapping()
        mapping.add(caller="fit", callee="fit").add(caller="score", callee="score")
        router = MetadataRouter(owner=type(self).__name__).add_self_request(self)
        return router.add(estimator=self._estimator, method_mapping=mapping)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "estimator_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self._estimator)
        tags.input_tags = inner.input_tags
        tags.target_tags = inner.target_tags
        tags.classifier_tags = inner.classifier_tags
        tags.non_deterministic = inner.non_deterministic
        tags.no_validation = True
        return tags


def start_from(estimator, source):
    """Set a classifier's start to a source: its architecture and its checkpoint."""
    if source.checkpoint is None:
        raise ValueError(
            f"source {source.name!r} must have a checkpoint to start from, it has none "
            "in the catalog."
        )
    if not has_weights(source):
        raise ValueError(
            f"source {source.name!r} must have a checkpoint that is there, got "
            f"{source.checkpoint}, where no file is; put it back, or leave the source "
            "out."
        )
    backbone = getattr(estimator, "backbone", None)
    if source.architecture is None and (
        isinstance(backbone, os.PathLike) or load_networks().is_file_name(backbone)
    ):  # which holds weights of its own
        return estimator.set_params(backbone=source.checkpoint, weights=None)
    if source.architecture is None:
        return estimator.set_params(weights=source.checkpoint)
    return estimator.set_params(backbone=source.architecture, weights=source.checkpoint)
