"""How many images a summary needs, and what ``max_samples="auto"`` costs.

The eleven real image datasets are summarised by SqueezeNet, from all of their images
and from a part of them; for each as the target, the ten others are ranked by KL and
size. ``python benchmarks/embedding/sampling.py`` takes about 4 minutes on 2 CPU cores.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import DATA, rounded, write

from sklearn_p2l import DatasetEmbedder, SourceSelector, networks
from sklearn_p2l.embedding._summary import summarize

HERE = Path(__file__).parent
SEEDS = range(10)
SETTINGS = [
    ("tolerance", 0.2),
    ("tolerance", 0.1),
    ("tolerance", 0.05),
    ("tolerance", 0.02),
    ("tolerance", 0.01),
    ("images", 50),
    ("images", 100),
    ("images", 250),
    ("images", 500),
    ("images", 1000),
]
K = -1.0


def embedder(**settings):
    weights = DATA / "models" / "squeezenet1_1.safetensors"
    return DatasetEmbedder(
        "squeezenet1_1", weights=weights, image_size=112, random_state=0, **settings
    )


def features_of(images, network):
    batches = network.read(images, 64)
    parts = networks.extract_features(
        network, batches, precision="float32", device=networks.choose_device("auto")
    )
    return np.concatenate(list(parts))


def partial_summary(features, kind, value, seed):
    """The summary of a part drawn by seed, and the number of images in it."""
    order = np.random.RandomState(seed).permutation(len(features))
    if kind == "images":
        return features[order[:value]].mean(axis=0), min(value, len(features))
    read = []

    def batches():
        for part in np.split(order, range(32, len(order), 32)):
            read.append(len(part))
            yield features[part]

    summary = summarize(batches(), "mean", 0, tolerance=value, n_total=len(features))
    return summary.vector, sum(read)


def agreement(features, sizes):
    full = np.stack([f.mean(axis=0) for f in features])
    full /= full.sum(axis=1, keepdims=True)
    rows = []
    for kind, value in SETTINGS:
        rhos, same, errors, shares, counts = [], [], [], [], []
        for target, own in enumerate(features):
            others = np.arange(len(features)) != target
            selector = SourceSelector(full[others], sizes=sizes[others], k=K)
            selector.fit(full[[target]])
            expected = selector.decision_function(full[[target]])[0]
            for seed in SEEDS:
                vector, n_read = partial_summary(own, kind, value, seed)
                vector = vector / vector.sum()
                E = selector.decision_function(vector[np.newaxis])[0]
                rhos.append(spearmanr(E, expected).statistic)
                same.append(E.argmax() == expected.argmax())
                errors.append(np.abs(vector - full[target]).sum())
                shares.append(n_read / len(own))
                counts.append(n_read)
        rows.append(
            {
                "part": f"{kind} {value}",
                "images_read": round(np.mean(counts)),
                "share_read": rounded(np.mean(shares)),
                "l1_error": rounded(np.mean(errors), 2),
                "spearman": round(np.mean(rhos), 4),
                "lowest_spearman": round(np.min(rhos), 4),
                "same_pick": round(np.mean(same), 4),
            }
        )
    return rows


class Varied(torch.utils.data.Dataset):
    """Any number of images: the real ones, each time shifted and brightened anew."""

    def __init__(self, images, n):
        self.images, self.n, self.n_read = images, n, 0

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.n_read += 1
        rng = np.random.default_rng(i)
        image = np.roll(
            self.images[i % len(self.images)], rng.integers(-8, 9, 2), (0, 1)
        )
        return (image * rng.uniform(0.7, 1)).astype(np.uint8)


def cost(images):
    rows = []
    for max_samples, sizes in [
        (None, (1_000, 10_000)),
        ("auto", (1_000, 10_000, 100_000)),
    ]:
        fitted = embedder(max_samples=max_samples).fit([images])
        for n in sizes:
            dataset = Varied(images, n)
            start = time.perf_counter()
            fitted.transform([dataset])
            rows.append(
                {
                    "max_samples": str(max_samples),
                    "images": n,
                    "images_read": dataset.n_read,
                    "seconds": rounded(time.perf_counter() - start),
                }
            )
    return rows


def cached():
    """A folder of JPEG files, embedded, and again with its summary on disk."""
    folder = DATA / "data" / "folders" / "clothing"
    rows = []
    with tempfile.TemporaryDirectory() as memory:
        for what in ("first time", "again"):
            fitted = embedder(memory=memory).fit([folder])  # knows no summary by itself
            start = time.perf_counter()
            fitted.transform([folder])
            seconds = rounded(time.perf_counter() - start)
            rows.append({"what": what, "files": 504, "seconds": seconds})
    return rows


def main():
    files = sorted((DATA / "data" / "images").glob("*.npz"))
    images = [np.load(file)["images"] for file in files]
    network = embedder().fit([images[0]])._network
    features = [features_of(i, network) for i in images]
    sizes = np.array([len(i) for i in images])
    write(HERE / "results" / "sampling.csv", agreement(features, sizes))
    clothing = images[[f.stem for f in files].index("clothing")]
    write(HERE / "results" / "cost.csv", cost(clothing))
    write(HERE / "results" / "cache.csv", cached())


if __name__ == "__main__":
    main()
