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
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from tqdm import tqdm

from sklearn_p2l import DatasetEmbedder, FineTuner, SourceCatalog, SourceSelector
from sklearn_p2l.datasets import load_small_tasks
from sklearn_p2l.divergence import pairwise_divergence
from sklearn_p2l.metrics import picks_to_best_loss, spearman_score

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument(
    "--folder", help="where to keep the catalog (default: a new temporary folder)"
)
parser.add_argument("--n-jobs", type=int, default=1, help="trainings at a time")
options = parser.parse_args()

start = time.perf_counter()
tasks = load_small_tasks()
folder = Path(options.folder or tempfile.mkdtemp(prefix="p2l-"))
settings = dict(backbone="small_resnet", image_size=16, random_state=0)
fine_tuning = dict(epochs=25, batch_size=16, learning_rate=0.1, **settings)


def train_source(task):
    tuner = FineTuner(source=None, epochs=20, learning_rate=0.05, **settings)
    return tuner.fit(task.images, task.labels)


def accuracy(task, source, sources):
    """Fine-tune one source (None: random weights) on one target: P(M(t, s))."""
    tuner = FineTuner(sources=sources, source=source, **fine_tuning)
    tuner.fit(task.images, task.labels)
    return tuner.score(task.test_images, task.test_labels)


def in_parallel(function, jobs, description):
    """Run trainings side by side, with a progress bar."""
    run = Parallel(n_jobs=options.n_jobs, return_as="generator")
    results = run(delayed(function)(*job) for job in jobs)
    return list(tqdm(results, total=len(jobs), desc=description, unit=" trainings"))


# 1. A zoo: one network for each source, the largest one being the reference network.
names = list(tasks.sources)
jobs = [(task,) for task in tasks.sources.values()]
tuners = in_parallel(train_source, jobs, "1. training the sources")
sizes = [tuner.n_samples_ for tuner in tuners]
largest = names[int(np.argmax(sizes))]
for name, tuner in zip(names, tuners):
    tuner.to_source(name, embedding=[1.0], checkpoint=folder / f"{name}.safetensors")
embedder = DatasetEmbedder(folder / f"{largest}.safetensors", weights=None)
vectors = embedder.fit_transform([task.images for task in tasks.sources.values()])
catalog = SourceCatalog.from_arrays(
    vectors,
    sizes=sizes,
    names=names,
    checkpoints=[folder / f"{name}.safetensors" for name in names],
    architectures="small_resnet",
)
catalog.save(folder)


# 2. Ground truth on the training targets, and k.
def measure(targets, description):
    jobs = [(t, s, catalog) for t in targets.values() for s in (None, *names)]
    table = np.reshape(in_parallel(accuracy, jobs, description), (len(targets), -1))
    return table[:, :1], table[:, 1:]  # no transfer, from each source


without, performance = measure(tasks.training_targets, "2. measuring improvements")
p2l = make_pipeline(embedder, SourceSelector(catalog))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    p2l.fit(
        [task.images for task in tasks.training_targets.values()], performance - without
    )
selector = p2l[-1]
print(
    f"\nk = {selector.k_:.3f}, best between {selector.k_interval_[0]:.3f} and", end=" "
)
print(
    f"{selector.k_interval_[1]:.3f}; mean Spearman correlation on training targets",
    end=" ",
)
print(f"{selector.k_curve_[:, 2].max():.3f}")
for warning in caught:
    print("note:", warning.message)

# 3. New targets: rank the sources before training, then fine-tune the pick.
targets = tasks.held_out_targets
X = [task.images for task in targets.values()]
E = p2l.decision_function(X)
vectors_of_targets = p2l[:-1].transform(X)
size_terms, divergence_terms = selector.decision_terms(vectors_of_targets)
picks = []
for i, (name, task) in enumerate(targets.items()):
    tuner = FineTuner(FrozenEstimator(p2l), catalog, **fine_tuning)
    tuner.fit(task.images, task.labels)
    picks.append(tuner.score(task.test_images, task.test_labels))
    print(f"\nRanking for {name} ({len(task.images)} images)")
    print(f"  {'source':20}{'E':>8}{'size':>8}{'diverg.':>9}{'margin':>8}")
    order = [names.index(source) for source in tuner.ranking_]
    for j, below in zip(order, [*order[1:], None]):
        margin = "" if below is None else f"{E[i, j] - E[i, below]:8.2f}"
        terms = f"{size_terms[i, j]:8.2f}{divergence_terms[i, j]:9.2f}"
        print(f"  {names[j]:20}{E[i, j]:8.2f}{terms}{margin}")

# 4. Was it right? Fine-tune everything and compare.
without, performance = measure(targets, "4. measuring all sources to judge")
D = pairwise_divergence(vectors_of_targets, catalog.embeddings, metric="kl")
columns = {
    "P2L pick": np.array(picks),
    "largest": performance[:, names.index(largest)],
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
    ("P2L", E),
    ("largest", size_terms),
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
