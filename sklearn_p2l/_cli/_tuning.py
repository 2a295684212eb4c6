"""``p2l tune``: from a folder with a subfolder for each class to a model file.

And ``p2l predict``: from such a file to the classes of images.
"""

import dataclasses
import os
import sys
import warnings

from sklearn.model_selection import train_test_split

from sklearn_p2l._cli._rankings import checked_selector, k_and_metric, ranked
from sklearn_p2l._cli._reading import check_effects, check_names, load_catalog
from sklearn_p2l._cli._tables import json_line, pairs, table
from sklearn_p2l._cli._vectors import embedder_options
from sklearn_p2l._compat import load_networks
from sklearn_p2l.catalog import has_weights
from sklearn_p2l.samples import as_samples
from sklearn_p2l.task import Task
from sklearn_p2l.tuning import NetworkClassifier, start_from

# Options of the training that go for the reference network, too; its own backbone.
_OF_BOTH = ("backbone", "device", "verbose")


def tune(args):
    """Choose a source for a task, train it, and write the model."""
    _check_options(args)
    catalog, zoo = None, None
    if _uses_catalog(args):
        catalog, zoo = load_catalog(args.catalog)
    _check_output(args.output, catalog or [])
    task = _read_task(args)
    source = None if catalog is None else _choose_source(args, catalog, zoo, task)
    classifier = _train(args, source, task)
    name = os.path.basename(args.output).removesuffix(".safetensors")
    classifier.to_source(name, checkpoint=args.output)
    score = _score(classifier, task, args.output)
    weights = classifier.weights
    if classifier.backbone != classifier.backbone_:  # a file, which holds the weights
        weights = classifier.backbone
    result = {
        "source": None if source is None else source.name,
        "architecture": classifier.backbone_,
        "weights": weights,
        "n_train": len(task.y),
        "n_test": len(task.y_test),
        "classes": classifier.classes_.tolist(),
        "score": score,
        "file": args.output,
    }
    return [json_line(result)] if args.format == "json" else _as_table(result)


def predict(args):
    """Tell the classes of images by a model file, a line for each image."""
    classifier = NetworkClassifier.from_checkpoint(args.model)
    classifier.set_params(device=args.device)
    if classifier.image_size_ is None:
        raise ValueError(f"MODEL must be a network of images, {args.model} is of text.")
    files = [file for path in args.images for file in as_samples(path)]
    P = classifier.predict_proba(files)
    best = P.argmax(axis=1)
    classes, chances = classifier.classes_[best].tolist(), P.max(axis=1).tolist()
    rows = list(zip(map(os.fspath, files), classes, chances))
    names = ("file", "class", "probability")
    if args.format == "json":
        return [json_line(dict(zip(names, row))) for row in rows]
    return table(names, *rows)


def _as_table(result):
    classes = result["classes"]
    return pairs(
        {
            "source": result["source"],
            "architecture": result["architecture"],
            "weights": result["weights"] or "random",
            "training images": f"{result['n_train']:,}",
            "test images": f"{result['n_test']:,}",
            "classes": f"{len(classes)}: {', '.join(classes)}",
            "accuracy on the test images": f"{result['score']:.3f}",
            "file": result["file"],
        }
    )


def _uses_catalog(args):
    """Tell whether a source is chosen: from the zoo of the package, if no other."""
    return args.catalog is not None or not {"backbone", "weights"} & vars(args).keys()


def _check_options(args):
    """Refuse options that would have no effect."""
    has_catalog = _uses_catalog(args)
    ranks = has_catalog and "source" not in args
    to_rank = "with --catalog and without --source, to rank the sources"
    no_catalog = "without --catalog, whose sources have their own"
    check_effects(
        args,
        [
            ("source", has_catalog, "with --catalog"),
            ("k", ranks, to_rank),
            ("metric", ranks, to_rank),
            ("backbone", args.catalog is None, no_catalog),
            ("weights", args.catalog is None, no_catalog),
        ],
    )


