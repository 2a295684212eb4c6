"""FineTuner: chooses the source that fits a task best, and trains it."""

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    process_routing,
)
from sklearn.utils.validation import check_is_fitted

from sklearn_p2l._compat import HasMethods, _fit_context, _routing_enabled
from sklearn_p2l.catalog import SourceCatalog
from sklearn_p2l.selection._pipeline import check_signs
from sklearn_p2l.task import Task, as_labelled
from sklearn_p2l.tuning._classifier import NetworkClassifier


class FineTuner(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """Fine-tune the source that fits a task best, as a classifier.

    The selector ranks the sources for the task; the first one is the start from which
    `estimator` is trained.

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

    Attributes
    ----------
    estimator_ : NetworkClassifier
        The fitted classifier.

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
    With metadata routing, `fit`, `predict` and `score` pass on what `estimator`
    requests, such as ``estimator.set_fit_request(sample_weight=True)``; without, `fit`
    passes on everything.

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
    }

    def __init__(self, selector=None, sources=None, estimator=None):
        self.selector = selector
        self.sources = sources
        self.estimator = estimator

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, **fit_params):
        """Choose the source and fine-tune it.

        Parameters
        ----------
        X : dataset of n_samples samples
            The task: samples, or samples and labels together, as
            :meth:`NetworkClassifier.fit` takes them.

        y : array-like of shape (n_samples,) or (n_samples, n_labels), default=None
            Labels; None where `X` holds them.

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
        """
        if _routing_enabled():
            fit_params = process_routing(self, "fit", **fit_params).estimator.fit
        vars(self).pop("estimator_", None)  # not fitted until trained again
        X, y = as_labelled(X, y)
        self.selector_ = self.ranking_ = None
        self.source_ = self._choose_source(Task(X, y))
        self.estimator_ = self._start(self.source_).fit(X, y, **fit_params)
        return self

    def _choose_source(self, task):
        """Return the name of the source to start from, or None for no transfer."""
        if self.sources is None:
            raise ValueError(
                "sources must be a SourceCatalog with checkpoints to start from, got "
                "None; pass one, or train NetworkClassifier itself for no transfer."
            )
        if self.selector is None:
            if len(self.sources) > 1:
                raise ValueError(
                    "selector must be given to choose among several sources, got None; "
                    "pass a selector, or one source: sources[[name]]."
                )
            return self.sources.names[0]
        self.selector_ = self._fitted_selector(task)
        check_signs(self.selector_, [task])
        self.ranking_ = np.asarray(self.selector_.predict([task]))[0]
        name = self.ranking_[0]
        if name is None:
            return None
        name = str(name)
        if name not in self.sources:
            raise ValueError(
                f"the source must be in the catalog, got {name!r}; sources holds "
                f"{list(self.sources.names)}."
            )
        return name

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

    def score(self, X, y, **params):
        """Compute the score of the trained classifier.

        Parameters
        ----------
        X : dataset of n_samples samples
            As in `predict`.

        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            True labels.

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
        return MetadataRouter(owner=type(self).__name__).add(
            estimator=self._estimator, method_mapping=mapping
        )

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
    if source.architecture is None:
        return estimator.set_params(weights=source.checkpoint)
    return estimator.set_params(backbone=source.architecture, weights=source.checkpoint)
