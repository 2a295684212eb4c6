"""The recipe: what keeps training alive on any network, and tells when it is dead."""

import functools
import logging
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import torch
from conftest import real_file, real_images
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import log_softmax
from sklearn import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from torch import nn

from sklearn_p2l import NetworkClassifier, Task, networks
from sklearn_p2l._probe import fit_probe
from sklearn_p2l.networks import resuming
from sklearn_p2l.tuning._targets import validation_part

scratch = functools.partial(
    NetworkClassifier, "small_resnet", image_size=16, random_state=0
)


class Scaled(nn.Module):
    """A small network without normalisation, whose features are multiplied."""

    def __init__(self, factor, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.factor = factor
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.fc = nn.Linear(32, 4)

    def forward(self, x):
        return self.fc(self.body(x) * self.factor)


class VGGLike(nn.Module):
    """No batch normalisation, and two hidden layers behind the convolutions."""

    def __init__(self):
        super().__init__()
        layers, width_in = [], 3
        for width in (16, 32, 64):
            layers += [nn.Conv2d(width_in, width, 3, padding=1), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
            width_in = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64 * 4, 64),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(64, 64),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(64, 10),
        )

    def forward(self, x):
        return self.classifier(self.features(x))


@pytest.fixture(scope="module")
def tones():
    """Sixty images of three tones, with noise, and as many to test on."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    X = rng.integers(0, 150, size=(120, 16, 16, 3)) + 50 * y[:, None, None, None]
    X = X.astype(np.uint8)
    return X[:60], y[:60], X[60:], y[60:]


# -- sound on any network -----------------------------------------------------------


@pytest.mark.parametrize("multiplier", [0.1, 0])
@pytest.mark.parametrize("head_init", ["zero", "probe"])
def test_the_size_of_features_decides_nothing(tones, head_init, multiplier):
    X, y, X_test, _ = tones
    settings = dict(
        weights="DEFAULT",
        image_size=16,
        precision="float32",
        epochs=40,
        random_state=0,
        head_init=head_init,
        body_learning_rate_multiplier=multiplier,
    )
    one, small, large = (
        NetworkClassifier(functools.partial(Scaled, factor), **settings).fit(X, y)
        for factor in (1.0, 1e-3, 1e3)
    )
    expected = one.predict_proba(X_test)
    assert one.score(X, y) > 0.8
    assert_allclose(small.predict_proba(X_test), expected, atol=0.02)
    assert_allclose(large.predict_proba(X_test), expected, atol=0.02)


@pytest.mark.parametrize("weights", [None, "DEFAULT"])
def test_a_trained_network_needs_no_scale(tones, weights):
    """What standardises is part of its last layer, under the usual names."""
    X, y, X_test, _ = tones
    factory = functools.partial(Scaled, 100.0)
    tuner = NetworkClassifier(
        factory, weights=weights, image_size=16, epochs=5, precision="float32"
    ).fit(X, y)
    model = factory()
    model.fc = nn.Linear(32, 3)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in tuner.weights_.items()})
    network = networks.open_network(factory, weights=None, image_size=16)
    batch = network.preprocess(list(X_test))
    rule = network.preprocessing
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (rule.mean, rule.std))
    with torch.inference_mode():
        logits = model.eval()((batch / 255 - mean) / std)
    assert_allclose(
        tuner.predict_log_proba(X_test), log_softmax(logits, axis=1), atol=1e-4
    )


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_automatic_learning_rates(tones):
    """Half of it where nothing normalises, and units may die."""
    X, y, _, _ = tones
    factory = functools.partial(VGGLike)
    for settings, expected in [
        (dict(), 2e-3),
        (dict(optimizer="sgd"), 0.01),
        (dict(backbone=factory), 1e-3),
        (dict(backbone=factory, optimizer="sgd"), 0.005),
        (dict(backbone=factory, weights="DEFAULT"), 2e-3),
        (dict(backbone=factory, learning_rate=0.3e-3), 0.3e-3),
    ]:
        settings = dict(image_size=16, random_state=0) | settings
        tuner = NetworkClassifier(**settings, epochs=1, warmup=0).fit(X, y)
        assert tuner.history_[0]["learning_rate"] == pytest.approx(expected)
    for name, normalises in [("convnext_tiny", True), ("vit_b_16", True)]:
        network = networks.open_network(name, weights=None)
        assert network.normalises == normalises


@pytest.mark.parametrize("name", ["small_resnet", "squeezenet1_1", "vgg11"])
def test_scaled_features_change_no_output(name, rng):
    """Neither while they are nor afterwards; and then they are of size 1."""
    network = networks.open_network(name, weights=None, image_size=32)
    X = torch.from_numpy(rng.integers(0, 255, size=(40, 3, 32, 32), dtype=np.uint8))
    seen = []
    with torch.inference_mode():
        expected = network(X)
    everything, device = torch.arange(40), torch.device("cpu")
    with networks.heads.scaled_features(network, X, everything, False, device):
        head = network.model.get_submodule(network.head)
        head.layer.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
        with torch.no_grad():
            inside = network(X)
    with torch.inference_mode():
        after = network(X)
    assert_allclose(seen[0].square().mean().sqrt(), 1, atol=1e-3)
    scale = float(expected.abs().max())
    assert_allclose(inside, expected, atol=1e-4 * scale)
    assert_allclose(after, expected, atol=1e-4 * scale)


@pytest.mark.parametrize("backbone", [VGGLike, "squeezenet1_1", "small_resnet"])
def test_networks_learn_from_random_weights(backbone, tones):
    """At the default rate, with batch normalisation and without."""
    X, y, X_test, y_test = tones
    size = 32 if backbone == "squeezenet1_1" else 16
    tuner = NetworkClassifier(backbone, image_size=size, random_state=0, epochs=30)
    assert tuner.fit(X, y).score(X_test, y_test) > 0.8 and tuner.converged_


@pytest.mark.slow
def test_the_default_beats_the_probe_on_squeezenet():
    """Real photographs and a real network, on which training used to be dead."""
    images, labels, _ = real_images("clothing")
    start = real_file("models", "squeezenet1_1.safetensors")
    rows = np.random.default_rng(0).permutation(len(labels))
    train, test = rows[:120], rows[120:520]
    tuner = NetworkClassifier(
        "squeezenet1_1", weights=start, image_size=64, random_state=0
    )
    probe = clone(tuner).set_params(body_learning_rate_multiplier=0)
    accuracy, of_probe = (
        t.fit(images[train], labels[train]).score(images[test], labels[test])
        for t in (tuner, probe)
    )
    assert of_probe > 0.4 and accuracy > of_probe + 0.02


# -- the linear probe -----------------------------------------------------------------


def test_a_frozen_body_makes_a_linear_probe(zoo, tones, monkeypatch):
    X, y, X_test, y_test = tones
    start = zoo["digits_0_to_4"].checkpoint
    settings = dict(random_state=0, precision="float32")
    tuner = NetworkClassifier(start, body_learning_rate_multiplier=0, **settings)
    passed = []
    image_network = type(networks.open_network(start, weights=None))
    forward = image_network.forward_features
    monkeypatch.setattr(
        image_network,
        "forward_features",
        lambda self, batch: passed.append(len(batch)) or forward(self, batch),
    )
    tuner.fit(X, y)
    assert sum(passed) == 60 + 16  # the first batch is also tried
    network = networks.open_network(start, weights=None)
    F, F_test = (
        np.concatenate(
            list(
                networks.extract_features(
                    network,
                    network.read(part, 16),
                    precision="float32",
                    device=torch.device("cpu"),
                )
            )
        )
        for part in (X, X_test)
    )
    probe = fit_probe(F, np.eye(3)[y])
    expected = F_test @ probe.coef.T + probe.intercept
    assert_allclose(
        tuner.predict_log_proba(X_test), log_softmax(expected, axis=1), atol=1e-3
    )
    for key, value in networks.get_weights(network.model).items():
        if not key.startswith("fc."):
            assert_array_equal(tuner.weights_[key], value, err_msg=key)
    (record,) = tuner.history_
    assert record["validation_loss"] == pytest.approx(
        log_loss(y, np.exp(log_softmax(probe.left_out, axis=1))), rel=1e-3
    )
    assert record["validation_score"] == (probe.left_out.argmax(axis=1) == y).mean()
    assert tuner.n_samples_ == 60 and tuner.score(X_test, y_test) > 0.5
    # nothing is drawn, so nothing depends on the seed, on epochs, or on rates
    other = clone(tuner).set_params(
        random_state=5, epochs=3, learning_rate=9.0, early_stopping=True
    )
    assert_allclose(other.fit(X, y).predict_proba(X), tuner.predict_proba(X), atol=1e-5)


class Doubled(nn.Module):
    """Logits that are more than the last layer's outputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return 2 * self.fc(self.body(x))


