"""Sources and targets of the relations benchmark: eight subtasks of one collection.

All text is first split three ways, so that no sentence and no document is in two parts:
one part trains the sources, one gives the targets, one tests them. Each subtask is a
source, with all its positive pairs of the first part, and a target, drawn from the
second part as in the paper: 20 positive pairs per relation and ten times as many
negatives.

A negative of a subtask is any pair with none of its relations, those of other subtasks
included, and negatives have the same shares of the five collections (FewRel, Wiki80,
SemEval, Re-DocRED, KnowledgeNet) as the positives. Otherwise a network could tell them
apart by the style of the collection: most unrelated pairs come from Re-DocRED.
"""

import json
import os
from pathlib import Path

import numpy as np

from sklearn_p2l import Task
from sklearn_p2l.datasets import (
    read_bags,
    relation_labels,
    sample_target,
    subtask_labels,
    text_groups,
)

DATA = Path(
    os.environ.get("SKLEARN_P2L_DATA", Path(__file__).parents[3] / "shared")
).absolute()
FOLDER = DATA / "data" / "relations"
# Shares of the text that train the sources, give the targets, and test them.
SHARES = {"source": 0.6, "target": 0.15, "test": 0.25}
# Negatives for each positive; the paper's ten for targets.
NEGATIVES = {"source": 2, "target": 10, "test": 3}


def load_tasks():
    """Return the sources and the targets, two dicts of tasks by subtask.

    A task holds bags with labels (n_bags, n_relations); the source and the target of a
    subtask have the same test part.
    """
    bags = list(read_bags(FOLDER / "contexts.tsv.gz"))
    with open(FOLDER / "subtasks.json", encoding="utf-8") as file:
        subtasks = json.load(file)["subtasks"]
    labels = subtask_labels(
        bags, {r: name for name, s in subtasks.items() for r in s["relations"]}
    )
    collection = np.array([bag.contexts[0].url.split(":")[0] for bag in bags])
    rows_of = split(text_groups(bags, document=document))
    sources, targets = {}, {}
    for name, of_subtask in labels.items():
        parts = {}
        for part, rows in rows_of.items():
            chosen = sample_target(
                of_subtask.y[rows],
                n_positives=20 if part == "target" else len(rows),
                negatives_per_positive=NEGATIVES[part],
                strata=collection[rows],
                random_state=0,
            )
            chosen = rows[chosen]
            parts[part] = [bags[i] for i in chosen], of_subtask.y[chosen]
        X_test, y_test = parts["test"]
        sources[name] = Task(*parts["source"], X_test=X_test, y_test=y_test)
        targets[name] = Task(*parts["target"], X_test=X_test, y_test=y_test)
    return sources, targets


def positives(bags, y):
    """The bags that hold a relation of their task."""
    return [bag for bag, row in zip(bags, y) if row.any()]


def document(context):
    """The document or sentence that a context is from, out of its URL."""
    parts = context.url.split(":")
    if parts[-1] in ("neg", "gaz"):
        parts.pop()
    return ":".join(parts[:3] if parts[0] == "redocred" else parts)


def split(groups):
    """Deal whole groups out by their sizes, the largest one to the sources."""
    sizes = np.bincount(groups)
    order = np.random.default_rng(0).permutation(len(sizes))
    order = np.r_[sizes.argmax(), order[order != sizes.argmax()]]
    dealt = np.cumsum(sizes[order]) / sizes.sum()
    part_of = np.empty(len(sizes), dtype=int)
    part_of[order] = np.searchsorted(np.cumsum(list(SHARES.values()))[:-1], dealt)
    return {part: np.flatnonzero(part_of[groups] == i) for i, part in enumerate(SHARES)}


def load_semeval():
    """SemEval-2010 task 8 as its authors split it: bags, directed labels, test rows."""
    bags = [
        bag
        for bag in read_bags(FOLDER / "contexts.tsv.gz")
        if bag.contexts[0].url.startswith("semeval")
    ]
    labels = relation_labels(bags, directed=True)
    test = np.array([":test:" in bag.contexts[0].url for bag in bags])
    return bags, labels.y, test
