"""The contract of all rankers of sources: SourceSelector and the baselines."""

from abc import ABCMeta, abstractmethod
from numbers import Integral

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_p2l._alignment import align_columns, align_improvements, reorder_columns
from sklearn_p2l._provenance import check_same_fingerprint, fingerprint_of
from sklearn_p2l.catalog import Source, SourceCatalog
from sklearn_p2l.divergence import EPSILON, NON_NEGATIVE, pairwise_divergence
from sklearn_p2l.metrics import spearman_score

# What is nearer than this is the same dataset, perhaps stored in another precision:
# the cityblock distance of vectors, or a distance that is given.
_SAME = 1e-6


class RankingMixin(metaclass=ABCMeta):
    """Mixin of estimators that score sources as a sum of terms.

    They have `sources`, `sizes` and `metric` (None for those that do not look at X).
    Their own part is `_decision_terms`, and `_order` where it is not by the score.
    """

    @abstractmethod
    def _decision_terms(self, X):
        """Return the terms of E by name, each (n_targets, n_sources), of checked X."""

    def decision_terms(self, X):
        """Compute the terms whose sum is E.

        Parameters
        ----------
        X : array-like of shape (n_targets, n_features)
            As in `decision_function`.

        Returns
        -------
        terms : dict of str to ndarray of shape (n_targets, n_sources)
            The terms by name, such as "size" and "divergence", columns in the order
            of ``source_labels_``.
        """
        check_is_fitted(self)
        return self._decision_terms(self._check_targets(X))

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
            Scores, higher is better, columns in the order of ``source_labels_``. They
            compare sources of one target; they do not measure an improvement.
        """
        return sum(self.decision_terms(X).values())

    def predict(self, X):
        """Rank the sources for every target.

        Parameters
        ----------
        X : array-like of shape (n_targets, n_features)
            As in `decision_function`.

        Returns
        -------
        ranking : ndarray of shape (n_targets, n_sources)
            Names of the sources, best first: ``[:, 0]`` are the picks. Equal scores
            keep the order of the catalog. Sources given as an array have no names and
            are ranked by their index, as int.

        Raises
        ------
        ValueError
            If a target has no source that it may use.
        """
        E = self.decision_function(X)
        _check_candidates(E)
        self._check_pick(E)
        return self._names(self._order(E))

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
        ranking : ndarray of shape (n_targets, n_top)
            The first columns of what `predict` returns.

        Raises
        ------
        ValueError
            If `n_top` is not between 1 and the number of sources.
        """
        E = self.decision_function(X)
        n_sources = E.shape[1]
        if not isinstance(n_top, Integral) or not 1 <= n_top <= n_sources:
            raise ValueError(
                f"n_top must be an integer from 1 to {n_sources}, the number of "
                f"sources, got {n_top!r}."
            )
        _check_candidates(E)
        self._check_pick(E)
        return self._names(self._order(E, n_top))

    def explain(self, X, *, as_frame=True):
        """Rank the sources for every target, and tell what each score is made of.

        Parameters
        ----------
        X : array-like of shape (n_targets, n_features)
            As in `decision_function`.

        as_frame : bool, default=True
            False returns a list of dicts, without pandas.

        Returns
        -------
        ranking : pandas.DataFrame or list of dict
            What :func:`~sklearn_p2l.selection.explain` returns.

        Examples
        --------
        >>> from sklearn_p2l import SourceSelector
        >>> selector = SourceSelector(
        ...     [[8, 1, 1], [1, 8, 1], [1, 1, 8]], sizes=[2_000, 3_000, 9_000], k=-2.0
        ... ).fit([[1, 9, 2]])
        >>> selector.explain([[1, 9, 2]]).round(2)  # doctest: +NORMALIZE_WHITESPACE
           target  rank  source  size     E  size_term  divergence_term  margin
        0       0     1       1  3000  2.45      -0.36             2.81    2.20
        1       0     2       2  9000  0.24       1.37            -1.12    2.93
        2       0     3       0  2000 -2.69      -1.00            -1.69     NaN
        """
        from sklearn_p2l.selection._explain import explain

        return explain(self, X, as_frame=as_frame)

    def _order(self, E, n_top=None):
        """Positions of the sources, best first, all or the first `n_top`.

        -1 stands for no source at all. Everything that ranks goes by this.
        """
        n_sources = E.shape[1]
        if n_top is None or n_top == n_sources:
            return np.argsort(-E, axis=1, kind="stable")
        best = np.empty((len(E), n_top), dtype=np.intp)
        for row, scores in zip(best, E):
            lowest = np.partition(scores, n_sources - n_top)[n_sources - n_top]
            candidates = np.flatnonzero(scores >= lowest)  # more, where scores tie
            order = np.argsort(-scores[candidates], kind="stable")
            row[:] = candidates[order[:n_top]]
        return best

    def _names(self, order):
        """What positions are called; None for no source."""
        if (order < 0).any():
            return np.append(self.source_labels_.astype(object), None)[order]
        return self.source_labels_[order]

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
        y = align_improvements(y, self.source_labels_.tolist(), X)
        y = np.where(np.isneginf(E), np.nan, y)  # no candidates, such as the target
        top = getattr(self, "top", None)
        return spearman_score(y, E, top=top, sample_weight=sample_weight)

    def _check_pick(self, E):  # noqa: B027
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
            given = reorder_columns(X, list(names))
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


