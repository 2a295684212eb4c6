"""What all rankers of sources share: SourceSelector and the baselines."""

from numbers import Integral

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_p2l._arrays import TracedArray
from sklearn_p2l.catalog import (
    Source,
    SourceCatalog,
    check_same_fingerprint,
    fingerprint_of,
)
from sklearn_p2l.divergence import pairwise_divergence
from sklearn_p2l.metrics import align_columns, spearman_score

# Vectors nearer than this (cityblock) are the same, stored in another precision.
_SAME_VECTOR = 1e-6


class RankingMixin:
    """Mixin of estimators that score sources by ``_scores(X)``.

    They have `sources`, `sizes` and `metric` (None for those that do not look at X),
    and where there is a metric, `epsilon` and `exclude_self`.
    """

    def decision_function(self, X):
        """Compute the score E of every source for every target.

        Parameters
        ----------
        X : array-like of shape (n_targets, n_features)
            Summaries of the targets, or with ``metric="precomputed"`` their distances
            from the sources.

        Returns
        -------
        E : ndarray of shape (n_targets, n_sources)
            Scores, higher is better, columns in the order of ``sources_.names``. They
            compare sources of one target; they do not measure an improvement.
        """
        check_is_fitted(self)
        scores = self._scores(self._check_targets(X))
        return TracedArray(scores, origin=tuple(self.source_labels_.tolist()))

    def predict(self, X):
        """Rank the sources for every target.

        Parameters
        ----------
        X : array-like of shape (n_targets, n_features)
            As in `decision_function`.

        Returns
        -------
        ranking : ndarray of str of shape (n_targets, n_sources)
            Names of the sources, best first: ``[:, 0]`` are the picks. Equal scores
            keep the order of the catalog. Sources given as an array have no names and
            are ranked by their index, as int.
        """
        E = np.asarray(self.decision_function(X))
        self._check_pick(E)
        return self.source_labels_[np.argsort(-E, axis=1, kind="stable")]

    def predict_top(self, X, n_top=5):
        """Name the best sources for every target, without ranking the others.

        Parameters
        ----------
        X : array-like of shape (n_targets, n_features)
            As in `decision_function`.

        n_top : int, default=5
            How many to name, at most as many as there are.

        Returns
        -------
        ranking : ndarray of str of shape (n_targets, n_top)
            The first columns of what `predict` returns.

        Raises
        ------
        ValueError
            If `n_top` is not between 1 and the number of sources.
        """
        E = np.asarray(self.decision_function(X))
        n_sources = E.shape[1]
        if not isinstance(n_top, Integral) or not 1 <= n_top <= n_sources:
            raise ValueError(
                f"n_top must be an integer from 1 to {n_sources}, the number of "
                f"sources, got {n_top!r}."
            )
        best = np.empty((len(E), n_top), dtype=np.intp)
        for row, scores in zip(best, E):
            lowest = np.partition(scores, n_sources - n_top)[n_sources - n_top]
            candidates = np.flatnonzero(scores >= lowest)  # more, where scores tie
            order = np.argsort(-scores[candidates], kind="stable")
            row[:] = candidates[order[:n_top]]
        self._check_pick(E)
        return self.source_labels_[best]

    def score(self, X, y, sample_weight=None):
        """Compute the mean Spearman correlation of E with measured improvements.

        Parameters
        ----------
        X : array-like of shape (n_targets, n_features)
            As in `decision_function`.

        y : array-like or DataFrame of shape (n_targets, n_sources), or array-like of \
                shape (n_sources,)
            Measured improvements, NaN where not measured; columns of a DataFrame are
            matched by name. One row, given 1-D or as a Series, holds for every target.

        sample_weight : array-like of shape (n_targets,), default=None
            Weights of the targets.

        Returns
        -------
        score : float
            Mean over targets, between -1 and 1; over the `top` best measured sources
            of each target, where the ranker has such a parameter and it is given.
        """
        E = self.decision_function(X)
        if np.ndim(y) == 1:
            y = y.to_frame().T if hasattr(y, "to_frame") else [y]
            y = np.tile(align_columns(y, self.source_labels_.tolist()), (len(E), 1))
        y = check_improvements(y, self.source_labels_, X)
        y = np.where(np.isneginf(E), np.nan, y)  # no candidates, such as the target
        top = getattr(self, "top", None)
        return spearman_score(y, E, top=top, sample_weight=sample_weight)

    def _check_pick(self, E):
        """Tell where the pick is arbitrary; baselines are meant to be as they are."""

    def _check_targets(self, X, *, reset=False):
        """Check X, and with `reset` learn the sources; return X as an array."""
        precomputed = self.metric == "precomputed"
        # Who takes no metric does not look at X, unless it is to hold the sources.
        any_values = self.metric is None and self.sources is not None
        fingerprint = None if precomputed else fingerprint_of(X)
        given = X
        if precomputed and hasattr(X, "columns"):
            names = X.columns if reset else self.source_labels_.tolist()
            if reset and isinstance(self.sources, SourceCatalog):
                names = self.sources.names
            given = _reorder(X, list(names))
            X = given.to_numpy()
        if not reset:
            check_same_fingerprint(fingerprint, self.fingerprint_, "X")
        X = validate_data(
            self,
            X,
            dtype=[np.float64, np.float32],
            reset=reset,
            ensure_all_finite="allow-nan" if precomputed or any_values else True,
        )
        if reset:
            given = given if hasattr(given, "columns") else X
            self.sources_, self.source_labels_ = as_catalog(
                self.sources, self.sizes, given, fingerprint, precomputed=precomputed
            )
            check_same_fingerprint(fingerprint, self.sources_.fingerprint, "X")
            self.fingerprint_ = self.sources_.fingerprint or fingerprint
        return X

    def _divergences(self, X):
        """D(t, s), with NaN where a target may not use a source."""
        catalog, epsilon = self.sources_, float(self.epsilon)
        if self.metric == "precomputed":
            D = _check_distances(X, len(catalog))
            return np.where(D == 0, np.nan, D) if self.exclude_self else D
        if catalog.n_features == 0:
            raise ValueError(
                f"sources must have vectors for metric={self.metric!r}, got a catalog "
                "without; pass metric='precomputed' and distances as X."
            )
        if X.shape[1] != catalog.n_features:
            raise ValueError(
                "X must have as many features as the vectors of the sources "
                f"({catalog.n_features}), got {X.shape[1]}; embed targets and sources "
                "with one fitted DatasetEmbedder."
            )
        D = pairwise_divergence(
            X, catalog.embeddings, metric=self.metric, epsilon=epsilon
        )
        if not np.isfinite(D).all():
            raise ValueError(
                f"metric={self.metric!r} with epsilon={epsilon} is infinite where a "
                "source lacks a feature of a target; pass epsilon > 0."
            )
        if self.exclude_self:
            apart = pairwise_divergence(X, catalog.embeddings, metric="cityblock")
            D[apart <= _SAME_VECTOR] = np.nan
        return D


