"""EvidenceSelector: its weights, its signals, how sure it is, what it refuses."""

import pickle
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from conftest import run_without_torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import cdist
from scipy.stats import norm, spearmanr, t
from scipy.stats import zscore as zscore_of
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, LeaveOneOut

from sklearn_p2l import (
    DatasetEmbedder,
    EvidenceSelector,
    FineTuner,
    NetworkClassifier,
    Source,
    SourceCatalog,
    SourceSelector,
    Task,
    networks,
    transferability,
)
from sklearn_p2l.datasets import Bag, Context, load_small_tasks, load_transfer_results
from sklearn_p2l.evaluation import evaluate_selectors
from sklearn_p2l.exceptions import SkippedSourcesWarning
from sklearn_p2l.selection import _opened, _weights
from sklearn_p2l.selection._signals import Measured
from sklearn_p2l.selection._weights import learn_weights

SIGNED = np.zeros(3, dtype=bool)


def planted(rng, weights, noise, n_targets=12, n_sources=10):
    """Signals as z-scores, and improvements that are their weighted sum plus noise."""
    shape = len(weights), n_targets, n_sources
    z = rng.normal(size=shape)
    z = (z - z.mean(axis=2, keepdims=True)) / z.std(axis=2, keepdims=True)
    y = np.tensordot(weights, z, 1)
    return z, y + noise * rng.normal(size=y.shape)


# -- weights -------------------------------------------------------------------------


def test_planted_weights_are_found(rng):
    z, y = planted(rng, [3.0, 1.0, 0.0], 0.3, n_targets=40)
    learned = learn_weights(z, y, SIGNED)
    ratio = learned.values / learned.values[0]
    assert_allclose(ratio, [1, 1 / 3, 0], atol=0.08)
    assert learned.strength < 1 and learned.noise < 0.2


def test_few_or_no_information_gives_equal_weights(rng):
    z, y = planted(rng, [1.0, 1.0, 1.0], 1.0, n_targets=3, n_sources=6)
    few = learn_weights(z, y, SIGNED).values
    assert few.min() > 0.3 * few.max() > 0
    for y in (np.full((3, 6), np.nan), np.ones((3, 6))):
        nothing = learn_weights(z, y, SIGNED)
        assert np.isinf(nothing.strength) and nothing.values[0] > 0
        assert_array_equal(nothing.values, nothing.values[0])


def test_ridge_is_its_closed_form(rng, monkeypatch):
    """As least squares of all that was measured, also of all targets but each."""
    monkeypatch.setattr(_weights, "STRENGTHS", (0.5,))
    z, y = planted(rng, [2.0, 1.0, 0.5], 0.5)
    y[rng.random(y.shape) < 0.2] = np.nan
    known = ~np.isnan(y)
    b = zscore_of(y, axis=1, nan_policy="omit")

    def ridge(rows):
        A, target = z[:, rows].T, b[rows]
        centre = (A.sum(axis=1) @ target) / (A.sum(axis=1) @ A.sum(axis=1))
        gram, pull = A.T @ A, 0.5 * len(target)
        w = np.linalg.solve(gram + pull * np.eye(3), A.T @ target + pull * centre)
        assert w.min() > 0
        return w

    weights = learn_weights(z, y, SIGNED)
    assert_allclose(weights.values, ridge(known), rtol=1e-5)
    squares = []
    for i in range(len(y)):
        rest = known.copy()
        rest[i] = False
        squares.extend((b[i] - ridge(rest) @ z[:, i])[known[i]] ** 2)
    assert_allclose(weights.left_out_errors, np.mean(squares), rtol=1e-5)


def test_weights_are_not_negative_unless_the_sign_is_unknown(rng):
    z, y = planted(rng, [2.0, -1.0, 0.0], 0.3, n_targets=30)
    assert learn_weights(z, y, SIGNED).values[1] == pytest.approx(0, abs=1e-6)
    free = np.array([False, True, False])
    assert learn_weights(z, y, free).values[1] < -0.2


def test_units_and_order_of_targets_and_sources_do_not_matter(rng):
    z, y = planted(rng, [2.0, 1.0, 0.0], 1.0)
    y[rng.random(y.shape) < 0.2] = np.nan
    expected = learn_weights(z, y, SIGNED)
    targets, sources = rng.permutation(12), rng.permutation(10)
    scale = rng.uniform(0.1, 10, size=(12, 1))
    y = scale * y + rng.normal(size=(12, 1))
    got = learn_weights(z[:, targets][:, :, sources], y[targets][:, sources], SIGNED)
    assert_allclose(got.values, expected.values, rtol=1e-4)
    assert got.strength == expected.strength


def test_prior_without_the_target_itself(rng):
    y = rng.normal(size=(6, 4))
    y[rng.random(y.shape) < 0.3] = np.nan
    y[:, 3] = np.nan
    prior, nested = Measured.of(y).prior()[0], Measured.of(y).prior(nested=True)
    for i in range(6):
        without = Measured.of(np.delete(y, i, axis=0)).prior()[0]
        assert_allclose(nested[i], without, atol=1e-9)
    assert (nested[:, 3] == 0).all() and prior[3] == 0
    z = (y - np.nanmean(y, axis=1)[:, None]) / np.nanstd(y, axis=1)[:, None]
    count = (~np.isnan(y)).sum(axis=0)
    assert_allclose(prior, np.nansum(z, axis=0) / (count + 1), atol=1e-9)


# -- signals -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results():
    return load_transfer_results()


def test_two_signals_are_equation_2(results):
    """With weights 1 and -k, of size and divergence."""
    vectors = np.asarray(results.vectors)
    two = SourceSelector(results.sources, k=-2.5).fit(results.vectors)
    selector = EvidenceSelector(
        results.sources, signals=["size", "kl"], weights={"size": 1, "kl": 2.5}
    ).fit(results.vectors)
    assert_allclose(
        selector.decision_function(vectors), two.decision_function(vectors), atol=1e-8
    )
    assert_array_equal(selector.predict(vectors), two.predict(vectors))
    assert_array_equal(selector.predict_top(vectors, 2), two.predict_top(vectors, 2))