def _check_candidates(E):
    """Refuse to rank what is no candidate, which would look like any other ranking."""
    empty = np.isneginf(E).all(axis=1)
    if empty.any():
        raise ValueError(
            "every target must have a source that may be used, got none for the one "
            f"in row {int(np.argmax(empty))}: with exclude_self=True, a source that is "
            "the target itself is none; add other sources."
        )


class DivergenceMixin:
    """Mixin of rankers that compare targets with sources by a divergence.

    They have `metric`, `epsilon` and `exclude_self` beside what `RankingMixin` asks
    for, and stand before it among the bases.
    """

    def divergences(self, X):
        """Compute the divergence D(t, s) of every target from every source.

        Parameters
        ----------
        X : array-like of shape (n_targets, n_features)
            As in `decision_function`.

        Returns
        -------
        D : ndarray of shape (n_targets, n_sources)
            Lower is nearer; NaN where a source is no candidate for a target.

        Examples
        --------
        >>> from sklearn_p2l import SourceSelector
        >>> selector = SourceSelector(
        ...     [[1, 0], [1, 3]], sizes=[10, 20], metric="cityblock", k=-1.0
        ... )
        >>> selector.fit([[1, 1]]).divergences([[1, 1]])
        array([[1. , 0.5]])
        """
        check_is_fitted(self)
        return self._divergences(self._check_targets(X))

    def _divergences(self, X):
        """D(t, s), with NaN where a target may not use a source."""
        catalog, epsilon = self.sources_, float(self.epsilon)
        if self.metric == "precomputed":
            D = _check_distances(X, len(catalog))
            return np.where(D <= _SAME, np.nan, D) if self.exclude_self else D
        D = divergences_from(catalog, X, metric=self.metric, epsilon=epsilon)
        if self.exclude_self:
            D[are_same(catalog, X)] = np.nan
        return D

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self.metric in NON_NEGATIVE
        tags.input_tags.allow_nan = self.metric == "precomputed"
        return tags


def are_same(catalog, X):
    """Where a source's vector is that of a target, (n_targets, n_sources)."""
    return pairwise_divergence(X, catalog.embeddings, metric="cityblock") <= _SAME


def divergences_from(catalog, X, *, metric, epsilon=EPSILON):
    """D(t, s) of targets from the sources of a catalog, all of which have vectors."""
    if catalog.n_features == 0:
        raise ValueError(
            f"sources must have vectors for metric={metric!r}, got a catalog "
            "without, which has nothing to compare a target with; rank by "
            "EvidenceSelector, which opens their networks instead, or pass "
            "metric='precomputed' and distances as X."
        )
    if not catalog.has_embedding.all():
        absent = [n for n, h in zip(catalog.names, catalog.has_embedding) if not h]
        raise ValueError(
            f"sources must have vectors for metric={metric!r}, got none for "
            f"{absent[:5]}; embed their data, or leave them out: sources[names]."
        )
    if X.shape[1] != catalog.n_features:
        raise ValueError(
            "X must have as many features as the vectors of the sources "
            f"({catalog.n_features}), got {X.shape[1]}; embed targets and sources "
            "with one fitted DatasetEmbedder."
        )
    D = pairwise_divergence(X, catalog.embeddings, metric=metric, epsilon=epsilon)
    if not np.isfinite(D).all():
        raise ValueError(
            f"metric={metric!r} with epsilon={epsilon} is infinite where a "
            "source lacks a feature of a target; pass epsilon > 0."
        )
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


def known_sizes(catalog):
    """The sizes of all sources; an error where one is unknown."""
    unknown = np.isnan(catalog.sizes)
    if unknown.any():
        names = [name for name, absent in zip(catalog.names, unknown) if absent]
        raise ValueError(
            "sources must have sizes, the numbers of examples they were trained on, "
            f"got none for {names[:5]}; give them, or leave these sources out: "
            "sources[names]."
        )
    return catalog.sizes


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
    flat = spread <= 1e-12 * np.abs(values).max(axis=1, keepdims=True)
    return np.round(deviation / np.where(flat, np.inf, spread), 10)


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
