"""NetworkClassifier: trains one network on one task."""

import os
import warnings
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state

from sklearn_p2l._compat import Interval, StrOptions, _fit_context, load_networks
from sklearn_p2l.task import as_labelled
from sklearn_p2l.tuning._progress import progress_of, warn_of_convergence
from sklearn_p2l.tuning._settings import check_settings, recipe_of
from sklearn_p2l.tuning._targets import (
    encode,
    log_odds,
    score_logits,
    validation_part,
    weights_of_samples,
)
from sklearn_p2l.tuning._trained import TrainedNetworkMixin


class NetworkClassifier(TrainedNetworkMixin, ClassifierMixin, BaseEstimator):
    """Train a network as a classifier, from one start.

    The start is a network with random weights, or one that was trained on another task.
    Of the latter the last layer is replaced by a fresh one of the task's size, which
    learns at `learning_rate`, while the layers before it learn at
    ``body_learning_rate_multiplier`` times that (paper, section 4.2); from random
    weights all learn at `learning_rate`.

    The defaults are made for small tasks and any network: AdamW, a rate that rises and
    then falls along a cosine, cut gradients, a last layer that starts at zero behind
    features of unit size. The paper's optimisation (section 4.1) is
    ``NetworkClassifier(optimizer="sgd", learning_rate=0.01, schedule="step", warmup=0,
    max_grad_norm=None, scale_features=False, head_init="random", weight_decay=1e-4)``;
    it may fail on networks without batch normalisation.

    Parameters
    ----------
    backbone : str, path-like or callable, default="small_resnet"
        The network, as for :class:`~sklearn_p2l.DatasetEmbedder`: the name of a
        classification network of torchvision, timm ("timm/...") or Hugging Face
        ("hf/..."), "small_resnet", "pcnn" for pairs of entities in text, a checkpoint
        file that names its architecture, or a function that returns a torch module. A
        "pcnn" with random weights learns its vocabulary from the samples it is trained
        on.

    weights : str, path-like or None, default=None
        The start: None for random weights (the paper's M(t, ∅), and the way to train a
        source), a name of published weights ("DEFAULT", "IMAGENET1K_V1", ...), or a
        safetensors or state-dict file. Ignored where `backbone` is a file, which holds
        the weights. For a function, "DEFAULT" starts from the weights of the module it
        returns.

    optimizer : {"adamw", "sgd"}, default="adamw"
        How gradients become steps: AdamW, or gradient descent with `momentum`.

    learning_rate : float or "auto", default="auto"
        Largest learning rate of the last layer. "auto" is 2e-3, for "sgd" 0.01; half of
        it from random weights in a network without normalisation layers, whose units
        may die.

    body_learning_rate_multiplier : float or "auto", default="auto"
        Learning rate of the other layers, relative to `learning_rate` (the paper's f).
        "auto" is the paper's 0.1, but more for networks of images of less than a
        million weights: 100,000 over their number, at most 1; and 1 for text. 0 leaves
        them as they are, and makes the last layer a linear probe in closed form: each
        sample passes the network once, and what is about steps and epochs has no
        effect, nor have `augment` and `early_stopping`.

    epochs : int or "auto", default="auto"
        Passes over the training data, at most. "auto" is 20 of them, but at least 200
        steps; where the body learns at the full rate, as from random weights, 40, and
        at least 400 steps; at most 2,000 steps, and at least one pass.

    batch_size : int, default=16
        Samples per step, about: batches are made equal and never hold one sample.

    schedule : {"cosine", "step", "constant"}, default="cosine"
        How the learning rate falls after the warm-up: along half a cosine to 0; by
        `gamma` after each `step_size`; not at all.

    warmup : float, default=0.1
        Share of all steps in which the learning rate rises to its largest.

    max_grad_norm : float or None, default=1.0
        Gradients of a larger norm are cut to this one; None leaves them.

    momentum : float, default=0.9
        Momentum of "sgd".

    weight_decay : float, default=0.01
        Decay of the weights by "adamw", or L2 penalty for "sgd" (there, mostly 1e-4).

    step_size : float, default=1/3
        Share of the epochs after which "step" multiplies the rate, again and again ...

    gamma : float, default=0.1
        ... by this.

    head_init : {"zero", "probe", "random"}, default="zero"
        How the last layer starts: at zero (for multilabel targets, its bias at the log
        odds of the labels), which leaves trained layers alone until it has learned
        something; as a linear probe on the features of trained weights, its penalty
        chosen by leaving one sample out, in closed form (batch normalisation then keeps
        its statistics); or at random.

    scale_features : bool, default=True
        Whether the last layer sees features divided by their root mean square, so that
        it depends on no accident of the network how far a step moves. The trained
        network has the division in the weights of that layer.

    early_stopping : bool, default=False
        Keep a part of the data for validation, stop when `monitor` has not improved for
        `n_iter_no_change` epochs, and return to the best epoch.

    validation_fraction : float, default=0.1
        Share of the samples kept for validation, if `early_stopping`: at least one,
        spread over the classes by their sizes, but never the last one of a class; with
        `groups`, whole groups.

    n_iter_no_change : int, default=10
        Epochs to wait for an improvement, if `early_stopping`.

    monitor : {"loss", "score"}, default="loss"
        What `early_stopping` looks at, on the validation part.

    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss, as in scikit-learn. Not for multilabel
        targets.

    augment : {"crop", "shift", "flip", "color"}, sequence of these, or None, \
            default=None
        Random changes to each training image: a part of at least half its area, a shift
        by up to an eighth of its side, mirrored left and right (not for digits or
        writing), brightness, contrast and saturation. Only for images.

    image_size : int, default=None
        Side of the images given to the network, in pixels; None for the size that the
        checkpoint or the network was made for, and for text. Smaller is faster. Images
        are resized and cropped as :class:`~sklearn_p2l.DatasetEmbedder` says.

    precision : {"auto", "float32", "bfloat16", "float16"}, default="auto"
        Mixed precision of the forward and backward pass; "auto" is bfloat16 where
        the device has instructions for it.

    device : str or torch.device, default="auto"
        Torch device; "auto" is the GPU if there is one, else the CPU.

    random_state : int, RandomState instance or None, default=None
        Decides initial weights, order and augmentation. An int makes training
        reproducible on one device; on a GPU, as far as PyTorch has deterministic
        versions of the operations in the network.

    checkpoint_folder : str or path-like, default=None
        Folder for the state of a training, written after epochs, in at most a twentieth
        of the time: one that was killed or interrupted, called again with the same data
        and an int as `random_state`, goes on from there, to the same result. Trainings
        may share it. The state is deleted at the end.

    verbose : int, default=0
        1 shows a progress bar over epochs. The logger "sklearn_p2l.tuning" is told
        about each epoch in any case, at level INFO.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels; for multilabel targets the numbers of the labels.

    history_ : list of dict
        One record per epoch: "epoch", "learning_rate" (at its begin), "train_loss",
        "seconds", and with early stopping "validation_loss" and "validation_score". A
        linear probe has one record, whose validation is by leaving one sample out.

    interrupted_ : bool
        Whether the keyboard stopped training early.

    converged_ : bool
        Whether the network is better than always giving the same answer.

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
        "optimizer": [StrOptions({"adamw", "sgd"})],
        "learning_rate": [
            Interval(Real, 0, None, closed="neither"),
            StrOptions({"auto"}),
        ],
        "body_learning_rate_multiplier": [
            Interval(Real, 0, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "epochs": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "schedule": [StrOptions({"cosine", "step", "constant"})],
        "warmup": [Interval(Real, 0, 1, closed="left")],
        "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "step_size": [Interval(Real, 0, 1, closed="right")],
        "gamma": [Interval(Real, 0, 1, closed="right")],
        "head_init": [StrOptions({"zero", "probe", "random"})],
        "scale_features": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "monitor": [StrOptions({"loss", "score"})],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "augment": [str, list, tuple, None],
        "image_size": [Interval(Integral, 1, None, closed="left"), None],
        "precision": [StrOptions({"auto", "float32", "bfloat16", "float16"})],
        "device": "no_validation",  # a torch.device, too, without importing torch
        "random_state": ["random_state"],
        "checkpoint_folder": [str, os.PathLike, None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        backbone="small_resnet",
        *,
        weights=None,
        optimizer="adamw",
        learning_rate="auto",
        body_learning_rate_multiplier="auto",
        epochs="auto",
        batch_size=16,
        schedule="cosine",
        warmup=0.1,
        max_grad_norm=1.0,
        momentum=0.9,
        weight_decay=0.01,
        step_size=1 / 3,
        gamma=0.1,
        head_init="zero",
        scale_features=True,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        monitor="loss",
        class_weight=None,
        augment=None,
        image_size=None,
        precision="auto",
        device="auto",
        random_state=None,
        checkpoint_folder=None,
        verbose=0,
    ):
        self.backbone = backbone
        self.weights = weights
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.body_learning_rate_multiplier = body_learning_rate_multiplier
        self.epochs = epochs
        self.batch_size = batch_size
        self.schedule = schedule
        self.warmup = warmup
        self.max_grad_norm = max_grad_norm
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.step_size = step_size
        self.gamma = gamma
        self.head_init = head_init
        self.scale_features = scale_features
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.monitor = monitor
        self.class_weight = class_weight
        self.augment = augment
        self.image_size = image_size
        self.precision = precision
        self.device = device
        self.random_state = random_state
        self.checkpoint_folder = checkpoint_folder
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, sample_weight=None, groups=None):
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

        groups : array-like of shape (n_samples,), default=None
            Samples of one group are never on both sides of the split by which
            `early_stopping` validates. None takes those of a Task.

        Returns
        -------
        self : object
            Fitted classifier.

        Raises
        ------
        ValueError
            If weights do not fit their architecture, there is only one class, labels
            are absent, or an image cannot be used.

        Warns
        -----
        ConvergenceWarning
            If training has not learned anything: at the end its loss is not below that
            of always giving the shares of the classes, or its validation is no better
            than the most frequent class. Also if it was interrupted.
        """
        networks = load_networks()
        check_settings(self)
        X, y, groups = as_labelled(X, y, groups)
        targets, classes, y_type = encode(X, y)
        weight = weights_of_samples(sample_weight, self.class_weight, targets, classes)
        vars(self).pop("weights_", None)  # not fitted until trained again
        self.classes_, self.y_type_ = classes, y_type
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        network, inputs = self._open(networks, X, targets, weight, seed)
        validation = self._validation_part(targets, weight, groups, seed)
        recipe = recipe_of(self, networks, network, len(targets) - len(validation))
        self.body_learning_rate_multiplier_ = recipe.body_multiplier
        n_records = 1 if recipe.freezes_body else recipe.epochs  # a probe has one
        with progress_of(self, n_records) as report:
            run = networks.train(
                network,
                inputs,
                networks.Loss(targets, weight, networks.choose_device(self.device)),
                recipe,
                validation=validation,
                score=score_logits,
                report=report,
                seed=seed,
                folder=self.checkpoint_folder,
            )
        self.history_, self.interrupted_ = run.history, run.interrupted
        self.converged_ = run.converged
        self.n_samples_ = run.n_samples
        self.weights_ = networks.get_weights(network.model)
        self._metadata, self._network = network.metadata, network
        self._n_features_out = network.num_features
        self._warn(run, recipe)
        return self

    def _open(self, networks, X, targets, weight, seed):
        """The network with its last layer replaced, and the samples as its input."""
        network = networks.open_network(
            self.backbone,
            weights=self.weights,
            image_size=self.image_size,
            seed=seed,
            samples=X,
        )
        network.reset_classifier(
            len(self.classes_),
            zero=self.head_init != "random",
            bias_init=log_odds(targets, weight) if self._multilabel else None,
            seed=seed,
        )
        self.image_size_ = network.image_size
        self.backbone_ = network.metadata.get("architecture", self.backbone)
        batches = network.read(X, self.batch_size)
        return network, network.prepare(batches, len(targets))

    def _validation_part(self, targets, weight, groups, seed):
        if not self.early_stopping:
            return np.empty(0, dtype=np.int64)
        rows = np.arange(len(targets))
        if weight is not None:  # samples of weight 0 are worth nothing there, either
            rows = np.flatnonzero(weight)
        groups = None if groups is None else np.asarray(groups)[rows]
        rng = np.random.RandomState(seed)
        part = validation_part(targets[rows], self.validation_fraction, rng, groups)
        validation = rows[part]
        if not len(validation):
            warnings.warn(
                "No sample can be spared for validation, as each class has only one "
                "sample, or group: early stopping is off; give more samples, or pass "
                "early_stopping=False.",
                UserWarning,
                stacklevel=4,
            )
        return validation

    def _warn(self, run, recipe):
        if run.interrupted:
            go_on = "Call fit again to train it from the start."
            if self.checkpoint_folder is not None:
                go_on = f"Call fit again to go on, by {self.checkpoint_folder}."
            warn_of_convergence(
                f"Training was interrupted after {len(run.history)} of {recipe.epochs} "
                "epochs; the classifier is fitted with the weights it has reached. "
                + go_on
            )
            return
        if run.without_probe:
            warnings.warn(
                f"{self.backbone_} cannot be a linear probe, as its last layer has no "
                "bias, or more than that layer makes its outputs: that layer starts at "
                "zero, and is trained by steps.",
                UserWarning,
                stacklevel=4,
            )
        if not run.converged:
            validated = run.loss < run.constant_loss
            what = "is no better in validation" if validated else "has learned no more"
            remedy = (
                "another learning_rate (a tenth or ten times "
                f"{recipe.learning_rate:g}), more epochs (there were "
                f"{len(run.history)}) or another start"
            )
            if recipe.freezes_body and not run.without_probe:
                remedy = "another start, or a body_learning_rate_multiplier above 0"
            elif not self.scale_features:
                remedy = f"scale_features=True, {remedy}"
            warn_of_convergence(
                f"Training {what} than always giving the shares of the classes: the "
                f"loss at the end is {run.loss:.4g}, that of the shares "
                f"{run.constant_loss:.4g}. Pass {remedy}, and check the labels."
            )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.classifier_tags.multi_label = True
        tags.target_tags.multi_output = False
        tags.non_deterministic = self.random_state is None
        tags.no_validation = True
        return tags