def test_columns_of_the_catalog_are_signals(rng):
    zoo = SourceCatalog(
        [
            Source(f"s{j}", size=10, columns={"depth": float(j) if j != 2 else np.nan})
            for j in range(6)
        ]
    )
    y = -np.arange(6) + 0.1 * rng.normal(size=(8, 6))
    vectors = np.zeros((8, 1))
    selector = EvidenceSelector(zoo, signals=["depth"]).fit(vectors, y)
    assert selector.weights_["depth"] < 0
    ranking = [name for name in selector.predict(vectors[:1])[0] if name != "s2"]
    assert ranking == ["s0", "s1", "s3", "s4", "s5"]
    equal = EvidenceSelector(zoo, signals=["depth"], weights="equal").fit(vectors)
    assert equal.weights_ == {"depth": 0.0}


@pytest.fixture(scope="module")
def tasks():
    """Digits and a photograph's patches, as three small tasks."""
    loaded = load_small_tasks()
    targets = loaded.training_targets
    return [
        Task(task.X[:60], np.asarray(task.y)[:60]) for task in [*targets.values()][:3]
    ]


@pytest.fixture
def forget(monkeypatch):
    """Scores of networks that were opened before are not remembered."""
    monkeypatch.setattr(_opened, "_kept", type(_opened._kept)())


@pytest.fixture
def opened(monkeypatch, forget):
    """Names of the sources whose networks are opened."""
    names, open_ = [], _opened._open

    def spied(source, *args):
        names.append(source.name)
        return open_(source, *args)

    monkeypatch.setattr(_opened, "_open", spied)
    return names


@pytest.mark.parametrize(
    "name, score",
    [
        ("logme", transferability.logme_score),
        ("probe", transferability.probe_score),
        ("knn", transferability.knn_score),
        ("h_score", transferability.h_score),
    ],
)
def test_signals_of_a_sources_own_network(zoo, tasks, forget, name, score):
    selector = EvidenceSelector(zoo, signals=[name], weights="equal").fit(tasks)
    raw = np.empty((3, 2))
    for j, source in enumerate(zoo):
        network = networks.open_network(source.checkpoint, weights=None)
        for i, task in enumerate(tasks):
            batches = network.read(task.X, 8)
            features = networks.extract_features(
                network,
                batches,
                precision="auto",
                device=networks.choose_device("cpu"),
            )
            raw[i, j] = score(np.concatenate(list(features)), task.y)
    expected = np.sign(raw - raw.mean(axis=1, keepdims=True))  # z of two sources
    assert_allclose(selector.decision_function(tasks), expected, atol=1e-6)


