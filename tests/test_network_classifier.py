import functools
import json
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from conftest import real_file, real_images
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from safetensors.numpy import load_file
from scipy.special import softmax
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import average_precision_score
from torchvision.transforms.v2 import functional as F

from sklearn_p2l import NetworkClassifier, SourceCatalog, Task, networks
from sklearn_p2l.datasets import load_small_tasks
from sklearn_p2l.networks import images as network_images
from sklearn_p2l.networks import training
from sklearn_p2l.networks.augmentation import augment, enlarge, recolor
from sklearn_p2l.networks.small import SmallResNet
from sklearn_p2l.tuning._settings import n_epochs as epochs_for
from sklearn_p2l.tuning._targets import validation_part

# Most tests train for a moment, which often teaches nothing.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Training .* always giving the shares:sklearn.exceptions.ConvergenceWarning"
)

SETTINGS = dict(image_size=16, epochs=2, random_state=0)
scratch = functools.partial(NetworkClassifier, "small_resnet", **SETTINGS)


def test_networks_whose_modules_have_versions_can_be_kept(dark_and_light, tmp_path):
    """MNASNet does not load a state dict without the version of its modules."""
    X, y = dark_and_light
    tuner = NetworkClassifier(
        "mnasnet0_5", image_size=48, epochs=1, random_state=0
    ).fit(X, y)
    expected = tuner.predict_proba(X)
    assert_allclose(pickle.loads(pickle.dumps(tuner)).predict_proba(X), expected)
    path = tmp_path / "mnasnet.safetensors"
    assert tuner.to_source("light", checkpoint=path).architecture == "mnasnet0_5"
    again = NetworkClassifier(path, image_size=48, epochs=1).fit(X, y)
    assert again.backbone_ == "mnasnet0_5"


@pytest.fixture
def digits():
    return load_small_tasks().held_out_targets["digits_5_to_9"]


def state_of(network):
    return {k: v.clone() for k, v in network.model.state_dict().items()}


def test_learns(dark_and_light):
    X, y = dark_and_light
    tuner = scratch(learning_rate=0.01, epochs=6, batch_size=4).fit(X[:20], y[:20])
    assert tuner.score(X[20:], y[20:]) == 1 and tuner.converged_
    assert tuner.backbone_ == "small_resnet" and not tuner.interrupted_
    assert [h["epoch"] for h in tuner.history_] == [1, 2, 3, 4, 5, 6]
    losses = [h["train_loss"] for h in tuner.history_]
    assert losses[-1] < losses[0] / 2


def test_outputs(dark_and_light):
    X, y = dark_and_light
    tuner = scratch().fit(X, y)
    proba, margin = tuner.predict_proba(X), tuner.decision_function(X)
    assert proba.shape == (40, 2) and margin.shape == (40,)
    assert_allclose(proba.sum(axis=1), 1)
    assert_allclose(proba[:, 1], 1 / (1 + np.exp(-margin)), rtol=1e-5)
    assert_array_equal(tuner.classes_, ["dark", "light"])
    assert_array_equal(tuner.predict(X), tuner.classes_[proba.argmax(axis=1)])
    y3 = np.arange(40) % 3
    tuner = scratch().fit(X, y3)
    assert tuner.decision_function(X).shape == (40, 3)
    expected = softmax(tuner.decision_function(X), axis=1)
    assert_allclose(tuner.predict_proba(X), expected)


def test_same_results_in_every_form_of_images(dark_and_light, tmp_path):
    X, y = dark_and_light
    paths = []
    for i, image in enumerate(X):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    expected = scratch().fit(X, y).predict_proba(X)
    for form in (
        X / 255,
        list(X),
        paths,
        [str(p) for p in paths],
        np.array(paths, str),
    ):
        assert_array_equal(scratch().fit(form, y).predict_proba(form), expected)
    mixed = [np.pad(X[0], ((0, 5), (0, 0), (0, 0))), *X[1:]]
    assert scratch().fit(mixed, y).predict(mixed).shape == (40,)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, 7]),
        np.array([-1.0, 2.0]),
        np.array(["a", "b"], dtype=object),
        np.array([True, False]),
    ],
    ids=lambda labels: labels.dtype.name,
)
def test_labels_of_any_type(dark_and_light, labels):
    X, y = dark_and_light
    tuner = scratch(learning_rate=0.01, epochs=10)
    y = labels[(y == "light").astype(int)]
    tuner.fit(X, y)
    assert tuner.predict(X).dtype == labels.dtype
    assert_array_equal(tuner.predict(X), y)
    assert set(tuner.fit(X, y.tolist()).classes_) == set(labels.tolist())


