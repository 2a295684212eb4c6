"""
How many images are enough?
===========================

A :class:`~sklearn_p2l.DatasetEmbedder` summarises a dataset as the mean of what a
network responds to its images. A mean does not need all of them. Here we read ever
more images of a dataset, measure how far the summary still is from the summary of all
images, and check whether the pick of a source depends on it.
"""

# %%
# Sources, datasets and a reference network
# -----------------------------------------
# The zoo that comes with the package, with its reference network, which sees images of
# 24 pixels. The datasets in question are cut out of the digits and the two photographs
# that ship with scikit-learn. No label of theirs is used.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone

from sklearn_p2l import SourceSelector
from sklearn_p2l.datasets import load_small_tasks, load_zoo
from sklearn_p2l.metrics import spearman_score

zoo = load_zoo()
embedder = clone(zoo.embedder).set_params(precision="float32")
tasks = load_small_tasks(random_state=0)
names = ["inverted_digit_rotations", "grey_china_edges", "china_zooms"]
datasets = [tasks.held_out_targets[name].X_test for name in names]

# %%
# What all images say
# -------------------
# The summaries of all images are what we compare with; this page asks whether the
# ranking is stable, not whether it is right. The margin tells by how much the pick is
# ahead of the second source.

selector = SourceSelector(zoo.sources).fit(zoo.vectors, zoo.improvements)
full = embedder.fit_transform(datasets)
full_picks = selector.predict(full)[:, 0]
full_scores = selector.decision_function(full)
full_margins = np.diff(np.sort(full_scores))[:, -1]
for name, dataset, pick, margin in zip(names, datasets, full_picks, full_margins):
    print(f"{name:25} {len(dataset):4} images, pick {pick}, margin {margin:.2f}")

# %%
# A fixed number of images
# ------------------------
# ``max_samples=n`` reads ``n`` images, drawn at random. Which ones is decided by
# ``random_state``. We draw several times for each number.

seeds = range(5)
numbers = [1, 3, 10, 30, 100, 300]


def embed_some(datasets, seed, **settings):
    """Summaries of a random part of each dataset."""
    sampler = clone(embedder).set_params(random_state=seed, **settings)
    return sampler.fit_transform(datasets)


def compare(summaries):
    """How far summaries, rankings and picks are from those of all images."""
    scores = selector.decision_function(summaries)
    return (
        np.abs(np.asarray(summaries) - np.asarray(full)).sum(axis=1),
        spearman_score(full_scores, scores, average=None),
        selector.predict(summaries)[:, 0] == full_picks,
    )


results = np.array(
    [
        [compare(embed_some(datasets, seed, max_samples=n)) for seed in seeds]
        for n in numbers
    ]
)  # numbers × seeds × what is compared × datasets
distances, correlations, same_pick = np.moveaxis(results, 2, 0)

print(f"{'images read':>12} {'mean distance':>14} {'rank corr.':>11} {'same pick':>10}")
for n, distance, rho, same in zip(numbers, distances, correlations, same_pick):
    print(f"{n:12} {distance.mean():14.3f} {rho.mean():11.3f} {same.mean():10.0%}")

# %%
# As many as it takes
# -------------------
# ``max_samples="auto"`` needs no number. It reads images in random order and stops
# when the distance is expected to be at most ``tolerance``. It looks after each batch,
# so it reads one batch of ``batch_size`` images at least. How many images it reads
# depends on how much they differ from each other.
#
# A dataset may be any object with a length and items. This one counts what is read.


class CountingDataset:
    """Images that count how often one of them is read."""

    def __init__(self, images):
        self.images, self.n_read = images, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        self.n_read += 1
        return self.images[i]


tolerances = [0.1, 0.05]
n_read = np.empty((len(tolerances), len(seeds), len(datasets)))
auto_distances = np.empty_like(n_read)
for i, tolerance in enumerate(tolerances):
    for j, seed in enumerate(seeds):
        counting = [CountingDataset(images) for images in datasets]
        summaries = embed_some(
            counting, seed, max_samples="auto", tolerance=tolerance, batch_size=16
        )
        n_read[i, j] = [dataset.n_read for dataset in counting]
        auto_distances[i, j] = compare(summaries)[0]

print(f"{'tolerance':>9}  {'dataset':25} {'of':>4} {'read':>5} {'mean distance':>14}")
for i, tolerance in enumerate(tolerances):
    for j, name in enumerate(names):
        read, distance = n_read[i, :, j].mean(), auto_distances[i, :, j].mean()
        counts = f"{len(datasets[j]):4} {read:5.0f} {distance:14.3f}"
        print(f"{tolerance:9}  {name:25} {counts}")

# %%
# The figure
# ----------
# Left: the error of a mean falls with the square root of the number of samples, as the
# dotted line does; and faster near the size of the dataset, where little is left
# unread. Shades reach from the smallest to the largest distance over the draws. Crosses
# are where "auto" stopped, on average.
#
# Middle: Spearman's correlation of the scores of the sources with the scores that all
# images give, mean over the draws. At 1 the ranking is the same. Right: the share of
# draws that pick the same source as all images.
#
# A ranking need not get better at the pace of the summary. What counts is how the error
# compares with the margins between the sources: where two of them are close, few images
# may favour either.

styles = [("#0072B2", "o", 9), ("#D55E00", "s", 6), ("#009E73", "^", 4)]
figure, axes = plt.subplots(ncols=3, figsize=(11, 4), layout="constrained")
left, middle, right = axes
for j, (name, (color, marker, size)) in enumerate(zip(names, styles)):
    style = {"color": color, "marker": marker, "markersize": size, "label": name}
    seen = distances[:, :, j]
    left.plot(numbers, seen.mean(axis=1), **style)
    left.fill_between(
        numbers, seen.min(axis=1), seen.max(axis=1), color=color, alpha=0.15
    )
    left.plot(
        n_read[:, :, j].mean(axis=1),
        auto_distances[:, :, j].mean(axis=1),
        color=color,
        marker="X",
        markersize=9,
        markeredgecolor="black",
        linestyle="none",
    )
    middle.plot(numbers, correlations[:, :, j].mean(axis=1), **style)
    right.plot(numbers, same_pick[:, :, j].mean(axis=1), **style)
guide = distances[0].mean() / np.sqrt(numbers)
left.plot([], [], "X", color="white", markersize=9, mec="black", label='"auto"')
left.plot(numbers, guide, color="grey", linestyle=":", label=r"$\propto 1/\sqrt{n}$")
left.set(yscale="log", ylabel="L1 distance from the summary of all", title="Summary")
middle.set(ylabel="Spearman's ρ with the full ranking", title="Ranking")
right.set(ylabel="share of draws with the same pick", title="Pick", ylim=(-0.04, 1.04))
right.yaxis.set_major_formatter("{x:.0%}")
for ax in axes:
    ax.set(xscale="log", xlabel="images read")
figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5)
plt.show()
