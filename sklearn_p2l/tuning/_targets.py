"""Labels as a network learns them: encoded, weighted, and split."""

import numpy as np
from sklearn.metrics import accuracy_score, average_precision_score
from sklearn.utils import (
    check_array,
    check_consistent_length,
    column_or_1d,
    compute_class_weight,
)
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from sklearn_p2l._compat import _check_sample_weight
from sklearn_p2l.task import check_labels


def encode(X, y):
    """Check labels; return targets, classes and the type of the target.

    Targets are class indices (n_samples,), or an indicator (n_samples, n_labels).
    """
    check_labels(X, y)
    try:
        check_classification_targets(y)
        y_type = type_of_target(y, input_name="y")
    except TypeError as error:
        raise ValueError(
            f"y must hold labels of one type, got several: {error}."
        ) from error
    if y_type == "multilabel-indicator":
        targets = check_array(y, accept_sparse=True, input_name="y")
        targets = targets.toarray() if hasattr(targets, "toarray") else targets
        return targets, np.arange(targets.shape[1]), y_type
    if y_type not in ("binary", "multiclass"):
        raise ValueError(
            "y must be 1-D class labels or a multilabel indicator of 0 and 1, got "
            f"a target of type {y_type!r}."
        )
    classes, targets = np.unique(column_or_1d(y), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"y must have at least two classes, got one: {classes[0]}.")
    return targets, classes, y_type


def weights_of_samples(sample_weight, class_weight, targets, classes):
    """Weights of the samples in the loss, as float32; None for equal ones.

    Where both are given, they multiply.
    """
    if class_weight is not None and targets.ndim == 2:
        raise ValueError(
            f"class_weight must be None for multilabel targets, got {class_weight!r}."
        )
    if sample_weight is not None:
        sample_weight = _check_sample_weight(
            sample_weight, targets, dtype=np.float32, ensure_non_negative=True
        )
    weights = sample_weight
    if class_weight is not None:
        weights = compute_class_weight(
            class_weight, classes=classes, y=classes[targets]
        )
        weights = weights.astype(np.float32)[targets]
        if sample_weight is not None:
            weights = weights * sample_weight
    if weights is not None and not weights.any():
        raise ValueError(
            "sample_weight and class_weight must leave a sample with a weight above 0, "
            "got 0 for all of them."
        )
    return weights


def log_odds(indicator, weight=None):
    """Log odds of each label, pulled a little towards even.

    From even odds, the first steps would only teach the network that labels are rare,
    and may silence its last rectifiers for good.
    """
    if weight is not None:
        indicator = indicator * (weight / weight.mean())[:, None]
    counts = indicator.sum(axis=0)
    return np.log((counts + 0.5) / (len(indicator) - counts + 0.5))


def validation_part(targets, fraction, rng, groups=None):
    """Choose samples for validation, over the classes in proportion to their sizes.

    Whole groups, where there are groups; and never all samples of a class.
    """
    if groups is not None:
        return _groups_for_validation(targets, fraction, rng, groups)
    order = rng.permutation(len(targets))
    n_wanted = max(1, round(fraction * len(targets)))
    if targets.ndim == 2:
        return np.sort(order[: max(0, min(n_wanted, len(targets) - 2))])
    counts = np.bincount(targets)
    share = n_wanted * counts / len(targets)
    chosen = np.clip(share.astype(int), 0, np.maximum(counts - 1, 0))
    # What rounding down has left goes to the classes that lost most by it.
    for index in np.argsort(chosen - share, kind="stable"):
        if chosen.sum() < n_wanted and chosen[index] < counts[index] - 1:
            chosen[index] += 1
    members = [order[targets[order] == index] for index in range(len(counts))]
    parts = [m[:n] for m, n in zip(members, chosen)]
    return np.sort(np.concatenate(parts))


def _groups_for_validation(targets, fraction, rng, groups):
    """Take groups at random, but those without which a class would have no sample.

    A group is passed over, too, where it would take the part further away from the
    size that is wanted; where that leaves none, the smallest is taken.
    """
    check_consistent_length(targets, groups)
    ids = np.unique(np.asarray(groups), return_inverse=True)[1]
    n_classes = 1 if targets.ndim == 2 else targets.max() + 1
    classes = np.zeros(len(targets), int) if targets.ndim == 2 else targets
    counts = np.zeros((ids.max() + 1, n_classes), int)
    np.add.at(counts, (ids, classes), 1)
    left, wanted = counts.sum(axis=0), fraction * len(targets)
    chosen, n = [], 0
    order = rng.permutation(len(counts))
    sizes = counts.sum(axis=1)
    some = left > 0  # (with weights, a class may have no sample at all)
    for group in order:
        nearer = abs(n + sizes[group] - wanted) < abs(n - wanted)
        if nearer and (left - counts[group] > 0)[some].all():
            chosen.append(group)
            left, n = left - counts[group], n + sizes[group]
    if not chosen:
        spared = [g for g in order if (left - counts[g] > 0)[some].all()]
        chosen = sorted(spared, key=lambda group: sizes[group])[:1]
    return np.flatnonzero(np.isin(ids, chosen))


def score_logits(targets, logits, weight=None):
    """Accuracy, or for an indicator the micro-averaged average precision."""
    if targets.ndim == 1:
        return accuracy_score(targets, logits.argmax(axis=1), sample_weight=weight)
    if not targets.any():  # a small part may hold no positive at all
        return 0.0
    return average_precision_score(
        targets, logits, average="micro", sample_weight=weight
    )
