"""Ranking 100,000 sources for a target, and learning k from 1,000 targets.

The catalog, 1.6 GB of made-up vectors, is written to a temporary folder.
``python benchmarks/selection/scale.py`` takes about 5 minutes on 2 CPU cores.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import rounded, side_by_side, write

from sklearn_p2l import EvidenceSelector, SourceCatalog, SourceSelector
from sklearn_p2l.divergence import METRICS, pairwise_divergence
from sklearn_p2l.selection._ranker import zscore

HERE = Path(__file__).parent
N_SOURCES, N_FEATURES = 100_000, 4096
SIGNALS = ["kl", "cosine", "size", "prior", "similar_targets"]


def write_vectors(path):
    rng = np.random.default_rng(0)
    shape = (N_SOURCES, N_FEATURES)
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, shape=shape)
    for start in range(0, N_SOURCES, 1000):
        block = rng.gamma(0.5, size=(1000, N_FEATURES)).astype(np.float32)
        vectors[start : start + 1000] = block / block.sum(axis=1, keepdims=True)
    vectors.flush()
    return np.load(path, mmap_mode="r")


def rank(vectors):
    rng = np.random.default_rng(1)
    T = rng.gamma(0.5, size=(100, N_FEATURES))
    catalog = SourceCatalog.from_arrays(
        vectors,
        sizes=rng.integers(100, 1_000_000, N_SOURCES),
        names=[f"source {i}" for i in range(N_SOURCES)],
    )
    selector = SourceSelector(catalog, k=-1.0).fit(T[:1])
    evidence = evidence_of(catalog, T, rng)
    functions = {"plain sum of the matrix": vectors.sum}
    for metric in METRICS:
        functions[f"{metric}, 1 target"] = lambda metric=metric: pairwise_divergence(
            T[:1], vectors, metric=metric
        )
    functions |= {
        "kl, 100 targets": lambda: pairwise_divergence(T, vectors),
        "predict_top, 1 target": lambda: selector.predict_top(T[:1], n_top=10),
        "predict, 1 target": lambda: selector.predict(T[:1]),
        "predict_top, 100 targets": lambda: selector.predict_top(T, n_top=10),
        "five signals, 1 target": lambda: evidence.predict_top(T[:1], n_top=10),
        "five signals, 100 targets": lambda: evidence.predict_top(T, n_top=10),
    }
    seconds = side_by_side(functions)
    base = seconds["plain sum of the matrix"]
    return [
        {
            "what": what,
            "seconds": rounded(value),
            "gb_per_second": rounded(vectors.nbytes / value / 1e9),
            "to_plain_sum": rounded(value / base),
        }
        for what, value in seconds.items()
    ]


def evidence_of(catalog, T, rng):
    """Five signals with weights learned from 20 targets and 1,000 sources."""
    y = np.full((20, N_SOURCES), np.nan)
    y[:, rng.permutation(N_SOURCES)[:1000]] = rng.normal(size=(20, 1000))
    return EvidenceSelector(catalog, signals=SIGNALS).fit(T[:20], y)


def learn():
    """Time the exact sweep, and a grid of k searched with scipy."""
    rng = np.random.default_rng(2)
    S, X = rng.dirichlet(np.ones(64), 100), rng.dirichlet(np.ones(64), 1000)
    sizes = rng.integers(100, 100_000, 100)
    D = pairwise_divergence(X, S)
    size_term, z = zscore(np.log(sizes)[np.newaxis]), zscore(D)
    y = size_term - 0.8 * z + rng.normal(scale=1.0, size=D.shape)
    selector = SourceSelector(S, sizes=sizes)
    names = [f"source {i}" for i in range(len(S))]
    catalog = SourceCatalog.from_arrays(S, sizes=sizes, names=names)
    evidence = EvidenceSelector(catalog, signals=SIGNALS)
    start = time.perf_counter()
    selector.fit(X, y)
    exact = time.perf_counter() - start
    start = time.perf_counter()
    evidence.fit(X, y)
    weighed = time.perf_counter() - start
    grid = np.linspace(-5, 5, 1001)
    some = grid[:: len(grid) // 10]  # its cost is the same at every k
    start = time.perf_counter()
    for k in some:
        on_grid(size_term + k * z, y)
    searched = (time.perf_counter() - start) * len(grid) / len(some)
    best = max(on_grid(size_term + k * z, y) for k in np.linspace(-1, -0.6, 41))
    found = on_grid(size_term + selector.k_ * z, y)
    return [
        {
            "what": "SourceSelector.fit",
            "seconds": rounded(exact),
            "ratio": 1.0,
            "spearman": round(found, 6),
        },
        {
            "what": "EvidenceSelector.fit, weights of five signals",
            "seconds": rounded(weighed),
            "ratio": rounded(weighed / exact),
            "spearman": "",  # it has seen these targets
        },
        {
            "what": "scipy.stats.spearmanr on 1,001 values of k",
            "seconds": rounded(searched),
            "ratio": rounded(searched / exact),
            "spearman": round(best, 6),
        },
    ]


def on_grid(E, y):
    return np.mean([spearmanr(e, row).statistic for e, row in zip(E, y)])


def main():
    write(HERE / "results" / "learning.csv", learn())
    with tempfile.TemporaryDirectory() as folder:
        vectors = write_vectors(Path(folder) / "embeddings.npy")
        write(HERE / "results" / "ranking.csv", rank(vectors))


if __name__ == "__main__":
    main()
