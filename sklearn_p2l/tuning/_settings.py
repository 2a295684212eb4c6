"""From the parameters of a classifier to the recipe that networks are trained by."""

import os
from numbers import Integral

from sklearn_p2l._compat import load_networks

# What epochs="auto" stands for; twice as much at the full rate, but for the last.
_EPOCHS, _FEWEST_STEPS, _MOST_STEPS = 20, 200, 2000
# What learning_rate="auto" stands for, but half of it where units may die.
_RATES = {"adamw": 2e-3, "sgd": 0.01}
# What body_learning_rate_multiplier="auto" lies between: the paper's, and 1 for
# networks of up to so many weights.
_SLOWEST, _FULL_RATE_UP_TO = 0.1, 100_000


def check_settings(classifier):
    """Refuse parameters that only together are wrong."""
    known = load_networks().augmentation.CHANGES
    if not all(name in list(known) for name in augmentations(classifier)):
        raise ValueError(
            f"augment must be some of {list(known)} or None, got "
            f"{classifier.augment!r}."
        )
    state = classifier.random_state
    if classifier.checkpoint_folder is not None and not isinstance(state, Integral):
        raise ValueError(
            "random_state must be an int where checkpoint_folder is given, got "
            f"{state}: the same training begins the same way only then."
        )
    if classifier.head_init == "probe" and not is_pretrained(classifier):
        raise ValueError(
            "head_init must be 'zero' or 'random' for random weights, got 'probe': a "
            "probe fits features that training leaves at once; pass weights."
        )


def augmentations(classifier):
    names = classifier.augment
    return (names,) if isinstance(names, str) else tuple(names or ())


def is_pretrained(classifier):
    """Tell whether a training starts from weights that were trained before."""
    backbone = classifier.backbone
    return (
        classifier.weights is not None
        or isinstance(backbone, os.PathLike)
        or load_networks().is_file_name(backbone)
    )


def n_epochs(classifier, n_samples, multiplier):
    """Number of passes over so many samples, where the body has this multiplier."""
    if classifier.epochs != "auto":
        return classifier.epochs
    n_steps = _EPOCHS * _steps_per_epoch(classifier, n_samples)
    n_steps = max(n_steps, _FEWEST_STEPS) * (2 if multiplier > 0.5 else 1)
    return epochs_of(classifier, n_samples, min(n_steps, _MOST_STEPS))


def multiplier_of(classifier, network):
    """By what the learning rate of the body is multiplied.

    "auto" is the paper's 0.1 where a network of images has a million weights and more.
    The fewer it has, the less it can be changed by small steps, and the less is lost by
    large ones: one of a hundred thousand learns at the full rate. So does a PCNN, which
    gains by it on each of the eight targets of benchmarks/relations.
    """
    if not is_pretrained(classifier):
        return 1.0
    if classifier.body_learning_rate_multiplier != "auto":
        return classifier.body_learning_rate_multiplier
    if network.takes != "images":
        return 1.0
    n_weights = sum(p.numel() for p in network.body_parameters())
    return min(1.0, max(_SLOWEST, _FULL_RATE_UP_TO / max(n_weights, 1)))


def epochs_of(classifier, n_samples, n_steps):
    """Number of passes that are about so many steps."""
    return max(1, round(n_steps / _steps_per_epoch(classifier, n_samples)))


def _steps_per_epoch(classifier, n_samples):
    recipe = load_networks().recipe
    return recipe.count_batches(n_samples, classifier.batch_size)


def _learning_rate(classifier, network, pretrained):
    if classifier.learning_rate != "auto":
        return classifier.learning_rate
    rate = _RATES[classifier.optimizer]
    return rate if pretrained or network.normalises else rate / 2


def recipe_of(classifier, networks, network, n_samples):
    """The recipe for a network and so many training samples."""
    c, pretrained = classifier, is_pretrained(classifier)
    multiplier = multiplier_of(c, network)
    return networks.Recipe(
        epochs=n_epochs(c, n_samples, multiplier),
        batch_size=c.batch_size,
        optimizer=c.optimizer,
        learning_rate=_learning_rate(c, network, pretrained),
        body_multiplier=multiplier,
        momentum=c.momentum,
        weight_decay=c.weight_decay,
        schedule=c.schedule,
        warmup=c.warmup,
        step_size=c.step_size,
        gamma=c.gamma,
        max_grad_norm=c.max_grad_norm,
        starts_as_probe=c.head_init == "probe",
        scale_features=c.scale_features,
        pretrained=pretrained,
        patience=c.n_iter_no_change,
        monitor=c.monitor,
        augment=augmentations(c),
        precision=c.precision,
    )
