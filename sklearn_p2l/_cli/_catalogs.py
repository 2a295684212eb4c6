"""``p2l catalog``: sources that are added, listed, shown and removed."""

import dataclasses
import json
import os
from pathlib import Path

from sklearn_p2l._cli._reading import check_names, load_or_none
from sklearn_p2l._cli._tables import json_line, pairs, table
from sklearn_p2l._cli._vectors import embedded, embedder_options, read_datasets
from sklearn_p2l._compat import load_networks
from sklearn_p2l.catalog import Source, SourceCatalog, is_published

_LISTED = ("name", "size", "architecture", "n_classes", "checkpoint")


def add(args):
    """Embed a dataset and add it as a source."""
    catalog = load_or_none(args.catalog)
    if catalog is not None and args.name in catalog:
        raise ValueError(f"{args.catalog} has a source {args.name!r} already.")
    # Made before anything is embedded, so that what is wrong with it is found now.
    source = Source(args.name, size=args.size, **_network_of(args))
    records = read_datasets([args.dataset])
    if len(records) != 1:
        raise ValueError(f"{args.dataset} must hold one line, got {len(records)}.")
    size = records[0]["size"] if args.size is None else args.size
    if size is None:
        raise ValueError(
            f"--size must be given: {args.dataset} does not tell how many examples "
            "the source was trained on."
        )
    (record,) = embedded(records, embedder_options(args), catalog, class_means=True)
    settings = record["embedder"]
    source = dataclasses.replace(
        source,
        size=size,
        embedding=record["embedding"],
        class_means=record.get("class_means"),
        fingerprint=record["fingerprint"],
        metadata=settings and {"embedder": settings},
    )
    catalog = load_or_none(args.catalog)  # others may have added to it meanwhile
    catalog = SourceCatalog([source]) if catalog is None else catalog.append(source)
    is_file = source.checkpoint is not None and not is_published(source.checkpoint)
    catalog.save(args.catalog, copy_checkpoints=[source.name] if is_file else False)
    return [f"added {source.name} to {args.catalog}, which now {_count(catalog)}"]


def _network_of(args):
    """Return what is kept of the network of a source, after a try to open it."""
    network = {"architecture": args.architecture, "n_classes": args.n_classes}
    if args.checkpoint is None:
        return network
    network["checkpoint"] = args.checkpoint
    if is_published(args.checkpoint):
        if args.architecture is None:
            raise ValueError(
                f"--architecture must be given: {args.checkpoint} is no file, and so "
                "the name of weights that are published for an architecture."
            )
        return network
    os.stat(args.checkpoint)  # an absent file is told as such
    metadata = load_networks().checkpoint_metadata(args.checkpoint)
    network["architecture"] = args.architecture or metadata.get("architecture")
    if network["architecture"] is None:
        raise ValueError(
            f"--architecture must be given, such as resnet18: {args.checkpoint} does "
            "not name its own."
        )
    load_networks().open_network(network["architecture"], weights=args.checkpoint)
    if args.n_classes is None:
        network["n_classes"] = _count_classes(metadata)
    return network


def _count_classes(metadata):
    """Count the classes that `p2l tune` has written down."""
    try:
        return len(json.loads(metadata["classes"]))
    except (KeyError, ValueError, TypeError):
        return None


def list_(args):
    """List the sources."""
    sources = [_describe(source) for source in SourceCatalog.load(args.catalog)]
    if args.format == "json":
        return map(json_line, sources)
    return table(_LISTED, *([s[key] for key in _LISTED] for s in sources))


def show(args):
    """Show all that is known of one source."""
    catalog = SourceCatalog.load(args.catalog)
    check_names(catalog, args.catalog, [args.name])
    source = catalog[args.name]
    description = _describe(source)
    if args.format == "json":
        vector = None if source.embedding is None else source.embedding.tolist()
        return [json_line(description | {"embedding": vector})]
    for key in ("columns", "metadata"):
        known = description[key]
        description[key] = json.dumps(known) if known else None
    return pairs(description)


def _describe(source):
    keys = (*_LISTED, "columns", "metadata", "fingerprint")
    description = {key: getattr(source, key) for key in keys}
    width = None if source.embedding is None else len(source.embedding)
    return description | {"n_features": width}


def remove(args):
    """Take sources out of a catalog; their checkpoints stay where they are."""
    catalog = SourceCatalog.load(args.catalog)
    names = list(dict.fromkeys(args.names))
    check_names(catalog, args.catalog, names)
    if len(names) == len(catalog):
        raise ValueError(
            f"{args.catalog} must keep at least one source; remove the folder itself "
            "for none."
        )
    rest = catalog.drop(*names)
    rest.save(args.catalog, copy_checkpoints=False)
    removed = f"removed {', '.join(names)} from {args.catalog}"
    lines = [f"{removed}, which now {_count(rest)}"]
    needed = {source.checkpoint for source in rest}
    folder = os.path.abspath(args.catalog)
    for checkpoint in dict.fromkeys(catalog[name].checkpoint for name in names):
        if checkpoint is None or checkpoint in needed or is_published(checkpoint):
            continue
        if Path(checkpoint).is_relative_to(folder) and os.path.exists(checkpoint):
            lines.append(f"no source needs {checkpoint} any more, which is still there")
    return lines


def _count(catalog):
    return f"has {len(catalog)} source{'s' * (len(catalog) > 1)}"
