"""From a few labelled images to a classifier, with the zoo that comes with the package.

Sixteen small networks are ranked for a dataset before anything is trained: by equation
2 of the paper, and by all the evidence at hand. The first three of the ranking are
tried, and the best one is fine-tuned. To judge that choice, other choices are trained
as well, which nobody would do in earnest.

Run it with ``python examples/quickstart.py``, which takes 100 of the scanned digits
that ship with scikit-learn, or with ``python examples/quickstart.py FOLDER`` for images
of your own, in a subfolder for each class. Nothing is downloaded.
"""

import argparse
import time

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from sklearn_p2l import (
    EvidenceSelector,
    FineTuner,
    NetworkClassifier,
    SourceSelector,
    Task,
)
from sklearn_p2l.datasets import load_zoo
from sklearn_p2l.selection import explain


def digits():
    """100 scanned digits to learn from, 500 to test on."""
    images, labels = load_digits(return_X_y=True)
    images = np.uint8(images.reshape(-1, 8, 8) * (255 / 16))
    X, X_test, y, y_test = train_test_split(
        images, labels, train_size=100, test_size=500, stratify=labels, random_state=0
    )
    return Task(X, y, X_test=X_test, y_test=y_test)


def show(title, rows, columns):
    rows = rows[:6]
    columns = {
        key: heading
        for key, heading in columns.items()
        if any(round(row[key], 2) for row in rows)
    }
    print(f"\n{title}\n  {'rank':>4}  {'source':14}{'size':>6}{'E':>7}", end="")
    print("".join(f"{heading:>{_width(heading)}}" for heading in columns.values()))
    for row in rows:
        print(f"  {row['rank']:4}  {row['source']:14}{row['size']:6,}", end="")
        print(f"{row['E']:7.2f}", end="")
        for key, heading in columns.items():  # + 0 makes 0 of -0
            print(f"{round(row[key], 2) + 0:{_width(heading)}.2f}", end="")
        print()


def _width(heading):
    return max(7, len(heading) + 2)


parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("folder", nargs="?", help="images in a subfolder for each class")
options = parser.parse_args()
start = time.perf_counter()
if options.folder:
    task = Task.from_folder(options.folder, test_size=1 / 3, random_state=0)
else:
    task = digits()
zoo = load_zoo()
print(f"{task}; a zoo of {len(zoo.sources)} sources")

# 1. Rank by equation 2, with k learned from what the zoo gained on other targets.
equation = SourceSelector(zoo.sources).fit(zoo.vectors, zoo.improvements)
pipeline = make_pipeline(zoo.embedder.fit([task]), equation)
rows = explain(pipeline, [task], as_frame=False)
terms = {"size_term": "size", "divergence_term": "divergence"}
show(f"Equation 2, k = {equation.k_:.2f}", rows, terms)

# 2. Rank by all the evidence, which opens every network once, and says how sure it is.
evidence = EvidenceSelector(zoo.sources, embedder=zoo.embedder)
evidence.fit(zoo.vectors, zoo.improvements, scores=zoo.scores)
rows = explain(evidence, [task], as_frame=False)
terms = {f"{name}_term": name for name in evidence.signals_} | {"p_best": "P(best)"}
show("All evidence", rows, terms)
ranked = time.perf_counter()
print(f"\nRanked in {ranked - start:.0f} s. Trying the first three:")

# 3. Try the first three, and fine-tune the best of them.
# Fewer passes and parts than by default, to be quick.
classifier = NetworkClassifier(epochs=25, random_state=0)
ranker = FrozenEstimator(evidence)
tuner = FineTuner(ranker, zoo.sources, classifier, n_candidates=3, cv=2, n_jobs=2)
tuner.fit(task)
for row in tuner.candidates_:
    print(f"  {row['source']:16} {row['score']:.3f} in cross-validation")
seconds = time.perf_counter() - ranked


# 4. Was it right? Other choices, trained in the same way.
def accuracy(name, **settings):
    """Accuracy after fine-tuning one source; of random weights for None."""
    trained = clone(classifier).set_params(**settings)
    if name is None:
        trained.set_params(image_size=tuner.estimator_.image_size_)
        return trained.fit(task).score(task.X_test, task.y_test)
    one = FineTuner(sources=zoo.sources[[name]], estimator=trained)
    return one.fit(task).score(task.X_test, task.y_test)


vector = zoo.embedder.fit_transform([task])
nearest = zoo.sources.names[int(equation.divergences(vector)[0].argmin())]
largest = zoo.sources.names[int(zoo.sources.sizes.argmax())]
some = zoo.sources.names[np.random.default_rng(0).integers(len(zoo.sources))]
probe = dict(head_init="probe", body_learning_rate_multiplier=0.0)
chosen = tuner.source_
others = {
    f"its features, and a linear probe: {chosen}": delayed(accuracy)(chosen, **probe),
    f"the largest source: {largest}": delayed(accuracy)(largest),
    f"the nearest source: {nearest}": delayed(accuracy)(nearest),
    f"a source drawn at random: {some}": delayed(accuracy)(some),
    "no transfer: random weights": delayed(accuracy)(None),
}
print(f"\nAccuracy on {len(task.y_test)} images that no network has seen")
print(f"  {tuner.score(task.X_test, task.y_test):.3f}  chosen: {chosen}")
for what, value in zip(others, Parallel(n_jobs=2)(others.values())):
    print(f"  {value:.3f}  {what}")
p_best = {row["source"]: row["p_best"] for row in rows}[chosen]
p_gain = evidence.transfer_proba([task])[0, zoo.sources.names.index(chosen)]
print(f"P({chosen} is the best of the zoo) = {p_best:.2f}", end=", ")
print(f"P(better than no transfer) = {p_gain:.2f}")
print(f"\nChosen and fine-tuned in {seconds:.0f} s,", end=" ")
print(f"{time.perf_counter() - start:.0f} s in all.")
