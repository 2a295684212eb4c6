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
import tempfile
from pathlib import Path

from PIL import Image

from sklearn_p2l.datasets import list_images, load_small_tasks

tasks = load_small_tasks()
folder = Path(tempfile.mkdtemp(prefix="p2l-"))
target = tasks.held_out_targets["digits_5_to_9"]
for i, (image, label) in enumerate(zip(target.images, target.labels)):
    path = folder / "my_images" / str(label) / f"{i}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
paths = [Path(path) for path in list_images(folder / "my_images")]
labels = [int(path.parent.name) for path in paths]
print(len(paths), "images, such as", paths[0].relative_to(folder))

# %%
# Six sources are trained here, as no network can be downloaded while this page is
# made; the largest one also serves as reference network. In practice, sources come from
# files, and the reference network is one that was trained on ImageNet.
from sklearn_p2l import DatasetEmbedder, FineTuner
from sklearn_p2l.ground_truth import train_sources

settings = dict(backbone="small_resnet", image_size=16, random_state=0)
from_scratch = FineTuner(source=None, epochs=5, learning_rate=0.05, **settings)
sources = {n: t for n, t in tasks.sources.items() if len(t.labels) < 1000}
largest = max(sources.values(), key=lambda task: len(task.labels))
from_scratch.fit(largest.images, largest.labels)
from_scratch.to_source(  # only its file is wanted, so that any vector serves
    "reference", embedding=[1.0], checkpoint=folder / "reference.safetensors"
)
embedder = DatasetEmbedder(folder / "reference.safetensors")
zoo = train_sources(
    {name: (task.images, task.labels) for name, task in sources.items()},
    from_scratch,
    embedder=embedder,
    folder=folder / "zoo",
    verbose=0,
)
zoo

# %%
# Rank the sources
# ----------------
#
# Nothing was measured in this zoo, so the weight k is borrowed. The folder passes once
# through the reference network; nothing is trained.
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from sklearn_p2l import SourceSelector
from sklearn_p2l.plotting import RankingDisplay

p2l = make_pipeline(embedder, SourceSelector(zoo, k=-1.0))
p2l.fit([folder / "my_images"])
vector = p2l[:-1].transform([folder / "my_images"])
RankingDisplay.from_estimator(p2l[-1], vector)
p2l[-1].explain(vector).drop(columns="target").round(2)

# %%
# Fine-tune the pick
# ------------------
#
# The tuner asks the selector for a source and is a classifier from then on.
fine_tuning = settings | dict(epochs=15, batch_size=16, learning_rate=0.1)
tuner = FineTuner(FrozenEstimator(p2l), zoo, **fine_tuning).fit(paths, labels)
accuracy = tuner.score(target.test_images, target.test_labels)
print(f"{tuner.source_}: accuracy {accuracy:.3f} on {len(target.test_labels)} images")

# %%
# Was it worth it?
# ----------------
#
# The same from other starting points, with three seeds each. Only measuring tells: on
# so few images, seeds differ much, and a source need not be better than none.
import numpy as np

from sklearn_p2l.baselines import LargestSource, NearestSource

rules = {
    "P2L's pick": p2l.predict([folder / "my_images"])[0, 0],
    "largest": LargestSource(zoo).fit(vector).predict(vector)[0, 0],
    "nearest": NearestSource(zoo).fit(vector).predict(vector)[0, 0],
    "random weights": None,
}
accuracies = {}
for source in dict.fromkeys(rules.values()):
    for seed in range(3):
        tuner = FineTuner(sources=zoo, source=source, **fine_tuning)
        tuner.set_params(random_state=seed).fit(paths, labels)
        score = tuner.score(target.test_images, target.test_labels)
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
