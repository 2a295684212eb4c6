"""
Add a source to a catalog
=========================

A :class:`~sklearn_p2l.SourceCatalog` holds what is known of each source: its name, its
size, the vector of its dataset, the file with its trained network, and any number
besides. Here we add a source that we train ourselves to the zoo that comes with the
package, and see what it does to a ranking.
"""

# %%
# A catalog to start with
# -----------------------
# Notebooks and this page show a catalog as a table. The caption names the reference
# network behind the vectors.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from sklearn_p2l import (
    DatasetEmbedder,
    NetworkClassifier,
    SourceCatalog,
    SourceSelector,
)
from sklearn_p2l.datasets import load_small_tasks, load_zoo
from sklearn_p2l.plotting import RankingDisplay

zoo = load_zoo()
catalog = zoo.sources
catalog

# %%
# The ranking so far
# ------------------
# The target is to tell the scanned digits 5 to 9; no source of the catalog has seen a
# scanned digit. By equation 2 of the paper, with the weight ``k`` that the fourteen
# targets of the zoo have taught:

tasks = load_small_tasks(random_state=0)
target = tasks.held_out_targets["digits_5_to_9"]
embedder = zoo.embedder.fit([target])
vector = embedder.transform([target])
before = SourceSelector(catalog).fit(zoo.vectors, zoo.improvements)
before.explain(vector).head().round(2)

# %%
# One more source
# ---------------
# The digits 0 to 4. It takes three steps: train a network on them from random weights,
# embed them by the *same* reference network, and write the weights with ``to_source``.
# (:func:`~sklearn_p2l.ground_truth.train_sources` does so for many sources in one
# call, and can be interrupted.)

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
new = tasks.sources["digits_0_to_4"]
scratch = NetworkClassifier("small_resnet", image_size=24, epochs=10, random_state=0)
scratch.fit(new)
digits = scratch.to_source(
    "scanned_digits",
    embedding=embedder.transform([new]),
    checkpoint=folder / "scanned_digits.safetensors",
    columns={"score": scratch.score(new.X, new.y)},
    metadata={"from": "sklearn.datasets.load_digits"},
)
print(digits.name, digits.size, digits.n_classes, digits.fingerprint)

# %%
# A catalog never changes. ``append`` returns a new one, and ``save`` writes it.
# Checkpoints stay where they are, and the catalog notes their paths; with
# ``copy_checkpoints=True`` they are copied into the folder, so that it can be shared. A
# column is empty where a number is not known.

larger = catalog.append(digits)
larger.save(folder / "zoo", copy_checkpoints=True)
assert SourceCatalog.load(folder / "zoo").names == larger.names
larger[["shapes", "characters", "scanned_digits"]]

# %%
# Vectors of another network do not fit. They carry a fingerprint, so the catalog
# refuses them.

other = DatasetEmbedder("small_resnet", weights=None, image_size=24, random_state=0)
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

figure, axes = plt.subplots(ncols=2, figsize=(11, 5.4), layout="constrained")
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
# To know, fine-tune: from random weights, from the pick before and from the pick after
# (for fewer epochs than by default, to keep this page quick).

picks = [str(selector.predict(vector)[0, 0]) for selector in (before, after)]
print(f"pick before: {picks[0]}, pick after: {picks[1]}")
for source in dict.fromkeys([None, *picks]):
    start = None if source is None else larger[source].checkpoint
    classifier = NetworkClassifier(
        "small_resnet", weights=start, image_size=24, epochs=25, random_state=0
    ).fit(target)
    accuracy = classifier.score(target.X_test, target.y_test)
    print(f"{source or 'random weights':16} test accuracy {accuracy:.3f}")

temporary.cleanup()