def test_a_frozen_body_whose_logits_are_no_linear_function(tones):
    """The last layer is then trained by steps, and the body stays as it is."""
    X, y, _, _ = tones
    settings = dict(weights="DEFAULT", image_size=16, random_state=0)
    tuner = NetworkClassifier(Doubled, body_learning_rate_multiplier=0, **settings)
    with pytest.warns(UserWarning, match="cannot be a linear probe"):
        tuner.set_params(learning_rate=0.05).fit(X, y)
    before = Doubled().state_dict()
    for key, value in tuner.weights_.items():
        if not key.startswith("fc."):
            assert_array_equal(value, before[key])
    assert len(tuner.history_) == 50 and tuner.score(X, y) > 0.6


class WithoutBias(Doubled):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 1000, bias=False)

    def forward(self, x):
        return self.fc(self.body(x))


@pytest.mark.parametrize("settings", [{"head_init": "probe"}, {"early_stopping": True}])
def test_networks_that_cannot_be_probes_say_so(settings, tones):
    X, y, _, _ = tones
    tuner = NetworkClassifier(WithoutBias, weights="DEFAULT", image_size=16, epochs=40)
    tuner.set_params(learning_rate=0.05, random_state=0, **settings)
    if "head_init" not in settings:
        tuner.set_params(body_learning_rate_multiplier=0)
    with pytest.warns(UserWarning, match="cannot be a linear probe.*no bias"):
        tuner.fit(X, y)
    has_validation = "validation_loss" in tuner.history_[0]
    assert has_validation == ("early_stopping" in settings)