def _check_output(path, catalog):
    folder = os.path.dirname(path) or "."
    if not path.endswith(".safetensors"):
        raise ValueError(f"--output must end in .safetensors, got {path}.")
    if os.path.isdir(path):
        raise ValueError(f"--output must be a file, got a folder: {path}.")
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise ValueError(
            f"--output must lie in a folder that can be written to, got {path}."
        )
    for source in catalog:
        if source.checkpoint and os.path.realpath(source.checkpoint) == (
            os.path.realpath(path)
        ):
            raise ValueError(
                f"--output must not be the checkpoint of a source, got the one of "
                f"{source.name!r}: {path}."
            )


def _read_task(args):
    """Read a task, and split off a test part where none is given."""
    task = Task.from_folder(args.dataset, test=args.test)
    if task.X_test is not None:
        return task
    try:
        X, X_test, y, y_test = train_test_split(
            task.X,
            task.y,
            test_size=args.test_size,
            stratify=task.y,
            random_state=args.random_state,
        )
    except ValueError as error:
        raise ValueError(
            "--test-size must leave images of each class to train and to test on, got "
            f"{args.test_size:g}: {error} Pass images to test on by --test."
        ) from error
    return Task(X, y, X_test=X_test, y_test=y_test)


def _choose_source(args, catalog, zoo, task):
    """Return the source that is named, or the best one that has a checkpoint."""
    if "source" in args:
        check_names(catalog, args.catalog or "the zoo", [args.source])
        return _with_architecture(catalog[args.source])
    startable = {source.name for source in catalog if has_weights(source)}
    if not startable:
        raise ValueError(
            f"{args.catalog} must have a source with a checkpoint that is there, to "
            "start from, got none; p2l catalog add takes one by --checkpoint."
        )
    k, metric = k_and_metric(args, zoo)
    selector = checked_selector(catalog, k=k, metric=metric)
    name = os.path.basename(os.path.abspath(args.dataset))
    record = {"name": name, "size": len(task.y), "dataset": task.X}
    options = embedder_options(args, zoo)
    options = {k: v for k, v in options.items() if k in _OF_BOTH}
    (rows,) = ranked(selector, [record], options)
    best = next(row for row in rows if row["source"] in startable)
    if best["rank"] > 1:
        warnings.warn(
            f"Sources ranked before {best['source']!r} have no checkpoint that is "
            f"there, such as {rows[0]['source']!r}; they are passed over.",
            UserWarning,
            stacklevel=2,
        )
    return _with_architecture(catalog[best["source"]])


def _with_architecture(source):
    """Return a source with the architecture that the catalog or the file names."""
    if source.architecture is not None or not has_weights(source):
        return source
    metadata = load_networks().checkpoint_metadata(source.checkpoint)
    if "architecture" not in metadata:
        raise ValueError(
            f"source {source.name!r} must have an architecture, neither the catalog "
            f"nor {source.checkpoint} names one; add it by p2l catalog add with "
            "--architecture."
        )
    return dataclasses.replace(source, architecture=metadata["architecture"])


def _train(args, source, task):
    known = NetworkClassifier().get_params()
    given = {key: value for key, value in vars(args).items() if key in known}
    classifier = NetworkClassifier(verbose=1).set_params(**given)
    if source is not None:
        classifier = start_from(classifier, source)
    if classifier.verbose:
        start = classifier.weights if source is None else source.name
        text = f"p2l: training {classifier.backbone} from {start or 'random weights'}"
        print(text, file=sys.stderr)
    with warnings.catch_warnings(record=True) as caught:
        classifier.fit(task.X, task.y)
    if classifier.interrupted_:  # a model that is not trained to its end is no result
        raise KeyboardInterrupt
    for warning in caught:
        warnings.warn(warning.message, stacklevel=2)
    return classifier


def _score(classifier, task, path):
    try:
        return classifier.score(task.X_test, task.y_test)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the model was written to {path}, but cannot be tested: {error}"
        ) from error