@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_hundred_classes_and_classes_of_one(rng):
    X = rng.integers(0, 256, size=(130, 16, 16), dtype=np.uint8)
    y = np.concatenate([np.arange(100), rng.integers(0, 10, 30)])
    tuner = scratch(early_stopping=True, validation_fraction=0.3).fit(X, y)
    assert tuner.predict_proba(X).shape == (130, 100)
    assert "validation_score" in tuner.history_[0]
    with pytest.warns(UserWarning, match="No sample can be spared"):
        every_class_once = scratch(early_stopping=True).fit(X[:100], y[:100])
    assert "validation_loss" not in every_class_once.history_[0]


@pytest.mark.parametrize(
    "counts, fraction, n",
    [([5] * 10, 0.1, 5), ([4] * 100, 0.1, 40), ([2, 2], 0.1, 1), ([90, 10], 0.2, 20)],
)
def testvalidation_part(counts, fraction, n, rng):
    targets = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    part = validation_part(targets, fraction, np.random.RandomState(0))
    assert len(part) == len(set(part)) == n
    drawn = np.bincount(targets[part], minlength=len(counts))
    assert (drawn < counts).all()
    assert (np.abs(drawn - n * np.array(counts) / sum(counts)) < 1).all()
    indicator = np.eye(3, dtype=int)
    assert len(validation_part(indicator, 0.99, np.random.RandomState(0))) == 1


@pytest.mark.parametrize(
    "epochs, rates",
    [(4, [1, 1, 0.1, 0.1]), (3, [1, 0.1, 0.01]), (2, [1, 0.1]), (1, [1])],
)
def test_step_schedule(dark_and_light, epochs, rates):
    X, y = dark_and_light
    tuner = scratch(epochs=epochs, learning_rate=0.01, schedule="step", warmup=0.0)
    measured = [h["learning_rate"] for h in tuner.fit(X, y).history_]
    assert_allclose(measured, np.array(rates) * 0.01)


def test_warm_up_and_cosine(dark_and_light):
    """A line up, half a cosine down; one step per epoch shows all of it."""
    X, y = dark_and_light
    settings = dict(epochs=20, learning_rate=0.01, batch_size=40)
    tuner = scratch(**settings, warmup=0.2).fit(X, y)
    rates = np.array([h["learning_rate"] for h in tuner.history_]) / 0.01
    assert_allclose(rates[:4], [0.25, 0.5, 0.75, 1])
    angles = np.pi * np.arange(16) / 16
    assert_allclose(rates[4:], 0.5 + 0.5 * np.cos(angles))
    constant = scratch(**settings, schedule="constant", warmup=0.1).fit(X, y)
    rates = [h["learning_rate"] / 0.01 for h in constant.history_]
    assert_allclose(rates, [0.5, *[1] * 19])


@pytest.mark.parametrize(
    "n, batch_size, n_epochs, at_full_rate",
    [
        (60, 16, 50, 100),  # 4 steps a pass: 200 steps, 400
        (160, 16, 20, 40),
        (500, 16, 20, 40),  # 32 steps a pass: 640 steps, 1,280
        (1200, 16, 20, 27),  # 75 steps a pass: 1,500 steps, 2,000
        (16_000, 16, 2, 2),  # 1,000 steps a pass: 2,000 steps
        (100_000, 16, 1, 1),
        (2, 32, 200, 400),
        (75, 1, 20, 40),  # 37 steps a pass: no batch has a single sample
    ],
)
def test_epochs_that_suit_the_size(n, batch_size, n_epochs, at_full_rate):
    classifier = NetworkClassifier("resnet18", batch_size=batch_size)
    assert epochs_for(classifier, n, 1.0) == at_full_rate
    assert epochs_for(classifier, n, 0.1) == epochs_for(classifier, n, 0.5) == n_epochs
    assert epochs_for(classifier.set_params(epochs=3), n, 1.0) == 3


@pytest.mark.parametrize(
    "widths, multiplier",
    [((16, 32, 64), 1.0), ((32, 64, 128), None), ((96, 192, 384), 0.1)],
)
def test_the_fewer_weights_the_faster_the_body_learns(widths, multiplier, rng):
    """100,000 over their number; the paper's 0.1 from a million on."""
    factory = functools.partial(SmallResNet, widths=widths)
    classifier = NetworkClassifier(factory, image_size=8, epochs=1, random_state=0)
    X, y = rng.integers(0, 256, (4, 8, 8), dtype=np.uint8), [0, 1, 0, 1]
    assert classifier.fit(X, y).body_learning_rate_multiplier_ == 1.0  # random weights
    classifier.set_params(weights="DEFAULT").fit(X, y)
    body = [v for k, v in classifier.weights_.items() if not k.startswith("fc.")]
    buffers = ("running", "num_batches")
    names = [k for k in classifier.weights_ if not k.startswith("fc.")]
    learned = [k for k in names if not any(b in k for b in buffers)]
    n_weights = sum(classifier.weights_[k].size for k in learned)
    assert len(learned) < len(body)
    expected = multiplier or 100_000 / n_weights
    got = classifier.body_learning_rate_multiplier_
    assert got == pytest.approx(expected) and 0.1 <= got <= 1
    classifier.set_params(body_learning_rate_multiplier=0.3).fit(X, y)
    assert classifier.body_learning_rate_multiplier_ == 0.3


