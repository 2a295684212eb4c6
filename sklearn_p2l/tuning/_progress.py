"""How a training is followed: a bar for people, a logger for programs."""

import logging
from contextlib import contextmanager

from sklearn_p2l._compat import progress_bar

_LOGGER = logging.getLogger("sklearn_p2l.tuning")


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