def test_leep_is_of_the_sources_own_last_layer(zoo, tasks, forget, tmp_path):
    """Whatever its number of classes; a checkpoint without one is told."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 255, size=(20, 16, 16), dtype=np.uint8)
    trained = NetworkClassifier(image_size=16, epochs=2, random_state=0)
    trained.fit(X, np.arange(20) % 7)
    sources = [trained.to_source("seven", checkpoint=tmp_path / "7.safetensors"), *zoo]
    catalog = SourceCatalog(sources)
    selector = EvidenceSelector(catalog, signals=["leep", "knn"], weights={"leep": 1})
    got = selector.fit(tasks).decision_terms(tasks)["leep"]
    raw = np.empty((3, 3))
    for i, task in enumerate(tasks):
        raw[i, 0] = transferability.leep_score(trained.predict_proba(task.X), task.y)
        for j, source in enumerate(zoo, start=1):
            network = networks.open_network(
                source.checkpoint, weights=None, with_head=True
            )
            logits = networks.predict_logits(
                network, network.read(task.X, 8), "auto", networks.choose_device("cpu")
            )
            theta = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            raw[i, j] = transferability.leep_score(theta, task.y)
    z = (raw - raw.mean(axis=1)[:, None]) / raw.std(axis=1)[:, None]
    assert_allclose(got, z, atol=1e-3)
    weights = {k: v for k, v in trained.weights_.items() if not k.startswith("fc.")}
    headless = tmp_path / "headless.safetensors"
    networks.write_checkpoint(headless, weights, {"architecture": "small_resnet"})
    biasless = {k: v for k, v in trained.weights_.items() if k != "fc.bias"}
    file = tmp_path / "biasless.safetensors"
    networks.write_checkpoint(file, biasless, {"architecture": "small_resnet"})
    with pytest.raises(ValueError, match=r"in its usual form, got \['fc.weight'\]"):
        networks.open_network(file, weights=None, with_head=True)
    without = SourceCatalog([Source("headless", checkpoint=headless), zoo[0]])
    with pytest.warns(SkippedSourcesWarning, match=r"'headless': .* own last layer"):
        EvidenceSelector(without, signals=["leep"]).fit(tasks).predict(tasks)


def labelled(rng, directions, n_classes=3, n_samples=90):
    """Features whose class means differ in some directions of eight."""
    centres = np.zeros((n_classes, 8))
    centres[:, directions] = rng.normal(size=(n_classes, len(directions)))
    y = np.arange(n_samples) % n_classes
    return Task(5 + centres[y] + 0.01 * rng.normal(size=(n_samples, 8)), y)


def test_separability_and_coverage(rng):
    """Sources whose classes differ where those of the target do come first."""
    tasks = {"same": [0, 1], "half": [1, 2], "other": [4, 5]}
    embedder = DatasetEmbedder(class_means=True)
    sources = [labelled(rng, directions) for directions in tasks.values()]
    vectors = embedder.fit_transform(sources)
    zoo = SourceCatalog.from_arrays(vectors, sizes=[10, 20, 30], names=list(tasks))
    target = labelled(rng, [0, 1], n_classes=2)
    selector = EvidenceSelector(
        zoo, embedder=embedder, signals=["separability"], weights="equal"
    ).fit([target])
    assert selector.predict([target]).tolist() == [["same", "half", "other"]]
    own = embedder.transform([target])
    assert_allclose(
        selector.decision_function(own), selector.decision_function([target])
    )

    # By hand: the share of the variance of class means that a projection keeps.
    def spread(means):
        return means - means.mean(axis=0)

    shares = []
    for means in zoo.class_means:
        basis = np.linalg.svd(spread(means).astype(float))[2][: len(means) - 1]
        kept = spread(own.class_means[0]) @ basis.T @ basis
        shares.append((kept**2).sum() / (spread(own.class_means[0]) ** 2).sum())
    z = (shares - np.mean(shares)) / np.std(shares)
    assert_allclose(selector.decision_function([target])[0], z, atol=1e-5)
    assert shares[0] > 0.95 > 0.6 > shares[2]

    # A source that is the target covers it entirely.
    zoo = zoo.append(Source("itself", size=40, embedding=own[0]))
    selector = EvidenceSelector(zoo, signals=["coverage"], weights="equal").fit(own)
    assert selector.predict(own)[0, 0] == "itself"
    assert EvidenceSelector(zoo).fit(own).signals_ == ["size", "kl", "separability"]


def test_what_helped_similar_targets(rng):
    """The weighted mean of other targets' improvements, by scipy's distances."""
    vectors = rng.normal(size=(7, 5))
    y = rng.normal(size=(7, 4))
    y[0, 1] = np.nan
    zoo = SourceCatalog.from_arrays(None, sizes=None, names=list("abcd"))
    selector = EvidenceSelector(
        zoo, signals=["similar_targets"], weights={"similar_targets": 1}
    )
    selector.fit(vectors[1:], y[1:])
    d = cdist(vectors[:1], vectors[1:])[0]
    w = np.exp(-4 * (d - d.min()) / (np.median(d) - d.min()))
    z_of_y = zscore_of(y[1:], axis=1)
    expected = zscore_of(w @ z_of_y / (w.sum() + 1))
    assert_allclose(selector.decision_function(vectors[:1])[0], expected, atol=1e-8)

    # In the order of the nearest, but for those that are far.
    far = np.array([[0.0, 0], [0.1, 0], [30, 0], [31, 0], [30, 1]])
    y = np.array([[1.0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]])
    zoo = SourceCatalog.from_arrays(None, sizes=None, names=list("abc"))
    selector = EvidenceSelector(zoo).fit(far, y)
    assert selector.signals_ == ["prior", "similar_targets"]
    assert selector.predict([[0, 0.2], [30, 0.2]])[:, 0].tolist() == ["a", "c"]
    assert selector.weights_["similar_targets"] > 2 * selector.weights_["prior"]
    # Found again under its name in another catalog; one that is new is the mean one.
    others = SourceCatalog.from_arrays(None, sizes=None, names=["c", "new", "a"])
    other = selector.with_sources(others)
    assert other.predict([[0, 0.2], [30, 0.2]])[:, 0].tolist() == ["a", "c"]
    E = other.decision_function([[30, 0.2]])[0]
    assert E[0] > E[1] > E[2]
    with pytest.raises(ValueError, match=r"as many features .* targets, 2, got 3"):
        selector.predict([[0, 1, 2]])


@pytest.mark.parametrize(
    "vectors", [[[1.0, 2]], [[1.0, 2], [1, 2]], [[1.0, 2], [1, 2], [1, 2], [3, 4]]]
)
def test_similar_targets_are_few_or_the_same(vectors):
    zoo = SourceCatalog.from_arrays(None, sizes=None, names=list("abc"))
    y = np.tile([0.1, 0.3, 0.2], (len(vectors), 1))
    selector = EvidenceSelector(zoo, signals=["similar_targets"]).fit(vectors, y)
    assert selector.predict([[1, 2], [9, 9]]).tolist() == [["b", "c", "a"]] * 2


def test_similar_targets_are_of_one_reference_network(rng):
    data = [rng.normal(size=(20, 6)) for _ in range(4)]
    plain, median = DatasetEmbedder(), DatasetEmbedder(summary="median")
    vectors, others = plain.fit_transform(data), median.fit_transform(data)
    y = rng.normal(size=(4, 3))
    zoo = SourceCatalog.from_arrays(None, sizes=None, names=list("abc"))
    for given, embedder in [(vectors, None), (data, plain)]:
        selector = EvidenceSelector(zoo, embedder=embedder).fit(given, y)
        with pytest.raises(ValueError, match="same reference network"):
            selector.predict(others)
        foreign = SourceCatalog.from_arrays(others[:3], sizes=None, names=list("abc"))
        with pytest.raises(ValueError, match="sources must come from the same"):
            selector.with_sources(foreign)
        selector.with_sources(zoo).predict(vectors)
    with pytest.raises(ValueError, match="needs vectors of targets: pass an embedder"):
        EvidenceSelector(zoo, signals=["similar_targets"]).fit(data, y)
    with pytest.raises(ValueError, match="'similar_targets' needs measured"):
        EvidenceSelector(zoo, signals=["similar_targets"]).fit(vectors)


def test_class_means_that_are_not_there(rng):
    embedder = DatasetEmbedder(class_means=True)
    tasks = [labelled(rng, [0, 1]), labelled(rng, [2, 3])]
    vectors = embedder.fit_transform(tasks)
    zoo = SourceCatalog.from_arrays(vectors, sizes=None, names=["a", "b"])
    bare = SourceCatalog.from_arrays(np.asarray(vectors), sizes=None, names=["a", "b"])
    for catalog, given, message in [
        (bare, vectors, "class means of all sources"),
        (zoo, np.asarray(vectors), "class means of targets"),
        (zoo, embedder.transform([tasks[0].X]), "targets with labels"),
    ]:
        with pytest.raises(ValueError, match=message):
            EvidenceSelector(catalog, signals=["separability"]).fit(given)
    selector = EvidenceSelector(zoo, embedder=embedder, signals=["coverage"])
    with pytest.raises(ValueError, match="targets with labels"):
        selector.fit(tasks).predict([tasks[0].X])
    auto = EvidenceSelector(zoo, embedder=embedder).fit([task.X for task in tasks])
    assert auto.signals_ == ["kl"]
    assert EvidenceSelector(zoo, embedder=embedder).fit(tasks).signals_ == [
        *("kl", "separability")
    ]


def test_a_target_among_the_sources_is_excluded(results):
    zoo = results.sources
    itself = zoo.embeddings[[2]]
    y = np.tile(np.arange(len(zoo), dtype=float), (4, 1))
    X = np.vstack([itself, np.asarray(results.vectors)[:3]])
    selector = EvidenceSelector(zoo, signals=["size", "kl", "prior"], exclude_self=True)
    selector.fit(X, y)
    E = selector.decision_function(itself)[0]
    assert np.isneginf(E[2]) and np.isfinite(np.delete(E, 2)).all()
    assert selector.predict(itself)[0, -1] == zoo.names[2]
    P = selector.predict_proba(itself)[0]
    assert P[2] == 0 and P.sum() == pytest.approx(1)
    assert np.isposinf(selector.expected_regret(itself)[0, 2])
    assert selector.transfer_proba(itself)[0, 2] == 0
    # What it says of the others does not depend on it.
    others = [name for name in zoo.names if name != zoo.names[2]]
    y_without = np.where(np.arange(len(zoo)) == 2, np.nan, y[:1])
    masked = clone(selector).fit(X, np.vstack([y_without, y[1:]]))
    assert_allclose(masked.decision_function(itself)[0], E)
    rest = clone(selector).set_params(sources=zoo[others], weights="equal")
    equal = clone(selector).set_params(weights="equal", signals=["size", "kl"])
    rest.set_params(signals=["size", "kl"])
    assert_allclose(
        np.delete(equal.fit(X).decision_function(itself)[0], 2),
        rest.fit(X).decision_function(itself)[0],
        atol=1e-7,
    )
    # One that is all alone has no chance.
    alone = selector.with_sources(zoo[[2]])
    assert alone.predict_proba(itself) == 0
    assert np.isposinf(alone.expected_regret(itself)).all()
    without = SourceCatalog([Source("a", size=1), Source("b", size=2)])
    for signals in (["size"], "auto"):
        with pytest.raises(ValueError, match="exclude_self=True compares vectors"):
            EvidenceSelector(without, signals=signals, exclude_self=True).fit(itself)
    # Nor is anything learned about a source from its improvement on itself.
    assert_array_equal(selector.prior_, masked.prior_)


def test_each_network_is_opened_once(zoo, tasks, opened, tmp_path):
    selector = EvidenceSelector(
        zoo, signals=["logme", "probe"], weights="equal", memory=tmp_path
    )
    E = selector.fit(tasks).decision_function(tasks)
    assert sorted(opened) == sorted(zoo.names)
    assert_array_equal(clone(selector).fit(tasks).decision_function(tasks), E)
    assert len(opened) == 2  # scores are remembered
    _opened._kept.clear()
    other = clone(selector).set_params(signals=["knn"])
    other.fit(tasks).decision_function(tasks)
    assert len(opened) == 2  # and features are in memory


@pytest.mark.parametrize("room", [2**28, 0])
def test_images_are_read_once(zoo, tasks, forget, monkeypatch, room):
    """By sources that prepare them alike; and again where there is no room for them."""
    from sklearn_p2l.networks import images

    read, batches_of = [], images.image_batches

    def counted(dataset, *args, **kwargs):
        read.append(len(dataset))
        return batches_of(dataset, *args, **kwargs)

    monkeypatch.setattr(_opened, "_MOST_BYTES", room)
    selector = EvidenceSelector(zoo, signals=["logme"], weights="equal").fit(tasks)
    expected = selector.decision_function(tasks)
    _opened._kept.clear()
    monkeypatch.setattr(images, "image_batches", counted)
    assert_array_equal(selector.decision_function(tasks), expected)
    n_times = 1 if room else len(zoo)
    assert len(read) == n_times * len(tasks) and not _opened._pixels
    _opened._kept.clear()
    resized = [zoo[0], replace(zoo[1], name="other")]
    selector = selector.with_sources(SourceCatalog(resized))
    selector.set_params(image_size=20).decision_function(tasks)
    assert len(read) == 2 * n_times * len(tasks)


def test_networks_built_alike_take_turns(tasks, forget, monkeypatch, tmp_path):
    """They are built once for all of a kind, and tell what those of their own tell."""
    torch = pytest.importorskip("torch")
    from sklearn_p2l import networks

    sources, built = [], []
    kinds = [("small_resnet", 16)] * 2 + [("small_resnet", 24)] * 2
    for seed, (name, size) in enumerate([*kinds, ("squeezenet1_1", 32), kinds[0]]):
        network = networks.open_network(name, weights=None, image_size=size, seed=seed)
        for module in network.modules():  # batch statistics of its own
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.running_var, 0.5, 1.5 + seed)
        file = tmp_path / f"{seed}.safetensors"
        weights = networks.get_weights(network.model)
        networks.write_checkpoint(file, weights, network.metadata)
        sources.append(Source(f"s{seed}", checkpoint=file, architecture=name))
    zoo = SourceCatalog(sources)
    open_network = networks.open_network

    def counted(name, **kwargs):
        built.append(name)
        return open_network(name, **kwargs)

    monkeypatch.setattr(networks, "open_network", counted)
    selector = EvidenceSelector(zoo, signals=["logme", "probe"], weights="equal")
    got = selector.fit(tasks).decision_function(tasks)
    # One of 16 pixels, of 24, a SqueezeNet, and one of 16 pixels again.
    assert len(built) == 4 and not _opened._networks
    _opened._kept.clear()
    monkeypatch.setattr(_opened, "_built_of", lambda *args: None)
    assert_array_equal(selector.decision_function(tasks), got)
    assert len(built) == 4 + len(sources)


def test_a_broken_file_between_networks_built_alike(zoo, tasks, forget, tmp_path):
    first, second = zoo[0], zoo[1]
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(Path(first.checkpoint).read_bytes()[:5000])
    three = SourceCatalog(
        [
            first,
            Source("broken", checkpoint=broken, architecture=first.architecture),
            second,
        ]
    )
    settings = dict(signals=["logme"], weights="equal")
    with pytest.warns(SkippedSourcesWarning, match="broken"):
        got = EvidenceSelector(three, **settings).fit(tasks).decision_terms(tasks)
    expected = EvidenceSelector(zoo, **settings).fit(tasks).decision_terms(tasks)
    assert_array_equal(got["logme"][:, [0, 2]], expected["logme"])


def test_networks_of_text_are_opened(tmp_path, forget):
    bags = [
        Bag(
            f"a{i}",
            f"b{i}",
            [Context(f"a{i} {verb} b{i}", (0, 2), (3 + len(verb), 5 + len(verb)))],
        )
        for i, verb in enumerate(["met", "left"] * 6)
    ]
    task = Task(bags, np.arange(12) % 2)
    classifier = NetworkClassifier("pcnn", epochs=1, random_state=0).fit(task)
    zoo = SourceCatalog(
        [
            classifier.to_source(n, checkpoint=tmp_path / f"{n}.safetensors")
            for n in "ab"
        ]
    )
    selector = EvidenceSelector(zoo, signals=["knn"], weights="equal").fit([task])
    assert selector.decision_function([task]).tolist() == [[0, 0]]


def test_several_sources_at_a_time(zoo, tasks, forget):
    selector = EvidenceSelector(zoo, signals=["logme", "knn"], weights="equal")
    expected = selector.fit(tasks).decision_function(tasks)
    _opened._kept.clear()
    got = clone(selector).set_params(n_jobs=2).fit(tasks).decision_function(tasks)
    assert_allclose(got, expected, atol=1e-4)


def test_only_the_first_are_opened(zoo, tasks, opened):
    sizes = {"a": 10, "b": 500, "c": 30, "d": 400}
    checkpoints = [zoo[0].checkpoint, zoo[1].checkpoint] * 2
    four = SourceCatalog(
        [
            Source(name, size=size, checkpoint=checkpoint)
            for (name, size), checkpoint in zip(sizes.items(), checkpoints)
        ]
    )
    selector = EvidenceSelector(
        four, signals=["size", "knn"], weights={"size": 0.01, "knn": 1.0}, n_opened=2
    ).fit(tasks)
    ranking = selector.predict(tasks)
    assert set(opened) == {"b", "d"}
    for row in ranking:
        assert set(row[:2]) == {"b", "d"} and row[2:].tolist() == ["c", "a"]
    terms = selector.decision_terms(tasks)
    assert set(terms) == {"size", "knn", "unopened"}
    assert (terms["unopened"][:, [1, 3]] == 0).all()
    assert_allclose(sum(terms.values()), selector.decision_function(tasks))
    # Too little is known of closed sources for chances.
    y = np.arange(12.0).reshape(3, 4) % 5
    learned = EvidenceSelector(four, signals=["size", "knn"], n_opened=2).fit(tasks, y)
    with pytest.raises(ValueError, match="n_opened must be None to tell how sure"):
        learned.predict_proba(tasks)
    assert "p_best" not in learned.explain(tasks)
    with pytest.raises(ValueError, match="n_opened must be None for no_transfer=True"):
        clone(learned).set_params(no_transfer=True).fit(tasks, y)


def test_auto_takes_what_is_at_hand(zoo, tasks, results):
    y = np.array([[0.1, 0.2], [0.3, 0.1], [0.0, 0.1]])
    assert EvidenceSelector(zoo).fit(tasks).signals_ == [
        "size",
        "logme",
        "probe",
        "knn",
    ]
    with_y = EvidenceSelector(zoo).fit(tasks, y)
    assert with_y.signals_ == ["size", "prior", "logme", "probe", "knn"]
    assert EvidenceSelector(zoo).fit([task.X for task in tasks]).signals_ == ["size"]
    of_vectors = EvidenceSelector(results.sources).fit(results.vectors)
    assert of_vectors.signals_ == ["size", "kl", "separability"]
    embedder = DatasetEmbedder(
        "small_resnet", weights=None, image_size=16, random_state=0
    )
    embedded = EvidenceSelector(zoo, embedder=embedder, signals=["kl", "size"])
    E = embedded.fit([task.X for task in tasks]).decision_function(tasks)
    vectors = embedder.fit_transform(tasks)
    by_vectors = EvidenceSelector(zoo, signals=["kl", "size"]).fit(vectors)
    assert_allclose(E, by_vectors.decision_function(vectors))


# -- how sure ------------------------------------------------------------------------


def sure(rng, n_targets=30):
    """A selector of two sources whose improvements are their sizes plus noise."""
    zoo = SourceCatalog.from_arrays(None, sizes=[10, 1000], names=["small", "large"])
    X = np.zeros((n_targets, 1))
    y = np.array([0.0, 1.0]) + rng.normal(scale=2.0, size=(n_targets, 2))
    return EvidenceSelector(zoo, signals=["size"]).fit(X, y), y


def test_chances_and_regret_are_those_of_the_normal_distribution(rng):
    selector, y = sure(rng)
    E = selector.decision_function([[0.0]])[0]
    sure_of_weights = replace(
        selector._learned, covariance=1e-12 * np.eye(1), n_targets=10_000
    )
    selector._learned = sure_of_weights
    difference, sd = E[1] - E[0], selector.noise_ * np.sqrt(2)
    P = selector.predict_proba([[0.0]])[0]
    assert P.sum() == pytest.approx(1)
    assert_array_equal(selector.predict_proba([[1.0], [0.0]])[1], P)
    assert P[1] == pytest.approx(norm.cdf(difference / sd), abs=0.02)
    u = difference / sd
    expected = sd * (norm.pdf(u) - u * norm.cdf(-u)) * y.std(axis=1).mean()
    regret = selector.expected_regret([[0.0]])[0]
    assert regret[1] == pytest.approx(expected, rel=0.1)
    gain = difference * y.std(axis=1).mean()
    assert regret[0] - regret[1] == pytest.approx(gain, rel=0.04)


def test_few_targets_make_no_one_sure(rng):
    """Draws are those of Student's t, with one degree of freedom less than targets."""
    few, many = (
        _weights.Weights(
            np.array([1.0]), 1.0, np.zeros(1), 0.5, 1e-12 * np.eye(1), n
        ).draw(np.array([[-1.0, 1.0]]))
        for n in (4, 1000)
    )
    levels = np.linspace(0.05, 0.95, 19)
    for draws, degrees in [(few, 3), (many, 999)]:
        got = np.quantile(draws[:, 1], levels)
        assert_allclose(got, 1 + 0.5 * t.ppf(levels, degrees), atol=0.06)
    assert _weights.shares_of_best(few)[0] > _weights.shares_of_best(many)[0] + 0.02