def test_probes_need_weights_that_are_trained_and_finite(zoo, tones, tmp_path):
    X, y, _, _ = tones
    with pytest.raises(ValueError, match="head_init must be.*random weights"):
        scratch(head_init="probe").fit(X, y)
    broken = scratch(epochs=3).fit(X, y)
    broken.weights_["body.0.weight"][0] = np.nan
    broken.to_source("broken", checkpoint=tmp_path / "broken.safetensors")
    for settings in ({}, {"body_learning_rate_multiplier": 0}):
        tuner = NetworkClassifier(tmp_path / "broken.safetensors", **settings)
        with pytest.raises(ValueError, match="weights of the start must be finite"):
            tuner.fit(X, y)


def test_training_from_the_probe_begins_where_it_ends(zoo, tones):
    X, y, _, _ = tones
    start = zoo["digits_0_to_4"].checkpoint
    settings = dict(random_state=0, precision="float32")
    probe = NetworkClassifier(start, body_learning_rate_multiplier=0, **settings)
    tuner = NetworkClassifier(
        start, head_init="probe", epochs=1, learning_rate=1e-12, **settings
    ).fit(X, y)
    probe.fit(X, y)
    assert_allclose(tuner.predict_proba(X), probe.predict_proba(X), atol=1e-4)
    # with batch normalisation, too, whose statistics belong to the features
    (first,) = [record["train_loss"] for record in tuner.history_]
    assert first == pytest.approx(probe.history_[0]["train_loss"], rel=1e-3)


# -- honest failure --------------------------------------------------------------------


def test_dead_training_says_so(tones):
    X, y, _, _ = tones
    black = np.zeros_like(X)
    tuner = scratch(epochs=3)
    message = r"no more than always giving the shares.*is 1\.\d+.*learning_rate.*epochs"
    with pytest.warns(ConvergenceWarning, match=message) as caught:
        tuner.fit(black, y)
    assert not tuner.converged_
    assert caught[0].filename == __file__  # where the user called it
    with pytest.warns(ConvergenceWarning, match="a tenth or ten times 1e-09"):
        scratch(learning_rate=1e-9, epochs=1).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scratch(epochs=10).fit(X, y).converged_
        one_label = np.c_[np.ones(60), np.zeros(60)].astype(int)
        assert scratch(epochs=30, learning_rate=0.01).fit(X, one_label).converged_


