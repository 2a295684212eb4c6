"""Long runs: do memory, files, threads and processes level off?

    python benchmarks/reliability/long_runs.py

300 fits and 20,000 predictions in one process, a million streamed images, and catalogs
of 10,000 sources saved and loaded by several processes. About twenty minutes on two
cores, on Linux. Writes results/long_runs.csv.
"""

import gc
import os
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor

sys.path.insert(0, str(Path(__file__).parents[1]))
from sklearn_p2l import DatasetEmbedder, NetworkClassifier, SourceCatalog
from sklearn_p2l.datasets import load_zoo

RESULTS = Path(__file__).parent / "results"
N_FITS, N_PREDICTIONS, N_IMAGES, N_SOURCES = 300, 20_000, 1_000_000, 10_000


def state():
    """What this process holds: MiB, open files, threads, children, temporary files."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {
        "MiB": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "open files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "child processes": len(children),
        "temporary files": len(os.listdir(tempfile.gettempdir())),
    }


def watched(what, step, n_steps):
    """Do something many times; what is held after a tenth, after half, at the end."""
    start, seen = time.perf_counter(), []
    for i in range(n_steps):
        step(i)
        if i + 1 in (n_steps // 10, n_steps // 2, n_steps):
            seen.append(state())
    return row_of(what, start, seen)


def row_of(what, start, seen):
    row = {"what": what, "seconds": f"{time.perf_counter() - start:.0f}"}
    for key in seen[0]:
        row[key] = " → ".join(f"{held[key]:.0f}" for held in seen)
    return row


def fits():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 255, (24, 12, 12, 3), dtype=np.uint8)
    y = np.arange(24) % 2
    X[y == 1] //= 2
    backbone = load_zoo().sources["photos"].checkpoint

    def fit(i):
        NetworkClassifier(backbone, image_size=12, epochs=2, random_state=i).fit(X, y)

    yield watched(f"{N_FITS} fits", fit, N_FITS)
    classifier = NetworkClassifier(backbone, image_size=12, epochs=2).fit(X, y)

    def predict(i):
        classifier.predict(X[i % 24 : i % 24 + 1])

    yield watched(f"{N_PREDICTIONS:,} predictions", predict, N_PREDICTIONS)


class Stream:
    """Images made as they are read."""

    def __init__(self, n, tell):
        self.n, self.tell = n, tell

    def __iter__(self):
        rng = np.random.default_rng(0)
        for i in range(self.n):
            if i in (self.n // 10, self.n // 2, self.n - 1):
                self.tell.append(state())
            yield rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)


def stream():
    seen, start = [], time.perf_counter()
    embedder = DatasetEmbedder("small_resnet", weights=None, image_size=8)
    embedder.set_params(random_state=0, batch_size=512)
    embedder.fit([np.zeros((1, 8, 8, 3), np.uint8)])
    embedder.transform([Stream(N_IMAGES, seen)])
    return row_of(f"{N_IMAGES:,} streamed images", start, seen)


def catalogs():
    rng = np.random.default_rng(0)
    catalog = SourceCatalog.from_arrays(
        rng.random((N_SOURCES, 256), dtype=np.float32),
        sizes=rng.integers(1, 10**6, N_SOURCES),
        names=[f"source {i}" for i in range(N_SOURCES)],
    )
    start, seen = time.perf_counter(), []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            catalog.save(folder)
            counts = Parallel(n_jobs=4)(
                delayed(save_or_load)(folder, catalog if i % 2 else None)
                for i in range(24)
            )
            assert set(counts) == {N_SOURCES}, counts
        get_reusable_executor().shutdown()  # joblib's, which would wait for more
        seen.append(state())
    what = f"{N_SOURCES:,} sources, saved and loaded by four processes, 24 times"
    return row_of(what, start, seen)


def save_or_load(folder, catalog):
    if catalog is not None:
        catalog.save(folder)
        return len(catalog)
    return len(SourceCatalog.load(folder))


def main():
    warnings.simplefilter("ignore")
    rows = [*fits(), stream(), catalogs()]
    RESULTS.mkdir(exist_ok=True)
    frame = pd.DataFrame(rows)
    frame.to_csv(RESULTS / "long_runs.csv", index=False)
    print(frame.to_string(index=False))


if __name__ == "__main__":
    main()
