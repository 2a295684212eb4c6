"""What tables and sequences say of sources, put in the order of their names."""

import os
import re
from collections import Counter
from numbers import Integral

import numpy as np

from sklearn_p2l._compat import is_missing
from sklearn_p2l.catalog._source import as_checkpoint, check_details, check_number

_DETAILS = {
    "checkpoint": "checkpoints",
    "architecture": "architectures",
    "n_classes": "n_classes",
    "metadata": "metadata",
}


def check_unique(names):
    """Return the names of a catalog, if there are some and all differ."""
    if not names:
        raise ValueError("a catalog must have at least one source, got none.")
    repeated = sorted(name for name, n in Counter(names).items() if n > 1)
    if repeated:
        raise ValueError(
            f"names of sources must be unique, got {repeated} more than once."
        )
    return tuple(names)


def position_of(names, key):
    """Return the position that a name or a number means."""
    if isinstance(key, str):
        if key not in names:
            raise KeyError(f"no source {key!r}; the sources are {list(names)}.")
        return names.index(key)
    if not isinstance(key, Integral):
        raise TypeError(f"a source must be a name or a position, got {key!r}.")
    if not -len(names) <= key < len(names):
        raise IndexError(f"no source {key}: the catalog has {len(names)}.")
    return range(len(names))[key]


def positions_of(names, key):
    """Return the positions that a slice, a mask or a list means."""
    if isinstance(key, slice):
        positions = list(range(len(names)))[key]
    elif np.asarray(key).dtype == bool:
        if np.shape(key) != (len(names),):
            raise IndexError(
                f"a mask must have one entry per source ({len(names)}), got shape "
                f"{np.shape(key)}."
            )
        positions = np.flatnonzero(key).tolist()
    else:
        positions = [position_of(names, item) for item in key]
    if not positions:
        raise ValueError("a catalog must have at least one source, none selected.")
    return positions


def per_name(argument, values, names):
    """Return one value per name, matched by name where `values` is indexed by them."""
    if values is None or isinstance(values, (str, os.PathLike)):
        return [values] * len(names)
    if hasattr(values, "loc") and any(name in values.index for name in names):
        absent = [name for name in names if name not in values.index]
        if absent:
            raise ValueError(
                f"{argument} must have an entry for every name, got none for {absent}."
            )
        values = values.loc[names]
    if not np.iterable(values) or len(values) != len(names):
        raise ValueError(
            f"{argument} must have one entry per name ({len(names)}), got "
            f"{len(values) if np.iterable(values) else values!r}."
        )
    return values if hasattr(values, "columns") else list(values)


def details_per_name(names, **arguments):
    """Return what a catalog keeps of each source besides numbers and its vector."""
    given = {
        key: per_name(argument, arguments[argument], names)
        for key, argument in _DETAILS.items()
    }
    details = []
    for name, *values in zip(names, *given.values()):
        detail = dict(zip(given, values))
        detail["checkpoint"] = as_checkpoint(name, detail["checkpoint"])
        details.append({**check_details(name, **detail), "unknown": {}})
    return details


def arguments_of_frame(frame, features, columns):
    """Return what SourceCatalog.from_arrays takes, from a DataFrame."""
    if not frame.columns.is_unique:
        raise ValueError("columns of frame must have unique names; rename some.")
    if "name" in frame.columns:
        frame = frame.set_index("name")
    features, columns = _roles(frame, features, columns)
    textual = [c for c in features if frame[c].dtype.kind not in "iuf"]
    if textual:
        raise ValueError(
            f"features in frame must be numeric, got {textual} which are not; pass "
            "features=[...] to say which columns are features."
        )

    def values(column):
        return [None if is_missing(v) else v for v in frame[column]]

    return {
        # Still a DataFrame: the names of its columns tell the reference network.
        "embeddings": frame[features].astype(np.float64) if features else None,
        "sizes": values("size") if "size" in frame.columns else None,
        "names": list(frame.index),
        "columns": {column: values(column) for column in columns},
        **{
            argument: values(column)
            for column, argument in _DETAILS.items()
            if column in frame.columns
        },
    }


def _roles(frame, features, columns):
    """Return which columns of a frame are features, and which numeric columns."""
    others = [c for c in frame.columns if c != "size" and c not in _DETAILS]
    for argument, named in [("features", features), ("columns", columns)]:
        absent = [c for c in ([] if named is None else named) if c not in others]
        if absent:
            raise ValueError(
                f"{argument} must be columns of frame besides size and details, got "
                f"{absent}; there are {others}."
            )
    if features is None:
        features = [c for c in others if _is_feature(c)]
        if not features and columns is not None:
            features = [c for c in others if c not in list(columns)]
        elif not features and others:
            raise ValueError(
                "frame must tell features from other numbers by the names of its "
                f"columns, '<fingerprint>#<number>' or 0, 1, ..., got {others[:5]}; "
                "pass features=[...], or columns=[...] (all others are features then)."
            )
    features = list(features)
    if columns is None:
        columns = [c for c in others if c not in features]
        textual = [c for c in columns if not _is_numeric(frame[c])]
        if textual:
            raise ValueError(
                f"columns of frame must be numeric, got {textual} which are not; pass "
                "columns=[...] to say which to keep."
            )
    both = [c for c in columns if c in features]
    if both:
        raise ValueError(f"columns must not be features as well, got {both}.")
    return features, list(columns)


def _is_feature(column):
    return not isinstance(column, str) or bool(re.fullmatch(r"(.+#)?\d+", column))


def _is_numeric(values):
    try:
        for value in values:
            check_number(value, "")
    except ValueError:
        return False
    return True
