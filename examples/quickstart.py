"""P2L from end to end, on real images that ship with scikit-learn.

Eight source networks are trained, their benefit is measured on six training targets,
and k is learned from that. Then five targets come that P2L has never seen: it embeds
them, ranks the sources before any training, and fine-tunes its pick. To judge the
picks, all other sources are fine-tuned as well, which nobody would do in earnest.

Run it with ``python examples/quickstart.py``; nothing is downloaded.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from tqdm import tqdm

from sklearn_p2l import (
    DatasetEmbedder,
    FineTuner,
    NetworkClassifier,
    SourceCatalog,
    SourceSelector,
)
from sklearn_p2l.datasets import load_small_tasks
from sklearn_p2l.metrics import picks_to_best_loss, spearman_score
from sklearn_p2l.selection import explain

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument(
    "--folder", help="where to keep the catalog (default: a new temporary folder)"
)
parser.add_argument("--n-jobs", type=int, default=1, help="trainings at a time")
options = parser.parse_args()

start = time.perf_counter()
tasks = load_small_tasks()
folder = Path(options.folder or tempfile.mkdtemp(prefix="p2l-"))
classifier = NetworkClassifier("small_resnet", image_size=16, random_state=0)
for_sources = clone(classifier).set_params(epochs=20, batch_size=32)
for_targets = clone(classifier).set_params(epochs=25, learning_rate=0.01)


def train_source(task):
    return clone(for_sources).fit(task)


def accuracy(task, source):
    """Fine-tune one source (None: random weights) on one target: P(M(t, s))."""
    start = None if source is None else source.checkpoint
    trained = clone(for_targets).set_params(weights=start).fit(task)
    return trained.score(task.X_test, task.y_test)


def in_parallel(function, jobs, description):
    """Run trainings side by side, with a progress bar."""
    run = Parallel(n_jobs=options.n_jobs, return_as="generator")
    results = run(delayed(function)(*job) for job in jobs)
    return list(tqdm(results, total=len(jobs), desc=description, unit=" trainings"))


# 1. A zoo: one network for each source, the largest one being the reference network.
names = list(tasks.sources)
jobs = [(task,) for task in tasks.sources.values()]
sources = in_parallel(train_source, jobs, "1. training the sources")
files = [folder / f"{name}.safetensors" for name in names]
for name, source, file in zip(names, sources, files):
    source.to_source(name, checkpoint=file)
sizes = [source.n_samples_ for source in sources]
largest = int(np.argmax(sizes))
embedder = DatasetEmbedder(files[largest])
catalog = SourceCatalog.from_arrays(
    embedder.fit_transform(list(tasks.sources.values())),
    sizes=sizes,
    names=names,
    checkpoints=files,
    architectures="small_resnet",
)
catalog.save(folder)


# 2. Ground truth on the training targets, and k.
def measure(targets, description):
    jobs = [(t, s) for t in targets.values() for s in (None, *catalog)]
    table = np.reshape(in_parallel(accuracy, jobs, description), (len(targets), -1))
    return table[:, :1], table[:, 1:]  # no transfer, from each source


without, performance = measure(tasks.training_targets, "2. measuring improvements")
p2l = make_pipeline(embedder, SourceSelector(catalog))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    p2l.fit(list(tasks.training_targets.values()), performance - without)
selector = p2l[-1]
low, high = selector.k_interval_
print(f"\nk = {selector.k_:.3f}, best between {low:.3f} and {high:.3f};", end=" ")
print("mean Spearman correlation on training targets", end=" ")
print(f"{selector.k_curve_[:, 2].max():.3f}")
for warning in caught:
    print("note:", warning.message)

# 3. New targets: rank the sources before training, then fine-tune the pick.
targets = tasks.held_out_targets
X = list(targets.values())
rows = explain(p2l, X, targets=list(targets), as_frame=False)
picks = []
for name, task in targets.items():
    tuner = FineTuner(FrozenEstimator(p2l), catalog, for_targets).fit(task)
    picks.append(tuner.score(task.X_test, task.y_test))
    print(f"\nRanking for {name} ({len(task)} images)")
    print(f"  {'source':20}{'E':>8}{'size':>8}{'diverg.':>9}{'margin':>8}")
    for row in rows:
        if row["target"] == name:
            terms = f"{row['size_term']:8.2f}{row['divergence_term']:9.2f}"
            margin = "" if np.isnan(row["margin"]) else f"{row['margin']:8.2f}"
            print(f"  {row['source']:20}{row['E']:8.2f}{terms}{margin}")

# 4. Was it right? Fine-tune everything and compare.
without, performance = measure(targets, "4. measuring all sources to judge")
vectors = p2l[:-1].transform(X)
D = selector.divergences(vectors)
columns = {
    "P2L pick": np.array(picks),
    "largest": performance[:, largest],
    "nearest": performance[np.arange(len(targets)), D.argmin(axis=1)],
    "random": performance.mean(axis=1),
    "none": without[:, 0],
    "best": performance.max(axis=1),
}
print("\nAccuracy after fine-tuning (random: the expected value over all sources)")
print(f"  {'target':26}" + "".join(f"{c:>10}" for c in columns))
for i, name in enumerate(targets):
    print(f"  {name:26}" + "".join(f"{values[i]:10.3f}" for values in columns.values()))
print(f"  {'mean':26}" + "".join(f"{v.mean():10.3f}" for v in columns.values()))

print("\nPredicted against measured order, mean over the new targets")
print(f"  {'':10}{'Spearman':>10}{'picks to best':>15}")
for method, scores in [
    ("P2L", selector.decision_function(vectors)),
    ("largest", selector.decision_terms(vectors)["size"]),
    ("nearest", -D),
]:
    rho = spearman_score(performance, scores)
    print(f"  {method:10}{rho:10.3f}{picks_to_best_loss(performance, scores):15.1f}")
for i, name in enumerate(targets):
    pick, none, best = (columns[c][i] for c in ("P2L pick", "none", "best"))
    if pick < none:
        print(f"{name}: random weights ({none:.3f}) did better than the pick.")
    if pick < best:
        print(f"{name}: the best source ({best:.3f}) did better than the pick.")
print(f"\nDone in {time.perf_counter() - start:.0f} s; the catalog is in {folder}.")