@pytest.mark.parametrize("n", [2, 3, 33])
def test_no_batch_of_one(dark_and_light, n):
    X, y = dark_and_light
    y = np.arange(n) % 2
    for batch_size in (1, 2, 32):
        assert scratch(batch_size=batch_size).fit(X[:n], y).predict(X[:n]).shape == (n,)


def test_deterministic_and_leaves_global_state_alone(dark_and_light):
    X, y = dark_and_light
    torch.manual_seed(7), np.random.seed(7)  # noqa: NPY002
    legacy = np.random.get_state()[1]  # noqa: NPY002
    before = torch.get_rng_state(), torch.get_num_threads(), legacy
    flags = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    one = scratch(augment="flip").fit(X, y)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    assert_array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002
    assert flags == (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    assert torch.is_grad_enabled()
    torch.manual_seed(8)
    other = scratch(augment="flip").fit(X, y)
    for key in one.weights_:
        assert_array_equal(one.weights_[key], other.weights_[key])
    different = scratch(augment="flip", random_state=1).fit(X, y)
    assert not np.array_equal(
        one.weights_["fc.weight"], different.weights_["fc.weight"]
    )


def test_head_and_body_learning_rates(zoo, dark_and_light, monkeypatch):
    """One step of plain gradient descent moves each part by its rate times gradient."""
    X, y = dark_and_light
    plain = dict(
        weights=zoo["digits_0_to_4"].checkpoint,
        optimizer="sgd",
        learning_rate=0.01,
        schedule="step",
        warmup=0.0,
        max_grad_norm=None,
        scale_features=False,
        momentum=0.0,
        weight_decay=0.0,
        batch_size=40,
        **{**SETTINGS, "epochs": 2},
    )
    # The last layer starts at zero, so it takes a second step to move the body.
    start = (
        NetworkClassifier(**plain, body_learning_rate_multiplier=0).fit(X, y).weights_
    )
    before = load_file(zoo["digits_0_to_4"].checkpoint)
    for key in before:
        if not key.startswith("fc."):
            assert_array_equal(start[key], before[key], err_msg=key)  # all of it frozen
    moved = {}
    for multiplier in (0.1, 0.2):
        tuner = NetworkClassifier(
            **plain, body_learning_rate_multiplier=multiplier
        ).fit(X, y)
        key = "body.0.weight"
        moved[multiplier] = tuner.weights_[key] - before[key]
        head = tuner.weights_["fc.weight"]
        assert np.abs(head).max() > 0 and head.shape == (2, 64)
    assert np.abs(moved[0.1]).max() > 0
    assert_allclose(moved[0.2], 2 * moved[0.1], atol=1e-6)


def test_random_weights_learn_at_the_full_rate(dark_and_light):
    X, y = dark_and_light
    low = scratch(body_learning_rate_multiplier=0.0).fit(X, y)
    high = scratch(body_learning_rate_multiplier=1.0).fit(X, y)
    assert_array_equal(low.weights_["body.0.weight"], high.weights_["body.0.weight"])


def test_transfer_from_a_related_source_helps(zoo):
    task = load_small_tasks().training_targets["digits"]  # other samples
    few, known = task.y < 5, task.y_test < 5
    X, y = task.X[few][:20], task.y[few][:20]
    settings = {**SETTINGS, "epochs": 20, "batch_size": 8}
    starts = {None: None} | {source.name: source.checkpoint for source in zoo}
    scores = {
        name: NetworkClassifier(weights=start, **settings)
        .fit(X, y)
        .score(task.X_test[known], task.y_test[known])
        for name, start in starts.items()
    }
    assert scores["digits_0_to_4"] > scores["flower_edges"]
    assert scores["digits_0_to_4"] > scores[None]


@pytest.mark.slow
def test_persistence_in_a_fresh_process(zoo, digits, tmp_path):
    X, start = digits.X, zoo["digits_0_to_4"].checkpoint
    tuner = NetworkClassifier(weights=start, **SETTINGS).fit(digits)
    joblib.dump((tuner, X), tmp_path / "tuner.joblib")
    code = (
        "import sys, joblib, numpy; t, X = joblib.load(sys.argv[1]);"
        "assert 'torch' not in sys.modules; numpy.save(sys.argv[2], t.predict_proba(X))"
    )
    out = tmp_path / "p.npy"
    command = [sys.executable, "-c", code, tmp_path / "tuner.joblib", out]
    subprocess.run(command, check=True)
    assert_array_equal(np.load(out), tuner.predict_proba(X))
    assert all(isinstance(w, np.ndarray) for w in tuner.weights_.values())


@pytest.mark.parametrize("early_stopping", [False, True])
def test_interrupted_training_is_not_lost(
    dark_and_light, monkeypatch, interrupt_in_epoch, early_stopping
):
    X, y = dark_and_light
    interrupt_in_epoch(4)
    constant = dict(schedule="constant", warmup=0.0)
    tuner = scratch(epochs=10, early_stopping=early_stopping, **constant)
    with pytest.warns(ConvergenceWarning, match="after 3 of 10 epochs"):
        tuner.fit(X, y)
    assert len(tuner.history_) == 3
    monkeypatch.undo()
    if not early_stopping:
        # as if it had been asked for three epochs with the same schedule
        three = scratch(epochs=3, **constant).fit(X, y)
        assert_array_equal(tuner.predict_proba(X), three.predict_proba(X))
    assert tuner.predict(X).shape == (40,)


def test_early_stopping_returns_to_the_best_epoch(dark_and_light, rng):
    X, y = dark_and_light
    noise = rng.permutation(y)  # nothing to learn, so validation soon gets worse
    settings = dict(schedule="constant", warmup=0.0, early_stopping=True)
    tuner = scratch(epochs=40, n_iter_no_change=3, validation_fraction=0.3, **settings)
    tuner.fit(X, noise)
    assert tuner.n_samples_ == 28  # of 40, less 30 %
    losses = [h["validation_loss"] for h in tuner.history_]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 3 < 40
    again = scratch(
        epochs=best + 1, n_iter_no_change=3, validation_fraction=0.3, **settings
    )
    again.fit(X, noise)
    assert_array_equal(tuner.predict_proba(X), again.predict_proba(X))


def test_class_weight():
    """Of equal images only the weighted shares of the classes can be learned."""
    X = np.full((60, 16, 16), 100, np.uint8)
    y = np.repeat([0, 1], [50, 10])
    settings = dict(epochs=60, batch_size=20, learning_rate=0.01, image_size=8)
    tuners = {
        str(weight): scratch(class_weight=weight, **settings).fit(X, y)
        for weight in (None, "balanced", {0: 1.0, 1: 5.0})
    }
    share = {name: t.predict_proba(X)[:, 1].mean() for name, t in tuners.items()}
    assert_allclose(share["None"], 10 / 60, atol=0.02)
    assert_allclose(share["balanced"], 0.5, atol=0.02)
    # the loss is normalised by the weights, so only their ratio counts
    one, other = (tuners[name] for name in ("balanced", "{0: 1.0, 1: 5.0}"))
    assert_allclose(one.predict_proba(X), other.predict_proba(X), atol=1e-2)


@pytest.mark.parametrize("sparse", [False, True])
def test_multilabel(dark_and_light, sparse):
    X, y = dark_and_light
    Y = np.column_stack([y == "dark", y == "light", np.zeros(40, bool)]).astype(int)
    given = Y
    if sparse:
        given = pytest.importorskip("scipy.sparse").csr_array(Y)
    tuner = scratch(epochs=12, learning_rate=0.01, early_stopping=not sparse)
    tuner.fit(X, given)
    proba = tuner.predict_proba(X)
    assert proba.shape == (40, 3) and tuner.predict(X).shape == (40, 3)
    assert_array_equal(tuner.predict(X), proba > 0.5)
    expected = average_precision_score(Y, proba, average="micro")
    assert_allclose(tuner.score(X, given), expected)
    assert expected > 0.9
    with pytest.raises(ValueError, match="class_weight must be None"):
        scratch(class_weight="balanced").fit(X, Y)


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "auto"])
def test_mixed_precision_learns_the_same(dark_and_light, precision):
    X, y = dark_and_light
    settings = dict(learning_rate=0.01, epochs=10, image_size=8)
    rough = scratch(precision=precision, **settings).fit(X, y)
    exact = scratch(**settings).fit(X, y)
    assert_allclose(rough.predict_proba(X), exact.predict_proba(X), atol=0.1)
    assert all(
        w.dtype == np.float32 for k, w in rough.weights_.items() if "num" not in k
    )


