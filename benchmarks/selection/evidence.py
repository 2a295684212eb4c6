"""What evidence costs: sources that are opened against their bare passes, and scores.

``python benchmarks/selection/evidence.py`` takes about 10 minutes on 2 CPU cores.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import DATA, device_suffix, rounded, side_by_side, write

from sklearn_p2l import EvidenceSelector, Source, SourceCatalog, Task, networks
from sklearn_p2l.selection import _opened
from sklearn_p2l.transferability import score_features

HERE = Path(__file__).parent
N_SOURCES, N_IMAGES = 20, 250
CASES = [("small_resnet", 32), ("squeezenet1_1", 64), ("squeezenet1_1", 224)]
SIGNALS = ["logme", "probe", "knn"]


def zoo_of(name, size, folder):
    """Networks of one architecture with weights of their own, in files."""
    sources = []
    for seed in range(N_SOURCES):
        network = networks.open_network(name, weights=None, image_size=size, seed=seed)
        file = Path(folder) / f"{name}-{seed}.safetensors"
        weights = networks.get_weights(network.model)
        networks.write_checkpoint(file, weights, network.metadata)
        sources.append(Source(file.stem, checkpoint=file, architecture=name))
    return SourceCatalog(sources)


def opened(name, size, task):
    """Rank sources that are opened, beside what their passes take at least."""
    with tempfile.TemporaryDirectory() as folder:
        zoo = zoo_of(name, size, folder)
        selector = EvidenceSelector(
            zoo, signals=SIGNALS, weights="equal", image_size=size
        ).fit([task])
        nets = [
            networks.open_network(name, weights=source.checkpoint, image_size=size)
            for source in zoo
        ]
        batches = list(nets[0].read(task.X, 32))
        device = networks.choose_device("auto")

        def bare():
            for network in nets:
                features = networks.extract_features(
                    network, batches, precision="auto", device=device
                )
                for _ in features:
                    pass

        def read():
            for _ in nets[0].read(task.X, 32):
                pass

        def ours():
            _opened._kept.clear()  # the scores that it remembers
            selector.decision_function([task])

        seconds = side_by_side(
            {"bare passes": bare, "reading once": read, "EvidenceSelector": ours}
        )
    passes = seconds["bare passes"]
    least = passes + seconds["reading once"]
    return [
        {
            "network": f"{name}, {size} px",
            "what": what,
            "seconds": rounded(value),
            "to_bare_passes": rounded(value / passes),
            "to_passes_and_reading": rounded(value / least),
        }
        for what, value in seconds.items()
    ]


def scores():
    """All scores of one set of features, beside one singular value decomposition."""
    rng = np.random.default_rng(0)
    y = np.arange(1000) % 20
    X = np.maximum(rng.normal(size=(20, 2048))[y] + rng.normal(size=(1000, 2048)), 0)
    X = X.astype(np.float32)
    functions = {
        "singular value decomposition": lambda: np.linalg.svd(X, full_matrices=False)
    }
    for name in SIGNALS:
        functions[name] = lambda name=name: score_features(X, y, [name])
    functions["together"] = lambda: score_features(X, y, SIGNALS)
    seconds = side_by_side(functions, repeats=5)
    base = seconds["singular value decomposition"]
    return [
        {
            "what": what,
            "seconds": rounded(value),
            "to_decomposition": rounded(value / base),
        }
        for what, value in seconds.items()
    ]


def main():
    write(HERE / "results" / "scores.csv", scores())
    folder = DATA / "data" / "folders" / "clothing"
    task = Task.from_folder(folder, test_size=N_IMAGES, random_state=0)
    task = Task(task.X_test, task.y_test)
    table = [row for case in CASES for row in opened(*case, task)]
    write(HERE / "results" / f"opened{device_suffix()}.csv", table)


if __name__ == "__main__":
    main()
