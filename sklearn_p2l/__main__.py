"""The command line: ``p2l``, or ``python -m sklearn_p2l``."""

import argparse
import csv
import dataclasses
import json
import math
import os
import re
import sys
import warnings
from pathlib import Path

import numpy as np

from sklearn_p2l import (
    DatasetEmbedder,
    Source,
    SourceCatalog,
    SourceSelector,
    __version__,
)
from sklearn_p2l.catalog import check_same_fingerprint
from sklearn_p2l.datasets import is_bags, list_images
from sklearn_p2l.divergence import METRICS

# What decides the reference network: kept with vectors and in the metadata of sources.
_REFERENCE = ("backbone", "weights", "layer", "image_size", "summary", "random_state")
_DETAILS = ("name", "size", "architecture", "n_classes", "checkpoint")


def main(argv=None):
    """Run one command and return its exit code; bad input is told on stderr."""
    try:
        args = _parser().parse_args(argv)
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = lambda message, *_: _tell("warning: ", message)
            args.run(args)
        print(end="", flush=True)
        return 0
    except SystemExit as stop:  # argparse has said why
        return stop.code
    except KeyboardInterrupt:
        return _tell("interrupted", code=130)
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.filename and error.strerror:
            error = f"{error.filename}: {error.strerror}"
        return _tell("error: ", error)


def _tell(kind, text="", code=2):
    print(" ".join(f"p2l: {kind}{text}".splitlines()), file=sys.stderr)
    return code


def _embed(args):
    for record in _embedded(_read_datasets(args.datasets), args):
        print(json.dumps(record))


def _add(args):
    catalog = _load_or_none(args.catalog)
    # Made before anything is embedded, so that what is wrong with it is found now.
    source = Source(
        args.name,
        size=1 if args.size is None else args.size,
        embedding=[1.0],
        **{key: getattr(args, key) for key in _DETAILS[2:]},
    )
    if catalog is not None and args.name in catalog:
        raise ValueError(f"{args.catalog} has a source {args.name!r} already.")
    records = _read_datasets([args.dataset])
    if len(records) != 1:
        raise ValueError(f"{args.dataset} must hold one line, got {len(records)}.")
    size = records[0]["size"] if args.size is None else args.size
    if size is None:
        raise ValueError(
            f"--size must be given: {args.dataset} does not tell how many examples "
            "the source was trained on."
        )
    (record,) = _embedded(records, args, catalog)
    settings = record["embedder"]
    source = dataclasses.replace(
        source,
        size=size,
        embedding=record["embedding"],
        fingerprint=record["fingerprint"],
        metadata=settings and {"embedder": settings},
    )
    catalog = _load_or_none(args.catalog)  # others may have added to it meanwhile
    catalog = SourceCatalog([source]) if catalog is None else catalog.append(source)
    catalog.save(args.catalog)
    print(f"added {args.name} to {args.catalog}, which now has {len(catalog)} sources")


def _list(args):
    sources = [_describe(source) for source in _load(args.catalog)]
    if args.format == "json":
        print(*map(json.dumps, sources), sep="\n")
    else:
        _print_table(_DETAILS, *([s[key] for key in _DETAILS] for s in sources))


def _show(args):
    catalog = _load(args.catalog)
    if args.name not in catalog:
        names = ", ".join(catalog.names)
        raise ValueError(f"{args.catalog} has no source {args.name!r}, only {names}.")
    description = _describe(catalog[args.name])
    if args.format == "json":
        vector = catalog[args.name].embedding.tolist()
        print(json.dumps(description | {"embedding": vector}))
    else:
        description["metadata"] = json.dumps(description["metadata"])
        _print_table(*([key, _cell(value)] for key, value in description.items()))


def _describe(source):
    keys = (*_DETAILS, "metadata", "fingerprint")
    description = {key: getattr(source, key) for key in keys}
    return description | {"n_features": len(source.embedding)}