def test_chances_come_true(rng):
    """In a world that is as the model supposes, on targets that it has not seen."""
    n, names = 5, list("abcde")
    quality = rng.normal(size=n)
    zoo = SourceCatalog.from_arrays(None, sizes=np.exp(quality) * 1e4, names=names)
    y = quality + rng.normal(scale=1.0, size=(300, n))
    selector = EvidenceSelector(zoo, signals=["size"]).fit(np.zeros((100, 1)), y[:100])
    P = selector.predict_proba(np.zeros((1, 1)))[0]
    shares = np.bincount(y[100:].argmax(axis=1), minlength=n) / 200
    assert_allclose(P, shares, atol=0.1)
    assert spearmanr(P, quality).statistic > 0.8


def test_the_chance_to_beat_no_transfer(rng):
    """Where half of the targets gain and half lose, nobody knows; else it is told."""
    n, quality = 400, np.array([-1.0, 0.0, 1.0])
    zoo = SourceCatalog.from_arrays(None, sizes=10 ** (3 + quality), names=list("abc"))
    X = np.zeros((n, 1))
    y = quality + 0.5 * rng.normal(size=(n, 3))
    for level, low, high in [(-3, 0, 0.1), (0, 0.4, 0.6), (3, 0.9, 1)]:
        selector = EvidenceSelector(zoo, signals=["size"]).fit(X, y + level)
        P = selector.transfer_proba(X[:1])[0]
        assert low <= P[1] <= high and P[0] <= P[1] <= P[2]
        assert_allclose(P, (y + level > 0).mean(axis=0), atol=0.1)


