"""A trained network as one module, against `predict_proba` and in other runtimes."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_p2l import NetworkClassifier
from sklearn_p2l.networks.exporting import resize_and_crop
from sklearn_p2l.networks.preprocessing import Preprocessing

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
UNSURE = "ignore:No complete tensor found in the group:UserWarning"
FAMILIES = [
    ("small_resnet", 24),
    ("squeezenet1_1", 48),
    ("resnet18", 48),
    ("mobilenet_v3_small", 48),
    ("efficientnet_b0", 48),
    ("swin_t", 64),
]


def trained(name, size, n_classes=3, shape=(70, 90)):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, size=(6, *shape, 3), dtype=np.uint8)
    y = np.arange(6) % n_classes
    tuner = NetworkClassifier(
        name, image_size=size, epochs=1, random_state=0, precision="float32"
    )
    return tuner.fit(X, y), X


def pixels(X):
    return torch.from_numpy(X).permute(0, 3, 1, 2)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resizing_is_that_of_pillow_bit_by_bit(interpolation, rng):
    """Tall, wide and square images; larger and smaller than the network's."""
    for _ in range(60):
        height, width = rng.integers(3, 300, 2)
        crop_size = int(rng.integers(4, 120))
        resize_size = crop_size + int(rng.integers(0, 30))
        rule = Preprocessing(resize_size, crop_size, interpolation)
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        got = resize_and_crop(pixels(image[None]), rule)[0].permute(1, 2, 0)
        assert_array_equal(got.numpy(), rule(image))


@pytest.mark.parametrize("name, size", FAMILIES, ids=[name for name, _ in FAMILIES])
def test_module_gives_the_probabilities(name, size):
    tuner, X = trained(name, size)
    module = tuner.to_module()
    assert not module.training
    with torch.inference_mode():
        got = module(pixels(X))
    assert got.dtype == torch.float32
    assert_allclose(got, tuner.predict_proba(X), atol=1e-5)
    for other in (X[:, :30], X[:1, 20:]):  # any size, any number
        with torch.inference_mode():
            got = module(pixels(other))
        assert_allclose(got, tuner.predict_proba(other), atol=1e-5)


def test_module_of_multilabel_targets(rng):
    X = rng.integers(0, 256, size=(8, 20, 30, 3), dtype=np.uint8)
    Y = rng.integers(0, 2, (8, 4))
    tuner = NetworkClassifier(
        image_size=16, epochs=1, random_state=0, precision="float32"
    ).fit(X, Y)
    with torch.inference_mode():
        got = tuner.to_module()(pixels(X))
    assert_allclose(got, tuner.predict_proba(X), atol=1e-5)


def test_text_has_no_pixels():
    from sklearn_p2l.datasets import Bag, Context

    context = Context("zag is in wum", (0, 3), (10, 13))
    bags = [Bag("zag", "wum", [context])] * 4
    tuner = NetworkClassifier("pcnn", epochs=1, random_state=0, precision="float32")
    tuner.fit(bags, [0, 1, 0, 1])
    with pytest.raises(ValueError, match="network of images.*got pcnn"):
        tuner.to_module()


@pytest.mark.filterwarnings(UNSURE)
def test_module_is_saved_without_this_package(tmp_path):
    tuner, X = trained("small_resnet", 24)
    dynamic = ({0: torch.export.Dim("n")},)
    program = torch.export.export(
        tuner.to_module(), (pixels(X),), dynamic_shapes=dynamic
    )
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    got = loaded(pixels(X[:4])).detach()
    assert_allclose(got, tuner.predict_proba(X[:4]), atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*:FutureWarning")
@pytest.mark.parametrize("name, size", FAMILIES[:3], ids=["small", "squeeze", "resnet"])
def test_onnx(name, size, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra [export]")
    pytest.importorskip("onnxscript", reason="needs the extra [export]")
    tuner, X = trained(name, size)
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        tuner.to_module(),
        (pixels(X),),
        path,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("n")},),
        verbose=False,
    )
    session = runtime.InferenceSession(path)
    (name,) = [one.name for one in session.get_inputs()]
    (got,) = session.run(None, {name: pixels(X[:5]).numpy()})
    assert_allclose(got, tuner.predict_proba(X[:5]), atol=1e-5)
