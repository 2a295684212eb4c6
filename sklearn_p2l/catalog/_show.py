"""How a catalog looks: one line, or a table in notebooks."""

import html
import os

import numpy as np

from sklearn_p2l.catalog._source import is_published_name

# Sources of a longer catalog that notebooks show.
_ROWS_SHOWN = 20


def one_line(catalog):
    """Return a catalog's repr: how much it holds, and its first sources."""
    shown = [
        name if np.isnan(size) else f"{name} ({_number(size)})"
        for name, size in zip(catalog.names[:6], catalog.sizes[:6].tolist())
    ]
    columns = _own_columns(catalog)
    parts = [_count(catalog), _features(catalog)]
    if columns:
        parts.append(f"column{'s' * (len(columns) > 1)} {_cut(columns)}")
    return f"SourceCatalog({', '.join(parts)}: {_cut(shown, len(catalog))})"


def table(catalog):
    """Return a catalog as HTML, the first sources of a long one."""
    columns = _own_columns(catalog)
    heads = ("name", "size", "architecture", "n_classes", "checkpoint", *columns)
    shown = [catalog[j] for j in range(min(len(catalog), _ROWS_SHOWN))]
    some = any(source.embedding is not None for source in shown)
    lacks = some and any(source.embedding is None for source in shown)
    heads = (*heads, "vector") if lacks else heads
    rows = ""
    for source in shown:
        checkpoint = source.checkpoint
        if checkpoint and not is_published_name(checkpoint):
            checkpoint = os.path.basename(checkpoint)
        rows += _row(
            "td",
            source.name,
            _number(source.size),
            source.architecture,
            source.n_classes,
            checkpoint,
            *(_number(source.columns[column]) for column in columns),
            *(["unknown" if source.embedding is None else "known"] if lacks else []),
        )
    if len(catalog) > _ROWS_SHOWN:
        rows += _row("td", f"and {len(catalog) - _ROWS_SHOWN:,} more")
    origin = catalog.fingerprint or "an unknown reference network"
    caption = f"{_count(catalog)}, {_features(catalog)}"
    caption += f" of {origin}" if catalog.n_features else ""
    return (
        f"<table><caption>{html.escape(caption)}</caption><thead>{_row('th', *heads)}"
        f"</thead><tbody>{rows}</tbody></table>"
    )


def _own_columns(catalog):
    return [c for c in catalog.column_names if c not in ("size", "n_classes")]


def _count(catalog):
    return f"{len(catalog):,} source{'s' * (len(catalog) != 1)}"


def _features(catalog):
    n = catalog.n_features
    return f"{n:,} feature{'s' * (n != 1)}" if n else "no vectors"


def _cut(words, n_words=None):
    """Join words, the first five of more than six."""
    if max(len(words), n_words or 0) > 6:
        words = [*words[:5], "..."]
    return ", ".join(words)


def _number(value):
    if value is None:
        return None
    return f"{value:,.0f}" if value % 1 == 0 else f"{value:,.4g}"


def _row(tag, *cells):
    cells = ["" if cell is None else html.escape(str(cell)) for cell in cells]
    return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"
