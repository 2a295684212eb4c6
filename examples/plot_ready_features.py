"""
Features of any model
=====================

A :class:`~sklearn_p2l.DatasetEmbedder` also takes ready features: a dataset is then a
2-D array, one row per sample. So features of any model can describe datasets, of any
kind of data, and no other package is needed. Here they are made of text, with
scikit-learn only.
"""

# %%
# Where features may come from
# ----------------------------
# From an image model of `timm <https://huggingface.co/docs/timm>`_, say. Without its
# classifier, the model returns its pooled features:
#
# .. code-block:: python
#
#     import timm
#     import torch
#
#     model = timm.create_model("resnet50", pretrained=True, num_classes=0).eval()
#     config = timm.data.resolve_model_data_config(model)
#     transform = timm.data.create_transform(**config, is_training=False)
#     with torch.inference_mode():
#         rows = [model(transform(image)[None])[0].numpy() for image in pil_images]
#     dataset = np.stack(rows)  # (n_images, 2048)
#
# Or from a model of `sentence-transformers <https://sbert.net>`_:
#
# .. code-block:: python
#
#     from sentence_transformers import SentenceTransformer
#
#     model = SentenceTransformer("all-MiniLM-L6-v2")
#     dataset = model.encode(texts)  # (n_texts, 384)
#
# One difference matters: features after a ReLU, as those of a ResNet, are never
# negative. Those of sentence-transformers and of most vision transformers have a sign.
# The two kinds need different divergences, as this page shows.

# %%
# Datasets of text
# ----------------
# The texts are scikit-learn's own docstrings. Each of its modules gives two datasets: a
# random half of its docstrings is a source, and the other half a target. So each target
# has one source that is of the same kind. How often is that the nearest one?

import importlib
import inspect

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split

from sklearn_p2l import DatasetEmbedder, SourceCatalog, SourceSelector
from sklearn_p2l.divergence import pairwise_divergence
from sklearn_p2l.plotting import RankingDisplay

names = [
    "cluster",
    "decomposition",
    "ensemble",
    "feature_selection",
    "linear_model",
    "metrics",
    "neighbors",
    "preprocessing",
]
texts, topics = [], []
for name in names:
    module = importlib.import_module(f"sklearn.{name}")
    public = [vars(module)[key] for key in module.__all__ if key in vars(module)]
    docstrings = [inspect.getdoc(item) for item in public if callable(item)]
    texts += docstrings
    topics += [name] * len(docstrings)
topics = np.array(topics)
print({name: int((topics == name).sum()) for name in names})

# %%
# Features that are never negative
# --------------------------------
# TF-IDF gives each text one number for each word, 0 or above. The mean over a dataset
# tells which words its texts share.

tfidf = TfidfVectorizer(min_df=2, sublinear_tf=True).fit_transform(texts).toarray()
print(tfidf.shape, "from", tfidf.min())


def split(seed):
    """Rows of the two halves of each module."""
    rows = [np.flatnonzero(topics == name) for name in names]
    halves = [train_test_split(r, test_size=0.5, random_state=seed) for r in rows]
    return [list(part) for part in zip(*halves)]


def embed(features, parts):
    """One vector per dataset, of ready features."""
    return DatasetEmbedder().fit_transform([features[rows] for rows in parts])


sources, targets = split(seed=0)
vectors = embed(tfidf, targets)
catalog = SourceCatalog.from_arrays(
    embed(tfidf, sources), sizes=[len(rows) for rows in sources], names=names
)
print(vectors.shape, catalog.fingerprint)

# %%
# The fingerprint of ready features is their width and the statistic. It cannot know
# which model they are from, so see to it that all are from one.
#
# With such vectors all divergences work, and so does the selector. The weight ``k`` is
# borrowed here.

selector = SourceSelector(catalog, metric="js", k=-1.0).fit(vectors)
for name, ranking in zip(names, selector.predict(vectors)):
    print(f"{name:18} {', '.join(ranking[:3])}, ...")

# %%
# Features with a sign
# --------------------
# A truncated singular value decomposition makes 50 features of the many, with a sign,
# much as sentence embeddings are. KL, JS, chi-square and Hellinger compare
# distributions, so they refuse them. The message tells what to do.

dense = TruncatedSVD(50, random_state=0).fit_transform(tfidf)
print(dense.shape, f"from {dense.min():.2f}")
dense_sources, dense_targets = embed(dense, sources), embed(dense, targets)
try:
    SourceSelector(dense_sources, k=-1.0).fit(dense_targets)
except ValueError as error:
    print(error)

# %%
# Distances between points know no such limit: "euclidean", "cityblock" and "cosine".

