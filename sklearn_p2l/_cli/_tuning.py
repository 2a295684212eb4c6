"""``p2l tune``: from a folder with a subfolder for each class to a model file.

And ``p2l predict``: from such a file to the classes of images.
"""

import dataclasses
import os
import sys
import warnings

from sklearn_p2l._cli._evidence import evidence_selector
from sklearn_p2l._cli._rankings import checked_selector, k_and_metric, ranked
from sklearn_p2l._cli._reading import check_effects, check_names, load_catalog
from sklearn_p2l._cli._tables import json_line, pairs, table
from sklearn_p2l._cli._vectors import embedder_options
from sklearn_p2l._compat import load_networks
from sklearn_p2l.catalog import SourceCatalog, has_weights
from sklearn_p2l.samples import as_samples
from sklearn_p2l.selection import explain
from sklearn_p2l.task import Task
from sklearn_p2l.tuning import FineTuner, NetworkClassifier, start_from

# Options of the training that go for the reference network, too; its own backbone.
_OF_BOTH = ("backbone", "device", "verbose")


def tune(args):
    """Choose a source for a task, train it, and write the model."""
    _check_options(args)
    catalog, zoo = None, None
    if _uses_catalog(args):
        catalog, zoo = load_catalog(args.catalog)
        if "source" in args:
            check_names(catalog, args.catalog or "the zoo", [args.source])
    _check_output(args.output, catalog or [])
    task = Task.from_folder(
        args.dataset,
        test=args.test,
        test_size=None if args.test else args.test_size,
        random_state=args.random_state,
    )
    sources, rule = [], None
    if catalog is not None:
        sources, rule = _choose_sources(args, catalog, zoo, task)
    source, classifier, tried = _train(args, sources, task)
    name = os.path.basename(args.output).removesuffix(".safetensors")
    classifier.to_source(name, checkpoint=args.output)
    score = _score(classifier, task, args.output)
    weights = classifier.weights
    if classifier.backbone != classifier.backbone_:  # a file, which holds the weights
        weights = classifier.backbone
    result = {
        "source": None if source is None else source.name,
        "chosen_by": rule,
        "tried": tried,
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
    tried = [f"{row['source']} {row['score']:.3f}" for row in result["tried"]]
    return pairs(
        {
            "source": result["source"],
            "chosen by": result["chosen_by"],
            "tried": ", ".join(tried) or None,
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
            ("metric", not args.evidence, "without --evidence"),
            ("k", not args.evidence, "without --evidence"),
            ("evidence", ranks or not args.evidence, to_rank),
            ("try", ranks, to_rank),
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


def _choose_sources(args, catalog, zoo, task):
    """Return the source that is named, or the first that have a checkpoint; and why."""
    if "source" in args:
        return [_with_architecture(catalog[args.source])], "--source"
    startable = {source.name for source in catalog if has_weights(source)}
    if not startable:
        raise ValueError(
            f"{args.catalog} must have a source with a checkpoint that is there, to "
            "start from, got none; p2l catalog add takes one by --checkpoint."
        )
    rows, rule = _ranking(args, catalog, zoo, task)
    n_tried = vars(args).get("try", 1)
    best = [row for row in rows if row["source"] in startable][:n_tried]
    if best[-1]["rank"] > len(best):
        passed = [r["source"] for r in rows if r["source"] not in startable]
        warnings.warn(
            f"Sources ranked before {best[-1]['source']!r} have no checkpoint that is "
            f"there, such as {passed[0]!r}; they are passed over.",
            UserWarning,
            stacklevel=2,
        )
    return [_with_architecture(catalog[row["source"]]) for row in best], rule


def _ranking(args, catalog, zoo, task):
    """Rank the sources for the training part; returns rows, and the rule's name."""
    options = embedder_options(args, zoo)
    options = {k: v for k, v in options.items() if k in _OF_BOTH}
    if args.evidence:
        selector = evidence_selector(args, catalog, zoo, task, options)
        return explain(selector, [task], as_frame=False), "all evidence"
    k, metric = k_and_metric(args, zoo)
    selector = checked_selector(catalog, k=k, metric=metric)
    name = os.path.basename(os.path.abspath(args.dataset))
    record = {"name": name, "size": len(task.y), "dataset": task.X}
    (rows,) = ranked(selector, [record], options)
    return rows, f"equation 2, k = {k:.6g}, {metric}"


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


def _train(args, sources, task):
    """Train from the one source, from none, or from the best of several in trials.

    Returns the source, the classifier, and the scores of the trials.
    """
    known = NetworkClassifier().get_params()
    given = {key: value for key, value in vars(args).items() if key in known}
    classifier = NetworkClassifier(verbose=1).set_params(**given)
    source, tried = sources[0] if sources else None, []
    if len(sources) == 1:
        classifier = start_from(classifier, source)
    if classifier.verbose:
        names = ", ".join(s.name for s in sources) or classifier.weights
        network = "" if len(sources) > 1 else f"{classifier.backbone} "
        text = f"p2l: training {network}from {names or 'random weights'}"
        print(text, file=sys.stderr)
    with warnings.catch_warnings(record=True) as caught:
        if len(sources) > 1:
            tuner = FineTuner(
                sources=SourceCatalog(sources),
                estimator=classifier.set_params(verbose=0),
                n_candidates=len(sources),
                verbose=vars(args).get("verbose", 1),
            ).fit(task.X, task.y)
            classifier = tuner.estimator_
            source = next(s for s in sources if s.name == tuner.source_)
            tried = [{k: t[k] for k in ("source", "score")} for t in tuner.candidates_]
            interrupted = tuner.interrupted_
        else:
            interrupted = classifier.fit(task.X, task.y).interrupted_
    if interrupted:  # a model that is not trained to its end is no result
        raise KeyboardInterrupt
    for warning in caught:
        warnings.warn(warning.message, stacklevel=2)
    return source, classifier, tried


def _score(classifier, task, path):
    try:
        return classifier.score(task.X_test, task.y_test)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the model was written to {path}, but cannot be tested: {error}"
        ) from error
