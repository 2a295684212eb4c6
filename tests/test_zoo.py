"""The zoo that comes with the package: what it holds, and that its script makes it."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA, real_file, run_without_torch
from numpy.testing import assert_allclose
from sklearn.base import clone

from sklearn_p2l import (
    EvidenceSelector,
    NetworkClassifier,
    SourceSelector,
    Task,
    networks,
)
from sklearn_p2l.datasets import load_zoo
from sklearn_p2l.tuning import epochs_of

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def zoo():
    return load_zoo()


@pytest.fixture(scope="module")
def script():
    """What made the zoo, benchmarks/zoo/run.py, and its tasks where images are."""
    real_file("data", "images", "hand_shapes.npz")
    names, before = ("run", "tasks", "dealing", "timing"), {}
    for name in names:  # other benchmarks have modules of the same names
        before[name] = sys.modules.pop(name, None)
    sys.path.insert(0, str(ROOT / "benchmarks" / "zoo"))
    try:
        import run

        yield run, *run.load_tasks()
    finally:
        sys.path.pop(0)
        for name in names:
            sys.modules.pop(name, None)
            if before[name] is not None:
                sys.modules[name] = before[name]


def test_it_is_small_and_complete(zoo):
    folder = Path(zoo.folder)
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 4e6
    n_sources, n_targets = len(zoo.sources), len(zoo.target_names)
    assert n_sources >= 10 and zoo.improvements.shape == (n_targets, n_sources)
    assert zoo.vectors.shape == (n_targets, zoo.sources.n_features)
    assert len(zoo.baseline) == len(zoo.target_sizes) == n_targets
    for values in (zoo.improvements, *zoo.scores.values()):
        assert values.shape == (n_targets, n_sources) and np.isfinite(values).all()
    assert zoo.sources.sizes.max() > 100 * zoo.sources.sizes.min()
    for source in zoo.sources:
        assert Path(source.checkpoint).parent == folder and source.metadata["licence"]
        assert source.class_means is not None


def test_its_networks_open(zoo):
    for source in zoo.sources:
        network = networks.open_network(source.checkpoint, weights=None, with_head=True)
        n_weights = sum(p.numel() for p in network.body_parameters())
        assert 77_000 < n_weights < 79_000 and network.image_size == 24


def test_its_reference_network_is_the_one_of_its_vectors(zoo):
    embedder = zoo.embedder.fit([np.zeros((1, 8, 8), np.uint8)])
    assert embedder.fingerprint_ == zoo.sources.fingerprint
    assert zoo.vectors.fingerprint == zoo.sources.fingerprint


def test_a_ranker_learns_from_it_without_torch(zoo):
    done = run_without_torch(
        """
    from sklearn_p2l import EvidenceSelector
    from sklearn_p2l.datasets import load_zoo

    zoo = load_zoo()
    selector = EvidenceSelector(zoo.sources, embedder=zoo.embedder)
    selector.fit(zoo.vectors, zoo.improvements, scores=zoo.scores)
    assert set(zoo.scores) < set(selector.signals_)
    """
    )
    assert done.returncode == 0, done.stderr


def test_left_out_targets_are_ranked_better_than_by_chance(zoo):
    """Leaving one target out, by what is known without opening a network."""
    rho = []
    for i in range(len(zoo.vectors)):
        others = np.arange(len(zoo.vectors)) != i
        selector = EvidenceSelector(zoo.sources)
        selector.fit(zoo.vectors[others], zoo.improvements[others])
        rho.append(selector.score(zoo.vectors[[i]], zoo.improvements[[i]]))
    assert np.mean(rho) > 0.35
    assert SourceSelector(zoo.sources).fit(zoo.vectors, zoo.improvements).k_ < 0


@pytest.mark.slow
def test_its_script_makes_a_source_again(zoo, script):
    """The smallest: as good on other images, and of the same mind about most."""
    made, sources, _ = script
    name = "trash_few"
    task, source = sources[name], zoo.sources[name]
    again = clone(made.SOURCE_CLASSIFIER).set_params(random_state=0)
    again.set_params(epochs=epochs_of(again, len(task), made.STEPS["few"])).fit(task)
    kept = networks.open_network(source.checkpoint, weights=None, with_head=True)
    logits = networks.predict_logits(
        kept, kept.read(task.X_test, 64), "float32", networks.choose_device("cpu")
    )
    kept_says = again.classes_[logits.argmax(axis=1)]
    accuracy = np.mean(kept_says == task.y_test)
    assert accuracy == pytest.approx(source.columns["score"], abs=0.01)
    assert again.score(task.X_test, task.y_test) == pytest.approx(accuracy, abs=0.08)
    assert np.mean(again.predict(task.X_test) == kept_says) > 0.75
    assert source.size == len(task) and source.n_classes == len(np.unique(task.y))


@pytest.mark.slow
def test_its_vectors_and_scores_are_those_of_the_tasks(zoo, script):
    _, sources, targets = script
    assert tuple(sources) == zoo.sources.names and list(targets) == zoo.target_names
    embedder = clone(zoo.embedder).set_params(precision="float32")
    some = ["trash", "sign_digits"]
    vectors = embedder.fit_transform([sources[name] for name in some])
    for name, vector in zip(some, vectors):
        kept = zoo.sources[name]
        assert_allclose(np.asarray(vector), kept.embedding, atol=1e-5)
        assert_allclose(vector.class_means, kept.class_means, atol=1e-3)
    i = zoo.target_names.index("trash_b")
    selector = EvidenceSelector(zoo.sources[some], signals=list(zoo.scores))
    selector.fit([targets["trash_b"]], [[0.1, 0.2]])
    columns = [zoo.sources.names.index(name) for name in some]
    for name, values in selector.scores_.items():
        assert_allclose(values[0], zoo.scores[name][i, columns], rtol=0.02, atol=0.02)


def test_its_card_says_what_its_catalog_does(zoo):
    card = Path(zoo.folder, "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| ([\d,]+) \| (\d+) \| ([\d.]+) \|", card, re.M)
    assert [row[0] for row in rows] == list(zoo.sources.names)
    for name, size, n_classes, score in rows:
        source = zoo.sources[name]
        assert (int(size.replace(",", "")), int(n_classes)) == (
            source.size,
            source.n_classes,
        )
        assert float(score) == pytest.approx(source.columns["score"], abs=1e-3)
    for what in ("CC BY 4.0", "CC0", "MIT", "Apache-2.0"):
        assert what in card


def test_no_image_is_part_of_it(zoo):
    names = {path.suffix for path in Path(zoo.folder).rglob("*") if path.is_file()}
    assert names == {".json", ".npy", ".npz", ".safetensors", ".md"}
    content = json.loads(Path(zoo.folder, "catalog.json").read_text("utf-8"))
    assert str(DATA) not in json.dumps(content)


def test_a_network_of_the_zoo_is_a_start(zoo, rng):
    X = rng.integers(0, 120, size=(20, 24, 24), dtype=np.uint8)
    X[10:] += 130
    y = np.repeat(["dark", "light"], 10)
    start = zoo.sources["shapes"]
    classifier = NetworkClassifier(start.architecture, weights=start.checkpoint)
    classifier.set_params(epochs=5, random_state=0).fit(Task(X, y))
    assert classifier.image_size_ == 24 and classifier.score(X, y) == 1