def test_augmentation(rng):
    torch.manual_seed(0)
    batch = torch.from_numpy(rng.integers(0, 256, (64, 3, 16, 16), dtype=np.uint8))
    assert augment(batch, ()) is batch
    shifted = augment(batch, ("shift",))
    assert shifted.shape == batch.shape and shifted.dtype == torch.uint8
    places = set()
    for before, after in zip(batch, shifted):
        inner = after[:, 4:12, 4:12]
        (place,) = [
            (top, left)
            for top in range(2, 7)
            for left in range(2, 7)
            if torch.equal(inner, before[:, top : top + 8, left : left + 8])
        ]
        places.add(place)
    assert len(places) > 15  # each image in its own way
    flipped = augment(batch, ("flip",))
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, batch)]
    kept = [torch.equal(a, b) for a, b in zip(flipped, batch)]
    assert sum(mirrored) + sum(kept) == 64 and 15 < sum(mirrored) < 49
    grey = torch.arange(64, dtype=torch.uint8).view(64, 1, 1, 1).expand(64, 3, 16, 16)
    assert torch.equal(augment(grey, ("crop", "shift", "flip")), grey)
    colored = augment(grey + 100, ("color",))
    assert not torch.equal(colored, grey + 100)
    assert (colored == colored[:, :1, :1, :1]).all()  # of one color still


