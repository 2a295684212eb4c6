"""Which samples of a task are trained on, and which it is judged by."""

import numpy as np
from sklearn.model_selection import (
    GroupShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    train_test_split,
)
from sklearn.utils import Bunch


def split_quarters(y, *, groups=None, target_share=0.1, random_state=None):
    """Split one domain as the paper does, into a source and a target (section 4.1).

    Of four equal parts the first trains the source, the second validates it, a tenth
    of the third is the target, and the fourth validates the target.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Class labels; every part gets its share of each class.

    groups : array-like of shape (n_samples,), default=None
        Samples of one group all fall into the same part.

    target_share : float, default=0.1
        Share of the third part that becomes the target.

    random_state : int, RandomState instance or None, default=None
        Decides who falls where.

    Returns
    -------
    parts : Bunch
        Indices `source`, `source_validation`, `target` and `target_validation`, each
        an ndarray in ascending order.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_p2l.ground_truth import split_quarters
    >>> parts = split_quarters(np.repeat([0, 1], 200), random_state=0)
    >>> {name: len(part) for name, part in parts.items()}
    {'source': 100, 'source_validation': 100, 'target': 10, 'target_validation': 100}
    """
    y = np.asarray(y)
    folds = StratifiedKFold if groups is None else StratifiedGroupKFold
    folds = folds(4, shuffle=True, random_state=random_state)
    quarters = [part for _, part in folds.split(np.zeros(len(y)), y, groups)]
    target, _ = train_test_split(
        quarters[2],
        train_size=target_share,
        stratify=y[quarters[2]],
        random_state=random_state,
    )
    return Bunch(
        source=quarters[0],
        source_validation=quarters[1],
        target=np.sort(target),
        target_validation=quarters[3],
    )


def split_task(task, test_size, seed, what):
    """Indices of the training and test part; None where the task is split already."""
    if task.X_test is not None:
        return None, None
    if not 0 < test_size < 1:
        raise ValueError(f"test_size must be between 0 and 1, got {test_size!r}.")
    y = np.asarray(task.y)
    rows = np.arange(len(y))
    try:
        if task.groups is None:
            stratify = y if y.ndim == 1 else None
            return train_test_split(
                rows, test_size=test_size, stratify=stratify, random_state=seed
            )
        if y.ndim > 1:
            folds = GroupShuffleSplit(1, test_size=test_size, random_state=seed)
            return next(folds.split(rows, y, task.groups))
        n_folds = max(2, round(1 / min(test_size, 1 - test_size)))
        folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
        larger, smaller = next(folds.split(rows, y, task.groups))
        return (larger, smaller) if test_size <= 0.5 else (smaller, larger)
    except ValueError as error:
        raise ValueError(f"{what} cannot be split: {error}") from error
