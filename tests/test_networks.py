"""The torch room: its contracts, its families, and what a network is given."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from torchvision.models import swin_v2_t

from sklearn_p2l import networks
from sklearn_p2l.networks import Network, Recipe, images, opening
from sklearn_p2l.networks.base import Family
from sklearn_p2l.networks.small import SmallFamily
from sklearn_p2l.networks.torchvision import TorchvisionFamily
from sklearn_p2l.samples import Bag, Context


@pytest.mark.parametrize("contract", [Network, Family])
def test_contracts_are_abstract(contract):
    part = type("Part", (contract,), {"check": lambda self: None})
    with pytest.raises(TypeError, match="abstract"):
        part()


class Doubled(SmallFamily):
    """Another library, whose names begin with its own."""

    form = "'doubled/<name>'"

    def names(self):
        return ["doubled/one"]


def test_a_family_more_is_one_entry(monkeypatch):
    """What CONTRIBUTING promises."""
    with pytest.raises(ValueError, match="got 'doubled/one'"):
        networks.open_network("doubled/one", weights=None)
    monkeypatch.setitem(opening.FAMILIES, "doubled", Doubled())
    network = networks.open_network("doubled/one", weights=None, image_size=16)
    assert network.metadata["architecture"] == "doubled/one"
    same = networks.open_network("small_resnet", weights=None, image_size=16)
    for one, other in zip(network.parameters(), same.parameters()):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="did you mean doubled/one"):
        networks.open_network("doubled/onne", weights=None)


def test_what_is_downloaded_is_told_on_stderr(monkeypatch, capsys):
    state = networks.open_network("squeezenet1_1", weights=None).model.state_dict()
    published = TorchvisionFamily.published

    def fetch():
        print("Downloading: a large file")
        return state

    def patched(self, name):
        return {
            key: dataclasses.replace(value, fetch=fetch)
            for key, value in published(self, name).items()
        }

    monkeypatch.setattr(TorchvisionFamily, "published", patched)
    network = networks.open_network("squeezenet1_1", weights="DEFAULT", image_size=64)
    told = capsys.readouterr()
    assert told.out == "" and "Downloading: a large file" in told.err
    for key, value in network.model.state_dict().items():
        assert torch.equal(value, state[key])


@pytest.mark.parametrize("size", [224, 64])
def test_the_margin_of_an_image_is_not_seen(size, rng):
    """256 pixels to 224 at every size: about 6 % on each side."""
    network = networks.open_network("resnet18", weights=None, image_size=size)
    rule = network.preprocessing
    assert rule.resize_size == round(256 * size / 224)
    side = rule.resize_size
    image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    other, margin = 255 - image, round((side - size) / 2)
    inner = slice(margin, margin + size)
    other[inner, inner] = image[inner, inner]
    assert 0.05 < margin / side < 0.065
    assert torch.equal(network.preprocess([image]), network.preprocess([other]))
    small = networks.open_network("small_resnet", weights=None, image_size=size)
    assert small.preprocessing.resize_size == small.preprocessing.crop_size == size


@pytest.mark.parametrize(
    "name, signed",
    [("resnet18", False), ("small_resnet", False), ("mobilenet_v3_small", True)],
)
def test_a_network_knows_whether_its_features_have_a_sign(name, signed):
    network = networks.open_network(name, weights=None, image_size=64)
    assert network.signed == signed


def test_text_knows_it_too():
    bag = Bag("a", "b", [Context("a met b .", (0, 1), (6, 7))])
    for layer, signed in [(None, False), ("contexts", True)]:
        network = networks.open_network(
            "pcnn", weights=None, layer=layer, samples=[bag, bag]
        )
        assert network.signed == signed


def test_rectified_logits_are_named_otherwise():
    network = networks.open_network("squeezenet1_1", weights=None, image_size=64)
    before = set(network.model.state_dict())
    network.reset_classifier(3)
    after = set(network.model.state_dict())
    assert after - before == {
        "classifier.1.unrectified.weight",
        "classifier.1.unrectified.bias",
    }
    network.reset_classifier(5)  # once more, in the same place
    assert set(network.model.state_dict()) == after
    assert not any(isinstance(m, nn.ReLU) for m in network.model.classifier)
    batch = torch.zeros((2, 3, 64, 64), dtype=torch.uint8)
    assert network(batch).shape == (2, 5)
    plain = networks.open_network("resnet18", weights=None, image_size=64)
    before = set(plain.model.state_dict())
    plain.reset_classifier(3)
    assert set(plain.model.state_dict()) == before


def test_a_recipe_is_a_value():
    fields = {field.name: None for field in dataclasses.fields(Recipe)}
    recipe = Recipe(**fields | {"body_multiplier": 0})
    assert recipe.freezes_body and recipe == dataclasses.replace(recipe)
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.epochs = 3


def test_what_a_checkpoint_says_of_itself(tmp_path):
    path = tmp_path / "a.safetensors"
    networks.write_checkpoint(path, {"w": np.ones((2, 3)).T}, {"architecture": "x"})
    assert networks.checkpoint_metadata(path) == {"architecture": "x"}
    (tmp_path / "b.safetensors").write_bytes(b"no tensors")
    (tmp_path / "c.pt").touch()
    for other in ("b.safetensors", "c.pt", "absent.safetensors"):
        assert networks.checkpoint_metadata(tmp_path / other) == {}


def test_devices():
    assert networks.choose_device(torch.device("cpu")) == torch.device("cpu")
    assert networks.choose_device("cpu").type == "cpu"
    for wrong in ("tpu9", 1.5):
        with pytest.raises(ValueError, match="device must be"):
            networks.choose_device(wrong)


def test_weights_of_samples_and_classes_multiply():
    """Against the weighted mean by its definition."""
    from sklearn_p2l.tuning._targets import weights_of_samples

    rng = np.random.default_rng(0)
    targets, logits = rng.integers(0, 3, 8), rng.normal(size=(8, 3))
    of_class = np.array([1.0, 2.0, 0.5], np.float32)
    of_sample = rng.uniform(0, 2, 8).astype(np.float32)
    class_weight = dict(enumerate(of_class.tolist()))
    weight = weights_of_samples(of_sample, class_weight, targets, np.arange(3))
    loss = networks.Loss(targets, weight, torch.device("cpu"))
    got = loss(torch.from_numpy(logits).float(), torch.arange(8)).item()
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    losses = -log_p[np.arange(8), targets]
    weights = of_class[targets] * of_sample
    assert got == pytest.approx(np.average(losses, weights=weights), rel=1e-5)
    indicator = rng.integers(0, 2, (8, 3))
    loss = networks.Loss(indicator, of_sample, torch.device("cpu"))
    got = loss(torch.from_numpy(logits).float(), torch.arange(8)).item()
    p = 1 / (1 + np.exp(-logits))
    losses = -np.where(indicator, np.log(p), np.log(1 - p)).sum(axis=1)
    assert got == pytest.approx(np.average(losses, weights=of_sample), rel=1e-5)
    assert_array_equal(loss.targets, indicator)
    # steps on equal batches give the mean over all samples, whatever weighs in each
    parts = torch.arange(8).split(4)
    steps = [loss.for_step(torch.from_numpy(logits)[p].float(), p) for p in parts]
    assert np.mean([s.item() for s in steps]) == pytest.approx(got, rel=1e-5)
    # the best constant answer: no other has a smaller loss
    constant = loss.constant(torch.arange(8), 3)
    everywhere = loss(constant.expand(8, -1), torch.arange(8)).item()
    for shift in (-0.1, 0.1):
        other = (constant + shift).expand(8, -1)
        assert everywhere < loss(other, torch.arange(8)).item()


def late_norm():
    """Its first convolution is no part of a fold, and its second one is."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


