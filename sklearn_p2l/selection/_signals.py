"""Signals: what is known of a source and a target, each by a short function.

To add one that needs no network of a source, write a function of `Known` that returns
values (n_targets, n_sources) or (n_sources,), higher being better, and one that says
what is lacking; name the two in `_SIGNALS`. Scores of a source's own features are in
`_opened`.
"""

from dataclasses import dataclass, field
from numbers import Real

import numpy as np
from scipy.linalg import orth
from sklearn.metrics import pairwise_distances

from sklearn_p2l.catalog import SourceCatalog, has_weights
from sklearn_p2l.divergence import METRICS, NON_NEGATIVE
from sklearn_p2l.selection._opened import SCORES
from sklearn_p2l.selection._ranker import divergences_from, zscore
from sklearn_p2l.selection._weights import prior_of
from sklearn_p2l.task import Task


@dataclass(frozen=True)
class Targets:
    """Targets in the forms that signals need; None where a form is not at hand."""

    n: int
    #: (n_targets, n_features)
    vectors: np.ndarray | None = None
    #: Of each target, (n_means, n_features) or None.
    class_means: tuple | None = None
    tasks: list | None = None
    #: Which sources may be used, (n_targets, n_sources); known with the vectors.
    candidates: np.ndarray | None = None
    #: Whether vectors, and with them class means, can be had, but are not here yet.
    can_be_embedded: bool = False
    can_have_class_means: bool = False
    #: Of the reference network behind the vectors, where known.
    fingerprint: str | None = None
    #: By name, what the signals of opened networks are known to be.
    scores: dict = field(default_factory=dict)

    def __len__(self):
        return self.n


def are_vectors(X):
    """Tell vectors of targets from a list of datasets."""
    if isinstance(X, (list, tuple)):
        return bool(len(X)) and all(
            isinstance(row, (list, tuple)) and all(isinstance(v, Real) for v in row)
            for row in X
        )
    return hasattr(X, "shape")


@dataclass(frozen=True)
class Measured:
    """What the sources gained on the training targets."""

    #: z-scored improvements and which of them were measured, (n_training, n_sources).
    z: np.ndarray
    known: np.ndarray
    #: Of the training targets, (n_training, n_features), or None.
    vectors: np.ndarray | None

    @classmethod
    def of(cls, improvements, vectors=None):
        return cls(zscore(improvements), ~np.isnan(improvements), vectors)

    def for_sources(self, names, others):
        """The same for a catalog of others, matched by name."""
        where = {name: j for j, name in enumerate(names)}
        columns = [where.get(name, -1) for name in others]
        known = self.known[:, columns] & (np.array(columns) >= 0)
        return Measured(self.z[:, columns], known, self.vectors)

    def prior(self, *, nested=False):
        """Of all training targets, (1, n_sources); nested, of all but each."""
        n = len(self.z)
        weights = 1 - np.eye(n) if nested else np.ones((1, n))
        return prior_of(self.z, self.known, weights)


@dataclass(frozen=True)
class Known:
    """What signals are made of."""

    catalog: SourceCatalog
    targets: Targets
    #: None without measured improvements.
    measured: Measured | None
    #: Whether the targets are those that were measured: each learns from the others.
    nested: bool = False


def _size(known):
    return np.log(known.catalog.sizes)


def _size_lacks(known):
    if np.isnan(known.catalog.sizes).any():
        return "signal 'size' needs the sizes of all sources"
    return None


def _prior(known):
    return known.measured.prior(nested=known.nested)


def _similar_targets(known):
    """The prior, to which a training target counts the more, the more alike it is."""
    measured, vectors = known.measured, known.targets.vectors
    if measured.vectors.shape[1] != vectors.shape[1]:
        raise ValueError(
            "X must have as many features as the training targets, "
            f"{measured.vectors.shape[1]}, got {vectors.shape[1]}."
        )
    D = pairwise_distances(vectors, measured.vectors)
    if known.nested:
        np.fill_diagonal(D, np.inf)
    weights = np.zeros(D.shape)
    for row, distances in zip(weights, D):
        others = np.isfinite(distances)
        if others.any():
            nearest = distances.min()
            spread = np.median(distances[others]) - nearest
            row[:] = np.exp((nearest - distances) / max(_REACH * spread, 1e-12))
    return prior_of(measured.z, measured.known, weights)


def _measured_lacks(name, known):
    if known.measured is None:
        return f"signal {name!r} needs measured improvements: pass y to fit"
    return None


def _vectors_lack(name, known):
    if known.targets.vectors is None and not known.targets.can_be_embedded:
        return (
            f"signal {name!r} needs vectors of targets: pass an embedder, or "
            "vectors as X"
        )
    return None


