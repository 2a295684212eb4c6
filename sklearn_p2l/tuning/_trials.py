"""Trials: the first few of a ranking, each trained on a part and judged on the rest."""

import time
import warnings
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.base import clone
from sklearn.metrics import check_scoring
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    check_cv,
)

from sklearn_p2l._compat import (
    _check_method_params,
    _safe_indexing,
    progress_bar,
)
from sklearn_p2l._workers import (
    as_worker,
    no_interrupt_lost,
    replacing_workers,
    this_process,
)
from sklearn_p2l.samples import keeping_images, take
from sklearn_p2l.tuning._progress import without_convergence_warnings

# Below so many samples a single part to validate on says too little.
FEW_SAMPLES = 1000


def trial_splits(y, groups, cv):
    """Parts to train and to validate on: a list of pairs of indices.

    By default three folds; from FEW_SAMPLES on, the first of five alone.
    """
    y = np.asarray(y)
    n, only_first = len(y), cv is None and len(y) >= FEW_SAMPLES
    cv = 5 if only_first else 3 if cv is None else cv
    if isinstance(cv, Integral):
        cv = _folds(y, groups, cv)
    try:
        with warnings.catch_warnings():  # a class may have fewer samples than folds
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            splits = list(check_cv(cv).split(np.zeros(n), y, groups))
    except ValueError as error:
        raise ValueError(
            f"the samples must be split for trials, but cannot be: {error} Pass "
            "another cv, other groups, or n_candidates=1, which tries nothing."
        ) from error
    return splits[:1] if only_first else splits


def _folds(y, groups, n_folds):
    """Folds in proportion to the classes, where these have several samples."""
    largest = n = len(y) if groups is None else len(np.unique(groups))
    if y.ndim == 1:
        largest = np.unique(y, return_counts=True)[1].max()
    if y.ndim == 1 and largest > 1:
        folds = StratifiedKFold if groups is None else StratifiedGroupKFold
        return folds(max(2, min(n_folds, largest, n)))
    if groups is None:  # shuffled, as samples may be sorted by their labels
        return KFold(max(2, min(n_folds, n)), shuffle=True, random_state=0)
    return GroupKFold(max(2, min(n_folds, n)))


@dataclass
class Trial:
    """One estimator, trained on one part."""

    #: Number of the estimator.
    candidate: int
    seconds: float = 0.0
    #: On the other part.
    score: float = np.nan
    log_loss: float = np.nan
    #: Why it could not be tried.
    error: Exception | None = None
    #: What was trained; kept of the first part only.
    trained: object = None
    #: Whether the keyboard stopped its training.
    interrupted: bool = False


def run_trials(
    estimators, X, y, *, splits, images, fit_params, scoring, n_jobs, verbose
):
    """Try each estimator on each split; returns the trials that were made, in order.

    `images`: the folder in which all keep what images became, or None. An interrupt
    ends them; the one that it came in is the last.
    """
    settings = dict(
        images=images,
        fit_params=fit_params,
        scoring=scoring,
        n_workers=effective_n_jobs(n_jobs),
        parent=this_process(),
    )
    jobs = [
        delayed(_try)(index, estimator, X, y, train, test, fold == 0, **settings)
        for index, estimator in enumerate(estimators)
        for fold, (train, test) in enumerate(splits)
    ]
    trials = []
    with (
        replacing_workers(),
        progress_bar(total=len(jobs), desc="trials", disable=not verbose) as bar,
    ):
        try:
            for trial in Parallel(n_jobs=n_jobs, return_as="generator")(jobs):
                trials.append(trial)
                bar.update()
                if trial.interrupted:
                    break
        except KeyboardInterrupt:
            pass
    return trials


def _try(
    candidate,
    estimator,
    X,
    y,
    train,
    test,
    keep,
    *,
    images,
    fit_params,
    scoring,
    n_workers,
    parent,
):
    trial, start = Trial(candidate), time.perf_counter()
    estimator = clone(estimator)
    params = _check_method_params(y, fit_params, train)
    with (
        keeping_images(images),
        as_worker(n_workers, parent, getattr(estimator, "device", None)),
        without_convergence_warnings(),  # its score tells
    ):
        with no_interrupt_lost():
            try:
                estimator.fit(take(X, train), _safe_indexing(y, train), **params)
                trial.interrupted = getattr(estimator, "interrupted_", False)
                X_test, y_test = take(X, test), _safe_indexing(y, test)
                trial.score = _finite(
                    check_scoring(estimator, scoring)(estimator, X_test, y_test)
                )
                trial.log_loss = _log_loss(estimator, X_test, y_test)
                trial.trained = estimator if keep else None
            except Exception as error:  # the others go on, whatever it is
                trial.error = error
    trial.seconds = time.perf_counter() - start
    return trial


def _finite(score):
    if not np.isfinite(score):
        raise ValueError(
            f"the score must be finite, got {score}; pass another scoring."
        )
    return float(score)


def _log_loss(estimator, X, y):
    """Mean log loss; NaN of an estimator that gives no probabilities."""
    if not hasattr(estimator, "predict_log_proba"):
        return np.nan
    logs = np.maximum(estimator.predict_log_proba(X), np.log(1e-15))
    y = np.asarray(y)
    if y.ndim == 2:
        others = np.log1p(-np.minimum(np.exp(logs), 1 - 1e-15))
        return float(-np.where(y, logs, others).sum(axis=1).mean())
    classes = np.asarray(estimator.classes_)
    known = np.isin(y, classes)  # a class of one sample is unknown where it is tested
    columns = np.searchsorted(classes, np.where(known, y, classes[0]))
    values = np.where(known, logs[np.arange(len(y)), columns], np.log(1e-15))
    return float(-values.mean())


def table_of(trials, names, n_splits):
    """One row per candidate: what all of its trials say together, and whether it won.

    The winner has the highest score; of equal ones, the lowest log loss; of equal
    ones, it comes first in the ranking.
    """
    table = []
    for index, name in enumerate(names):
        own = [t for t in trials if t.candidate == index]
        done = [t for t in own if not (t.interrupted or t.error)]
        error = next((t.error for t in own if t.error), None)
        counted = done if len(done) == n_splits else [Trial(index)]  # NaN
        table.append(
            {
                "source": name,
                "score": float(np.mean([t.score for t in counted])),
                "log_loss": float(np.mean([t.log_loss for t in counted])),
                "scores": [t.score for t in done],
                "seconds": sum(t.seconds for t in own),
                "error": None if error is None else f"{type(error).__name__}: {error}",
                "chosen": False,
            }
        )
    complete = [i for i, row in enumerate(table) if not np.isnan(row["score"])]
    if complete:

        def rank(i):
            row = table[i]
            return -round(row["score"], 9), np.nan_to_num(row["log_loss"]), i

        table[min(complete, key=rank)]["chosen"] = True
    return table
