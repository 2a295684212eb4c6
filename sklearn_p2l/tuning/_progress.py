"""How a training is followed: a bar for people, a logger for programs."""

import logging
import warnings
from contextlib import contextmanager
from contextvars import ContextVar

from sklearn.exceptions import ConvergenceWarning

from sklearn_p2l._compat import progress_bar

# Whether the caller sees for itself that a training has learned nothing. A filter of
# warnings would be that of all threads.
_told_otherwise = ContextVar("told_otherwise", default=False)
_LOGGER = logging.getLogger("sklearn_p2l.tuning")


@contextmanager
def without_convergence_warnings():
    """Let trainings of this thread say nothing of what they have not learned."""
    token = _told_otherwise.set(True)
    try:
        yield
    finally:
        _told_otherwise.reset(token)


def warn_of_convergence(message):
    """Warn the user, two calls up, that a training has not done what it should."""
    if not _told_otherwise.get():
        warnings.warn(message, ConvergenceWarning, stacklevel=5)


@contextmanager
def progress_of(classifier, n_epochs):
    """Show the progress of a training; yields what is told the record of each epoch."""
    name = classifier.backbone_ if isinstance(classifier.backbone_, str) else "network"
    with progress_bar(
        total=n_epochs,
        desc=f"training {name}",
        unit=" epochs",
        disable=not classifier.verbose,
    ) as bar:

        def report(record):
            values = {"loss": record["train_loss"]}
            if "validation_loss" in record:
                values["validation_loss"] = record["validation_loss"]
                values["score"] = record["validation_score"]
            bar.set_postfix({k: f"{v:.4g}" for k, v in values.items()}, refresh=False)
            bar.update(record["epoch"] - bar.n)  # of one that goes on, from there
            told = ", ".join(f"{k} {v:.4g}" for k, v in values.items())
            _LOGGER.info(
                "%s, epoch %d of %d: %s", name, record["epoch"], n_epochs, told
            )

        yield report
