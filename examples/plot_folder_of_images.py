"""
Choose a source for a folder of images
======================================

You have a folder with a few dozen labelled images, and networks that others have
trained. This example goes all the way: it embeds the folder, ranks the sources,
fine-tunes the pick with :class:`~sklearn_p2l.FineTuner`, and compares it with random
weights, the largest and the nearest source, over three seeds.

All images are real, and ship with scikit-learn
(:func:`~sklearn_p2l.datasets.load_small_tasks`). The target is the first of the
held-out ones there, and the settings are those of the quickstart in the repository,
with fewer epochs and without the two largest sources, for this page to be made
quickly.
"""

# %%
# A folder, and a zoo
# -------------------
#
# The target is a folder with a subfolder for each class: five digits.
# :class:`~sklearn_p2l.Task` reads such folders.
import tempfile
from pathlib import Path

from PIL import Image

from sklearn_p2l import Task
from sklearn_p2l.datasets import load_small_tasks

tasks = load_small_tasks()
folder = Path(tempfile.mkdtemp(prefix="p2l-"))
target = tasks.held_out_targets["digits_5_to_9"]
for part, images, labels in [
    ("my_images", target.X, target.y),
    ("test_images", target.X_test, target.y_test),
]:
    for i, (image, label) in enumerate(zip(images, labels)):
        path = folder / part / str(label) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
task = Task.from_folder(folder / "my_images", test=folder / "test_images")
print(task)
print("such as", Path(task.X[0]).relative_to(folder), "of class", task.y[0])

# %%
# Six sources are trained here, as no network can be downloaded while this page is
# made; the largest one also serves as reference network. In practice, sources come from
# files, and the reference network is one that was trained on ImageNet.
from sklearn_p2l import DatasetEmbedder, NetworkClassifier
from sklearn_p2l.ground_truth import train_sources

settings = dict(backbone="small_resnet", image_size=16, random_state=0)
from_scratch = NetworkClassifier(epochs=5, **settings)
sources = {name: s for name, s in tasks.sources.items() if len(s) < 1000}
from_scratch.fit(max(sources.values(), key=len))
from_scratch.to_source("reference", checkpoint=folder / "reference.safetensors")
embedder = DatasetEmbedder(folder / "reference.safetensors")
zoo = train_sources(
    sources, from_scratch, embedder=embedder, folder=folder / "zoo", verbose=0
)
zoo

# %%
# Rank the sources
# ----------------
#
# Nothing was measured in this zoo, so the weight k is borrowed. The folder passes once
# through the reference network; nothing is trained.
from sklearn.pipeline import make_pipeline

from sklearn_p2l import SourceSelector
from sklearn_p2l.plotting import RankingDisplay
from sklearn_p2l.selection import explain

p2l = make_pipeline(embedder, SourceSelector(zoo, k=-1.0))
p2l.fit([folder / "my_images"])
RankingDisplay.from_estimator(p2l, [folder / "my_images"])
explain(p2l, [folder / "my_images"]).drop(columns="target").round(2)

# %%
# Fine-tune the pick
# ------------------
#
# The tuner asks the selector for a source, trains the classifier from there, and is a
# classifier itself from then on. It takes the task, or the folder.
from sklearn_p2l import FineTuner

classifier = NetworkClassifier(learning_rate=0.01, **settings)
tuner = FineTuner(p2l, zoo, classifier).fit(folder / "my_images")
accuracy = tuner.score(task.X_test, task.y_test)
print(f"{tuner.source_}: accuracy {accuracy:.3f} on {len(task.y_test)} images")

# %%
# Was it worth it?
# ----------------
#
# The same from other starting points, with three seeds each. Only measuring tells: on
# so few images, seeds differ much, and a source need not be better than none.
import numpy as np

from sklearn_p2l.selection import LargestSource, NearestSource

vector = embedder.transform([task])
rules = {
    "P2L's pick": tuner.source_,
    "largest": LargestSource(zoo).fit(vector).predict(vector)[0, 0],
    "nearest": NearestSource(zoo).fit(vector).predict(vector)[0, 0],
    "random weights": None,
}
accuracies = {}
for source in dict.fromkeys(rules.values()):
    start = None if source is None else zoo[source].checkpoint
    for seed in range(3):
        classifier.set_params(weights=start, random_state=seed).fit(task)
        score = classifier.score(task.X_test, task.y_test)
        accuracies.setdefault(source, []).append(score)
for rule, source in rules.items():
    mean, spread = np.mean(accuracies[source]), np.std(accuracies[source])
    print(f"{rule:>15}: {mean:.3f} ± {spread:.3f}  ({source})")

# %%
import matplotlib.pyplot as plt

figure, ax = plt.subplots(figsize=(7, 2.6), layout="constrained")
for row, source in enumerate(rules.values()):
    ax.plot(accuracies[source], [row] * 3, "o", alpha=0.5, color="C0")
    ax.plot(np.mean(accuracies[source]), row, "|", markersize=22, color="black")
ax.set_yticks(range(len(rules)), [f"{r}\n{s or ''}".strip() for r, s in rules.items()])
ax.invert_yaxis()
ax.margins(y=0.2)
ax.set_xlabel("accuracy on the test images; a dot for each seed, a line for their mean")
plt.show()

# %%
# One source, ``digits_5_to_9``, has the very classes of the target, but the fewest
# images of all, so that with k = -1 its size weighs against it. A k learned in this
# zoo might weigh otherwise; see :doc:`plot_measure_ground_truth`.
#
# One target shows how the pieces fit together, not how good the method is. For that,
# see :doc:`plot_choose_a_source`, on 15 sources and 17 targets, and
# :doc:`/guide/limits`.