def test_levels_are_of_targets_that_several_sources_were_measured_on():
    nan = np.nan
    y = np.array([[1.0, 3.0, nan], [0.5, 0.5, 0.5], [nan, nan, 9.0], [nan, nan, nan]])
    assert_allclose(_weights.levels_of(y), [[2, 1], [0.5, 1]])
    assert_allclose(_weights.levels_of(y[1:]), [[0.5, 1e-9]])
    assert _weights.levels_of(y[2:]).shape == (0, 2)


def test_improvements_without_noise():
    """Left-out targets are predicted exactly: sure, and no error."""
    zoo = SourceCatalog.from_arrays(None, sizes=[10, 1000], names=["a", "b"])
    y, X = np.tile([0.0, 1.0], (5, 1)), np.zeros((5, 1))
    selector = EvidenceSelector(zoo, signals=["size"]).fit(X, y)
    assert_allclose(selector.predict_proba(X[:1]), [[0, 1]])
    assert_allclose(selector.expected_regret(X[:1]), [[1, 0]], atol=1e-3)


def test_no_transfer_is_a_candidate(rng, zoo, tasks):
    """It stands where the chance to be better than it falls below one half."""
    n, quality = 60, np.linspace(-2, 2, 9)
    names = [f"s{j}" for j in range(9)]
    catalog = SourceCatalog.from_arrays(None, sizes=np.exp(quality) * 1e4, names=names)
    X = np.zeros((n, 1))
    y = quality + 0.5 * rng.normal(size=(n, 9))
    for level in (-5, -0.7, 0.6, 5):
        selector = EvidenceSelector(catalog, signals=["size"], no_transfer=True)
        selector.fit(X, y + level)
        (ranking,) = selector.predict(X[:1])
        assert len(ranking) == 10 and list(ranking).count(None) == 1
        place = list(ranking).index(None)
        assert abs(place - np.sum(quality + level > 0)) <= 1
        P = dict(zip(names, selector.transfer_proba(X[:1])[0]))
        assert all(P[name] > 0.4 for name in ranking[:place])
        assert all(P[name] < 0.6 for name in ranking[place + 1 :])
        assert list(selector.predict_top(X[:1], 3)[0]) == list(ranking[:3])
        sources = [name for name in ranking if name is not None]
        assert selector.explain(X[:1])["source"].tolist() == sources
    with pytest.raises(ValueError, match="no_transfer must be False unless"):
        EvidenceSelector(catalog, signals=["size"], no_transfer=True).fit(X)
    # And the tuner tries it.
    worse = np.tile([-0.2, -0.3], (3, 1)) + 0.01 * rng.normal(size=(3, 2))
    selector = EvidenceSelector(zoo, signals=["size", "knn"], no_transfer=True)
    tuner = FineTuner(
        selector.fit(tasks, worse),
        zoo,
        NetworkClassifier(image_size=16, epochs=10, random_state=0),
    )
    assert tuner.fit(tasks[0]).source_ is None


