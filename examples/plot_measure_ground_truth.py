"""
Measure your own ground truth
=============================

A :class:`~sklearn_p2l.SourceSelector` learns the weight ``k`` of the divergence from
measured improvements: how much better is a network that starts from a source than one
that starts from random weights? :func:`~sklearn_p2l.ground_truth.measure_improvement`
measures a whole table of them. It can be stopped and called again, and repeats nothing.

All here is so small that it takes seconds. So the numbers are rough. The same calls
serve for a night on a GPU.
"""

# %%
# Sources and targets
# -------------------
# Three networks of the zoo that comes with the package, and three targets made of
# images that ship with scikit-learn. Each target is a :class:`~sklearn_p2l.Task`,
# samples with their labels. One object, the classifier, holds the settings of all
# trainings; so few pixels and epochs are for this page.

import tempfile
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from sklearn_p2l import NetworkClassifier, SourceSelector, Task
from sklearn_p2l.datasets import load_small_tasks, load_zoo
from sklearn_p2l.ground_truth import measure_improvement
from sklearn_p2l.plotting import KCurveDisplay, ScoreImprovementDisplay

tasks = load_small_tasks(random_state=0)
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
classifier = NetworkClassifier("small_resnet", image_size=12, epochs=8, random_state=0)
bundled = load_zoo()
embedder = bundled.embedder
zoo = bundled.sources[["shapes", "characters", "photos"]]
zoo

# %%
# No networks yet? :func:`~sklearn_p2l.ground_truth.train_sources` trains one for each
# dataset of yours, and makes the catalog. It, too, can be stopped and called again.

# %%
# The targets have a test part, of which 200 images are enough here.

target_names = ["digits", "grey_flower_edges", "china_blurs"]
targets = {}
for name in target_names:
    task = tasks.training_targets[name]
    test = {"X_test": task.X_test[:200], "y_test": task.y_test[:200]}
    targets[name] = Task(task.X, task.y, **test)
print(targets)

# %%
# First a dry run
# ---------------
# ``dry_run=True`` measures nothing. It tells how many trainings there are, and times a
# few epochs to say how long they may take. Each target has one training more than there
# are sources: the one from random weights. With small data the estimate is rough, as it
# does not count what opening a network and testing it take.

settings = dict(
    sources=zoo, estimator=classifier, folder=folder / "measured", verbose=0
)
_ = measure_improvement(targets, **settings, seeds=(0,), dry_run=True)

# %%
# Then measure
# ------------


def timed(**more):
    """Measure, and print how long it took."""
    start = time.perf_counter()
    measured = measure_improvement(targets, **settings, **more)
    print(f"{len(measured.records)} cells in {time.perf_counter() - start:.1f} s")
    return measured


measured = timed(seeds=(0,))

# %%
# The result is a table of improvements, and what it is made of: the test accuracy from
# each source, and from random weights.

measured.improvements.round(3)

# %%
# Go on for free
# --------------
# Each training leaves one file in the folder. The same call again only reads them.

again = timed(seeds=(0,))
assert again.improvements.equals(measured.improvements)

# %%
# Targets, sources and seeds can be added later. Only what is new is trained.

_ = measure_improvement(targets, **settings, seeds=(0, 1), dry_run=True)
measured = timed(seeds=(0, 1))

# %%
# With two seeds there is a spread. An improvement below its spread is not settled. One
# below 0 says that random weights did better.

for name in zoo.names:
    print(f"\nfrom {name}")
    for target in target_names:
        gain = measured.improvements.loc[target, name]
        spread = measured.spread.loc[target, name]
        print(f"  {target:20} improvement {gain:+.3f}, spread {spread:.3f}")

# %%
# Another protocol would make the table a mixture, so the folder refuses it.

try:
    measure_improvement(
        targets, zoo, NetworkClassifier("small_resnet"), folder=folder / "measured"
    )
except ValueError as error:
    print(str(error).replace(str(folder), "folder"))

# %%
# Learn k
# -------
# The selector takes the vectors of the targets and the table. It sweeps all values of
# ``k`` and takes the middle of the interval in which the scores order the sources most
# like the measured improvements. So few targets leave much open, and the selector may
# warn (:class:`~sklearn_p2l.exceptions.LearnedWeightWarning`): of an interval without
# bound, or of a ``k`` above 0, at which distant sources would be the better ones. We
# print what it says.

vectors = embedder.fit_transform(list(targets.values()))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    selector = SourceSelector(zoo).fit(vectors, measured.improvements)
low, high = selector.k_interval_
print(f"k = {selector.k_:.3g}, best between {low:.3g} and {high:.3g}")
for warning in caught:
    print("warning:", warning.message)

# %%
# The whole curve shows more than one number: how well any ``k`` orders the sources, for
# two divergences. With three sources, the order of a target is one of six, so the curve
# has few steps.

figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
KCurveDisplay.from_estimator(
    selector, vectors, measured.improvements, metrics=["kl", "js"], ax=ax
)
ax.set_title("How well the scores order the sources, over k")
plt.show()

# %%
# What was predicted, and what was measured
# -----------------------------------------
# These are the targets that ``k`` was learned from, so this shows the fit and is no
# test of it. :func:`~sklearn_p2l.evaluation.evaluate_selectors` leaves targets out.
# Bars are the spread over the two seeds.

display = ScoreImprovementDisplay.from_estimator(
    selector, vectors, measured.improvements
)
display.ax_.errorbar(
    np.ravel(selector.decision_function(vectors)),
    measured.improvements.to_numpy().ravel(),
    measured.spread.to_numpy().ravel(),
    fmt="none",
    ecolor="grey",
    elinewidth=1,
    zorder=0,
)
display.ax_.axhline(0, color="black", linewidth=0.8, zorder=0)
display.ax_.set_title("Below 0, random weights were better")
plt.show()

temporary.cleanup()
