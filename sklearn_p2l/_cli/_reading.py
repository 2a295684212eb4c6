"""What commands read: catalogs, a weight k, measured improvements."""

import csv
import json
import math
import os
import warnings
from pathlib import Path

import numpy as np

from sklearn_p2l.catalog import SourceCatalog
from sklearn_p2l.datasets import load_zoo


def load_catalog(path):
    """Load a catalog; where none is named, the zoo of the package, with its catalog."""
    if path is not None:
        return SourceCatalog.load(path), None
    zoo = load_zoo()
    return zoo.sources, zoo


def load_or_none(folder):
    """Load a catalog; None where there is no folder, or an empty one."""
    empty = os.path.isdir(folder) and not os.listdir(folder)
    return None if empty or not os.path.exists(folder) else SourceCatalog.load(folder)


def check_names(catalog, folder, names):
    """Refuse names of sources that a catalog has not."""
    if unknown := [name for name in names if name not in catalog]:
        raise ValueError(
            f"{folder} has no source {', '.join(map(repr, unknown))}, only "
            f"{', '.join(catalog.names)}."
        )


def check_effects(args, rules):
    """Refuse options that would have no effect.

    `rules`: names of options, whether they have one, and where they would.
    """
    for name, has_effect, where in rules:
        if name in args and not has_effect:
            raise ValueError(f"--{name} must be given only {where}.")


def check_some_source(args, target, rows):
    """Refuse a ranking of nothing."""
    if not rows:
        raise ValueError(
            f"--exclude-self leaves no source for {target}: all of "
            f"{args.catalog or 'the zoo'} are {target} itself."
        )


def read_k(text, metric):
    """Return k and metric, from a number or from what `learn-k` has printed."""
    try:
        k, own_metric = float(text), metric or "kl"
    except ValueError:
        k, own_metric = _read_learned(text)
    if not math.isfinite(k):
        raise ValueError(f"--k must be a finite number, got {k}; pass -1 if in doubt.")
    if metric not in (None, own_metric):
        raise ValueError(
            f"--metric must be {own_metric}, with which {text} was learned, got "
            f"{metric}."
        )
    if k > 0:
        warnings.warn(
            f"--k {text} prefers distant sources, as every positive k does; near ones "
            "are preferred by a negative one, such as -1.",
            UserWarning,
            stacklevel=2,
        )
    return k, own_metric


def _read_learned(path):
    try:
        learned = json.loads(Path(path).read_text("utf-8"))
        return float(learned["k"]), learned["metric"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "--k must be a number or a file of what p2l learn-k --format json has "
            f"printed, got {path}."
        ) from error


def read_improvements(path, names):
    """Read target names, and improvements with columns in the order of `names`."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
        if len(lines) < 2 or len(lines[0]) < 2:
            raise ValueError("got no rows, or no commas")
        (_, *sources), *rows = lines
        targets = [target for target, *_ in rows]
        if unknown := [source for source in sources if source not in names]:
            raise ValueError(
                f"there are no sources {', '.join(unknown)}, only {', '.join(names)}"
            )
        if len({*sources}) < len(sources) or len({*targets}) < len(targets):
            raise ValueError("a name of a source or of a target is repeated")
        improvements = np.full((len(rows), len(names)), np.nan)
        for row, (target, *cells) in zip(improvements, rows):
            if len(cells) != len(sources):
                raise ValueError(f"row {target} has {len(cells)} cells")
            for source, cell in zip(sources, cells):
                row[names.index(source)] = float(cell or "nan")
        if np.isinf(improvements).any():
            raise ValueError("got infinity")
    except (ValueError, csv.Error) as error:
        raise ValueError(
            f"{path} must be a CSV file in UTF-8 with a column of target names, then a "
            f"column of numbers or nothing for each source: {error}."
        ) from error
    return targets, improvements