def of_pixels():
    """Nothing in front of its last layer has weights."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))


@pytest.mark.parametrize(
    "make", [late_norm, functools.partial(swin_v2_t, num_classes=3)]
)
def test_what_features_are_computed_with_goes_where_the_network_goes(make):
    """Folded weights and buffers, too, which the model knows nothing of."""
    network = networks.open_network(make, weights=None, image_size=64)
    batch = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    with torch.inference_mode():
        expected = network.forward_features(batch)
    extractor = network._fast_extractor
    network.to(torch.float64)
    assert {p.dtype for p in extractor.parameters()} == {torch.float64}
    network.to(torch.float32)
    with torch.inference_mode():
        assert_allclose(network.forward_features(batch), expected, atol=1e-5)
    network.to("meta")
    tensors = [*extractor.parameters(), *extractor.buffers()]
    assert len(tensors) > 3 and {t.device.type for t in tensors} == {"meta"}


@pytest.mark.parametrize("what", ["features", "logits"])
def test_weights_are_cast_once_for_all_parts_of_a_batch(what, monkeypatch):
    network = networks.open_network("squeezenet1_1", weights=None, image_size=64)
    monkeypatch.setattr(images, "_HALF_PIXELS_PER_THREAD", 1)  # image by image
    batch = torch.zeros(5, 3, 64, 64, dtype=torch.uint8)
    settings = dict(precision="bfloat16", device=torch.device("cpu"))
    with torch.profiler.profile(record_shapes=True) as profile:
        if what == "features":
            list(networks.extract_features(network, [batch], **settings))
        else:
            networks.predict_logits(network, [batch], **settings)
    events = profile.key_averages(group_by_input_shape=True)
    shape = [64, 3, 3, 3]  # of the first layer
    passes = [
        e.count for e in events if e.key == "aten::conv2d" and shape in e.input_shapes
    ]
    casts = [
        e.count for e in events if e.key == "aten::copy_" and shape in e.input_shapes
    ]
    assert sum(passes) >= 5 and sum(casts) == 1


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", ["small_resnet", "densenet121", "squeezenet1_1"])
def test_exchanged_weights_are_those_of_another_network(name, half, tmp_path):
    """Also where batch norms are folded, or cannot be."""
    one, other = (
        networks.open_network(name, weights=None, image_size=32, seed=seed)
        for seed in range(2)
    )
    generator = torch.Generator().manual_seed(0)
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    other.train(), other.eval()
    path = tmp_path / "other.safetensors"
    networks.write_checkpoint(path, networks.get_weights(other.model), other.metadata)
    batch = torch.randint(256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)

    def features(network):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, half):
            return network.forward_features(batch)

    before = features(one)
    networks.exchange_weights(one.to("cpu"), path)
    assert torch.equal(features(one), features(other))
    assert not torch.allclose(features(one), before, rtol=0.1)


def test_features_may_be_pixels():
    network = networks.open_network(of_pixels, weights=None, image_size=16)
    batch = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16)
    expected = network._normalize(batch).flatten(1)
    assert_allclose(network.forward_features(batch), expected)
