"""How long trainings that are still to do may take."""

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import clone

from sklearn_p2l.ground_truth._records import read_record
from sklearn_p2l.samples import take
from sklearn_p2l.tuning import (
    epochs_of,
    n_epochs,
    start_from,
    without_convergence_warnings,
)


def print_estimate(jobs, what, n_jobs):
    """Print how many trainings there are, and how long those to do may take."""
    records = [read_record(path) for path, *_ in jobs]
    todo = [job for job, record in zip(jobs, records) if record is None]
    known = [r["seconds"] for r in records if r and not r["error"]]
    if known:
        total = np.mean(known) * len(todo)
    else:
        rates = {}
        total = 0.0
        for *_, arguments in todo:
            source, task = arguments["source"], arguments["task"]
            kind = (source is None, None if source is None else source.architecture)
            if kind not in rates:
                rates[kind] = _time_training(arguments)
            seconds, multiplier = rates[kind]
            n, estimator = len(task.y), arguments["estimator"]
            if task.X_test is None:
                n *= 1 - arguments["test_size"]
            n_passes = n_epochs(estimator, round(n), multiplier)
            if arguments["n_steps"] is not None:
                n_passes = epochs_of(estimator, round(n), arguments["n_steps"])
            if multiplier == 0:
                n_passes = 1  # a probe
            total += seconds * n * n_passes
    n_workers = effective_n_jobs(n_jobs)
    minutes = total / n_workers / 60
    print(
        f"{what}: {len(jobs)} cells, {len(jobs) - len(todo)} measured, {len(todo)} to "
        f"do; about {minutes:.1f} minutes with {n_workers} at a time."
    )


def _time_training(arguments):
    """Seconds per sample and pass, and the multiplier of the body's learning rate.

    Of two epochs of training on a few samples, the second one counts.
    """
    source, task = arguments["source"], arguments["task"]
    estimator = clone(arguments["estimator"]).set_params(
        epochs=2,
        early_stopping=False,
        class_weight=None,
        checkpoint_folder=None,
        verbose=0,
    )
    if source is not None:
        start_from(estimator, source)
    order = np.random.RandomState(0).permutation(len(task.y))
    some = order[: 4 * estimator.batch_size]
    y = np.arange(len(some)) % 2  # any labels will do
    with without_convergence_warnings():
        estimator.fit(take(task.X, some), y)
    seconds = estimator.history_[-1]["seconds"] / len(some)
    return seconds, estimator.body_learning_rate_multiplier_