def test_what_only_learns_by_heart_says_so(tones, rng):
    X, _, _, _ = tones
    noise = rng.integers(0, 3, 60)
    tuner = scratch(
        early_stopping=True, validation_fraction=0.5, monitor="score", random_state=3
    )
    tuner.set_params(epochs=20, schedule="constant", n_iter_no_change=20)
    grey = np.full_like(X, 100)
    grey[30:, 0, 0] = 90
    with pytest.warns(ConvergenceWarning, match="always giving the shares"):
        tuner.fit(grey, noise)
    assert not tuner.converged_


# -- early stopping -------------------------------------------------------------------


def test_early_stopping_on_the_score(tones):
    X, y, _, _ = tones
    tuner = scratch(early_stopping=True, monitor="score", n_iter_no_change=4, epochs=60)
    tuner.set_params(validation_fraction=0.3).fit(X, y)
    scores = [record["validation_score"] for record in tuner.history_]
    losses = [record["validation_loss"] for record in tuner.history_]
    best = min(range(len(scores)), key=lambda i: (-scores[i], losses[i]))
    assert len(scores) == best + 1 + 4 < 60 or len(scores) == 60
    part = validation_part(
        y, 0.3, np.random.RandomState(np.random.RandomState(0).randint(2**31 - 1))
    )
    assert tuner.score(X[part], y[part]) == scores[best]


@pytest.mark.parametrize("n_groups", [6, 20, 60])
def test_validation_takes_whole_groups(n_groups, rng):
    groups = rng.integers(0, n_groups, 200)
    targets = rng.integers(0, 3, 200)
    for seed in range(20):
        part = validation_part(targets, 0.2, np.random.RandomState(seed), groups)
        rest = np.setdiff1d(np.arange(200), part)
        assert not set(groups[part]) & set(groups[rest])
        assert set(targets[rest]) == {0, 1, 2}
        assert len(part) and abs(len(part) - 40) <= max(np.bincount(groups)) / 2 + 1
    alone = validation_part(targets, 0.2, rng=np.random.RandomState(0), groups=targets)
    assert len(alone) == 0  # each class is one group
    large = np.r_[np.zeros(160, int), 1 + np.arange(40)]  # one group of 160
    for seed in range(20):
        rng_ = np.random.RandomState(seed)
        part = validation_part(np.arange(200) % 3, 0.1, rng_, large)
        assert len(part) == 20 and not (large[part] == 0).any()


