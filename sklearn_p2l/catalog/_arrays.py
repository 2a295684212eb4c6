"""Vectors, sizes and columns of all sources, as arrays."""

import numpy as np
from sklearn.utils import check_array

from sklearn_p2l._provenance import check_same_fingerprint, fingerprint_of
from sklearn_p2l.catalog._inputs import check_unique
from sklearn_p2l.catalog._source import (
    check_column_name,
    check_fingerprint,
    check_number,
    check_size,
)


def stack(vectors):
    """Put vectors below one another, rows of NaN where they are unknown."""
    known = [vector for vector in vectors if vector is not None]
    widths = {len(vector) for vector in known}
    if len(widths) > 1:
        raise ValueError(
            "embeddings of all sources must have the same number of features, got "
            f"{sorted(widths)}; embed them with one reference network."
        )
    dtype = np.result_type(*known) if known else np.float64
    stacked = np.full((len(vectors), max(widths, default=0)), np.nan, dtype=dtype)
    for row, vector in zip(stacked, vectors):
        if vector is not None:
            row[:] = vector
    return stacked


def check_embeddings(embeddings, n_sources):
    """Return vectors as an array of floats of its own, and their fingerprint."""
    own = fingerprint_of(embeddings)
    # A memory-mapped file stays one, and its values are checked when compared.
    if isinstance(embeddings, np.memmap):
        if embeddings.ndim != 2 or embeddings.dtype.kind != "f":
            raise ValueError(
                "memory-mapped embeddings must be a 2-D array of floats, got "
                f"{embeddings.dtype} of shape {embeddings.shape}."
            )
        embeddings = embeddings.view()
    else:
        embeddings = check_array(
            embeddings if hasattr(embeddings, "columns") else np.asarray(embeddings),
            dtype=[np.float64, np.float32],
            copy=True,
            ensure_min_features=0,
            ensure_all_finite="allow-nan",
            input_name="embeddings",
        )
        unknown = np.isnan(embeddings)
        partly = unknown.any(axis=1) & ~unknown.all(axis=1)
        if partly.any():
            raise ValueError(
                "embeddings must be finite, or all NaN in a row that is unknown, got "
                f"NaN within row {np.flatnonzero(partly)[0]}."
            )
        if unknown.all():
            embeddings = np.empty((len(embeddings), 0))
    if len(embeddings) != n_sources:
        raise ValueError(
            f"embeddings must have one row per name ({n_sources}), got "
            f"{len(embeddings)}."
        )
    return embeddings, own


def check_content(
    *,
    names,
    sizes,
    embeddings,
    class_means,
    details,
    columns,
    fingerprint,
    unknown=None,
):
    """Check what is not checked source by source; return what a catalog keeps."""
    names = check_unique(names)
    embeddings, own = check_embeddings(embeddings, len(names))
    check_same_fingerprint(own, fingerprint, "embeddings")
    return {
        "names": names,
        "sizes": as_sizes(sizes),
        "embeddings": embeddings,
        "class_means": check_class_means(class_means, embeddings.shape[1]),
        "fingerprint": check_fingerprint(fingerprint) or own,
        "_details": tuple(details),
        "_columns": as_columns(columns),
        "_unknown": unknown or {},
    }


def check_class_means(class_means, n_features):
    """Return class means of all sources, each checked before; None where unknown."""
    checked = tuple(class_means)
    widths = {means.shape[1] for means in checked if means is not None}
    if widths - {n_features}:
        raise ValueError(
            f"class_means must be as wide as embeddings, {n_features}, got "
            f"{sorted(widths)}; embed both with one reference network."
        )
    return checked


def as_sizes(sizes):
    """Return sizes as int64 where all are whole, else as float64, NaN where unknown."""
    sizes = [check_size(size, "sizes") for size in sizes]
    whole = all(isinstance(size, int) and size < 2**63 for size in sizes)
    return np.array(sizes, dtype=np.int64 if whole else np.float64)


def as_columns(columns):
    """Return numeric columns as arrays of floats, NaN where unknown."""
    return {
        check_column_name(key): np.array(
            [check_number(value, f"column {key!r}") for value in values],
            dtype=np.float64,
        )
        for key, values in columns.items()
    }
