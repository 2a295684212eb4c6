"""
Choose a source for relations in text
=====================================

Which relation holds between two entities, from all the sentences that mention both?
P2L chooses a source for that, too: a sample is a *bag* of sentences, the network a
PCNN, and the rest is as for images (section 3.3 of the paper).

The corpus is generated, from invented names and a few dozen patterns of sentences. It
shows how the pieces fit together, not how good the method is; for that, see
:doc:`/guide/limits`. Three kinds of relations serve as sources, one network for each;
two small targets, of which one is written like places and one like works, then ask
which network to start from.
"""

# %%
# A corpus
# --------
#
# In practice, :func:`~sklearn_p2l.datasets.read_bags` streams bags from a file. Here
# they are put together from patterns, in which {1} and {2} are the two entities.
import tempfile
from pathlib import Path

import numpy as np

from sklearn_p2l import DatasetEmbedder, NetworkClassifier, SourceCatalog, Task
from sklearn_p2l.datasets import Bag, Context, relation_labels, sample_target

# Relations of three subtasks, each with patterns.
PATTERNS = {
    "places": {
        "capital of": ["{1} is the capital of {2}", "{2} is ruled from {1}"],
        "river of": ["the river {1} flows through {2}", "{2} lies on the {1}"],
        "borders": ["{1} shares a border with {2}", "{1} lies next to {2}"],
        "port of": ["ships reach {2} by its port {1}", "{1} is a harbour in {2}"],
        "island of": ["{1} is an island that belongs to {2}", "{2} owns the isle {1}"],
    },
    "people": {
        "mother of": ["{1} is the mother of {2}", "{2} , a child of {1} , was born"],
        "married to": ["{1} married {2}", "{2} is the widow of {1}"],
        "pupil of": ["{1} learned from {2}", "{2} taught {1} for years"],
        "heir of": ["{1} inherited all from {2}", "{2} left the house to {1}"],
    },
    "works": {
        "written by": ["{1} is a novel by {2}", "{2} wrote the book {1}"],
        "sung by": ["{1} is a song that {2} recorded", "{2} sang {1} first"],
        "film of": ["{1} , a film that {2} directed", "{2} shot the movie {1}"],
        "painted by": ["{2} painted {1}", "{1} hangs in the house of {2}"],
    },
}
# New relations, written in the manner of places, and of works.
TARGETS = {
    "lakes and bridges": {
        "lake of": ["the lake {1} lies in {2}", "{2} is known for the lake {1}"],
        "bridge of": ["{1} is a bridge in {2}", "in {2} the bridge {1} was built"],
    },
    "plays and operas": {
        "play by": ["{1} is a play by {2}", "{2} wrote {1} for the stage"],
        "opera of": ["{1} , an opera that {2} composed", "{2} set {1} to music"],
    },
}
# What two entities may also have to do with one another: nothing that counts here.
NOTHING = [
    "{1} and {2} were named in one list",
    "{1} was mentioned , and so was {2}",
    "{1} is not far from what {2} had in mind",
    "{2} saw {1} , but never wrote or spoke of it",
    "{1} lies on the desk of {2}",
    "{2} read about {1} in the house by the river",
]
OPENINGS = ["", "as is well known , ", "in 1912 ", "they say that ", "today "]
ENDINGS = [" .", " in those days .", " , it is said .", " , and so it stayed ."]
SYLLABLES = ["ka", "lo", "mi", "ru", "ten", "vor", "zel", "dan", "pu", "shi"]

rng = np.random.default_rng(0)


def invented_name():
    return "".join(rng.choice(SYLLABLES, size=rng.integers(2, 4))).capitalize()


def sentence(pattern, names):
    """Write a sentence, and say where the two names stand in it."""
    text, spans = rng.choice(OPENINGS), [None, None]
    for part in pattern.replace("{", "}").split("}"):
        if part in ("1", "2"):
            name = names[int(part) - 1]
            spans[int(part) - 1] = (len(text), len(text) + len(name))
            part = name
        text += part
    return Context(text + rng.choice(ENDINGS), *spans)


