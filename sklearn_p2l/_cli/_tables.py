"""Results as lines: tables for people, JSON for programs."""

import json
import math


def json_line(record):
    """Return a record as a line of JSON, which knows no NaN and no infinity."""
    return json.dumps(_plain(record))


def table(header, *rows):
    """Return aligned columns as lines, numbers to the right."""
    lines = [[cell(value) for value in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    is_text = [any(isinstance(v, str) for v in column) for column in zip(*rows)]
    return [
        "  ".join(
            text.ljust(width) if left else text.rjust(width)
            for text, width, left in zip(line, widths, is_text)
        ).rstrip()
        for line in lines
    ]


def ranking_lines(args, catalog, target, rows, *, head, remark=""):
    """Return a ranking as lines: a title and a table, or one line with `head` in it.

    The table leaves out terms that are 0 of all sources, such as those without weight.
    """
    rows = rows[: args.top]
    if args.format == "json":
        for row in rows:
            row["checkpoint"] = catalog[row["source"]].checkpoint
        return [json_line({"target": target} | head | {"ranking": rows})]
    shown = [key for key in rows[0] if {cell(row[key]) for row in rows} != {"0.000"}]
    header = [key.removesuffix("_term").replace("_", " ") for key in shown]
    cells = ([row[key] for key in shown] for row in rows)
    return [f"sources for {cell(target)}{remark}", *table(header, *cells)]


def pairs(record):
    """Return a record as lines, one for each of its items."""
    return table(*([key, cell(value)] for key, value in record.items()))


def cell(value):
    """Return a value as the text of one cell."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, str):
        return value if value.isprintable() else repr(value)
    return f"{round(value, 3) + 0.0:,.3f}" if isinstance(value, float) else f"{value:,}"


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
