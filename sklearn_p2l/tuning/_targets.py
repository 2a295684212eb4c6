"""Labels as a network learns them: encoded, weighted, and split."""

import numpy as np
from sklearn.utils import check_array, column_or_1d, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from sklearn_p2l.task import check_labels


def encode(X, y):
    """Check labels; return targets, classes and the type of the target.

    Targets are class indices (n_samples,), or an indicator (n_samples, n_labels).
    """
    check_labels(X, y)
    check_classification_targets(y)
    y_type = type_of_target(y, input_name="y")
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


def weights_of_classes(class_weight, targets, classes):
    """Weights of the classes in the loss, as float32; None for equal ones."""
    if class_weight is None:
        return None
    if targets.ndim == 2:
        raise ValueError(
            f"class_weight must be None for multilabel targets, got {class_weight!r}."
        )
    weights = compute_class_weight(class_weight, classes=classes, y=classes[targets])
    return weights.astype(np.float32)


def log_odds(indicator):
    """Log odds of each label, pulled a little towards even.

    From even odds, the first steps would only teach the network that labels are rare,
    and may silence its last rectifiers for good.
    """
    counts = indicator.sum(axis=0)
    return np.log((counts + 0.5) / (len(indicator) - counts + 0.5))


def validation_part(targets, fraction, rng):
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
