"""Datasets as vectors: those that `embed` has printed, and those still to be made."""

import json
import os
import re
import sys
import warnings
from pathlib import Path

import numpy as np

from sklearn_p2l._provenance import check_same_fingerprint
from sklearn_p2l.divergence import NON_NEGATIVE
from sklearn_p2l.embedding import DatasetEmbedder
from sklearn_p2l.exceptions import SignedFeaturesWarning
from sklearn_p2l.samples import BAGS, are_parts, list_images
from sklearn_p2l.task import Task

# What decides the reference network: kept with vectors and in the metadata of sources.
_REFERENCE = ("backbone", "weights", "layer", "image_size", "summary", "random_state")


def read_datasets(datasets):
    """List datasets as `embed` prints them, without a vector where it is to be made."""
    records = []
    for dataset in datasets:
        name, size = os.path.basename(os.path.abspath(dataset)), None
        if BAGS.recognises(dataset):
            os.stat(dataset)  # an absent file is an error now, not after other work
            name = re.sub(r"\.tsv(\.gz)?$", "", name, flags=re.IGNORECASE)
        elif dataset == "-" or (os.path.exists(dataset) and not os.path.isdir(dataset)):
            records += _read_vectors(dataset)
            continue
        else:
            size = len(list_images(dataset))
            _check_no_split(dataset)
        records.append({"name": name, "size": size, "dataset": dataset})
    return records


def _check_no_split(folder):
    parts = [entry.name for entry in os.scandir(folder) if entry.is_dir()]
    if parts and are_parts(parts):
        raise ValueError(
            f"{folder} must be one dataset, got the parts of a split, {sorted(parts)}; "
            f"pass the training part: {os.path.join(folder, min(parts, key=_by_use))}."
        )


def _by_use(part):
    return not part.lower().startswith("train")


def _read_vectors(path):
    """Read lines that `embed` has printed."""
    records = []
    try:
        if path == "-" and sys.stdin is None:
            raise ValueError("stdin is closed")
        text = sys.stdin.read() if path == "-" else Path(path).read_text("utf-8")
        for line in text.rstrip().split("\n"):
            record = json.loads(line)
            if not isinstance(record, dict) or not isinstance(record.get("name"), str):
                raise ValueError("it must be an object with a name")
            vector = record.get("embedding")
            if not isinstance(vector, list) or {*map(type, vector)} - {int, float}:
                raise ValueError("its embedding must be a list of numbers")
            if not all(abs(value) < 1e300 for value in vector):
                raise ValueError("its embedding must be of finite numbers")
            record = {"size": None, "fingerprint": None, "embedder": None} | record
            if not isinstance(record["fingerprint"], (str, type(None))):
                raise ValueError("its fingerprint must be a string or null")
            record.pop("dataset", None)
            records.append(record)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} must be a folder of images, a .tsv or .tsv.gz file of bags, or "
            f"lines that p2l embed has printed; line {len(records) + 1}: {error}."
        ) from error
    return records


def embedder_options(args, zoo=None):
    """Return the parameters of DatasetEmbedder among the arguments of a command.

    The reference network is that of the zoo, where its catalog is in use.
    """
    known = DatasetEmbedder().get_params()
    given = {key: value for key, value in vars(args).items() if key in known}
    return given if zoo is None else {"backbone": zoo.embedder.backbone} | given


def embedded(records, options, catalog=None, metric=None, *, class_means=False):
    """Add the vectors that are absent; what does not fit the catalog is an error.

    `class_means`: whether to add these as well, of folders with classes.
    """
    absent = [record for record in records if "dataset" in record]
    for record in records:
        if "dataset" not in record:
            width = len(record["embedding"])
            _check_fits(catalog, record["name"], record["fingerprint"], width)
    if not absent:
        return records
    embedder = reference_embedder(catalog, options, class_means=class_means)
    datasets = [record.pop("dataset") for record in absent]
    if embedder.class_means:
        datasets = [_with_labels(dataset) for dataset in datasets]
    _open(embedder, datasets, metric)
    fingerprint, width = embedder.fingerprint_, embedder.n_features_out_
    names = ", ".join(record["name"] for record in absent)
    _check_fits(catalog, names, fingerprint, width)
    settings = {key: embedder.get_params()[key] for key in _REFERENCE}
    for key in ("backbone", "weights"):  # files are found from other folders, too
        if settings[key] is not None and os.path.exists(settings[key]):
            settings[key] = os.path.abspath(settings[key])
    vectors = embedder.transform(datasets)
    for record, vector in zip(absent, vectors):
        record |= {"fingerprint": fingerprint, "embedder": settings}
        record["embedding"] = np.asarray(vector).tolist()
        if class_means:
            record["class_means"] = vector.class_means
    return records


def _with_labels(dataset):
    """A folder with a subfolder for each class as a task, all else as it is."""
    if not isinstance(dataset, str) or not os.path.isdir(dataset):
        return dataset
    try:
        return Task.from_folder(dataset)
    except ValueError:
        return dataset


def _open(embedder, datasets, metric):
    """Open the reference network; one that the metric cannot use is an error."""
    with warnings.catch_warnings():
        if metric is not None:  # what it would warn of is found out here
            warnings.simplefilter("ignore", SignedFeaturesWarning)
        embedder.fit(datasets)
    if metric in NON_NEGATIVE and embedder.signed_:
        raise ValueError(
            f"--metric must be cityblock, euclidean or cosine for layer "
            f"{embedder.layer_!r} of {embedder.backbone}, whose features have a sign, "
            f"got {metric}; or pass a layer that follows a ReLU by --layer."
        )


def _check_fits(catalog, what, fingerprint, width):
    if catalog is not None:
        check_same_fingerprint(fingerprint, catalog.fingerprint, what)
        if width != catalog.n_features:
            raise ValueError(
                f"{what} must have a vector as wide as those of the catalog, "
                f"{catalog.n_features}, got {width}."
            )


def reference_embedder(catalog, options, *, class_means):
    """The reference network of a catalog, with the options of a command.

    It keeps class means if asked to, unless samples may be left out: labels would not
    be those of the rest.
    """
    embedder = DatasetEmbedder(random_state=0, verbose=1)
    embedder.set_params(**_reference_of(catalog) | options)
    return embedder.set_params(class_means=class_means and embedder.on_error == "raise")


def _reference_of(catalog):
    """Return what is known of the reference network of a catalog."""
    for source in reversed(catalog or []):
        kept = source.metadata.get("embedder") if source.metadata else None
        if kept is not None:
            return {key: kept[key] for key in _REFERENCE if key in kept}
    # Without settings, at least the fingerprint begins with the name of the network.
    fingerprint = catalog and catalog.fingerprint
    return {"backbone": fingerprint.split(":")[0]} if fingerprint else {}