def as_catalog(sources, sizes, X, fingerprint, *, precomputed=False):
    """Return `sources` as a catalog, and the labels by which they are ranked.

    None stands for the rows of X, or for its columns where X holds distances. Rows
    (columns) of a DataFrame are named by its index (columns), if that holds unique
    str or int, and all others by their position.
    """
    if (
        isinstance(sources, (list, tuple))
        and sources
        and isinstance(sources[0], Source)
    ):
        raise ValueError(
            "sources must be a SourceCatalog or an array, got a list of Source; pass "
            "SourceCatalog(sources)."
        )
    if isinstance(sources, SourceCatalog):
        if sizes is not None:
            raise ValueError(
                "sizes must be None where sources is a SourceCatalog, which brings its "
                "own sizes."
            )
        return sources, np.array(sources.names)
    if precomputed:
        if sources is not None:
            raise ValueError(
                "sources must be a SourceCatalog or None for metric='precomputed', got "
                "an array; X holds the distances already."
            )
        vectors, index = None, getattr(X, "columns", None)
        n_sources = X.shape[1]
    else:
        vectors = X if sources is None else sources
        if sources is not None:
            fingerprint = fingerprint_of(sources)
        index = getattr(vectors, "index", None) if hasattr(vectors, "columns") else None
        n_sources = len(vectors)
        if index is not None and hasattr(X, "columns"):
            if list(X.columns) != list(vectors.columns):
                raise ValueError(
                    "the columns of X must be those of sources, in their order, got "
                    "others; pass X[sources.columns]."
                )
    labels = np.arange(n_sources)
    if index is not None and index.is_unique:
        if any(all(isinstance(v, kind) for v in index) for kind in (str, Integral)):
            labels = np.array(list(index))
    catalog = SourceCatalog.from_arrays(
        None if vectors is None else np.asarray(vectors),
        sizes=np.ones(n_sources, dtype=int) if sizes is None else sizes,
        names=[str(label) for label in labels],
        fingerprint=fingerprint,
    )
    return catalog, labels


def check_improvements(y, labels, X):
    """Return y with its columns in the order of `labels`, one row per row of X."""
    n_targets = len(X)
    if hasattr(X, "columns") and hasattr(y, "columns"):
        rows, targets = list(y.index), list(X.index)
        if rows != targets and sorted(map(str, rows)) == sorted(map(str, targets)):
            raise ValueError(
                "the rows of y must be in the order of those of X, got the same names "
                "in another order; pass y.loc[X.index]."
            )
    y = align_columns(y, labels.tolist())
    if len(y) != n_targets:
        raise ValueError(
            f"y must have one row per target, got {len(y)} rows for {n_targets} "
            "targets in X."
        )
    return y


def zscore(values, mean=None, spread=None):
    """Scale each row to mean 0 and standard deviation 1, skipping NaN (then 0).

    Rows without spread become 0. Rounding keeps sources that are equal but for
    round-off, such as one vector under two names, exactly tied.
    """
    known = ~np.isnan(values)
    values = np.where(known, values, 0.0)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    if mean is None:
        mean = values.sum(axis=1, keepdims=True) / count
    deviation = np.where(known, values - mean, 0.0)
    if spread is None:
        spread = np.sqrt((deviation**2).sum(axis=1, keepdims=True) / count)
    flat = spread <= 1e-12 * np.maximum(1.0, np.abs(values).max(axis=1, keepdims=True))
    return np.round(deviation / np.where(flat, np.inf, spread), 10)


def _reorder(X, names):
    """Put the columns of a DataFrame of distances into the order of the sources."""
    if len(set(X.columns)) == len(X.columns) and set(X.columns) == set(names):
        return X[list(names)]
    absent = [name for name in names if name not in X.columns]
    unknown = [column for column in X.columns if column not in names]
    raise ValueError(
        "the columns of X must be the names of the sources, each once, got "
        f"{len(X.columns)} columns; absent: {absent[:5]}, unknown: {unknown[:5]}."
    )


def _check_distances(X, n_sources):
    if X.shape[1] != n_sources:
        raise ValueError(
            "X must have one column of distances per source for metric='precomputed' "
            f"({n_sources}), got {X.shape[1]}."
        )
    empty = np.isnan(X).all(axis=1)
    if empty.any():
        raise ValueError(
            "X must hold a distance to at least one source for every target, got none "
            f"in row {int(np.argmax(empty))}; leave that target out."
        )
    return X