def test_how_sure_needs_learned_weights(results):
    selector = EvidenceSelector(results.sources, signals=["size"], weights="equal")
    assert not hasattr(selector.fit(results.vectors), "predict_proba")
    selector = EvidenceSelector(results.sources, signals=["size"]).fit(results.vectors)
    with pytest.raises(ValueError, match="measured improvements, got none; pass y"):
        selector.predict_proba(results.vectors)
    nothing = np.full((17, 15), np.nan)
    selector.fit(results.vectors, nothing)
    assert_allclose(selector.predict_proba(results.vectors).sum(axis=1), 1)
    assert np.isfinite(selector.transfer_proba(results.vectors)).all()


# -- among scikit-learn's tools ------------------------------------------------------


def test_search_and_evaluation(results):
    pd = pytest.importorskip("pandas")
    y = pd.DataFrame(results.improvements, columns=results.sources.names)
    search = GridSearchCV(
        EvidenceSelector(results.sources),
        {"signals": [["size"], ["size", "prior", "kl"]]},
        cv=LeaveOneOut(),
        error_score="raise",
    ).fit(results.vectors, y)
    assert search.best_params_["signals"] in (["size"], ["size", "prior", "kl"])
    judged = evaluate_selectors(
        {"evidence": EvidenceSelector(results.sources), "size": search.best_estimator_},
        results.vectors,
        y,
    )
    assert judged.targets["spearman"].notna().all()