def test_augmentation_of_batches_is_that_of_images(rng):
    """As torchvision changes one image by what was drawn for it."""
    n, side = 6, 32
    smooth = rng.integers(0, 256, (n, 3, 5, 5)).astype(np.float32)
    batch = F.resize(torch.from_numpy(smooth), [side, side]).round().to(torch.uint8)
    tops, lefts = rng.integers(0, 8, (2, n))
    heights, widths = rng.integers(18, 25, (2, n))
    sides = torch.tensor(np.stack([widths, heights]) / side, dtype=torch.float32)
    first = torch.tensor(np.stack([lefts, tops]) / side, dtype=torch.float32)
    parts = enlarge(batch, sides, 2 * first + sides - 1)
    factors = torch.from_numpy(rng.uniform(0.7, 1.3, (3, n, 1, 1, 1))).float()
    colored = recolor(batch, *factors)
    for i, image in enumerate(batch):
        box = tops[i], lefts[i], heights[i], widths[i]
        expected = F.resized_crop(image, *map(int, box), [side, side], antialias=False)
        inside = np.s_[:, 2:-2, 2:-2]  # at the edges ours sees what is beyond them
        assert_allclose(parts[i][inside].int(), expected[inside].int(), atol=1)
        brightness, contrast, saturation = factors[:, i].flatten().tolist()
        expected = F.adjust_brightness(image.float() / 255, brightness)
        expected = F.adjust_contrast(expected, contrast)
        expected = F.adjust_saturation(expected, saturation) * 255
        assert_allclose(colored[i].float(), expected, atol=0.51)


@pytest.mark.parametrize("names", ["shift", ["crop", "flip"], ("color",)])
def test_training_with_augmentation(dark_and_light, names):
    X, y = dark_and_light
    tuner = scratch(augment=names, epochs=10, learning_rate=0.01).fit(X, y)
    assert tuner.score(X, y) == 1
    with pytest.raises(ValueError, match="augment must be some of.*got .*'mixup'"):
        scratch(augment=[names, "mixup"]).fit(X, y)


def test_to_source_and_back(zoo, digits, tmp_path):
    X, y = digits.X, digits.y
    source = zoo["digits_0_to_4"]
    assert (source.size, source.n_classes, source.architecture) == (
        300,
        5,
        "small_resnet",
    )
    tuner = NetworkClassifier(weights=source.checkpoint, **SETTINGS).fit(X, y)
    path = tmp_path / "new" / "five.safetensors"
    made = tuner.to_source("five", embedding=source.embedding, checkpoint=path, size=7)
    assert made.size == 7 and made.n_classes == 5 and made.fingerprint is None
    assert tuner.to_source("four", checkpoint=path, columns={"a": 2}).columns["a"] == 2
    described = networks.checkpoint_metadata(path)
    assert json.loads(described["classes"]) == tuner.classes_.tolist()
    assert described["architecture"] == "small_resnet"
    stored = load_file(path)
    assert stored.keys() == tuner.weights_.keys()
    for key, value in stored.items():
        assert_array_equal(value, tuner.weights_[key])
    again = NetworkClassifier(path, epochs=1).fit(X, y)
    assert again.image_size_ == 16 and again.backbone_ == "small_resnet"
    zoo.append(made).save(tmp_path / "zoo", copy_checkpoints=True)
    loaded = SourceCatalog.load(tmp_path / "zoo")["five"]
    one, other = (
        NetworkClassifier(weights=start, **SETTINGS).fit(X, y)
        for start in (path, loaded.checkpoint)
    )
    assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    with pytest.raises(ValueError, match="ending in '.safetensors'"):
        tuner.to_source("x", checkpoint=tmp_path / "x.pt")
    with pytest.raises(NotFittedError):
        scratch().to_source("x", checkpoint=tmp_path / "x.safetensors")


