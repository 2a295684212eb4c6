"""
How far apart are two datasets?
===============================

P2L compares datasets by one vector each, the mean of what a reference network responds
to their images. Here we embed six small datasets and compare the divergences that the
package knows: their scales, their orders, and what ``epsilon`` is for.
"""

# %%
# Six datasets
# ------------
# Random parts of the two photographs that ship with scikit-learn, in colour and in
# grey, and digits, light on dark and dark on light.

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import spearmanr
from sklearn.datasets import load_digits, load_sample_images

from sklearn_p2l.datasets import load_zoo
from sklearn_p2l.divergence import METRICS, pairwise_divergence

n_images, side = 40, 200
rng = np.random.default_rng(0)
china, flower = load_sample_images().images


def cut(photo):
    """Random square parts of a photograph."""
    tops = rng.integers(photo.shape[0] - side, size=n_images)
    lefts = rng.integers(photo.shape[1] - side, size=n_images)
    return np.stack(
        [photo[t : t + side, left : left + side] for t, left in zip(tops, lefts)]
    )


def grey(images):
    return np.rint(images.mean(axis=-1)).astype(np.uint8)


digits = load_digits().images
digits = digits[rng.choice(len(digits), n_images, replace=False)] / 16
datasets = {"china": cut(china), "flower": cut(flower)}
datasets["grey china"] = grey(datasets["china"])
datasets["grey flower"] = grey(datasets["flower"])
datasets["digits"] = digits
datasets["inverted digits"] = 1 - digits
names = list(datasets)

# %%
# The vectors
# -----------
# The reference network is the one of the zoo that comes with the package. The paper's
# is VGG16, trained on ImageNet, of which it takes the 4096 responses of fc7:
# ``DatasetEmbedder("vgg16")``, after a download of half a gigabyte.

embedder = load_zoo().embedder
vectors = embedder.fit_transform(list(datasets.values()))
print("fingerprint:", embedder.fingerprint_)
print("shape:", vectors.shape)

# %%
# All values are 0 or above, as the layer ends in a ReLU, and each vector sums to 1. So
# it can be read as a distribution over the 64 units, which KL compares. A unit that
# no image of a dataset excites is 0.

for name, vector in zip(names, np.asarray(vectors)):
    print(f"{name:16} min {vector.min():.1f}, sum {vector.sum():.3f}", end=", ")
    print(f"{np.mean(vector == 0):.1%} of the units silent")

# %%
# Divergences
# -----------
# Each row is a target, each column a source, and lower is nearer. KL has a direction,
# so its map is not symmetric. The scales differ, which does not matter for a ranking:
# each row is standardised there.

metrics = {"kl": "KL", "js": "JS", "euclidean": "Euclidean", "cosine": "cosine"}
figure, axes = plt.subplots(2, 2, figsize=(9.5, 8.4), layout="constrained")
for ax, (metric, title) in zip(axes.flat, metrics.items()):
    D = pairwise_divergence(vectors, metric=metric)
    image = ax.imshow(D, cmap="viridis_r")
    for (i, j), value in np.ndenumerate(D):
        shown = f"{value:.2g}" if i != j else "0"
        style = {"color": "white" if value > D.max() / 2 else "black", "fontsize": 8}
        ax.text(j, i, shown, ha="center", va="center", **style)
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right")
    ax.set_yticks(range(len(names)), names)
    ax.set(title=title, xlabel="source", ylabel="target")
    figure.colorbar(image, ax=ax, shrink=0.7)
    ax.label_outer()
figure.suptitle("Divergences between datasets")
plt.show()

# %%
# Do other divergences order the sources as KL does? For each target, this is
# Spearman's correlation of the distances from the five other datasets, and then the
# mean over targets. At 1 the order is always the same.

others = ~np.eye(len(names), dtype=bool)


def rows(metric, **kwargs):
    D = pairwise_divergence(vectors, metric=metric, **kwargs)
    return D[others].reshape(len(names), -1)


def agreement(D):
    return np.mean([spearmanr(a, b).statistic for a, b in zip(D, rows("kl"))])


for metric in METRICS:
    print(f"{metric:10} {agreement(rows(metric)):6.2f}")

# %%
# KL would be infinite where a unit is silent for the source but not for the target.
# Values below ``epsilon`` are raised to it. The more silent units there are, as with so
# few images, the more it matters. Compare the mean divergence, and whether the order
# stays that of the default, 1e-12.

for epsilon in (1e-12, 1e-8, 1e-6, 1e-4):
    D = rows("kl", epsilon=epsilon)
    print(f"epsilon {epsilon:.0e}: mean KL {D.mean():.4f}", end=", ")
    print(f"agreement {agreement(D):.2f}")
