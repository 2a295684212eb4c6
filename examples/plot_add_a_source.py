"""
Add a source to a catalog
=========================

A :class:`~sklearn_p2l.SourceCatalog` holds what is known of each source: its name, its
size, the vector of its dataset, the file with its trained network, and any number
besides. Here we make a
small catalog, rank its sources for a target, add one more source that we train
ourselves, and rank again.
"""

# %%
# A catalog to start with
# -----------------------
# Three sources are made of the photographs that ship with scikit-learn. A network is
# trained on each, for a few seconds. Vectors come from one reference network, which
# here is that of the largest source. (:func:`~sklearn_p2l.ground_truth.train_sources`
# trains many sources in one call, and can be interrupted.)

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone

from sklearn_p2l import (
    DatasetEmbedder,
    NetworkClassifier,
    SourceCatalog,
    SourceSelector,
)
from sklearn_p2l.datasets import load_small_tasks
from sklearn_p2l.plotting import RankingDisplay

tasks = load_small_tasks(random_state=0)
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)

scratch = NetworkClassifier("small_resnet", image_size=16, epochs=6, random_state=0)
names = ["flower_edges", "china_zooms", "flower_blurs"]
files = {name: folder / f"{name}.safetensors" for name in names}
networks = {name: clone(scratch).fit(tasks.sources[name]) for name in names}
reference = folder / "reference.safetensors"
networks["flower_edges"].to_source("reference", checkpoint=reference)
embedder = DatasetEmbedder(reference)

vectors = embedder.fit_transform([tasks.sources[name] for name in names])
catalog = SourceCatalog(
    networks[name].to_source(name, embedding=vector, checkpoint=files[name])
    for name, vector in zip(names, vectors)
)
catalog.save(folder / "zoo")

# %%
# Notebooks and this page show a catalog as a table. The caption names the reference
# network behind the vectors.

SourceCatalog.load(folder / "zoo")

# %%
# The ranking so far
# ------------------
# The target is to tell the digits 5 to 9. No source of the catalog has seen a digit.
# The weight ``k`` is borrowed here; it is learned from what
# :func:`~sklearn_p2l.ground_truth.measure_improvement` measures.

target = tasks.held_out_targets["digits_5_to_9"]
vector = embedder.transform([target])
before = SourceSelector(catalog, k=-1.0).fit(vector)
before.explain(vector).round(2)

# %%
# One more source
# ---------------
# Another source is the digits 0 to 4. It takes three steps: train a network on it from
# random weights, embed its images by the *same* reference network, and write the
# weights with ``to_source``.

new = tasks.sources["digits_0_to_4"]
scratch.fit(new)
digits = scratch.to_source(
    "digits_0_to_4",
    embedding=embedder.transform([new]),
    checkpoint=folder / "digits_0_to_4.safetensors",
    columns={"epochs": len(scratch.history_)},
    metadata={"from": "sklearn.datasets.load_digits"},
)
print(digits.name, digits.size, digits.n_classes, digits.fingerprint)

# %%
# A catalog never changes. ``append`` returns a new one, and ``save`` writes it in place
# of the old one. Checkpoints stay where they are, and the catalog notes their paths.
# With ``copy_checkpoints=True`` they are copied into the folder, so that it can be
# shared. A column is empty where a number is not known.

larger = catalog.append(digits)
larger.save(folder / "zoo", copy_checkpoints=True)
assert SourceCatalog.load(folder / "zoo").names == larger.names
SourceCatalog.load(folder / "zoo")

# %%
# Vectors of another network do not fit. They carry a fingerprint, so the catalog
# refuses them.

other = DatasetEmbedder("small_resnet", weights=None, image_size=16, random_state=0)
try:
    catalog.append(
        scratch.to_source(
            "digits_again",
            embedding=other.fit_transform([new]),
            checkpoint=folder / "digits_again.safetensors",
        )
    )
except ValueError as error:
    print(error)

# %%
# The ranking now
# ---------------
# ``with_sources`` keeps the weight ``k`` of a fitted selector and takes the new
# catalog. Note that the bars of the old sources move, too: both terms are scaled to
# mean 0 and standard deviation 1 over all sources that are there.

after = before.with_sources(SourceCatalog.load(folder / "zoo"))

figure, axes = plt.subplots(ncols=2, figsize=(11, 3.6), layout="constrained")
RankingDisplay.from_estimator(before, vector, ax=axes[0])
RankingDisplay.from_estimator(after, vector, ax=axes[1])
limits = np.array([ax.get_xlim() for ax in axes])
for ax, title in zip(axes, ["before", "after"]):
    ax.set_title(f"{title}: {len(ax.get_yticks())} sources")
    ax.set(xlim=(limits.min(), limits.max()), ylim=axes[1].get_ylim())
axes[0].get_legend().remove()
figure.suptitle("Sources for the target digits_5_to_9")
plt.show()

# %%
# Was the new pick better?
# ------------------------
# To know, fine-tune: from random weights, from the pick before and from the pick after.
# We do it with two seeds. Differences of the size of the spread between seeds mean
# nothing. And a ranking only says which source to prefer. It does not say that any of
# them is better than none: random weights may win, above all where the sources were
# trained for seconds, as here.

picks = [str(selector.predict(vector)[0, 0]) for selector in (before, after)]
seeds = (0, 1)
print(f"pick before: {picks[0]}, pick after: {picks[1]}")
for source in dict.fromkeys([None, *picks]):
    scores = []
    for seed in seeds:
        classifier = NetworkClassifier(
            "small_resnet",
            weights=None if source is None else larger[source].checkpoint,
            image_size=16,
            learning_rate=0.01,
            random_state=seed,
        )
        classifier.fit(target)
        scores.append(classifier.score(target.X_test, target.y_test))
    shown = ", ".join(f"{score:.3f}" for score in scores)
    print(f"{source or 'random weights':16} test accuracy {shown}")

temporary.cleanup()