def _rank(args):
    catalog = _load(args.catalog)
    if args.top is not None and not 1 <= args.top <= len(catalog):
        raise ValueError(
            f"--top must be from 1 to {len(catalog)}, the number of sources, got "
            f"{args.top}."
        )
    k, metric = _read_k(args.k, args.metric)
    selector = _checked_selector(catalog, k=k, metric=metric)
    records = _embedded(_read_datasets([args.dataset]), args, catalog)
    X = np.array([record["embedding"] for record in records])
    order = selector.predict(X)
    size_term, divergence_term = selector.decision_terms(X)
    scores = size_term + divergence_term
    column = {name: j for j, name in enumerate(catalog.names)}
    for i, record in enumerate(records):
        ranked = [column[name] for name in order[i]]
        margins = [*(-np.diff(scores[i, ranked])).tolist(), None]
        ranking = [
            {
                "rank": rank,
                "source": catalog.names[j],
                "size": catalog.sizes[j].item(),
                "score": scores[i, j].item(),
                "size_term": size_term[i, j].item(),
                "divergence_term": divergence_term[i, j].item(),
                "margin": margins[rank - 1],
                "checkpoint": catalog[j].checkpoint,
            }
            for rank, j in enumerate(ranked[: args.top], start=1)
        ]
        if args.format == "json":
            head = {"target": record["name"], "k": k, "metric": metric}
            print(json.dumps(head | {"ranking": ranking}))
            continue
        print(end="\n" if i else "")
        print(f"{_cell(record['name'])} (k = {k:.6g}, {metric})")
        header = "rank,source,size,E,size term,divergence term,margin".split(",")
        _print_table(header, *(list(row.values())[:-1] for row in ranking))


def _learn_k(args):
    catalog = _load(args.catalog)
    targets, improvements = _read_improvements(args.improvements, catalog.names)
    selector = _checked_selector(
        catalog, k=-1.0, metric=args.metric or "kl", top=args.top_sources
    )
    records = _read_datasets(args.datasets)
    names = [record["name"] for record in records]
    for n, what in [(0, "no dataset is"), (2, "several datasets are")]:
        if wrong := [t for t in targets if min(names.count(t), 2) == n]:
            raise ValueError(
                f"every row of {args.improvements} must have one dataset: {what} named "
                f"{', '.join(wrong)}; there are {', '.join(names)}."
            )
    records = [records[names.index(target)] for target in targets]
    X = np.array([r["embedding"] for r in _embedded(records, args, catalog)])
    selector.set_params(k="auto").fit(X, improvements)
    low, high = selector.k_interval_
    spearman = selector.k_curve_[:, 2].max()
    if args.format == "json":
        result = {
            "k": selector.k_,
            "interval": [None if math.isinf(end) else end for end in (low, high)],
            "spearman": spearman,
            "metric": selector.metric,
            "n_targets": len(targets),
        }
        print(json.dumps(result))
    else:
        _print_table(
            ["k", f"{selector.k_:.6g}"],
            ["interval", f"{low:.6g} to {high:.6g}"],
            ["mean Spearman correlation on these targets", f"{spearman:.3f}"],
            ["metric", selector.metric],
            ["number of targets", str(len(targets))],
        )


def _checked_selector(catalog, **parameters):
    """Make a selector that has checked its parameters and the catalog."""
    return SourceSelector(catalog, **parameters).fit(catalog.embeddings[:1])


def _load(folder):
    try:
        return SourceCatalog.load(folder)
    except (EOFError, KeyError, TypeError) as error:
        raise ValueError(f"the catalog in {folder} is damaged: {error!r}.") from error


def _load_or_none(folder):
    """Load a catalog; None where there is no folder, or an empty one."""
    empty = os.path.isdir(folder) and not os.listdir(folder)
    return None if empty or not os.path.exists(folder) else _load(folder)


def _read_datasets(datasets):
    """List datasets as `embed` prints them, those without vector with their path."""
    records = []
    for dataset in datasets:
        name, size = os.path.basename(os.path.abspath(dataset)), None
        if is_bags(dataset):
            os.stat(dataset)  # an absent file is an error now, not after other work
            name = re.sub(r"\.tsv(\.gz)?$", "", name, flags=re.IGNORECASE)
        elif dataset == "-" or (os.path.exists(dataset) and not os.path.isdir(dataset)):
            records += _read_vectors(dataset)
            continue
        else:
            size = len(list_images(dataset))
        records.append({"name": name, "size": size, "path": dataset})
    return records


def _read_vectors(path):
    """Read lines that `embed` has printed."""
    records = []
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
        for line in text.rstrip().split("\n"):
            record = json.loads(line)
            if not isinstance(record, dict) or not isinstance(record.get("name"), str):
                raise ValueError("it must be an object with a name")
            vector = record.get("embedding")
            if not isinstance(vector, list) or {*map(type, vector)} - {int, float}:
                raise ValueError("its embedding must be a list of numbers")
            record = {"size": None, "fingerprint": None, "embedder": None} | record
            if not isinstance(record["fingerprint"], (str, type(None))):
                raise ValueError("its fingerprint must be a string or null")
            records.append(record)
    except ValueError as error:
        raise ValueError(
            f"{path} must be a folder of images, a .tsv or .tsv.gz file of bags, or "
            f"lines that p2l embed has printed; line {len(records) + 1}: {error}."
        ) from error
    return records


