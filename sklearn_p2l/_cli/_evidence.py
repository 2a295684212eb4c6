"""``p2l rank --evidence``: sources by all that is known of them, and how sure it is."""

import os

import numpy as np

from sklearn_p2l._cli._reading import check_some_source, read_improvements
from sklearn_p2l._cli._tables import ranking_lines
from sklearn_p2l._cli._vectors import embedder_options, reference_embedder
from sklearn_p2l.selection import EvidenceSelector, explain
from sklearn_p2l.task import Task

# So many of a ranking are worth a trial that the best is among them with this chance;
# where no chance is known, so many.
_ENOUGH, _FEW = 0.8, 3
# What the embedder and the selector both take.
_SHARED = ("device", "n_jobs", "memory", "verbose")


def rank_by_evidence(args, catalog, zoo):
    """Rank the sources of a catalog for a folder with a subfolder for each class."""
    task, options = Task.from_folder(args.dataset), embedder_options(args, zoo)
    selector = evidence_selector(args, catalog, zoo, task, options)
    rows = explain(selector, [task], as_frame=False)
    for row in rows:
        del row["target"]
    name = os.path.basename(os.path.abspath(args.dataset))
    check_some_source(args, name, rows)
    advice = _advice(selector, task, rows)
    head = {"weights": selector.weights_} | advice
    remark = " (all evidence)"
    lines = ranking_lines(args, catalog, name, rows, head=head, remark=remark)
    return lines if args.format == "json" else [*lines, "", *_in_words(advice)]


def evidence_selector(args, catalog, zoo, task, options):
    """A selector that has learned from what was measured, where anything was."""
    improvements, training, scores = None, [], None
    if zoo is not None:
        training, improvements, scores = zoo.vectors, zoo.improvements, zoo.scores
    if "improvements" in args:
        scores = None
        targets, improvements = read_improvements(args.improvements, catalog.names)
        training = _training_tasks(args, targets)
    selector = EvidenceSelector(
        catalog,
        embedder=_embedder(catalog, options),
        n_opened=vars(args).get("opened"),
        exclude_self=vars(args).get("exclude_self", False),
        **{"verbose": 1} | {key: options[key] for key in _SHARED if key in options},
    )
    known = training if len(training) else [task]
    return selector.fit(known, improvements, scores=scores)


def _training_tasks(args, targets):
    """The targets with measured improvements, in the order of their rows."""
    paths = vars(args).get("targets", ())
    folders = {os.path.basename(os.path.abspath(path)): path for path in paths}
    if len(folders) < len(paths):
        raise ValueError(
            "--targets must be folders of different names, as these are the names in "
            f"{args.improvements}."
        )
    if absent := [target for target in targets if target not in folders]:
        raise ValueError(
            f"--targets must name the folder of every row of {args.improvements}, none "
            f"is called {', '.join(absent)}."
        )
    return [Task.from_folder(folders[target]) for target in targets]


def _embedder(catalog, options):
    """The reference network of a catalog; None where it has no vectors."""
    if not catalog.has_embedding.all():
        return None
    has_means = all(means is not None for means in catalog.class_means)
    return reference_embedder(catalog, options, class_means=has_means)


def _advice(selector, task, rows):
    """How many of the ranking to try, and the chances that are known."""
    if "p_best" not in rows[0]:
        return {"try_first": min(_FEW, len(rows))}
    reached = np.cumsum([row["p_best"] for row in rows])
    n = min(int(np.searchsorted(reached, _ENOUGH)) + 1, len(rows))
    first = selector.source_labels_.tolist().index(rows[0]["source"])
    return {
        "try_first": n,
        "p_best_among_them": float(reached[n - 1]),
        "p_first_beats_no_transfer": float(selector.transfer_proba([task])[0, first]),
    }


def _in_words(advice):
    n = advice["try_first"]
    first = f"try the first {n}" if n > 1 else "take the first"
    if "p_best_among_them" not in advice:
        how = "measured improvements would tell, with all sources opened"
        return [f"{first}; how sure this is, {how}"]
    best, gain = advice["p_best_among_them"], advice["p_first_beats_no_transfer"]
    return [
        f"{first}: the best is among them with a chance of {best:.0%}",
        f"the first is better than no transfer with a chance of {gain:.0%}",
    ]
