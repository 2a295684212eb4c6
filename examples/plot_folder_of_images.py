"""
From a folder of images to a classifier
=======================================

You have a folder with a few dozen labelled images, and networks that others have
trained. This page goes all the way: it reads the folder, ranks the networks before
anything is trained, fine-tunes the pick with :class:`~sklearn_p2l.FineTuner`, and asks
whether that was worth it.

All is real: the images are scanned digits that ship with scikit-learn, the networks
are the small zoo that ships with this package.
"""

# %%
# A folder
# --------
#
# With a subfolder for each class: the digits 5 to 9, a dozen each.
# :class:`~sklearn_p2l.Task` reads such folders, and another one with images to test on.
import tempfile
from pathlib import Path

from PIL import Image

from sklearn_p2l import Task
from sklearn_p2l.datasets import load_small_tasks

folder = Path(tempfile.mkdtemp(prefix="p2l-"))
digits = load_small_tasks().held_out_targets["digits_5_to_9"]
for part, images, labels in [
    ("my_images", digits.X, digits.y),
    ("test_images", digits.X_test, digits.y_test),
]:
    for i, (image, label) in enumerate(zip(images, labels)):
        path = folder / part / str(label) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
task = Task.from_folder(folder / "my_images", test=folder / "test_images")
print(task)
print("such as", Path(task.X[0]).relative_to(folder), "of class", task.y[0])

# %%
# A zoo
# -----
#
# Sixteen networks, trained on drawings, glyphs, photographs and more; none has seen a
# printed or scanned digit. With them comes what each gained on fourteen other targets,
# which teaches how to weigh what speaks for a source.
from sklearn_p2l.datasets import load_zoo

zoo = load_zoo()
zoo.sources

# %%
# Rank the networks
# -----------------
#
# Nothing is trained. The images pass once through each network, and once through the
# reference network that describes all data in the zoo. E adds up what speaks for a
# source; ``p_best`` is the chance that it is the best of all.
from sklearn_p2l import EvidenceSelector
from sklearn_p2l.plotting import RankingDisplay

selector = EvidenceSelector(zoo.sources, embedder=zoo.embedder)
selector.fit(zoo.vectors, zoo.improvements, scores=zoo.scores)
RankingDisplay.from_estimator(selector, [task])
selector.explain([task])[["rank", "source", "size", "E", "margin", "p_best"]].round(2)

# %%
# Fine-tune the pick
# ------------------
#
# The tuner asks the selector for a source, trains from there, and is a classifier from
# then on. It takes the task, or the folder. ``n_candidates=3`` would try the first
# three and keep the best. By default there would be as many epochs as suit so few
# images, a hundred; a quarter of them keeps this page quick.
from sklearn_p2l import FineTuner, NetworkClassifier

classifier = NetworkClassifier("small_resnet", image_size=24, epochs=25, random_state=0)
tuner = FineTuner(selector, zoo.sources, classifier).fit(folder / "my_images")
accuracy = tuner.score(task.X_test, task.y_test)
print(f"{tuner.source_}: accuracy {accuracy:.3f} on {len(task.y_test)} images")

# %%
# Was it worth it?
# ----------------
#
# Only measuring tells. The same training from what simple rules would have taken:
import pandas as pd

from sklearn_p2l.selection import LargestSource, NearestSource

vector = zoo.embedder.fit_transform([task])
rules = {
    "all evidence": tuner.source_,
    "the largest": LargestSource(zoo.sources).fit(vector).predict(vector)[0, 0],
    "the nearest": NearestSource(zoo.sources).fit(vector).predict(vector)[0, 0],
    "random weights": None,
}
accuracies = {tuner.source_: accuracy}
for source in set(rules.values()) - {tuner.source_}:
    start = None if source is None else zoo.sources[source].checkpoint
    classifier.set_params(weights=start).fit(task)
    accuracies[source] = classifier.score(task.X_test, task.y_test)
rows = [(rule, source or "", accuracies[source]) for rule, source in rules.items()]
pd.DataFrame(rows, columns=["chosen by", "source", "accuracy"]).round(3)

# %%
# One target with one seed shows how the pieces fit together, not how good the method
# is. For that, see :doc:`plot_choose_a_source` on 17 targets, and
# :doc:`/guide/limits`.
