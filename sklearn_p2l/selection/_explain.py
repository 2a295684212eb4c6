"""A ranking as rows: what each score is made of, for tables, commands and displays."""

import numpy as np

from sklearn_p2l._compat import import_pandas
from sklearn_p2l.selection._pipeline import ranker_and_vectors


def explain(estimator, X, *, targets=None, as_frame=True):
    """Rank the sources for every target, and tell what each score is made of.

    Parameters
    ----------
    estimator : estimator
        A fitted ranker, a pipeline that ends in one, or a grid search over either.

    X : array-like of shape (n_targets, n_features), or sequence of datasets
        What the estimator takes.

    targets : sequence, default=None
        Names of the targets; None takes the index of a DataFrame, else the numbers of
        the rows.

    as_frame : bool, default=True
        False returns a list of dicts, without pandas.

    Returns
    -------
    ranking : pandas.DataFrame or list of dict
        One row per target and candidate, best first, with the columns "target", "rank"
        (from 1), "source",
        "size", "E", one for each of its terms, such as "size_term" and
        "divergence_term" (their sum is E), and "margin", by how much E is above that
        of the next source; of an EvidenceSelector that has learned from improvements
        also "p_best", the chance of being the best.

    Raises
    ------
    ImportError
        If pandas is not installed, for ``as_frame=True``.

    See Also
    --------
    sklearn_p2l.plotting.RankingDisplay : The same as a picture.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn_p2l import DatasetEmbedder, SourceSelector
    >>> from sklearn_p2l.selection import explain
    >>> selector = SourceSelector([[8, 1], [1, 8]], sizes=[20, 300], k=-2.0)
    >>> pipeline = make_pipeline(DatasetEmbedder(), selector)
    >>> features = np.array([[1.0, 9.0], [3.0, 5.0]])
    >>> explain(pipeline.fit([features]), [features])[["source", "E", "margin"]]
       source    E  margin
    0       1  3.0     6.0
    1       0 -3.0     NaN
    """
    pd = import_pandas() if as_frame else None
    ranker, X = ranker_and_vectors(estimator, X)
    rows = _rows(ranker, X, targets)
    return pd.DataFrame(rows) if as_frame else rows


def chances_of_best(ranker, X):
    """P(best) of each source (n_targets, n_sources), of a ranker that can tell."""
    can_tell = hasattr(ranker, "noise_") and not ranker._some_stay_closed
    return ranker.predict_proba(X) if can_tell else None


def _rows(ranker, X, targets):
    terms = ranker.decision_terms(X)
    E = sum(terms.values())
    ranker._check_pick(E)
    chances = chances_of_best(ranker, X)
    if targets is None:
        targets = X.index if hasattr(X, "columns") else range(len(E))
    rows = []
    for i, (target, order) in enumerate(zip(targets, ranker._order(E))):
        order = order[(order >= 0) & np.isfinite(E[i, order])]
        margins = np.append(-np.diff(E[i, order]), np.nan)
        rows += [
            {
                "target": target,
                "rank": rank,
                "source": ranker.source_labels_[j].item(),
                "size": ranker.sources_.sizes[j].item(),
                "E": E[i, j].item(),
                **{f"{name}_term": term[i, j].item() for name, term in terms.items()},
                "margin": margin.item(),
                **({} if chances is None else {"p_best": chances[i, j].item()}),
            }
            for rank, (j, margin) in enumerate(zip(order, margins), start=1)
        ]
    return rows
