"""Signals: what is known of a source and a target, each by a short function.

To add one that needs no network of a source, write a function of `Known` that returns
values (n_targets, n_sources), higher being better, and one that says what is lacking;
name the two in `_SIGNALS`. Scores of a source's own features are in `_opened`.
"""

from dataclasses import dataclass

import numpy as np

from sklearn_p2l.catalog import SourceCatalog, has_weights
from sklearn_p2l.divergence import METRICS
from sklearn_p2l.selection._opened import SCORES
from sklearn_p2l.selection._ranker import divergences_from
from sklearn_p2l.task import Task


@dataclass(frozen=True)
class Targets:
    """Targets in the forms that signals need; None where a form is not at hand."""

    n: int
    #: (n_targets, n_features)
    vectors: np.ndarray | None = None
    tasks: list | None = None
    #: Whether vectors can be had, though they are not here yet.
    can_be_embedded: bool = False

    def __len__(self):
        return self.n


@dataclass(frozen=True)
class Known:
    """What signals are made of."""

    catalog: SourceCatalog
    targets: Targets
    #: Of each source, (n_sources,); None without measured improvements.
    prior: np.ndarray | None


def _size(known):
    return np.log(known.catalog.sizes)


def _size_lacks(known):
    if np.isnan(known.catalog.sizes).any():
        return "signal 'size' needs the sizes of all sources"
    return None


def _prior(known):
    return known.prior


def _prior_lacks(known):
    if known.prior is None:
        return "signal 'prior' needs measured improvements: pass y to fit"
    return None


_SIGNALS = {"size": (_size, _size_lacks), "prior": (_prior, _prior_lacks)}


def has_known_sign(name):
    """Tell whether more of a signal is known to be better; of a column it is not."""
    return name in {*_SIGNALS, *METRICS, *SCORES}


def values_of(name, known):
    """Values of a signal that opens no network, (n_targets, n_sources)."""
    if name in METRICS:
        vectors = known.targets.vectors
        return -divergences_from(known.catalog, vectors, metric=name)
    if name in _SIGNALS:
        of_sources = _SIGNALS[name][0](known)
    else:
        of_sources = np.asarray(known.catalog.column(name), dtype=np.float64)
    return np.tile(of_sources, (len(known.targets), 1))


def lacking(name, known):
    """What a signal needs and has not, as a sentence; None if it has all."""
    catalog, targets = known.catalog, known.targets
    if name in _SIGNALS:
        return _SIGNALS[name][1](known)
    if name in METRICS:
        if catalog.n_features == 0 or not catalog.has_embedding.all():
            return f"signal {name!r} needs vectors of all sources"
        if targets.vectors is None and not targets.can_be_embedded:
            return (
                f"signal {name!r} needs vectors of targets: pass an embedder, or "
                "vectors as X"
            )
        return None
    if name in SCORES:
        without = [source.name for source in catalog if not has_weights(source)]
        if without:
            return (
                f"signal {name!r} needs the checkpoints of all sources, which are not "
                f"there for {without[:5]}"
            )
        if not all(isinstance(task, Task) for task in targets.tasks or [None]):
            return f"signal {name!r} needs targets with labels: pass Tasks as X"
        return None
    if name not in catalog.column_names:
        known_names = [*_SIGNALS, *METRICS, *SCORES, *catalog.column_names]
        return f"signals must be some of {known_names}, got {name!r}"
    return None
