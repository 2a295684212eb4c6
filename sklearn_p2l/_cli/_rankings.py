"""``p2l embed``, ``p2l rank`` and ``p2l learn-k``: vectors, and what they tell."""

import numpy as np

from sklearn_p2l._cli._evidence import rank_by_evidence
from sklearn_p2l._cli._reading import (
    check_effects,
    check_some_source,
    load_catalog,
    read_improvements,
    read_k,
)
from sklearn_p2l._cli._tables import json_line, pairs, ranking_lines
from sklearn_p2l._cli._vectors import embedded, embedder_options, read_datasets
from sklearn_p2l.catalog import SourceCatalog
from sklearn_p2l.selection import SourceSelector, explain


def embed(args):
    """Print the vectors of datasets."""
    records = embedded(read_datasets(args.datasets), embedder_options(args))
    return map(json_line, records)


def rank(args):
    """Rank the sources for datasets."""
    catalog, zoo = load_catalog(args.catalog)
    if args.top is not None and not 1 <= args.top <= len(catalog):
        raise ValueError(
            f"--top must be from 1 to {len(catalog)}, the number of sources, got "
            f"{args.top}."
        )
    _check_evidence_options(args)
    if args.evidence:
        return rank_by_evidence(args, catalog, zoo)
    k, metric = k_and_metric(args, zoo)
    selector = checked_selector(
        catalog, k=k, metric=metric, exclude_self=args.exclude_self
    )
    records = read_datasets([args.dataset])
    rankings = ranked(selector, records, embedder_options(args, zoo))
    lines = []
    for record, rows in zip(records, rankings):
        check_some_source(args, record["name"], rows)
        if args.format == "table":
            lines += ["" for _ in lines[:1]]  # between tables
        lines += ranking_lines(
            args,
            catalog,
            record["name"],
            rows,
            head={"k": k, "metric": metric},
            remark=f" (equation 2, k = {k:.6g}, {metric})",
        )
    return lines


def _check_evidence_options(args):
    check_effects(
        args,
        [
            ("improvements", args.evidence, "with --evidence"),
            ("targets", args.evidence, "with --evidence"),
            ("targets", "improvements" in args, "with --improvements"),
            ("opened", args.evidence, "with --evidence"),
            ("k", not args.evidence, "without --evidence"),
            ("metric", not args.evidence, "without --evidence"),
        ],
    )


def k_and_metric(args, zoo):
    """k and metric of a command; of the zoo's sources k is learned where not given."""
    k, metric = read_k(vars(args).get("k", "-1"), vars(args).get("metric"))
    if zoo is not None and "k" not in args:
        selector = SourceSelector(zoo.sources, metric=metric)
        k = float(selector.fit(zoo.vectors, zoo.improvements).k_)
    return k, metric


def checked_selector(catalog, **parameters):
    """Make a selector that has checked its parameters and the catalog."""
    any_target = np.ones((1, max(1, catalog.n_features)))
    return SourceSelector(catalog, **parameters).fit(any_target)


def ranked(selector, records, options):
    """Return the rows of a ranking, best first, for each of the datasets."""
    catalog, metric = selector.sources_, selector.metric
    records = embedded(records, options, catalog, metric)
    X = np.array([record["embedding"] for record in records])
    rankings = [[] for _ in records]
    for row in explain(selector, X, as_frame=False):
        rankings[row.pop("target")].append(row)
    return rankings


def learn_k(args):
    """Learn k from measured improvements."""
    catalog = SourceCatalog.load(args.catalog)
    targets, improvements = read_improvements(args.improvements, catalog.names)
    selector = checked_selector(
        catalog, k=-1.0, metric=args.metric or "kl", top=args.top_sources
    )
    records = read_datasets(args.datasets)
    names = [record["name"] for record in records]
    for n, what in [(0, "no dataset is"), (2, "several datasets are")]:
        if wrong := [t for t in targets if min(names.count(t), 2) == n]:
            raise ValueError(
                f"every row of {args.improvements} must have one dataset: {what} named "
                f"{', '.join(wrong)}; there are {', '.join(names)}."
            )
    records = [records[names.index(target)] for target in targets]
    options = embedder_options(args)
    records = embedded(records, options, catalog, selector.metric)
    X = np.array([record["embedding"] for record in records])
    selector.set_params(k="auto").fit(X, improvements)
    low, high = selector.k_interval_
    spearman = selector.k_curve_[:, 2].max()
    if args.format == "json":
        result = {
            "k": selector.k_,
            "interval": [low, high],
            "spearman": spearman,
            "metric": selector.metric,
            "n_targets": len(targets),
        }
        return [json_line(result)]
    return pairs(
        {
            "k": f"{selector.k_:.6g}",
            "interval": f"{low:.6g} to {high:.6g}",
            "mean Spearman correlation on these targets": f"{spearman:.3f}",
            "metric": selector.metric,
            "number of targets": str(len(targets)),
        }
    )