@pytest.mark.parametrize("backbone", ["small_resnet", "squeezenet1_1"])
@pytest.mark.parametrize(
    "labels", [["dark", "light"], [3, -1], [False, True], [1.0, 2.0], "multilabel"]
)
def test_a_file_is_a_fitted_classifier_again(
    backbone, labels, dark_and_light, tmp_path
):
    """For squeezenet1_1, too, whose fresh last layer is not that of torchvision."""
    X, y = dark_and_light
    second = (np.asarray(y) == np.unique(y)[1]).astype(int)
    y = np.eye(2, dtype=int)[second]
    if labels != "multilabel":
        y = np.array(labels)[second]
    trained = NetworkClassifier(backbone, image_size=32, epochs=1, random_state=0)
    path = tmp_path / "it.safetensors"
    trained.fit(X, y).to_source("it", checkpoint=path)
    again = NetworkClassifier.from_checkpoint(path)
    assert_array_equal(again.predict_proba(X), trained.predict_proba(X))
    assert_array_equal(again.predict(X), trained.predict(X))
    assert again.predict(X).dtype == trained.predict(X).dtype
    assert_array_equal(again.transform(X[:3]), trained.transform(X[:3]))
    for name in ("n_samples_", "image_size_", "backbone_", "y_type_"):
        assert getattr(again, name) == getattr(trained, name)
    assert_array_equal(pickle.loads(pickle.dumps(again)).predict(X), trained.predict(X))
    copy = tmp_path / "copy.safetensors"
    again.to_source("it", checkpoint=copy)
    assert copy.read_bytes() == path.read_bytes()
    assert clone(again).set_params(epochs=1).fit(X, y).image_size_ == 32


@pytest.mark.parametrize(
    "change, told",
    [
        ({"classes": None}, "'classes'"),
        ({"classes": '["a", "a"]'}, "no list of different labels"),
        ({"classes": "[]"}, "no list of different labels"),
        ({"classes": '{"a": 1}'}, "no list of different labels"),
        ({"classes": '["a", "b", "c"]'}, "size mismatch"),
        ({"classes": "["}, "Expecting value"),
        ({"classes": "[[1], 2]"}, "inhomogeneous"),
        ({"n_samples": "many"}, "invalid literal"),
        ({"y_type": "continuous"}, "y_type"),
    ],
)
def test_a_file_that_is_no_fitted_classifier(change, told, dark_and_light, tmp_path):
    path = tmp_path / "it.safetensors"
    trained = scratch().fit(*dark_and_light)
    trained.to_source("it", checkpoint=path)
    metadata = networks.checkpoint_metadata(path) | change
    metadata = {key: value for key, value in metadata.items() if value is not None}
    networks.write_checkpoint(path, trained.weights_, metadata)
    with pytest.raises(ValueError, match=told) as raised:
        NetworkClassifier.from_checkpoint(path)
    assert "to_source or p2l tune" in str(raised.value)


def test_mismatch_of_architecture_and_checkpoint(zoo, digits):
    start = zoo["digits_0_to_4"].checkpoint
    wrong = NetworkClassifier("resnet18", weights=start, **SETTINGS)
    message = "missing: bn1.bias.*unexpected: body.0.weight"
    with pytest.raises(ValueError, match=message):
        wrong.fit(digits)


def test_fine_tuning_a_torchvision_network(dark_and_light, tmp_path):
    X, y = dark_and_light
    path = tmp_path / "r18.safetensors"
    first = NetworkClassifier("resnet18", **{**SETTINGS, "image_size": 32}).fit(X, y)
    first.to_source("r18", checkpoint=path)
    tuner = NetworkClassifier("resnet18", weights=path, epochs=1).fit(X, y)
    assert tuner.image_size_ == 32  # as the checkpoint says
    assert tuner.predict(X).shape == (40,)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(backbone="resnet19"), "did you mean"),
        (dict(weights="DEFAULT"), "no published weights"),
        (dict(device="tpu9"), "device must be"),
        (dict(class_weight={"dark": 1.0, "grey": 2.0}), "classes"),
    ],
)
def test_what_cannot_be_trained(arguments, message, dark_and_light):
    with pytest.raises(ValueError, match=message):
        NetworkClassifier(**arguments).fit(*dark_and_light)


@pytest.mark.parametrize(
    "y, message",
    [
        (np.zeros(40), "at least two classes, got one"),
        (np.zeros(39), "got 39 labels for 40 samples"),
        (np.linspace(0, 1, 40), "Unknown label type: continuous"),
        (np.full(40, np.nan), "label for every sample, got NaN"),
        ([None, *["a", "b"] * 19, "b"], "label for every sample, got NaN or None"),
        (None, "requires y to be passed"),
    ],
)
def test_bad_labels(dark_and_light, y, message):
    X, _ = dark_and_light
    with pytest.raises(ValueError, match=message):
        scratch().fit(X, y)


