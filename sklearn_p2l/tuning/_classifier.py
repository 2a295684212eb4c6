"""NetworkClassifier: trains one network on one task."""

import json
import os
import warnings
from numbers import Integral, Real

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, average_precision_score
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from sklearn_p2l._compat import (
    Interval,
    StrOptions,
    _check_sample_weight,
    _fit_context,
    load_networks,
    progress_bar,
)
from sklearn_p2l.catalog import Source
from sklearn_p2l.samples import as_samples
from sklearn_p2l.task import as_labelled
from sklearn_p2l.tuning._targets import (
    encode,
    log_odds,
    validation_part,
    weights_of_classes,
)


class NetworkClassifier(ClassifierMixin, BaseEstimator):
    """Train a network as a classifier, from one start.

    The start is a network with random weights, or one that was trained on another task.
    Of the latter the last layer is replaced by a fresh one of the task's size, starting
    at zero (its bias, for multilabel targets, at the log odds of the labels), which
    learns at `learning_rate`, while the layers before it learn at
    ``body_learning_rate_multiplier`` times that (paper, section 4.2); from random
    weights all learn at `learning_rate`. Training is stochastic gradient descent with
    momentum and a step schedule (section 4.1).

    Parameters
    ----------
    backbone : str, path-like or callable, default="small_resnet"
        The network, as for :class:`~sklearn_p2l.DatasetEmbedder`: the name of a
        torchvision classification network, "small_resnet", "pcnn" for pairs of entities
        in text, a checkpoint file that names its architecture, or a function that
        returns a torch module. A "pcnn" with random weights learns its vocabulary from
        the samples it is trained on.

    weights : str, path-like or None, default=None
        The start: None for random weights (the paper's M(t, ∅), and the way to train a
        source), a name of published weights ("DEFAULT", "IMAGENET1K_V1", ...), or a
        safetensors or state-dict file. Ignored where `backbone` is a file, which holds
        the weights. For a function, "DEFAULT" starts from the weights of the module it
        returns.

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
        checkpoint or the network was made for, and for text. Smaller is faster. Images
        are resized and cropped as :class:`~sklearn_p2l.DatasetEmbedder` says.

    precision : {"float32", "auto", "bfloat16", "float16"}, default="float32"
        Mixed precision of the forward and backward pass; "auto" is bfloat16 where
        the device has instructions for it.

    device : str or torch.device, default="auto"
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

    history_ : list of dict
        One record per epoch: "epoch", "learning_rate", "train_loss", "seconds", and
        with early stopping "validation_loss" and "validation_score".

    interrupted_ : bool
        Whether the keyboard stopped training early.

    weights_ : dict of str to ndarray
        The trained network, as arrays by the names that the parameters have in its
        library. Where that would compute something else with them, their names differ,
        so that they cannot be loaded by mistake: SqueezeNet of torchvision cuts the
        outputs of its last layer at 0, which a fresh layer may not survive, and which
        is left out here.

    n_samples_ : int
        Number of samples trained on: those given to `fit` less the validation part.

    image_size_ : int or None
        Side of the images that the network takes, in pixels; None for text.

    backbone_ : str or callable
        Architecture of the network, also where `backbone` is a file.

    y_type_ : str
        Type of the target, as :func:`~sklearn.utils.multiclass.type_of_target` names
        it.

    See Also
    --------
    FineTuner : Chooses the start among the sources of a catalog.
    Source : A trained network as a start for others; `to_source` makes one.

    References
    ----------
    Bhattacharjee et al., "P2L: Predicting Transfer Learning for Images and Semantic
    Relations", sections 4.1 and 4.2.

    Examples
    --------
    Train a source from random weights, then start from it:

    >>> import tempfile
    >>> import numpy as np
    >>> from sklearn_p2l import NetworkClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = rng.integers(0, 128, size=(40, 16, 16), dtype=np.uint8)
    >>> y = np.repeat(["dark", "light"], 20)
    >>> X[20:] += 128
    >>> scratch = NetworkClassifier(image_size=16, epochs=3).fit(X, y)
    >>> file = f"{tempfile.mkdtemp()}/grey.safetensors"
    >>> source = scratch.to_source("grey", checkpoint=file)
    >>> classifier = NetworkClassifier(file, epochs=3).fit(X, y)
    >>> classifier.predict_proba(X).shape
    (40, 2)
    """

    _parameter_constraints: dict = {
        "backbone": [str, os.PathLike, callable],
        "weights": [str, os.PathLike, None],
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
        "device": "no_validation",  # a torch.device, too, without importing torch
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone="small_resnet",
        *,
        weights=None,
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
        self.backbone = backbone
        self.weights = weights
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

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, sample_weight=None):
        """Train the network.

        Interrupted by the keyboard, training stops early: the classifier is fitted with
        the weights it has reached (with early stopping, the best so far), and warns. A
        grid search then goes on with its next candidate.

        Parameters
        ----------
        X : dataset of n_samples samples
            Images: an array (n, H, W), (n, H, W, 1) or (n, H, W, 3), uint8 in 0..255 or
            float in 0..1; a list of images or of paths, also as a Series. Pairs of
            entities: a list of :class:`~sklearn_p2l.datasets.Bag`. Without `y`: a
            :class:`~sklearn_p2l.Task`, a folder with a subfolder of images for each
            class, or a map-style torch Dataset of (image, label).

        y : array-like of shape (n_samples,) or (n_samples, n_labels), default=None
            Class labels of any type, or a multilabel indicator of 0 and 1; None where
            `X` holds them.

        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in the loss.

        Returns
        -------
        self : object
            Fitted classifier.

        Raises
        ------
        ValueError
            If weights do not fit their architecture, there is only one class, labels
            are absent, or an image cannot be used.
        """
        networks = load_networks()
        X, y = as_labelled(X, y)
        targets, self.classes_, self.y_type_ = encode(X, y)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(
                sample_weight, targets, dtype=np.float32, ensure_non_negative=True
            )
        class_weight = weights_of_classes(self.class_weight, targets, self.classes_)
        vars(self).pop("weights_", None)  # not fitted until trained again
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        device = networks.choose_device(self.device)
        network = networks.open_network(
            self.backbone,
            weights=self.weights,
            image_size=self.image_size,
            seed=seed,
            samples=X,
        )
        network.reset_classifier(
            len(self.classes_),
            zero=self._is_pretrained(networks),
            bias_init=log_odds(targets) if self._multilabel else None,
            seed=seed,
        )
        self.image_size_ = network.image_size
        self.backbone_ = network.metadata.get("architecture", self.backbone)
        inputs = network.prepare(network.read(X, self.batch_size), len(targets))
        validation = self._validation_part(targets, np.random.RandomState(seed))
        self.n_samples_ = len(targets) - len(validation)
        self.history_, interrupted = networks.train(
            network,
            inputs,
            targets,
            self._recipe(networks),
            validation=validation,
            class_weight=class_weight,
            sample_weight=sample_weight,
            device=device,
            score=self._score_logits,
            progress=self._progress,
            seed=seed,
        )
        self.weights_ = networks.get_weights(network.model)
        self._metadata, self._network = network.metadata, network
        self.interrupted_ = interrupted
        if interrupted:
            warnings.warn(
                f"Training was interrupted after {len(self.history_)} of {self.epochs} "
                "epochs; the classifier is fitted with the weights it has reached. "
                "Call fit again to train it to the end.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    def _is_pretrained(self, networks):
        return (
            self.weights is not None
            or isinstance(self.backbone, os.PathLike)
            or networks.is_file_name(self.backbone)
        )

    def _recipe(self, networks):
        multiplier = self.body_learning_rate_multiplier
        return networks.Recipe(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            body_multiplier=multiplier if self._is_pretrained(networks) else 1.0,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            step_size=self.step_size,
            gamma=self.gamma,
            patience=self.n_iter_no_change,
            augment=self.augment,
            precision=self.precision,
        )

    def _validation_part(self, targets, rng):
        if not self.early_stopping:
            return np.empty(0, dtype=np.int64)
        validation = validation_part(targets, self.validation_fraction, rng)
        if not len(validation):
            warnings.warn(
                "No sample can be spared for validation, as each class has only one: "
                "early stopping is off; give more samples, or pass "
                "early_stopping=False.",
                UserWarning,
                stacklevel=4,
            )
        return validation

    def decision_function(self, X):
        """Compute the outputs of the network before the softmax.

        Parameters
        ----------
        X : dataset of n_samples samples
            As in `fit`, without labels; also a folder of images, a file, or one image.

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
        X : dataset of n_samples samples
            As in `fit`, without labels; also a folder of images, a file, or one image.

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
        X : dataset of n_samples samples
            As in `fit`, without labels; also a folder of images, a file, or one image.

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
        X : dataset of n_samples samples
            As in `fit`, without labels; also a folder of images, a file, or one image.

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
        self,
        name,
        *,
        checkpoint,
        embedding=None,
        size=None,
        columns=None,
        metadata=None,
        fingerprint=None,
    ):
        """Write the trained weights and return the entry for a SourceCatalog.

        The file also says what is needed to use it: architecture, size of the images,
        and the names of the classes as JSON.

        Parameters
        ----------
        name : str
            Name of the source.

        checkpoint : str or path-like
            File to write, ending in ".safetensors".

        embedding : array-like of shape (n_features,) or (1, n_features), default=None
            Summary of the data it was trained on, such as ``embedder.transform([X])``;
            None where it will not be ranked by a divergence.

        size : int, default=None
            Number of training examples; None takes ``n_samples_``.

        columns : mapping of str to float, default=None
            Numbers about it, such as its accuracy.

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
        networks = load_networks()
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
            columns=columns,
            metadata=metadata,
            fingerprint=fingerprint,
        )
        classes = json.dumps(self.classes_.tolist(), default=str)
        networks.write_checkpoint(
            checkpoint, self.weights_, self._metadata | {"classes": classes}
        )
        return source

    @property
    def _multilabel(self):
        return self.y_type_ == "multilabel-indicator"

    def _score_logits(self, targets, logits):
        if not self._multilabel:
            return accuracy_score(targets, logits.argmax(axis=1))
        with warnings.catch_warnings():  # a small part may hold no positive at all
            warnings.simplefilter("ignore", UserWarning)
            return average_precision_score(targets, logits, average="micro")

    def _progress(self, epochs):
        name = self.backbone_ if isinstance(self.backbone_, str) else "network"
        return progress_bar(
            epochs,
            desc=f"training {name}",
            unit=" epochs",
            disable=not self.verbose,
        )

    def _logits(self, X):
        check_is_fitted(self)
        networks, X = load_networks(), as_samples(X)
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

    def __getstate__(self):  # the network is built again from its weights
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
