"""What a job does: one training, judged."""

from numbers import Integral

import numpy as np
from sklearn.base import clone
from sklearn.metrics import check_scoring

from sklearn_p2l._compat import _safe_indexing, load_networks
from sklearn_p2l.ground_truth._splits import split_task
from sklearn_p2l.samples import take
from sklearn_p2l.task import Task
from sklearn_p2l.tuning import (
    epochs_of,
    start_from,
    without_convergence_warnings,
)


def measure_cell(*, task, source, estimator, test_size, scoring, n_steps, known):
    """Train M(t, s), or M(t, ∅) for source=None, and return its record."""
    seed = known["seed"]
    train, test = split_task(task, test_size, seed, "the target")
    if train is None:
        X, y, groups = task.X, task.y, task.groups
        X_test, y_test = task.X_test, task.y_test
    else:
        X, y = take(task.X, train), _safe_indexing(task.y, train)
        groups = None if task.groups is None else _safe_indexing(task.groups, train)
        X_test, y_test = take(task.X, test), _safe_indexing(task.y, test)
    estimator = clone(estimator).set_params(random_state=seed, verbose=0)
    if source is not None:
        start_from(estimator, source)
    fit(estimator, Task(X, y, groups), n_steps)
    return known | {
        "performance": performance(estimator, scoring, X_test, y_test),
        "n_train": len(y),
        "n_test": len(y_test),
        **training_record(estimator),
    }


def train_source(
    *, name, task, estimator, checkpoint, random_state, scoring, n_steps, known
):
    """Train a source, write its weights, return its record."""
    estimator = clone(estimator).set_params(random_state=random_state, verbose=0)
    fit(estimator, task, n_steps)
    source = estimator.to_source(name, checkpoint=checkpoint)
    score = None
    if task.X_test is not None:
        score = performance(estimator, scoring, task.X_test, task.y_test)
    return known | {
        "performance": score,
        "size": source.size,
        "architecture": source.architecture,
        "n_classes": source.n_classes,
        **training_record(estimator),
    }


def fit(estimator, task, n_steps):
    """Train for about so many steps, if not for the estimator's epochs."""
    if n_steps is not None:
        estimator.set_params(epochs=epochs_of(estimator, len(task), n_steps))
    with without_convergence_warnings():  # the record tells
        estimator.fit(task)
    if estimator.interrupted_:  # what it had by then is no result
        raise KeyboardInterrupt


def performance(estimator, scoring, X, y):
    value = float(check_scoring(estimator, scoring)(estimator, X, y))
    if not np.isfinite(value):
        raise ValueError(f"the performance must be finite, got {value}.")
    return value


def training_record(estimator):
    return {
        "epochs": len(estimator.history_),
        "train_loss": estimator.history_[-1]["train_loss"],
        "converged": estimator.converged_,
        "device": str(load_networks().choose_device(estimator.device)),
    }


def check_n_steps(n_steps):
    """Check a number of steps before anything is trained for so many."""
    whole = isinstance(n_steps, Integral) and not isinstance(n_steps, bool)
    if n_steps is not None and not (whole and n_steps >= 1):
        raise ValueError(
            f"n_steps must be a number of steps from 1, or None, got {n_steps!r}."
        )


def check_scoring_of(estimator, scoring):
    """Check a scorer before anything is trained for it."""
    if not (scoring is None or isinstance(scoring, str) or callable(scoring)):
        raise ValueError(
            "scoring must be the name of one scorer, a scorer or None, got "
            f"{scoring!r}."
        )
    check_scoring(estimator, scoring)