def test_bad_images_are_named(dark_and_light):
    X, y = dark_and_light
    bad = X / 255
    bad[11, 3, 3, 0] = np.nan
    with pytest.raises(ValueError, match="image 11 must be finite"):
        scratch().fit(bad, y)
    tuner = scratch().fit(X, y)
    with pytest.raises(ValueError, match="image 11 must be finite"):
        tuner.predict(bad)


def test_divergence_of_training_is_an_error(dark_and_light):
    X, y = dark_and_light
    with pytest.raises(ValueError, match="diverged"):  # in the last step of all
        scratch(learning_rate=1e38, epochs=1, batch_size=100, warmup=0.0).fit(X, y)
    with pytest.raises(ValueError, match="diverged.*smaller learning_rate"):
        scratch(learning_rate=1e30, epochs=5).fit(X, y)


def test_an_epoch_without_finite_loss_is_never_the_best(dark_and_light, monkeypatch):
    X, y = dark_and_light
    original, calls = training.predict_logits, []

    def first_is_nan(*args):
        calls.append(1)
        return original(*args) * (np.nan if len(calls) == 1 else 1)

    monkeypatch.setattr(training, "predict_logits", first_is_nan)
    settings = dict(early_stopping=True, epochs=4, learning_rate=0.01)
    tuner = scratch(n_iter_no_change=2, **settings).fit(X, y)
    assert np.isnan(tuner.history_[0]["validation_loss"])
    assert len(tuner.history_) > 2


def test_class_of_weight_zero(dark_and_light):
    X, y = dark_and_light
    tuner = scratch(class_weight={"dark": 0.0, "light": 1.0}, batch_size=2).fit(X, y)
    assert set(tuner.predict(X)) == {"light"}


def test_missing_labels_of_pandas(dark_and_light):
    pd = pytest.importorskip("pandas")
    X, y = dark_and_light
    series = pd.Series(y, index=range(100, 140), dtype="string")
    assert set(scratch().fit(X, series).classes_) == {"dark", "light"}
    series.iloc[3] = pd.NA
    with pytest.raises(ValueError, match="label for every sample"):
        scratch().fit(X, series)


def test_as_many_images_as_the_length_says(dark_and_light):
    X, y = dark_and_light

    class Liar:
        def __init__(self, n):
            self.n = n

        def __len__(self):
            return self.n

        def __iter__(self):
            return iter(X)

    for n in (39, 41):
        with pytest.raises(ValueError, match=f"its length says, {n}, got 40"):
            scratch().fit(Liar(n), [*y, "dark"][:n])


def test_a_failed_refit_leaves_nothing_half_fitted(dark_and_light):
    X, y = dark_and_light
    tuner = scratch().fit(X, y)
    before = tuner.predict_proba(X)
    with pytest.raises(ValueError, match="at least two classes"):
        tuner.fit(X, np.zeros(40))
    assert_array_equal(tuner.predict_proba(X), before)
    assert set(tuner.predict(X)) <= {"dark", "light"}
    bad = X / 255
    bad[3] = np.nan
    with pytest.raises(ValueError, match="image 3"):
        tuner.fit(bad, np.arange(40) % 5)
    with pytest.raises(NotFittedError):
        tuner.predict(X)


def test_unfitted():
    for method in ("predict", "predict_proba", "decision_function"):
        with pytest.raises(NotFittedError):
            getattr(scratch(), method)(np.zeros((2, 16, 16), np.uint8))
    with pytest.raises(NotFittedError):
        scratch().score(np.zeros((2, 16, 16), np.uint8), [0, 1])


def test_progress(dark_and_light, capsys):
    X, y = dark_and_light
    scratch(verbose=1).fit(X, y)
    assert "training small_resnet" in capsys.readouterr().err


def test_large_inputs_go_to_a_file(dark_and_light, monkeypatch):
    X, y = dark_and_light
    expected = scratch().fit(X, y).predict_proba(X)
    monkeypatch.setattr(network_images, "_IN_MEMORY_BYTES", 1000)
    made, mapped = [], np.memmap
    monkeypatch.setattr(
        network_images.np, "memmap", lambda *a, **k: made.append(1) or mapped(*a, **k)
    )
    assert_array_equal(scratch().fit(X, y).predict_proba(X), expected)
    assert made == [1]