def _prior_lacks(known):
    return _measured_lacks("prior", known)


def _similar_targets_lacks(known):
    name = "similar_targets"
    return _measured_lacks(name, known) or _vectors_lack(name, known)


def _separability(known):
    """Share of the spread of a target's class means that a source's classes span."""
    spreads = [means - means.mean(axis=0) for means in known.targets.class_means]
    values = np.zeros((len(spreads), len(known.catalog)))
    for j, means in enumerate(known.catalog.class_means):
        directions = orth((means - means.mean(axis=0)).T, rcond=1e-5)
        for i, spread in enumerate(spreads):
            total = np.sum(spread**2)
            if total > 1e-10 * np.sum(known.targets.class_means[i] ** 2):
                values[i, j] = np.sum((spread @ directions) ** 2) / total
    return values


def _coverage(known):
    """How near a target's class means are to the nearest of a source, on average."""
    sources, targets = known.catalog.class_means, known.targets.class_means
    return -np.array(
        [
            [pairwise_distances(own, means).min(axis=1).mean() for means in sources]
            for own in targets
        ]
    )


def _class_means_lack(known):
    catalog, targets = known.catalog, known.targets
    without = [n for n, m in zip(catalog.names, catalog.class_means) if m is None]
    if without:
        return (
            "signals 'separability' and 'coverage' need the class means of all sources,"
            f" which are not there for {without[:5]}: embed their tasks by "
            "DatasetEmbedder(class_means=True)"
        )
    if targets.class_means is None and not targets.can_have_class_means:
        return (
            "signals 'separability' and 'coverage' need the class means of targets: "
            "pass Tasks as X and an embedder with class_means=True, or its vectors of "
            "tasks as X"
        )
    unlabelled = not all(isinstance(task, Task) for task in targets.tasks or ())
    if unlabelled or any(means is None for means in targets.class_means or ()):
        what = "signals 'separability' and 'coverage'"
        return f"{what} need targets with labels: {_LABELLED}"
    return None


_SIGNALS = {
    "size": (_size, _size_lacks),
    "prior": (_prior, _prior_lacks),
    "similar_targets": (_similar_targets, _similar_targets_lacks),
    "separability": (_separability, _class_means_lack),
    "coverage": (_coverage, _class_means_lack),
}
_LABELLED = "pass Tasks as X, such as [Task.from_folder(folder)] or [Task(images, y)]"
# Those that look at targets through the reference network.
ONE_PASS = {"similar_targets", "separability", "coverage", *METRICS}
# Those that are made of measured improvements.
FROM_MEASURED = {"prior", "similar_targets"}
# How far a training target may be from a target to count for it, as a share of what the
# median one is farther than the nearest. Chosen on the package's zoo; .1 to .5 are as
# good.
_REACH = 0.25


def has_known_sign(name):
    """Tell whether more of a signal is known to be better; of a column it is not."""
    return name in {*_SIGNALS, *METRICS, *SCORES}


def values_of(name, known):
    """Values of a signal that opens no network, (n_targets, n_sources)."""
    if name in METRICS:
        vectors = known.targets.vectors
        return -divergences_from(known.catalog, vectors, metric=name)
    if name in _SIGNALS:
        values = _SIGNALS[name][0](known)
    else:
        values = np.asarray(known.catalog.column(name), dtype=np.float64)
    shape = len(known.targets), len(known.catalog)
    return np.array(np.broadcast_to(values, shape))


def lacking(name, known):
    """What a signal needs and has not, as a sentence; None if it has all."""
    catalog, targets = known.catalog, known.targets
    if name in _SIGNALS:
        return _SIGNALS[name][1](known)
    if name in METRICS:
        if catalog.n_features == 0 or not catalog.has_embedding.all():
            return f"signal {name!r} needs vectors of all sources"
        if name in NON_NEGATIVE and np.min(catalog.embeddings) < 0:
            return (
                f"signal {name!r} needs features without a sign: take another "
                "divergence, such as 'cosine'"
            )
        return _vectors_lack(name, known)
    if name in SCORES:
        without = [source.name for source in catalog if not has_weights(source)]
        if without:
            return (
                f"signal {name!r} needs the checkpoints of all sources, which are not "
                f"there for {without[:5]}"
            )
        labelled = all(isinstance(task, Task) for task in targets.tasks or [None])
        if not labelled and name not in targets.scores:
            return f"signal {name!r} needs targets with labels: {_LABELLED}"
        return None
    if name not in catalog.column_names:
        known_names = [*_SIGNALS, *METRICS, *SCORES, *catalog.column_names]
        return f"signals must be some of {known_names}, got {name!r}"
    return None