def test_persistence_and_grown_catalogs(results, tmp_path):
    selector = EvidenceSelector(results.sources)
    selector.fit(results.vectors, results.improvements)
    joblib.dump(selector, tmp_path / "selector.joblib")
    loaded = joblib.load(tmp_path / "selector.joblib")
    expected = selector.decision_function(results.vectors)
    assert_array_equal(loaded.decision_function(results.vectors), expected)
    first = results.sources[0]
    grown = results.sources.append(replace(first, name="new", size=500))
    other = selector.with_sources(grown)
    assert other.prior_[-1] == 0 and len(selector.prior_) == len(results.sources)
    assert other.predict(results.vectors).shape[1] == len(grown)
    same = selector.with_sources(results.sources)
    assert_array_equal(same.decision_function(results.vectors), expected)
    assert pickle.loads(pickle.dumps(other)).weights_ == selector.weights_


def test_folds_of_an_evaluation_share_what_they_computed(zoo, tasks, opened):
    """The first fold sees all targets: in fit, and the one that it judges."""
    pd = pytest.importorskip("pandas")
    y = pd.DataFrame([[0.1, 0.2], [0.3, 0.1], [0.0, 0.1]], columns=zoo.names)
    judged = evaluate_selectors(
        {
            "all": EvidenceSelector(zoo, signals=["knn", "prior"]),
            "one": EvidenceSelector(zoo, signals=["knn"], weights="equal"),
        },
        tasks,
        y,
    )
    assert judged.targets["pick"].isin(zoo.names).all()
    assert sorted(opened) == sorted([*zoo.names, *zoo.names])


def test_skops(results):
    skops = pytest.importorskip("skops.io")
    selector = EvidenceSelector(results.sources)
    selector.fit(results.vectors, results.improvements)
    data = skops.dumps(selector)
    untrusted = skops.get_untrusted_types(data=data)
    assert all(name.startswith("sklearn_p2l.") for name in untrusted)
    loaded = skops.loads(data, trusted=untrusted)
    assert_array_equal(
        loaded.predict_proba(results.vectors), selector.predict_proba(results.vectors)
    )


def test_settings_of_the_embedder_are_searched(zoo, tasks):
    embedder = DatasetEmbedder(
        "small_resnet", weights=None, image_size=16, random_state=0
    )
    selector = EvidenceSelector(zoo, embedder=embedder, signals=["kl"])
    grid = {"embedder__summary": ["mean"], "signals": [["kl"], ["size"]]}
    y = np.array([[0.1, 0.2], [0.3, 0.1], [0.0, 0.1]])
    search = GridSearchCV(selector, grid, cv=LeaveOneOut(), error_score="raise")
    assert search.fit(tasks, y).best_estimator_.embedder_.summary == "mean"
    median = selector.set_params(embedder__summary="median")
    with pytest.raises(ValueError, match="same reference network"):  # as the catalog's
        median.fit(tasks, y)


def test_ranks_without_torch(tmp_path, results):
    selector = EvidenceSelector(results.sources)
    selector.fit(results.vectors, results.improvements)
    joblib.dump((selector, results.vectors), tmp_path / "s.joblib")
    run = run_without_torch(
        """
        import joblib, sys
        selector, vectors = joblib.load(sys.argv[1])
        print(*selector.predict(vectors)[:, 0])
        print(selector.predict_proba(vectors).sum(axis=1).round(6).min())
        """,
        tmp_path / "s.joblib",
    )
    assert run.returncode == 0, run.stderr
    picks, total = run.stdout.splitlines()
    assert picks.split() == selector.predict(results.vectors)[:, 0].tolist()
    assert float(total) == 1


def test_a_tuner_that_ranks_by_evidence(zoo, tasks):
    classifier = NetworkClassifier(image_size=16, epochs=2, random_state=0)
    selector = EvidenceSelector(zoo, signals=["probe", "logme"])
    tuner = FineTuner(selector, zoo, classifier).fit(tasks[0])
    assert tuner.source_ == selector.fit(tasks[:1]).predict(tasks[:1])[0, 0]