dense_catalog = SourceCatalog.from_arrays(
    dense_sources, sizes=catalog.sizes, names=names
)
dense_selector = SourceSelector(dense_catalog, metric="cosine", k=-1.0)
dense_selector.fit(dense_targets)

# %%
# Another way is to give each feature two columns, its positive and its negative part.
# These are never negative, and twice as wide.

two_parts = np.hstack([np.maximum(dense, 0), np.maximum(-dense, 0)])

# %%
# Which of them finds the same kind?
# ----------------------------------
# For ten random splits into halves, this is the share of the targets whose nearest
# source is the other half of the same module. Targets are cut to their first few texts,
# as whole halves are too easy to tell apart. A guess would find one of eight. This only
# shows that the vectors tell kinds of text apart. It does not show what transfer would
# gain.

splits = [split(seed) for seed in range(10)]
n_texts = [1, 2, 4, 8]
representations = {
    "TF-IDF": (tfidf, ["kl", "js", "cosine", "euclidean"]),
    "SVD with a sign": (dense, ["cosine", "euclidean", "cityblock"]),
    "SVD in two parts": (two_parts, ["kl", "js"]),
}


def share_found(source_vectors, target_vectors, metric):
    """Share of targets whose nearest source is of the same module."""
    nearest = [
        pairwise_divergence(T, S, metric=metric).argmin(axis=1)
        for S, T in zip(source_vectors, target_vectors)
    ]
    return np.mean(np.array(nearest) == np.arange(len(names)))


styles = {
    "kl": {"color": "#0072B2", "marker": "o"},
    "js": {"color": "#D55E00", "marker": "s"},
    "cosine": {"color": "#009E73", "marker": "^"},
    "euclidean": {"color": "#CC79A7", "marker": "D"},
    "cityblock": {"color": "#E69F00", "marker": "v"},
}
figure, axes = plt.subplots(ncols=3, figsize=(11, 4), layout="constrained", sharey=True)
for ax, (title, (features, metrics)) in zip(axes, representations.items()):
    S = [embed(features, sources) for sources, _ in splits]
    T = {
        n: [embed(features, [rows[:n] for rows in targets]) for _, targets in splits]
        for n in n_texts
    }
    for metric in metrics:
        shares = [share_found(S, T[n], metric) for n in n_texts]
        ax.plot(n_texts, shares, label=metric, **styles[metric])
        print(f"{title:17} {metric:10}", *(f"{share:5.0%}" for share in shares))
    ax.axhline(1 / len(names), color="black", linestyle=":", label="a guess")
    ax.set_xscale("log", base=2)
    ax.set_xticks(n_texts, n_texts)
    ax.set(title=title, xlabel="texts of a target", ylim=(0, 1.03))
    ax.legend(loc="center right", fontsize="small")
axes[0].set_ylabel("targets whose nearest source\nis of the same module")
axes[0].yaxis.set_major_formatter("{x:.0%}")
plt.show()

# %%
# The divergences of one split
# ----------------------------
# Each row is a target, a whole half, scaled to mean 0 and standard deviation 1 as the
# selector does. Dark is near. A dot marks the nearest source. Where it is not on the
# diagonal, another module is nearer than the one that the target was taken from.

panels = {
    "TF-IDF, JS": pairwise_divergence(vectors, catalog.embeddings, metric="js"),
    "SVD, cosine": pairwise_divergence(dense_targets, dense_sources, metric="cosine"),
}
figure, axes = plt.subplots(ncols=2, figsize=(11, 5), layout="constrained", sharey=True)
for ax, (title, D) in zip(axes, panels.items()):
    z = (D - D.mean(axis=1, keepdims=True)) / D.std(axis=1, keepdims=True)
    image = ax.imshow(z, cmap="viridis", vmin=-2.7, vmax=2.7)
    ax.plot(D.argmin(axis=1), range(len(names)), "o", color="white", markersize=7)
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right")
    ax.set_yticks(range(len(names)), names)
    ax.set(title=title, xlabel="source")
axes[0].set_ylabel("target")
figure.colorbar(image, ax=axes, label="z of the divergence", shrink=0.8)
plt.show()

# %%
# A ranking
# ---------
# A ranking also counts the size of a source. Here is one target in both kinds of
# features. A large source may stand above the one of the same kind.

figure, axes = plt.subplots(ncols=2, figsize=(11, 4), layout="constrained")
i = names.index("decomposition")
RankingDisplay.from_estimator(selector, vectors[i], ax=axes[0])
RankingDisplay.from_estimator(dense_selector, dense_targets[i], ax=axes[1])
axes[0].set_title(f"{names[i]}, TF-IDF, JS")
axes[1].set_title(f"{names[i]}, SVD, cosine")
axes[0].get_legend().remove()
plt.show()