def corpus(relations, n_bags):
    """Pairs of invented entities: a third related, with one to three sentences each."""
    bags = []
    for i in range(n_bags):
        relation = rng.choice(list(relations)) if i % 3 == 0 else None
        names = sorted(invented_name() for _ in range(2))
        patterns = NOTHING if relation is None else relations[relation]
        contexts = [
            sentence(rng.choice(patterns), names) for _ in range(rng.integers(1, 4))
        ]
        relations_of_pair = () if relation is None else (f">{relation}",)
        bags.append(
            Bag(f"{names[0]}{i}a", f"{names[1]}{i}b", contexts, relations_of_pair)
        )
    return bags


print(corpus(PATTERNS["places"], 1)[0])

# %%
# A zoo
# -----
#
# One network for each source; the largest one is the reference network.
folder = Path(tempfile.mkdtemp(prefix="p2l-"))
settings = dict(backbone="pcnn", learning_rate=0.005, random_state=0)
sizes = {"places": 800, "people": 500, "works": 600}
bags = {name: corpus(PATTERNS[name], n) for name, n in sizes.items()}
for name in sizes:
    classifier = NetworkClassifier(epochs=6, **settings)
    classifier.fit(bags[name], relation_labels(bags[name]).y)
    classifier.to_source(name, checkpoint=folder / f"{name}.safetensors")
embedder = DatasetEmbedder(folder / "places.safetensors")
zoo = SourceCatalog.from_arrays(
    embedder.fit_transform(list(bags.values())),
    sizes=list(sizes.values()),
    names=list(sizes),
    checkpoints=[folder / f"{name}.safetensors" for name in sizes],
    architectures="pcnn",
)
zoo

# %%
# Rank, then fine-tune
# --------------------
#
# Nothing was measured here, so that all evidence counts alike: size, distance, and how
# well each source's own features tell the relations of the target apart. Each target
# has three pairs of entities for each relation, and unrelated ones; the score is the
# area under the precision-recall curve. In practice, one would train the pick alone; to
# judge it, all others are trained as well, with two seeds each.
from sklearn.base import clone

from sklearn_p2l import EvidenceSelector, FineTuner

selector = EvidenceSelector(zoo, embedder=embedder)
starts = ["random weights", *zoo.names]
classifier = NetworkClassifier(epochs=10, **settings)
picks, areas = {}, {}
for name, relations in TARGETS.items():
    pool = corpus(relations, 700)
    labels = relation_labels(pool).y
    small = sample_target(labels[:500], n_positives=3, random_state=0)
    task = Task([pool[i] for i in small], labels[small])
    test, y_test = pool[500:], labels[500:]
    tuner = FineTuner(selector, zoo, classifier).fit(task)
    picks[name] = tuner.source_
    print(f"{name}: {len(task)} pairs, ranking {', '.join(tuner.ranking_)}")
    for start in starts:
        weights = zoo[start].checkpoint if start in zoo else None
        trained = clone(classifier).set_params(weights=weights)
        areas[name, start] = [
            trained.set_params(random_state=seed).fit(task).score(test, y_test)
            for seed in range(2)
        ]

# %%
# Was it right?
# -------------
#
# A dot for each seed, a line for their mean; the pick is in orange.
import matplotlib.pyplot as plt

figure, axes = plt.subplots(1, 2, figsize=(8, 2.6), sharey=True, layout="constrained")
for ax, name in zip(axes, TARGETS):
    for row, start in enumerate(starts):
        color = "C1" if start == picks[name] else "C0"
        ax.plot(areas[name, start], [row] * 2, "o", alpha=0.6, color=color)
        ax.plot(np.mean(areas[name, start]), row, "|", markersize=22, color="black")
    ax.set_title(name)
    ax.set_xlabel("area under the curve")
axes[0].set_yticks(range(len(starts)), starts)
axes[0].invert_yaxis()
axes[0].margins(y=0.2)
plt.show()

# %%
for name, pick in picks.items():
    others = {start: np.mean(areas[name, start]) for start in starts}
    best = max(others, key=others.get)
    print(f"{name}: the pick, {pick}, reaches {others[pick]:.3f}", end="; ")
    print("it is the best" if best == pick else f"{best} reaches {others[best]:.3f}")