def test_groups_reach_the_split(tones):
    X, y, _, _ = tones
    groups = np.arange(60) // 6
    settings = dict(early_stopping=True, validation_fraction=0.2, epochs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        by_hand = scratch(**settings).fit(X, y, groups=groups)
        of_task = scratch(**settings).fit(Task(X, y, groups))
        without = scratch(**settings).fit(X, y)
    assert by_hand.n_samples_ == 48
    assert_array_equal(by_hand.predict_proba(X), of_task.predict_proba(X))
    assert not np.array_equal(by_hand.predict_proba(X), without.predict_proba(X))
    with pytest.raises(ValueError, match="groups must hold.*got 59 for 60 samples"):
        scratch(**settings).fit(X, y, groups=groups[:-1])


def test_equal_scores_are_told_apart_by_the_loss():
    """With one class in validation the score is 1 before much was learned."""
    rng = np.random.default_rng(5)
    X = rng.integers(0, 128, (40, 16, 16), dtype=np.uint8)
    X[38:] += 128
    y = np.r_[np.zeros(38, int), 1, 1]
    settings = dict(early_stopping=True, monitor="score", epochs=30)
    tuner = scratch(**settings, learning_rate=0.01).fit(X, y)
    losses = [record["validation_loss"] for record in tuner.history_]
    scores = [record["validation_score"] for record in tuner.history_]
    first = scores.index(1)  # it is not the best all the same
    assert losses[first] > min(losses) and len(losses) > first + 11
    proba = tuner.predict_proba(X)
    untrained = scratch(epochs=1, learning_rate=1e-9, early_stopping=True)
    with pytest.warns(ConvergenceWarning):
        untrained.fit(X, y)
    assert np.abs(proba - untrained.predict_proba(X)).max() > 0.3


def test_validation_and_weights(tones):
    X, y, _, _ = tones
    weight = np.where(np.arange(60) % 2, 1.0, 0.0)
    settings = dict(early_stopping=True, epochs=10, n_iter_no_change=10)
    tuner = scratch(**settings, validation_fraction=0.4)
    tuner.fit(X, y, sample_weight=weight)
    assert tuner.n_samples_ == 60 - 12  # of the thirty that count
    assert all(record["validation_loss"] > 0 for record in tuner.history_)


def test_weights_count_across_batches(tones):
    """Not within each: samples of next to no weight teach next to nothing."""
    X, y, _, _ = tones
    trusted = np.arange(60) < 12  # so most batches hold none of them
    labels = np.where(trusted, y, (y + 1) % 3)
    weight = np.where(trusted, 1.0, 1e-6)
    tuner = NetworkClassifier(
        functools.partial(Scaled, 1.0),
        weights="DEFAULT",
        image_size=16,
        batch_size=2,
        epochs=20,
        random_state=0,
    ).fit(X, labels, sample_weight=weight)
    assert tuner.score(X, y) > 0.9
    class_weight = {0: 0.0, 1: 1.0, 2: 1.0}
    with pytest.raises(ValueError, match="leave a sample with a weight above 0"):
        scratch(class_weight=class_weight).fit(
            X, y, sample_weight=(y == 0).astype(float)
        )


def test_a_refit_that_fails_leaves_the_old_classes(tones):
    X, y, _, _ = tones
    tuner = scratch(epochs=10).fit(X, y)
    before = tuner.predict_proba(X)
    with pytest.raises(ValueError, match="egative"):
        tuner.fit(
            X, np.array(list("abcd"))[np.arange(60) % 4], sample_weight=-np.ones(60)
        )
    assert_array_equal(tuner.predict_proba(X), before)
    assert_array_equal(tuner.classes_, [0, 1, 2])
    mixed = np.array(["a", 1] * 30, dtype=object)
    with pytest.raises(ValueError, match="labels of one type"):
        tuner.fit(X, mixed)


# -- followed, interrupted, resumed ---------------------------------------------------


def test_programs_are_told_about_each_epoch(tones, caplog):
    X, y, _, _ = tones
    with caplog.at_level(logging.INFO, logger="sklearn_p2l.tuning"):
        scratch(epochs=8, early_stopping=True).fit(X, y)
    assert len(caplog.records) == 8
    assert "small_resnet, epoch 3 of 8: loss" in caplog.text
    assert "validation_loss" in caplog.text and "score" in caplog.text


def test_people_see_loss_and_score(tones, capsys):
    X, y, _, _ = tones
    scratch(epochs=8, early_stopping=True, verbose=1).fit(X, y)
    shown = capsys.readouterr().err
    assert "loss=" in shown and "score=" in shown and "8/8" in shown


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.slow
def test_an_interrupted_training_goes_on(
    tones, tmp_path, monkeypatch, interrupt_in_epoch, early_stopping, optimizer
):
    X, y, _, _ = tones
    tuner = scratch(
        epochs=8,
        augment="shift",
        early_stopping=early_stopping,
        optimizer=optimizer,
        checkpoint_folder=tmp_path / "states",
    )
    without = clone(tuner).set_params(checkpoint_folder=None).fit(X, y)
    monkeypatch.setattr(resuming, "_SHARE", np.inf)
    calls = interrupt_in_epoch(5)
    with pytest.warns(ConvergenceWarning, match="after 4 of 8 epochs"):
        clone(tuner).fit(X, y)
    assert len(list((tmp_path / "states").iterdir())) == 1
    other = clone(tuner).set_params(random_state=1).fit(X, y)  # another training
    resumed = clone(tuner).fit(X, y)
    assert len(calls) == 5 + 8 + 4
    for key, value in without.weights_.items():
        assert_array_equal(resumed.weights_[key], value)
    assert [r["train_loss"] for r in resumed.history_] == [
        r["train_loss"] for r in without.history_
    ]
    assert not np.array_equal(other.predict_proba(X), resumed.predict_proba(X))
    assert not list((tmp_path / "states").iterdir())  # done, so forgotten


KILLED = """
import sys
import numpy as np
from sklearn_p2l import NetworkClassifier, networks
from sklearn_p2l.networks import resuming
resuming._SHARE = float("inf")
with np.load(sys.argv[1]) as file:
    X, y = file["X"], file["y"]
tuner = NetworkClassifier(
    "small_resnet", image_size=16, random_state=0, epochs=15,
    checkpoint_folder=sys.argv[2],
).fit(X, y)
np.savez(sys.argv[3], **tuner.weights_)
"""


@pytest.mark.slow
def test_a_killed_training_goes_on(tones, tmp_path):
    X, y, _, _ = tones
    np.savez(tmp_path / "data.npz", X=X, y=y)
    states, out = tmp_path / "states", tmp_path / "weights.npz"
    command = [sys.executable, "-c", KILLED, tmp_path / "data.npz", states, out]
    process = subprocess.Popen(command)
    while process.poll() is None and not any(states.glob("training-*.pt")):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists() and len(list(states.glob("training-*.pt"))) == 1
    subprocess.run(command, check=True)
    expected = scratch(epochs=15).fit(X, y).weights_
    with np.load(out) as weights:
        for key, value in expected.items():
            assert_array_equal(weights[key], value)


def test_states_that_cannot_be_used(tones, tmp_path, monkeypatch):
    X, y, _, _ = tones
    with pytest.raises(ValueError, match="random_state must be an int"):
        scratch(checkpoint_folder=tmp_path, random_state=None).fit(X, y)
    monkeypatch.setattr(resuming, "_SHARE", np.inf)
    monkeypatch.setattr(resuming.SavedRun, "forget", lambda self: None)
    scratch(epochs=6, checkpoint_folder=tmp_path).fit(X, y)
    (state,) = tmp_path.iterdir()
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"{state.name} cannot be read.*delete"):
        scratch(epochs=6, checkpoint_folder=tmp_path).fit(X, y)