@pytest.mark.slow
def test_vegetables_from_imagenet():
    """Real photographs: 220 of 22 kinds of vegetables, from a real ImageNet network."""
    X, y, _ = real_images("grocery_vegetables")
    order = np.random.default_rng(0).permutation(len(X))
    train, test = order[:220], order[220:520]
    start = real_file("models", "squeezenet1_1.safetensors")
    tuner = NetworkClassifier(
        "squeezenet1_1", weights=start, image_size=64, epochs=7, random_state=0
    ).fit(X[train], y[train])
    assert tuner.score(X[test], y[test]) > 0.5


# -- samples and labels in the forms that users have


def test_sample_weight(dark_and_light):
    """A sample of weight 0 counts as if it were not there, but for its place."""
    X = np.full((60, 16, 16), 100, np.uint8)
    y = np.repeat([0, 1], [50, 10])
    settings = dict(epochs=60, batch_size=20, learning_rate=0.01, image_size=8)
    weight = np.where(y == 1, 5.0, 1.0)
    weighted = scratch(**settings).fit(X, y, sample_weight=weight)
    assert_allclose(weighted.predict_proba(X)[:, 1].mean(), 0.5, atol=0.02)
    balanced = scratch(class_weight="balanced", **settings).fit(X, y)
    assert_allclose(weighted.predict_proba(X), balanced.predict_proba(X), atol=1e-2)
    X, y = dark_and_light
    flipped = np.where(np.arange(40) < 8, y[::-1], y)
    ignored = scratch(epochs=12, learning_rate=0.01).fit(
        X, flipped, sample_weight=(np.arange(40) >= 8).astype(float)
    )
    assert ignored.score(X, y) == 1
    for wrong, message in [(-np.ones(40), "egative"), (np.ones(39), "shape")]:
        with pytest.raises(ValueError, match=message):
            scratch().fit(X, y, sample_weight=wrong)


def test_folders_of_classes(dark_and_light, tmp_path):
    X, y = dark_and_light
    for i, (image, label) in enumerate(zip(X, y)):
        (tmp_path / label).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / label / f"{i:02}.png")
    task = Task.from_folder(tmp_path)
    by_folder = scratch().fit(tmp_path)
    by_task = scratch().fit(task)
    by_hand = scratch().fit(task.X, task.y)
    expected = by_hand.predict_proba(task.X)
    assert_array_equal(by_folder.predict_proba(tmp_path), expected)
    assert_array_equal(by_task.predict_proba(str(tmp_path)), expected)
    assert_allclose(by_folder.predict_proba(task.X[3]), expected[3:4], rtol=1e-6)
    image = Image.open(task.X[3])
    assert_allclose(by_folder.predict_proba(image), expected[3:4], rtol=1e-6)
    assert_allclose(
        by_folder.predict_proba(np.asarray(image)), expected[3:4], rtol=1e-6
    )
    with pytest.raises(ValueError, match="requires y to be passed"):
        scratch().fit(X)
    with pytest.raises(ValueError, match="lie in the subfolder of its class"):
        scratch().fit(tmp_path / "dark")


def test_a_torch_dataset_brings_its_labels(dark_and_light):
    X, y = dark_and_light

    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, i):
            return X[i], y[i]

    expected = scratch().fit(X, y).predict_proba(X)
    assert_array_equal(scratch().fit(Pairs()).predict_proba(Pairs()), expected)


def test_a_column_of_paths(dark_and_light, tmp_path):
    pd = pytest.importorskip("pandas")
    X, y = dark_and_light
    frame = pd.DataFrame({"path": [str(tmp_path / f"{i}.png") for i in range(40)]})
    for path, image in zip(frame["path"], X):
        Image.fromarray(image).save(path)
    frame = frame.assign(label=y).sample(frac=1, random_state=0)
    tuner = scratch().fit(frame["path"], frame["label"])
    expected = scratch().fit(X[frame.index], y[frame.index]).predict_proba(X)
    assert_array_equal(tuner.predict_proba(frame["path"].sort_index()), expected)
    assert_array_equal(tuner.predict_proba(frame[["path"]].sort_index()), expected)


def test_weights_of_squeezenet_never_load_into_another_function(dark_and_light):
    """torchvision's own cuts the outputs of the last layer at 0."""
    from torchvision.models import squeezenet1_1

    X, y = dark_and_light
    tuner = NetworkClassifier("squeezenet1_1", image_size=48, epochs=1, random_state=0)
    tuner.fit(X, y)
    state = {key: torch.from_numpy(value) for key, value in tuner.weights_.items()}
    with pytest.raises(RuntimeError, match="Missing key.*classifier.1.weight"):
        squeezenet1_1(num_classes=2).load_state_dict(state)
    again = pickle.loads(pickle.dumps(tuner))
    assert_allclose(again.predict_proba(X), tuner.predict_proba(X), rtol=1e-6)