def _embedded(records, args, catalog=None):
    """Add the vectors that are absent; what does not fit the catalog is an error."""
    ready = [record for record in records if "path" not in record]
    for record in ready:
        width = len(record["embedding"])
        _check_fits(catalog, record["name"], record["fingerprint"], width)
    if len(ready) == len(records):
        return records
    embedder = DatasetEmbedder(random_state=0, verbose=1)
    given = {k: v for k, v in vars(args).items() if k in embedder.get_params()}
    embedder.set_params(**_reference_of(catalog) | given)
    absent = [record for record in records if "path" in record]
    paths = [record.pop("path") for record in absent]
    embedder.fit(paths)
    fingerprint, width = embedder.fingerprint_, embedder.n_features_out_
    _check_fits(catalog, ", ".join(paths), fingerprint, width)
    settings = {key: embedder.get_params()[key] for key in _REFERENCE}
    for key in ("backbone", "weights"):  # files are found from other folders, too
        if settings[key] is not None and os.path.exists(settings[key]):
            settings[key] = os.path.abspath(settings[key])
    for record, vector in zip(absent, embedder.transform(paths).tolist()):
        record |= {"fingerprint": fingerprint, "embedder": settings}
        record["embedding"] = vector
    return records


def _check_fits(catalog, what, fingerprint, width):
    if catalog is not None:
        check_same_fingerprint(fingerprint, catalog.fingerprint, what)
        if width != catalog.n_features:
            raise ValueError(
                f"{what} must have a vector as wide as those of the catalog, "
                f"{catalog.n_features}, got {width}."
            )


def _reference_of(catalog):
    """Return what is known of the reference network of a catalog."""
    for source in reversed(catalog or []):
        kept = source.metadata.get("embedder") if source.metadata else None
        if kept is not None:
            return {key: kept[key] for key in _REFERENCE if key in kept}
    # Without settings, at least the fingerprint begins with the name of the network.
    fingerprint = catalog and catalog.fingerprint
    return {"backbone": fingerprint.split(":")[0]} if fingerprint else {}


def _read_k(text, metric):
    """Return k and metric, from a number or from what `learn-k` has printed."""
    try:
        return float(text), metric or "kl"
    except ValueError:
        pass
    try:
        learned = json.loads(Path(text).read_text("utf-8"))
        k, own_metric = float(learned["k"]), learned["metric"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "--k must be a number or a file of what p2l learn-k --format json has "
            f"printed, got {text}."
        ) from error
    if metric not in (None, own_metric):
        raise ValueError(
            f"--metric must be {own_metric}, with which {text} was learned, got "
            f"{metric}."
        )
    return k, own_metric


def _read_improvements(path, names):
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