# -- what is refused -----------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, told",
    [
        (dict(signals=["logme"]), "'logme' needs the checkpoints of all sources"),
        (dict(signals=["prior"]), "'prior' needs measured improvements: pass y"),
        (dict(signals=["size", "speed"]), "signals must be some of .*got 'speed'"),
        (dict(signals=["size", "size"]), "different names"),
        (dict(signals=[]), "different names, at least one"),
        (dict(signals=["size"], weights={"kl": 1}), "of signals in use, .*got \\['kl'"),
        (dict(signals=["size"], weights={"size": np.nan}), "finite numbers, got nan"),
    ],
)
def test_what_a_signal_lacks_is_told(results, settings, told):
    with pytest.raises(ValueError, match=told):
        EvidenceSelector(results.sources, **settings).fit(results.vectors)


def test_targets_of_the_wrong_kind_are_refused(zoo, tasks, results):
    with pytest.raises(ValueError, match="needs targets with labels: pass Tasks"):
        EvidenceSelector(zoo, signals=["probe"]).fit([task.X for task in tasks])
    with pytest.raises(ValueError, match="pass an embedder, or vectors as X"):
        EvidenceSelector(zoo, signals=["kl"]).fit(tasks)
    with pytest.raises(ValueError, match=r"pass \[task\] for a single one"):
        EvidenceSelector(zoo, signals=["probe"]).fit(tasks[0])
    with pytest.raises(ValueError, match="same reference network"):
        EvidenceSelector(zoo, signals=["kl"]).fit(results.vectors)
    embedder = DatasetEmbedder(
        "small_resnet", weights=None, image_size=16, random_state=1
    )
    with pytest.raises(ValueError, match="same reference network"):
        EvidenceSelector(zoo, embedder=embedder, signals=["kl"]).fit(tasks)
    selector = EvidenceSelector(zoo, signals=["probe"]).fit(tasks)
    with pytest.raises(ValueError, match="needs targets with labels"):
        selector.predict([tasks[0].X])
    with pytest.raises(ValueError, match="one row per target"):
        EvidenceSelector(zoo, signals=["size"]).fit(tasks, np.ones((2, 2)))


def test_scores_of_an_earlier_fit_spare_the_opening(zoo, tasks, forget, monkeypatch):
    """Vectors do as training targets then; the weights are the same."""
    embedder = DatasetEmbedder(image_size=16, weights=None, random_state=0)
    embedder.set_params(backbone="small_resnet", class_means=True)
    vectors = embedder.fit_transform(tasks)
    y = np.array([[0.3, 0.1], [0.2, 0.0], [0.1, 0.2]])
    signals = ["size", "prior", "logme", "probe"]
    first = EvidenceSelector(zoo, signals=signals).fit(tasks, y)
    assert set(first.scores_) == {"logme", "probe"}
    _opened._kept.clear()
    with monkeypatch.context() as patched:
        patched.setattr(_opened, "_open", None)
        again = EvidenceSelector(zoo, signals=signals)
        again.fit(vectors, y, scores=first.scores_)
        frames = {n: as_frame(v[:, ::-1], zoo) for n, v in first.scores_.items()}
        by_name = clone(again).fit(vectors, y, scores=frames)
    assert again.weights_ == by_name.weights_ == first.weights_
    assert_array_equal(again.predict_proba(tasks), first.predict_proba(tasks))
    unknown = {name: values.copy() for name, values in first.scores_.items()}
    unknown["probe"][0, 1] = np.nan
    measured = y.copy()
    measured[0, 1] = np.nan
    partly = clone(again).fit(vectors, y, scores=unknown)
    assert partly.weights_ == clone(again).fit(tasks, measured).weights_
    with pytest.raises(ValueError, match="among .*, got 'size'"):
        again.fit(vectors, y, scores={"size": y})
    with pytest.raises(ValueError, match=r"'logme'\] must be of shape \(3, 2\)"):
        again.fit(vectors, y, scores={"logme": y[:2]})
    with pytest.raises(ValueError, match="needs targets with labels"):
        again.predict(vectors)


def as_frame(values, zoo):
    return pd.DataFrame(values, columns=zoo.names[::-1])


def test_a_broken_source_teaches_nothing(zoo, tasks, tmp_path, forget):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"nothing")
    broken = zoo.append(Source("broken", size=3, checkpoint=path))
    y = np.array([[0.3, 0.1], [0.2, 0.0], [0.1, 0.2]])
    selector = EvidenceSelector(broken, signals=["prior", "probe"])
    with pytest.warns(SkippedSourcesWarning, match="'broken'"):
        selector.fit(tasks, np.column_stack([y, [9, 9, 9]]))
    without = EvidenceSelector(zoo, signals=["prior", "probe"]).fit(tasks, y)
    assert selector.weights_ == pytest.approx(without.weights_, abs=1e-12)
    with pytest.warns(SkippedSourcesWarning):
        chances = selector.predict_proba(tasks)
    assert_allclose(chances[:, :2], without.predict_proba(tasks), atol=0.05)
    assert (chances[:, 2] == 0).all()
    with pytest.warns(SkippedSourcesWarning):
        assert set(selector.explain(tasks)["source"]) == set(zoo.names)


def test_a_broken_source_is_named(zoo, tasks, tmp_path, forget):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"nothing")
    broken = zoo.append(Source("broken", size=3, checkpoint=path))
    selector = EvidenceSelector(broken, signals=["probe"]).fit(tasks)
    with pytest.warns(SkippedSourcesWarning, match="1 of .*'broken': .*safetensors"):
        ranking = selector.predict(tasks)
    alone = EvidenceSelector(zoo, signals=["probe"]).fit(tasks).predict(tasks)
    assert_array_equal(ranking[:, :-1], alone)
    assert (ranking[:, -1] == "broken").all()
    only = EvidenceSelector(broken[["broken"]], signals=["probe"]).fit(tasks)
    with pytest.raises(ValueError, match="source 'broken': .*safetensors"):
        only.predict(tasks)
