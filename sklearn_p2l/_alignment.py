"""Names of rows and columns, put into one order."""

import numpy as np
from sklearn.utils import check_array


def last_step(estimator):
    """The ranker within a search, a pipeline or both; any other estimator itself."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    if hasattr(estimator, "named_steps"):
        estimator = last_step(estimator[-1])
    return estimator


def source_labels(estimator):
    """Names of the columns of a fitted ranker's scores; None where it has none."""
    labels = getattr(last_step(estimator), "source_labels_", None)
    return None if labels is None else labels.tolist()


def align_columns(y, names):
    """Return `y` as a float array whose columns follow `names`.

    Columns of a DataFrame are matched by name, and sources it lacks are NaN; an array
    has no names and must have one column per source, in order.
    """
    if not hasattr(y, "columns"):
        y = check_array(
            y, dtype=np.float64, ensure_all_finite="allow-nan", input_name="y"
        )
        if y.shape[1] != len(names):
            raise ValueError(
                "y must have one column per source, in their order, got "
                f"{y.shape[1]} columns for {len(names)} sources; pass a DataFrame "
                "whose columns are source names to match them by name."
            )
        return y
    columns = list(y.columns)
    if len(set(columns)) != len(columns):
        raise ValueError(
            "y must have unique column names, got repeated "
            f"{sorted({c for c in columns if columns.count(c) > 1}, key=str)}."
        )
    position = {name: j for j, name in enumerate(names)}
    unknown = [c for c in columns if c not in position]
    if unknown:
        raise ValueError(
            f"the columns of y must be names of the sources, got unknown {unknown}; "
            f"the sources are {list(names)}."
        )
    values = check_array(
        y.to_numpy(dtype=np.float64), ensure_all_finite="allow-nan", input_name="y"
    )
    aligned = np.full((len(values), len(names)), np.nan)
    aligned[:, [position[c] for c in columns]] = values
    return aligned


def align_improvements(y, names, X):
    """Return y with its columns in the order of `names`, one row per row of X."""
    n_targets = len(X)
    if hasattr(X, "columns") and hasattr(y, "columns"):
        rows, targets = list(y.index), list(X.index)
        if rows != targets and sorted(map(str, rows)) == sorted(map(str, targets)):
            raise ValueError(
                "the rows of y must be in the order of those of X, got the same names "
                "in another order; pass y.loc[X.index]."
            )
    y = align_columns(y, names)
    if len(y) != n_targets:
        raise ValueError(
            f"y must have one row per target, got {len(y)} rows for {n_targets} "
            "targets in X."
        )
    return y


def reorder_columns(X, names):
    """Put the columns of a DataFrame of distances into the order of the sources."""
    if len(set(X.columns)) == len(X.columns) and set(X.columns) == set(names):
        return X[list(names)]
    absent = [name for name in names if name not in X.columns]
    unknown = [column for column in X.columns if column not in names]
    raise ValueError(
        "the columns of X must be the names of the sources, each once, got "
        f"{len(X.columns)} columns; absent: {absent[:5]}, unknown: {unknown[:5]}."
    )


def reorder_rows(values, names):
    """Put a Series or DataFrame whose index holds `names` into their order."""
    if hasattr(values, "loc") and set(values.index) == set(names):
        return values.loc[list(names)]
    return values
