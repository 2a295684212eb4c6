"""What tests share: small images, real data where it is at hand, no torch."""

import os

# One test file per core at a time: small networks gain nothing from a second thread.
# Set before anything loads a library of numerics; child processes inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

import subprocess
import sys
import textwrap
from pathlib import Path

import joblib
import numpy as np
import pytest

DATA = Path(
    os.environ.get("SKLEARN_P2L_DATA", Path(__file__).parents[2] / "shared")
).absolute()


def real_file(*parts):
    """Path of a file of real data; skips the test where it is absent."""
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"real data is not here: {path}; set SKLEARN_P2L_DATA")
    return path


def real_images(name):
    """Images, labels and groups (or None) of a real dataset."""
    with np.load(real_file("data", "images", f"{name}.npz")) as file:
        groups = file["groups"] if "groups" in file else None
        return file["images"], file["labels"], groups


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def dark_and_light():
    """Forty 16 × 16 images of two obvious classes, and their labels."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 120, size=(40, 16, 16, 3), dtype=np.uint8)
    y = np.repeat(["dark", "light"], 20)
    X[20:] += 130
    order = rng.permutation(40)
    return X[order], y[order]


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    """Two real sources, trained: digits and the edges of a photograph."""
    from sklearn_p2l import DatasetEmbedder, NetworkClassifier, SourceCatalog
    from sklearn_p2l.datasets import load_small_tasks

    folder = tmp_path_factory.mktemp("zoo")
    tasks = load_small_tasks().sources
    embedder = DatasetEmbedder(
        "small_resnet", weights=None, image_size=16, random_state=0
    )
    sources = []
    for name in ("digits_0_to_4", "flower_edges"):
        classifier = NetworkClassifier(
            image_size=16, epochs=10, learning_rate=0.005, random_state=0
        )
        source = classifier.fit(tasks[name]).to_source(
            name,
            embedding=embedder.fit_transform([tasks[name]]),
            checkpoint=folder / f"{name}.safetensors",
        )
        sources.append(source)
    return SourceCatalog(sources)


@pytest.fixture
def dask_cluster():
    """The client of two processes of one thread each, and joblib's backend for them."""
    distributed = pytest.importorskip("distributed")
    before = dict(os.environ)  # to which a cluster adds numbers of threads
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    )
    with (
        cluster,
        distributed.Client(cluster) as client,
        joblib.parallel_config(backend="dask"),
    ):
        yield client
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def interrupt_in_epoch(monkeypatch):
    """Interrupts the training in the n-th epoch from now; returns a list of epochs."""
    from sklearn_p2l.networks import training

    epoch = training._train_epoch

    def arrange(number):
        calls = []

        def interrupted(*args):
            calls.append(1)
            if len(calls) == number:
                raise KeyboardInterrupt
            return epoch(*args)

        monkeypatch.setattr(training, "_train_epoch", interrupted)
        return calls

    return arrange


# A serving application has numpy, scipy, scikit-learn and joblib alone.
REFUSE_TORCH = """
    import sys

    REFUSED = {"torch", "torchvision", "safetensors", "PIL", "tqdm"}

    class Refuse:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in REFUSED:
                raise ImportError(f"{name} is refused here")

    sys.meta_path.insert(0, Refuse())
"""


def run_without_torch(code, *arguments):
    """Run code in a process of its own without torch and all that serves it."""
    code = textwrap.dedent(REFUSE_TORCH) + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