# -- what a trained network can do ----------------------------------------------------


def test_features_in_a_pipeline(zoo, tones):
    pd = pytest.importorskip("pandas")
    X, y, X_test, y_test = tones
    start = zoo["digits_0_to_4"].checkpoint
    body = NetworkClassifier(start, epochs=20, random_state=0, precision="float32")
    features = body.fit(X, y).transform(X_test)
    assert features.shape == (60, 64) and features.dtype == np.float32
    logits = features @ body.weights_["fc.weight"].T + body.weights_["fc.bias"]
    assert_allclose(
        body.predict_log_proba(X_test), log_softmax(logits, axis=1), atol=1e-4
    )
    pipe = make_pipeline(clone(body), LogisticRegression()).fit(X, y)
    assert pipe.score(X_test, y_test) > 0.7
    names = body.get_feature_names_out()
    assert names[0] == "networkclassifier0" and len(names) == 64
    frame = clone(body).set_output(transform="pandas").fit(X, y).transform(X_test)
    assert isinstance(frame, pd.DataFrame) and list(frame.columns) == list(names)


def test_logarithms_of_small_probabilities(tones):
    X, y, _, _ = tones
    tuner = scratch(epochs=5).fit(X, y)
    assert_allclose(
        np.exp(tuner.predict_log_proba(X)), tuner.predict_proba(X), rtol=1e-5
    )
    Y = np.eye(3, dtype=int)[y]
    tuner = scratch(epochs=5).fit(X, Y)
    assert_allclose(
        np.exp(tuner.predict_log_proba(X)), tuner.predict_proba(X), rtol=1e-5
    )
    for key in tuner.weights_:
        if key == "fc.weight":
            tuner.weights_[key] = tuner.weights_[key] * 1e3
    tuner._network = None
    assert np.isfinite(tuner.predict_log_proba(X)).all()


@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("multiplier", [0.1, 0])
def test_a_thousand_classes(zoo, rng, multiplier):
    X = rng.integers(0, 256, size=(1100, 8, 8), dtype=np.uint8)
    y = np.r_[np.arange(1000), np.arange(100)]
    tuner = NetworkClassifier(
        zoo["digits_0_to_4"].checkpoint,
        image_size=8,
        epochs=1,
        body_learning_rate_multiplier=multiplier,
        random_state=0,
    ).fit(X, y)
    proba = tuner.predict_proba(X[:5])
    assert proba.shape == (5, 1000)
    assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