def _print_table(header, *rows):
    """Print aligned columns, numbers to the right."""
    lines = [[_cell(value) for value in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    is_text = [any(isinstance(v, str) for v in column) for column in zip(*rows)]
    for line in lines:
        cells = [
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(line, widths, is_text)
        ]
        print("  ".join(cells).rstrip())


def _cell(value):
    if value is None:
        return "-"
    if isinstance(value, str):
        return value if value.isprintable() else repr(value)
    return f"{round(value, 3) + 0.0:,.3f}" if isinstance(value, float) else f"{value:,}"


def _parser():
    parser = argparse.ArgumentParser(
        prog="p2l",
        description="Predict which pre-trained source to fine-tune for a dataset. "
        "Results go to stdout, progress and warnings to stderr; bad input ends with "
        "exit code 2.",
    )
    parser.add_argument("--version", action="version", version=f"p2l {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    embed = commands.add_parser(
        "embed",
        help="print the vectors of datasets, one JSON line each",
        description="Print name, size, fingerprint and vector of each dataset as a "
        "line of JSON, which the other commands take in place of the dataset.",
    )
    _add_datasets(embed, "datasets", nargs="+")
    _add_network_options(embed)
    embed.set_defaults(run=_embed)

    catalog = commands.add_parser("catalog", help="add, list or show sources")
    actions = catalog.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add = actions.add_parser(
        "add",
        help="embed a dataset and add it as a source",
        description="Embed the dataset that a source was trained on and add it to a "
        "catalog, which is made if there is none. The reference network is the one of "
        "the sources that are there, unless options say otherwise.",
    )
    _add_catalog(add)
    add.add_argument("name", metavar="NAME", help="name of the source")
    _add_datasets(add, "dataset")
    add.add_argument(
        "--size",
        type=int,
        help="number of examples the source was trained on (default: the images in "
        "the folder)",
    )
    add.add_argument("--checkpoint", help="file of the trained network, copied")
    add.add_argument("--architecture", help="architecture of the checkpoint")
    add.add_argument("--n-classes", type=int, help="number of classes it knows")
    _add_network_options(add)
    add.set_defaults(run=_add)

    list_ = actions.add_parser("list", help="list the sources")
    _add_catalog(list_)
    _add_format(list_)
    list_.set_defaults(run=_list)
    show = actions.add_parser("show", help="show all that is known of one source")
    _add_catalog(show)
    show.add_argument("name", metavar="NAME", help="name of the source")
    _add_format(show)
    show.set_defaults(run=_show)

    rank = commands.add_parser(
        "rank",
        help="rank the sources for a dataset",
        description="Rank the sources of a catalog for a dataset, best first, by E = "
        "z(log size) + k z(divergence).",
    )
    _add_datasets(rank, "dataset")
    _add_catalog(rank)
    rank.add_argument(
        "--k",
        default="-1",
        help="weight of the divergence: a number, or a file that learn-k has printed "
        "as JSON (default: %(default)s)",
    )
    _add_metric(rank)
    rank.add_argument("--top", type=int, metavar="N", help="print the best N only")
    _add_format(rank)
    _add_network_options(rank)
    rank.set_defaults(run=_rank)

    learn_k = commands.add_parser(
        "learn-k",
        help="learn k from measured improvements",
        description="Learn k from a CSV file of improvements: a row for each target, "
        "named in the first column, and a column for each measured source, named as "
        "in the catalog; empty where not measured.",
    )
    learn_k.add_argument("improvements", metavar="CSV", help="measured improvements")
    _add_catalog(learn_k)
    _add_datasets(learn_k, "datasets", nargs="+")
    _add_metric(learn_k)
    learn_k.add_argument(
        "--top-sources",
        type=int,
        metavar="N",
        help="judge by the N best measured sources of each target only",
    )
    _add_format(learn_k)
    _add_network_options(learn_k)
    learn_k.set_defaults(run=_learn_k)
    return parser


def _add_catalog(parser):
    parser.add_argument("catalog", metavar="CATALOG", help="folder of a SourceCatalog")


def _add_datasets(parser, name, **settings):
    parser.add_argument(
        name,
        metavar="DATASET",
        help="folder of images, .tsv or .tsv.gz file of bags of sentences, or file of "
        "what embed has printed (- for stdin)",
        **settings,
    )


def _add_format(parser):
    parser.add_argument(
        "--format",
        choices=["table", "json"],
        default="table",
        help="json: full precision, one line each (default: %(default)s)",
    )


def _add_metric(parser):
    parser.add_argument(
        "--metric", choices=sorted(METRICS), help="the divergence (default: kl)"
    )


def _add_network_options(parser):
    """Add the parameters of DatasetEmbedder; without a value, its default holds."""
    group = parser.add_argument_group("options of the reference network")
    defaults = DatasetEmbedder(random_state=0).get_params()

    def add(flag, text, **settings):
        name = flag.strip("-").replace("-", "_")
        default = f" (default: {defaults[name]})" if defaults.get(name) else ""
        settings = {"default": argparse.SUPPRESS, "help": text + default} | settings
        group.add_argument(flag, **settings)

    add("--backbone", "torchvision architecture, pcnn, small_resnet or checkpoint")
    add("--weights", "DEFAULT, none (random), or a file", type=_weights)
    add("--layer", "node whose output is summarised (default: before the last layer)")
    add("--image-size", "side of the images, in pixels", type=int)
    add("--summary", "statistic", choices=["mean", "trimmed_mean", "median"])
    add("--random-state", "seed of random weights and samples", type=int)
    add("--max-samples", "samples read: a number, auto or none", type=_samples)
    add("--batch-size", "samples per forward pass", type=int)
    add("--precision", "float32, bfloat16, float16 or auto")
    add("--device", "cpu, cuda or auto")
    add("--n-jobs", "datasets embedded at the same time", type=int)
    add("--memory", "folder where summaries are kept, to embed each dataset once")
    add(
        "--skip-unreadable",
        "leave out what cannot be read, with a warning",
        dest="on_error",
        action="store_const",
        const="skip",
    )
    add("--quiet", "no progress", dest="verbose", action="store_const", const=0)


def _weights(text):
    return None if text.lower() == "none" else text


def _samples(text):
    if text.lower() in ("auto", "none"):
        return "auto" if text.lower() == "auto" else None
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
