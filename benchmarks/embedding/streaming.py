"""Peak memory of embedding a stream, as its length grows.

``python benchmarks/embedding/streaming.py`` takes about 5 minutes on 2 CPU cores.
"""

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import rounded, write

from sklearn_p2l import DatasetEmbedder

HERE = Path(__file__).parent


class Stream:
    """An iterable dataset of so many small images, made up one at a time."""

    def __init__(self, n):
        self.n = n

    def __iter__(self):
        rng = np.random.default_rng(0)
        block = rng.integers(0, 256, size=(1000, 16, 16, 3), dtype=np.uint8)
        for i in range(self.n):
            yield np.roll(block[i % 1000], i // 1000, axis=0)


def embed(n):
    embedder = DatasetEmbedder(
        "small_resnet", weights=None, image_size=16, batch_size=256, random_state=0
    )
    start = time.perf_counter()
    embedder.fit_transform([Stream(n)])
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(n, round(n / seconds), round(peak))


def main():
    rows = []
    for n in (10_000, 100_000, 1_000_000):
        command = [sys.executable, __file__, str(n)]  # a process of its own peak
        output = subprocess.run(command, capture_output=True, text=True, check=True)
        images, rate, peak = output.stdout.split()
        rows.append(
            {
                "images": int(images),
                "images_per_second": rounded(float(rate)),
                "peak_mib": int(peak),
            }
        )
    write(HERE / "results" / "streaming.csv", rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        embed(int(sys.argv[1]))
    else:
        main()
