"""FineTuner: trains the chosen source on one target."""

import os
import warnings
from numbers import Integral, Real

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    MetaEstimatorMixin,
    _fit_context,
    clone,
)
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score, average_precision_score
from sklearn.utils import (
    check_array,
    check_consistent_length,
    check_random_state,
    column_or_1d,
    compute_class_weight,
)
from sklearn.utils._missing import is_pandas_na, is_scalar_nan
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted
from tqdm import tqdm

from sklearn_p2l.catalog import Source, SourceCatalog
from sklearn_p2l.datasets import is_bags


class FineTuner(MetaEstimatorMixin, ClassifierMixin, BaseEstimator):
    """Fine-tune the source that fits a target best, as a classifier.

    The chosen source's network gets a fresh last layer of the target's size, starting
    at zero (its bias, for multilabel targets, at the log odds of the labels), which
    learns at `learning_rate`, while the layers before it learn at
    ``body_learning_rate_multiplier`` times that (paper, section 4.2). Training is
    stochastic gradient descent with momentum and a step schedule (section 4.1).

    Parameters
    ----------
    selector : estimator, default=None
        Ranks the sources: its ``predict([X])`` returns their names, best first (None
        for random weights). Mostly a pipeline of DatasetEmbedder and SourceSelector.
        A fitted one is used as it is; wrap it in
        :class:`~sklearn.frozen.FrozenEstimator` where the tuner is cloned, as in a
        grid search, which would otherwise lose its fit. An unfitted one is cloned and
        fitted on ``[X]``, which needs a number for its `k`.

    sources : SourceCatalog, default=None
        The sources with their checkpoints.

    source : str or None, default="auto"
        "auto" takes the selector's pick; a name forces that source; None starts from
        random weights, all trained at the full learning rate: the paper's M(t, ∅), and
        the way to train a source itself.

    backbone : str or callable, default=None
        Architecture for random weights and for sources that do not name theirs: the
        name of a torchvision classification network, "small_resnet", "pcnn" for pairs
        of entities in text, or a function that returns a torch module. None takes the
        architecture that all `sources` share. A "pcnn" with random weights learns its
        vocabulary from the samples it is trained on.

    learning_rate : float, default=0.01
        Initial learning rate of the last layer.

    body_learning_rate_multiplier : float, default=0.1
        Learning rate of the other layers, relative to `learning_rate`; 0 freezes them,
        and they compute as in prediction: without dropout, and with the statistics of
        their batch normalisation as they are.

    epochs : int, default=30
        Passes over the training data, at most.

    batch_size : int, default=32
        Samples per step, about: batches are made equal and never hold one sample.

    momentum : float, default=0.9
        Momentum of gradient descent.

    weight_decay : float, default=1e-4
        L2 penalty.

    step_size : float, default=1/3
        Fraction of the epochs after which the learning rate is multiplied by `gamma`,
        again and again.

    gamma : float, default=0.1
        Factor of the step schedule.

    early_stopping : bool, default=False
        Keep a stratified part of the data for validation, stop when its loss has not
        improved for `n_iter_no_change` epochs, and return to the best epoch.

    validation_fraction : float, default=0.1
        Share of the samples kept for validation, if `early_stopping`: at least one,
        spread over the classes by their sizes, but never the last one of a class.

    n_iter_no_change : int, default=5
        Epochs to wait for an improvement, if `early_stopping`.

    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss, as in scikit-learn. Not for multilabel
        targets.

    augment : {"shift", "flip"} or None, default=None
        Random changes to training images: shifts by up to an eighth of the side;
        "flip" also mirrors left and right (not for digits or writing).

    image_size : int, default=None
        Side of the images given to the network, in pixels; None for the size that the
        checkpoint or the network was made for, and for text. Smaller is faster.

    precision : {"float32", "auto", "bfloat16", "float16"}, default="float32"
        Mixed precision of the forward and backward pass; "auto" is bfloat16 where
        the device has instructions for it.

    device : str, default="auto"
        Torch device; "auto" is the GPU if there is one, else the CPU.

    random_state : int, RandomState instance or None, default=None
        Decides initial weights, order and augmentation. An int makes training
        reproducible on one device; on a GPU, as far as PyTorch has deterministic
        versions of the operations in the network.

    verbose : int, default=0
        1 shows a progress bar over epochs.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels; for multilabel targets the numbers of the labels.

    source_ : str or None
        Name of the source trained from; None for random weights.

    ranking_ : ndarray of shape (n_sources,) or None
        Names of the sources, best first; None where no selector was asked.

    selector_ : estimator
        The fitted selector, if one was asked.

    history_ : list of dict
        One record per epoch: "epoch", "learning_rate", "train_loss", "seconds", and
        with early stopping "validation_loss" and "validation_score".

    weights_ : dict of str to ndarray
        The trained network, as arrays.

    n_samples_ : int
        Number of samples trained on: those given to `fit` less the validation part.

    image_size_ : int or None
        Side of the images that the network takes, in pixels; None for text.

    backbone_ : str or callable
        Architecture of the network.

    y_type_ : str
        Type of the target, as :func:`~sklearn.utils.multiclass.type_of_target` names
        it.

    See Also
    --------
    SourceSelector : Ranks the sources.
    SourceCatalog : Holds the sources and their checkpoints.

    References
    ----------
    Bhattacharjee et al., "P2L: Predicting Transfer Learning for Images and Semantic
    Relations", sections 4.1 and 4.2.

    Examples
    --------
    Train a source from random weights, then start from it:

    >>> import tempfile
    >>> import numpy as np
    >>> from sklearn_p2l import FineTuner, SourceCatalog
    >>> rng = np.random.default_rng(0)
    >>> X = rng.integers(0, 128, size=(40, 16, 16), dtype=np.uint8)
    >>> y = np.repeat(["dark", "light"], 20)
    >>> X[20:] += 128
    >>> scratch = FineTuner(
    ...     source=None, backbone="small_resnet", image_size=16, epochs=3
    ... ).fit(X, y)
    >>> folder = tempfile.mkdtemp()
    >>> source = scratch.to_source(
    ...     "grey", embedding=[0.5, 0.5], checkpoint=f"{folder}/grey.safetensors"
    ... )
    >>> tuner = FineTuner(
    ...     source="grey", sources=SourceCatalog([source]), epochs=3
    ... ).fit(X, y)
    >>> tuner.predict_proba(X).shape
    (40, 2)
    """

    _parameter_constraints: dict = {
        "selector": [HasMethods(["fit", "predict"]), None],
        "sources": [SourceCatalog, None],
        "source": [str, None],
        "backbone": [str, callable, None],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "body_learning_rate_multiplier": [Interval(Real, 0, None, closed="left")],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "step_size": [Interval(Real, 0, 1, closed="right")],
        "gamma": [Interval(Real, 0, 1, closed="right")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "augment": [StrOptions({"shift", "flip"}), None],
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "precision": [StrOptions({"auto", "float32", "bfloat16", "float16"})],
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        selector=None,
        sources=None,
        *,
        source="auto",
        backbone=None,
        learning_rate=0.01,
        body_learning_rate_multiplier=0.1,
        epochs=30,
        batch_size=32,
        momentum=0.9,
        weight_decay=1e-4,
        step_size=1 / 3,
        gamma=0.1,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        class_weight=None,
        augment=None,
        image_size=None,
        precision="float32",
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.selector = selector
        self.sources = sources
        self.source = source
        self.backbone = backbone
        self.learning_rate = learning_rate
        self.body_learning_rate_multiplier = body_learning_rate_multiplier
        self.epochs = epochs
        self.batch_size = batch_size
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.step_size = step_size
        self.gamma = gamma
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.class_weight = class_weight
        self.augment = augment
        self.image_size = image_size
        self.precision = precision
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y):
        """Choose the source and fine-tune it.

        Interrupted by the keyboard, training stops early: the tuner is fitted with the
        weights it has reached (with early stopping, the best so far), and warns. A grid
        search then goes on with its next candidate.

        Parameters
        ----------
        X : array-like of n_samples samples
            Samples of one target. Images: an array (n, H, W), (n, H, W, 1) or
            (n, H, W, 3), uint8 in 0..255 or float in 0..1; or a list of images or of
            paths. Pairs of entities: a list of :class:`~sklearn_p2l.datasets.Bag`.

        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Class labels of any type, or a multilabel indicator of 0 and 1.

        Returns
        -------
        self : object
            Fitted tuner.

        Raises
        ------
        ValueError
            If there is no source to start from, weights do not fit their
            architecture, there is only one class, or an image cannot be used.
        """
        from sklearn_p2l import networks

        targets = self._encode(X, y)
        vars(self).pop("weights_", None)  # not fitted until trained again
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        device = networks.choose_device(self.device)
        self.source_ = self._choose_source(X)
        network, self.backbone_ = self._open_network(networks, X, seed)
        network.reset_classifier(
            len(self.classes_),
            zero=self.source_ is not None,
            bias_init=_log_odds(targets) if self._multilabel else None,
            seed=seed,
        )
        self.image_size_ = network.image_size
        inputs = network.prepare(network.read(X, self.batch_size), len(targets))
        rng = np.random.RandomState(seed)
        validation = np.empty(0, dtype=np.int64)
        if self.early_stopping:
            validation = _validation_part(targets, self.validation_fraction, rng)
            if not len(validation):
                warnings.warn(
                    "No sample can be spared for validation, as each class has only "
                    "one: early stopping is off; give more samples, or pass "
                    "early_stopping=False.",
                    UserWarning,
                    stacklevel=3,
                )
        self.n_samples_ = len(targets) - len(validation)
        multiplier = self.body_learning_rate_multiplier
        self.history_, interrupted = networks.train(
            network,
            inputs,
            targets,
            validation=validation,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            body_multiplier=1.0 if self.source_ is None else multiplier,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            step_size=self.step_size,
            gamma=self.gamma,
            class_weight=self._class_weight(targets),
            patience=self.n_iter_no_change,
            augment=self.augment,
            precision=self.precision,
            device=device,
            score=self._score_logits,
            progress=self._progress,
            seed=seed,
        )
        self.weights_ = networks.get_weights(network.model)
        self._metadata = network.metadata
        self._network = network
        if interrupted:
            warnings.warn(
                f"Training was interrupted after {len(self.history_)} of {self.epochs} "
                "epochs; the tuner is fitted with the weights it has reached. Call "
                "fit again to train it to the end.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    def decision_function(self, X):
        """Compute the outputs of the network before the softmax.

        Parameters
        ----------
        X : array-like of n_samples samples
            As in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples, n_outputs) or (n_samples,)
            One column per class or label; for two classes the difference, positive
            for ``classes_[1]``.
        """
        logits = self._logits(X)
        if not self._multilabel and logits.shape[1] == 2:
            return logits[:, 1] - logits[:, 0]
        return logits

    def predict_proba(self, X):
        """Compute probabilities.

        Parameters
        ----------
        X : array-like of n_samples samples
            As in `fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_outputs)
            One column per class, rows summing to 1, or per label, each for itself.
        """
        logits = self._logits(X)
        return expit(logits) if self._multilabel else softmax(logits, axis=1)

    def predict(self, X):
        """Predict labels.

        Parameters
        ----------
        X : array-like of n_samples samples
            As in `fit`.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_labels)
            Class labels, or the multilabel indicator of probabilities above one half.
        """
        logits = self._logits(X)
        if self._multilabel:
            return (logits > 0).astype(int)
        return self.classes_[logits.argmax(axis=1)]

    def score(self, X, y, sample_weight=None):
        """Compute the accuracy, or for multilabel targets the average precision.

        Parameters
        ----------
        X : array-like of n_samples samples
            As in `fit`.

        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            True labels.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples.

        Returns
        -------
        score : float
            Accuracy; for multilabel targets the micro-averaged area under the
            precision-recall curve (paper, section 4.2).
        """
        check_is_fitted(self)
        if self._multilabel:
            y = y.toarray() if hasattr(y, "toarray") else y
            return average_precision_score(
                y, self._logits(X), average="micro", sample_weight=sample_weight
            )
        return accuracy_score(y, self.predict(X), sample_weight=sample_weight)

    def to_source(
        self, name, *, embedding, checkpoint, size=None, metadata=None, fingerprint=None
    ):
        """Write the trained weights and return the entry for a SourceCatalog.

        Parameters
        ----------
        name : str
            Name of the source.

        embedding : array-like of shape (n_features,) or (1, n_features)
            Summary of the data it was trained on, such as ``embedder.transform([X])``.

        checkpoint : str or path-like
            File to write, ending in ".safetensors".

        size : int, default=None
            Number of training examples; None takes ``n_samples_``.

        metadata : dict, default=None
            Anything else worth keeping, as JSON types.

        fingerprint : str, default=None
            Fingerprint of the reference network; None takes the one that vectors of a
            DatasetEmbedder carry.

        Returns
        -------
        source : Source
        """
        check_is_fitted(self)
        from sklearn_p2l import networks

        checkpoint = os.fspath(checkpoint)
        if not checkpoint.endswith(".safetensors"):
            raise ValueError(
                f"checkpoint must be a file name ending in '.safetensors', got "
                f"{checkpoint!r}."
            )
        if np.ndim(embedding) == 2 and len(embedding) == 1:
            embedding = embedding[0]
        architecture = self._metadata.get("architecture")
        source = Source(
            name,
            size=self.n_samples_ if size is None else size,
            embedding=embedding,
            checkpoint=checkpoint,
            architecture=architecture,
            n_classes=len(self.classes_),
            metadata=metadata,
            fingerprint=fingerprint,
        )
        networks.write_checkpoint(checkpoint, self.weights_, self._metadata)
        return source

    @property
    def _multilabel(self):
        return self.y_type_ == "multilabel-indicator"

    def _encode(self, X, y):
        """Check y, learn classes_, and return class indices or the indicator."""
        if y is None:
            raise ValueError(
                "y must hold the labels of the samples, got None: this FineTuner "
                "requires y to be passed."
            )
        _check_samples(X)
        check_consistent_length(X, y)
        if hasattr(y, "__array__") or isinstance(y, (list, tuple)):
            labels = np.asarray(y, dtype=object).ravel()
            if any(v is None or is_scalar_nan(v) or is_pandas_na(v) for v in labels):
                raise ValueError(
                    "y must hold a label for every sample, got NaN or None."
                )
        check_classification_targets(y)
        y_type = type_of_target(y, input_name="y")
        if y_type == "multilabel-indicator":
            targets = check_array(y, accept_sparse=True, input_name="y")
            targets = targets.toarray() if hasattr(targets, "toarray") else targets
            classes = np.arange(targets.shape[1])
        elif y_type in ("binary", "multiclass"):
            classes, targets = np.unique(column_or_1d(y), return_inverse=True)
        else:
            raise ValueError(
                "y must be 1-D class labels or a multilabel indicator of 0 and 1, got "
                f"a target of type {y_type!r}."
            )
        if len(classes) < 2 and targets.ndim == 1:
            raise ValueError(
                f"y must have at least two classes, got one: {classes[0]}."
            )
        self.y_type_, self.classes_ = y_type, classes
        return np.asarray(targets)

    def _choose_source(self, X):
        """Return the name of the source to start from, or None for random weights."""
        self.ranking_ = None
        if self.source is None:
            return None
        if self.source == "auto" and self.selector is None:
            raise ValueError(
                "selector must be given for source='auto', got None; pass a selector, "
                "the name of a source, or source=None for random weights."
            )
        if self.sources is None:
            raise ValueError(
                "sources must be a SourceCatalog with checkpoints to start from a "
                "source, got None; pass it, or source=None for random weights."
            )
        name = self.source
        if name == "auto":
            self.selector_ = self._fitted_selector(X)
            self.ranking_ = np.asarray(self.selector_.predict([X]))[0]
            name = self.ranking_[0]
            if name is None:  # the selector advises against any transfer
                return None
            name = str(name)
        if name not in self.sources:
            raise ValueError(
                f"the source must be in the catalog, got {name!r}; sources holds "
                f"{list(self.sources.names)}."
            )
        if self.sources[name].checkpoint is None:
            raise ValueError(
                f"source {name!r} must have a checkpoint to start from, it has none in "
                "the catalog."
            )
        return name

    def _fitted_selector(self, X):
        try:
            check_is_fitted(self.selector)
        except NotFittedError as error:
            if isinstance(self.selector, FrozenEstimator):
                raise NotFittedError(
                    "selector must be fitted before it is frozen, got an unfitted one. "
                    "A grid over selectors must hold each one frozen: {'selector': "
                    "[FrozenEstimator(a), FrozenEstimator(b)]}."
                ) from error
            try:
                return clone(self.selector).fit([X])
            except ValueError as failure:
                raise ValueError(
                    "selector must be fitted, or able to rank without training targets "
                    f"(a number for its k), got: {failure} Wrap a fitted one in "
                    "FrozenEstimator, which keeps its fit where the tuner is cloned."
                ) from failure
        return self.selector

    def _open_network(self, networks, X, seed):
        """Return the network to start from, and the backbone that it is."""
        if self.source_ is None:
            backbone, checkpoint = self.backbone, None
            if backbone is None:
                shared = {s.architecture for s in self.sources or ()}
                if len(shared) != 1 or None in shared:
                    raise ValueError(
                        "backbone must be given for random weights, got None; pass "
                        "backbone='small_resnet', 'resnet18', ..."
                    )
                backbone = shared.pop()
        else:
            source = self.sources[self.source_]
            backbone, checkpoint = (
                source.architecture or self.backbone,
                source.checkpoint,
            )
            if backbone is None:
                raise ValueError(
                    f"source {self.source_!r} does not name its architecture; pass "
                    "backbone, or give the catalog its architectures."
                )
        if networks.is_file_name(backbone):
            raise ValueError(
                f"backbone must name an architecture, got the file {backbone!r}; "
                "weights to start from belong to a source of the catalog."
            )
        network = networks.open_network(
            backbone,
            weights=checkpoint,
            image_size=self.image_size,
            seed=seed,
            bags=X if is_bags(X) else (),
        )
        return network, backbone

    def _class_weight(self, targets):
        if self.class_weight is None:
            return None
        if self._multilabel:
            raise ValueError(
                f"class_weight must be None for multilabel targets, got "
                f"{self.class_weight!r}."
            )
        weights = compute_class_weight(
            self.class_weight, classes=self.classes_, y=self.classes_[targets]
        )
        return weights.astype(np.float32)

    def _score_logits(self, targets, logits):
        if not self._multilabel:
            return accuracy_score(targets, logits.argmax(axis=1))
        with warnings.catch_warnings():  # a small part may hold no positive at all
            warnings.simplefilter("ignore", UserWarning)
            return average_precision_score(targets, logits, average="micro")

    def _progress(self, epochs):
        name = "random weights" if self.source_ is None else self.source_
        return tqdm(
            epochs,
            desc=f"training from {name}",
            unit=" epochs",
            disable=not self.verbose,
        )

    def _logits(self, X):
        check_is_fitted(self)
        from sklearn_p2l import networks

        if self._network is None:
            network = networks.open_network(
                self._metadata.get("architecture", self.backbone_),
                weights=None,
                image_size=self.image_size_,
                metadata=self._metadata,
            )
            network.reset_classifier(len(self.classes_))
            networks.set_weights(network.model, self.weights_)
            self._network = network
        _check_samples(X)
        device = networks.choose_device(self.device)
        batches = self._network.read(X, self.batch_size, ahead=device.type != "cpu")
        logits = networks.predict_logits(self._network, batches, self.precision, device)
        if not np.isfinite(logits).all():
            raise ValueError(
                "the outputs of the network must be finite, got NaN or infinity: "
                "training diverged; pass a smaller learning_rate, or "
                "precision='float32'."
            )
        return logits

    def __sklearn_is_fitted__(self):
        return hasattr(self, "weights_")

    def __getstate__(self):
        state = super().__getstate__()
        return state | {"_network": None} if "_network" in state else state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.classifier_tags.multi_label = True
        tags.target_tags.multi_output = False
        tags.non_deterministic = self.random_state is None
        tags.no_validation = True
        return tags


def _check_samples(X):
    if isinstance(X, (str, os.PathLike)):
        raise ValueError(
            f"X must be the samples of one target, got one path, {os.fspath(X)!r}; "
            "pass a list with the path of each image, in the order of y."
        )


def _log_odds(indicator):
    """Log odds of each label, pulled a little towards even.

    From even odds, the first steps would only teach the network that labels are rare,
    and may silence its last rectifiers for good.
    """
    counts = indicator.sum(axis=0)
    return np.log((counts + 0.5) / (len(indicator) - counts + 0.5))


def _validation_part(targets, fraction, rng):
    """Choose samples for validation, over the classes in proportion to their sizes."""
    order = rng.permutation(len(targets))
    n_wanted = max(1, round(fraction * len(targets)))
    if targets.ndim == 2:
        return np.sort(order[: min(n_wanted, len(targets) - 1)])
    counts = np.bincount(targets)
    share = n_wanted * counts / len(targets)
    chosen = np.minimum(share.astype(int), counts - 1)
    # What rounding down has left goes to the classes that lost most by it.
    for index in np.argsort(chosen - share, kind="stable"):
        if chosen.sum() < n_wanted and chosen[index] < counts[index] - 1:
            chosen[index] += 1
    members = [order[targets[order] == index] for index in range(len(counts))]
    parts = [m[:n] for m, n in zip(members, chosen)]
    return np.sort(np.concatenate(parts))
