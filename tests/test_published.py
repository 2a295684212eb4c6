"""Published networks: timm's, Hugging Face's, torchvision's; what is known of them."""

import dataclasses
import json
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
import torchvision
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.linear_model import LogisticRegression

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
)
from sklearn_p2l.exceptions import SignedFeaturesWarning, SkippedSourcesWarning
from sklearn_p2l.networks.facts import PRETRAINING, images_of
from sklearn_p2l.selection import _opened

timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test waits for a hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def photo(rng, height=230, width=301):
    """Smooth in places and sharp in others."""
    image = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(image).resize((width, height)))
    return np.where(rng.random((height, width, 1)) < 0.1, 255 - image, image)


def two_classes(rng, side, n=12):
    X = rng.integers(0, 120, size=(n, side, side, 3), dtype=np.uint8)
    X[n // 2 :] += 130
    return X, np.repeat(["dark", "light"], n // 2)


# -- timm ----------------------------------------------------------------------------

TIMM = {
    "resnet18": "fc",
    "vit_tiny_patch16_224": "head",
    "swin_tiny_patch4_window7_224": "head.fc",
    "convnext_atto": "head.fc",
    "efficientnet_b0": "classifier",
    "mobilenetv3_small_100": "classifier",
    "mixer_s16_224": "head",
    "vit_tiny_r_s16_p8_224": "head",
}


@pytest.mark.parametrize("name", TIMM)
def test_timm_networks_see_and_tell_what_timm_does(name, rng):
    """Pixels by its own transform, features by its own forward_head."""
    network = networks.open_network(f"timm/{name}", weights=None)
    assert network.head == TIMM[name]
    config = timm.data.resolve_data_config(pretrained_cfg=network.model.pretrained_cfg)
    image = photo(rng)
    expected = timm.data.create_transform(**config)(Image.fromarray(image))
    batch = network.preprocess([image])
    std = torch.tensor(config["std"]).view(3, 1, 1)
    mean = torch.tensor(config["mean"]).view(3, 1, 1)
    pixels = (batch[0] / 255 - mean) / std
    assert ((pixels - expected) * std).abs().max() < 1.01 / 255
    with torch.inference_mode():
        got = network.forward_features(batch)
        maps = network.model.forward_features(pixels[None])
        wanted = network.model.forward_head(maps, pre_logits=True)
        logits = network.model(pixels[None])
        assert_allclose(network(batch).numpy(), logits.numpy(), atol=1e-5)
    assert_allclose(got.numpy(), wanted.numpy(), atol=1e-5)
    assert network.num_features == wanted.shape[1]


def squashed():
    return timm.create_model(
        "resnet10t", pretrained_cfg_overlay={"crop_mode": "squash", "crop_pct": 0.9}
    )


def headless():
    return timm.create_model("convnext_atto", num_classes=0)


def bordered():
    return timm.create_model(
        "resnet10t", pretrained_cfg_overlay={"crop_mode": "border"}
    )


def distilled():
    return timm.create_model("deit_tiny_distilled_patch16_224")


def test_factories_that_return_modules_of_timm_are_recognised(rng):
    network = networks.open_network(squashed, weights="DEFAULT")
    config = timm.data.resolve_data_config(pretrained_cfg=network.model.pretrained_cfg)
    image = photo(rng)
    expected = timm.data.create_transform(**config)(Image.fromarray(image))
    pixels = network._normalize(network.preprocess([image]))[0]
    std = torch.tensor(network.preprocessing.std).view(3, 1, 1)
    assert ((pixels - expected) * std).abs().max() < 1.01 / 255
    # Squeezed at another size, too, and by the exported module.
    X, y = two_classes(rng, 20)
    wide = np.concatenate([X, X], axis=2)
    classifier = NetworkClassifier(squashed, image_size=32, epochs=2, random_state=0)
    classifier.set_params(precision="float32").fit(wide, y)
    module = classifier.to_module()
    got = module(torch.from_numpy(wide).permute(0, 3, 1, 2)).detach().numpy()
    assert_allclose(got, classifier.predict_proba(wide), atol=1e-5)


def test_without_a_last_layer_features_are_what_would_feed_it(rng):
    network = networks.open_network(headless, weights="DEFAULT", image_size=64)
    batch = network.preprocess([photo(rng)])
    with torch.inference_mode():
        expected = network.model.forward_head(
            network.model.forward_features(network._normalize(batch)), pre_logits=True
        )
        assert_allclose(network.forward_features(batch), expected, atol=1e-5)
    X, y = two_classes(rng, 32)
    classifier = NetworkClassifier(headless, weights="DEFAULT", image_size=32)
    classifier.set_params(epochs=2, random_state=0, head_init="probe")
    assert classifier.fit(X, y).predict_proba(X).shape == (12, 2)


@pytest.mark.parametrize("factory, what", [(bordered, "border"), (distilled, "tuple")])
def test_what_cannot_be_done_as_timm_does_is_refused(factory, what):
    with pytest.raises(ValueError, match=what):
        networks.open_network(factory, weights="DEFAULT")


def test_a_network_of_timm_is_trained_kept_and_opened_again(tmp_path, rng):
    """From weights in a local file, at another size than the usual one."""
    name = "timm/vit_tiny_patch16_224"
    X, y = two_classes(rng, 32)
    start = NetworkClassifier(name, image_size=32, epochs=3, random_state=0).fit(X, y)
    source = start.to_source("dark", checkpoint=tmp_path / "dark.safetensors")
    assert source.architecture == name
    again = NetworkClassifier(name, weights=source.checkpoint, epochs=3, random_state=1)
    again.set_params(body_learning_rate_multiplier=0.0, head_init="probe").fit(X, y)
    assert again.image_size_ == 32
    for key, value in start.weights_.items():
        if not key.startswith("head."):
            assert_array_equal(value, again.weights_[key])
    # A probe on the same features, by scikit-learn.
    embedder = DatasetEmbedder(source.checkpoint)
    with pytest.warns(SignedFeaturesWarning):
        embedder.fit([X])
    features = np.vstack([embedder.transform([image[None]]) for image in X])
    assert LogisticRegression().fit(features, y).score(features, y) == 1
    assert again.score(X, y) == 1


def test_names_and_tags_of_timm():
    family = networks.opening.FAMILIES["timm"]
    published = family.published("timm/resnet50")
    default = timm.get_pretrained_cfg("resnet50")
    assert published["DEFAULT"] == published[default.tag]
    assert "resolve/main/model.safetensors" in published["DEFAULT"].url
    assert set(family.published("timm/resnet50.tv_in1k")) == {"DEFAULT", "tv_in1k"}
    with pytest.raises(ValueError, match="did you mean timm/convnext_atto"):
        networks.open_network("timm/convnext_ato", weights=None)
    with pytest.raises(ValueError, match="got 'timm/resnet50.nobody'"):
        networks.open_network("timm/resnet50.nobody", weights=None)
    with pytest.raises(ValueError, match="one of .*'tv_in1k'.*got 'nobody'"):
        networks.open_network("timm/resnet50", weights="nobody")


def test_published_weights_of_timm_are_those_of_the_tag(monkeypatch, tmp_path):
    """timm loads them itself; here from a file in place of the hub."""
    model = timm.create_model("test_resnet")
    file = tmp_path / "model.pth"
    torch.save(model.state_dict(), file)
    create = timm.create_model

    def from_file(name, **settings):
        assert name == "test_resnet.r160_in1k" and settings.pop("pretrained")
        overlay = {"file": str(file), "hf_hub_id": None, "url": None}
        return create(name, pretrained=True, pretrained_cfg_overlay=overlay, **settings)

    monkeypatch.setattr(timm, "create_model", from_file)
    network = networks.open_network("timm/test_resnet", weights="DEFAULT")
    for key, value in model.state_dict().items():
        assert torch.equal(value, network.model.state_dict()[key])


def test_what_to_download_is_said(monkeypatch):
    with pytest.raises(OSError, match="huggingface.co/timm/test_resnet.*checkpoints="):
        networks.open_network("timm/test_resnet", weights="DEFAULT")
    with pytest.raises(
        OSError, match="config.json, .*into a folder, and pass backbone"
    ):
        networks.open_network("hf/nobody/nothing", weights="DEFAULT")


def test_a_layer_of_an_untraced_network(rng):
    name = "timm/test_resnet"
    network = networks.open_network(name, weights=None, layer="layer1", image_size=64)
    batch = network.preprocess([photo(rng), photo(rng)])
    caught = []
    hook = network.model.layer1.register_forward_hook(lambda *a: caught.append(a[2]))
    with torch.inference_mode():
        got = network.forward_features(batch)
    hook.remove()
    assert_allclose(got, caught[0].mean(dim=(2, 3)), rtol=1e-4, atol=1e-6)
    assert network.layer == "layer1" and not network.signed
    with pytest.raises(ValueError, match="layer must be a module .*layer1"):
        networks.open_network(name, weights=None, layer="layer_1")


# -- Hugging Face --------------------------------------------------------------------


def resnet(folder):
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )
    model = transformers.ResNetForImageClassification(config)
    processor = transformers.ConvNextImageProcessor(
        size={"shortest_edge": 64}, crop_pct=0.875
    )
    return _saved(folder, model, processor)


def vit(folder):
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=64,
    )
    model = transformers.ViTForImageClassification(config)
    size = {"height": 64, "width": 64}
    return _saved(folder, model, transformers.ViTImageProcessor(size=size))


def swin(folder):
    config = transformers.SwinConfig(
        image_size=64, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    )
    model = transformers.SwinForImageClassification(config)
    processor = transformers.ViTImageProcessor(
        size={"height": 64, "width": 64},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        resample=3,
    )
    return _saved(folder, model, processor)


def cropped(folder):
    """As most of torchvision's: shorter side, then the centre."""
    model, _ = resnet(folder)
    processor = transformers.BitImageProcessor(
        size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}
    )
    return _saved(folder, model, processor)


def _saved(folder, model, processor):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model.eval(), processor


@pytest.mark.parametrize("make", [resnet, vit, swin, cropped])
def test_networks_of_hugging_face_see_and_tell_what_it_does(make, tmp_path, rng):
    folder = tmp_path / "model"
    model, processor = make(folder)
    network = networks.open_network(f"hf/{folder}", weights="DEFAULT")
    image = photo(rng)
    expected = processor(images=image, return_tensors="pt")["pixel_values"]
    batch = network.preprocess([image])
    pixels = network._normalize(batch)
    std = torch.tensor(network.preprocessing.std).view(3, 1, 1)
    assert ((pixels - expected) * std).abs().max() < 2.01 / 255
    with torch.inference_mode():
        logits = model(pixels).logits
        assert_allclose(network(batch), logits, atol=1e-5)
        head = model.get_submodule(network.head)
        assert_allclose(head(network.forward_features(batch)), logits, atol=1e-5)
    # Trained, written, opened where the folder is not, and exported.
    X, y = two_classes(rng, 64)
    classifier = NetworkClassifier(f"hf/{folder}", weights="DEFAULT", epochs=4)
    classifier.set_params(random_state=0, learning_rate=0.01, precision="float32")
    classifier.fit(X, y)
    file = tmp_path / "dark.safetensors"
    classifier.to_source("dark", checkpoint=file)
    folder.rename(tmp_path / "moved")
    again = networks.open_network(file, weights=None, with_head=True)
    with torch.inference_mode():
        got = again(again.preprocess(X)).softmax(dim=1).numpy()
    assert_allclose(got, classifier.predict_proba(X), atol=1e-5)
    module = classifier.to_module()
    exported = module(torch.from_numpy(X).permute(0, 3, 1, 2)).detach().numpy()
    assert_allclose(exported, got, atol=1e-5)


def test_random_weights_of_a_folder_follow_the_seed(tmp_path):
    vit(tmp_path)
    one, same, other = (
        networks.open_network(f"hf/{tmp_path}", weights=None, seed=seed).features_hash()
        for seed in (0, 0, 1)
    )
    assert one == same != other


@pytest.mark.parametrize(
    "claim, told",
    [
        ({"num_hidden_layers": 10**9}, "1,000,000,000 layers"),
        ({"intermediate_size": 10**13}, "weights"),
        ({"hidden_size": 2 * 10**18}, "cannot be built"),
    ],
)
def test_configurations_beyond_all_memory_are_refused(claim, told, tmp_path):
    vit(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | claim))
    for weights in (None, "DEFAULT"):
        with pytest.raises(ValueError, match=f"configuration of hf/.*{told}"):
            networks.open_network(f"hf/{tmp_path}", weights=weights)


def test_only_safetensors_are_read(tmp_path):
    model, _ = vit(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        networks.open_network(f"hf/{tmp_path}", weights="DEFAULT")


def test_a_processor_that_does_something_else_is_refused(tmp_path):
    model, _ = vit(tmp_path)
    processor = transformers.ViTImageProcessor(
        size={"height": 64, "width": 64}, rescale_factor=1 / 127.5
    )
    _saved(tmp_path, model, processor)
    with pytest.raises(ValueError, match="image processor of hf/.*ViTImageProcessor"):
        networks.open_network(f"hf/{tmp_path}", weights="DEFAULT")


def hugging_face_module():
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(hidden_size=32, num_hidden_layers=1)
    )


def test_a_factory_cannot_give_what_prepares_images():
    with pytest.raises(ValueError, match="save_pretrained .*backbone='hf/"):
        networks.open_network(hugging_face_module, weights="DEFAULT")


# -- torchvision ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, size", [("vit_b_16", 224), ("swin_t", 64), ("convnext_tiny", 64)]
)
@pytest.mark.slow
def test_signed_features_are_told_before_anything_is_embedded(name, size, rng):
    X, _ = two_classes(rng, 64, n=2)
    embedder = DatasetEmbedder(name, weights=None, random_state=0, image_size=size)
    with pytest.warns(SignedFeaturesWarning, match="'kl' .*the default.*'cosine'"):
        embedder.fit([X])
    assert embedder.signed_
    model = torchvision.models.get_model(name, weights=None)
    assert embedder.transform([X]).shape[1] == list(model.modules())[-1].in_features


# -- what is known of them -----------------------------------------------------------


def test_catalog_of_published_names_knows_what_they_say():
    zoo = SourceCatalog.from_published(
        ["squeezenet1_1", "vit_b_16.IMAGENET1K_SWAG_E2E_V1", "timm/convnext_atto"]
    )
    meta = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.meta
    first, second, third = zoo
    assert (first.architecture, first.checkpoint) == ("squeezenet1_1", "IMAGENET1K_V1")
    assert first.n_classes == len(meta["categories"]) == 1000
    assert first.columns["parameters"] == meta["num_params"]
    accuracy = meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert first.columns["accuracy"] == pytest.approx(accuracy / 100)
    assert first.size == 1_281_167 and first.metadata["images"] == "ImageNet-1k"
    assert second.architecture == "vit_b_16" and second.size == 3_600_000_000
    model = timm.create_model("convnext_atto")
    assert third.columns["parameters"] == sum(p.numel() for p in model.parameters())
    assert (third.checkpoint, third.n_classes) == ("d2_in1k", 1000)
    assert third.columns["accuracy"] is None and third.metadata["licence"]
    assert not zoo.has_embedding.any()


@pytest.mark.parametrize(
    "name, data",
    [
        ("timm/vit_small_patch14_dinov2_lvd142m", "lvd142m"),
        ("vit_base_patch16_clip_224.laion2b_ft_in12k_in1k", "laion2b"),
        ("mobilenetv3_large_100.miil_in21k_ft_in1k", "in21kp"),
        ("convnext_tiny.in22k_ft_in1k", "in22k"),
        ("ResNet50_Weights.IMAGENET1K_V2", "in1k"),
        ("something.else", None),
    ],
)
def test_what_came_first_is_in_the_name(name, data):
    assert images_of(name) == (PRETRAINING[data] if data else None)


def test_catalog_of_a_folder_of_hugging_face(tmp_path, monkeypatch):
    model, _ = vit(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    zoo = SourceCatalog.from_published(["hf/model"])
    assert zoo[0].architecture == f"hf/{tmp_path / 'model'}"
    assert zoo[0].n_classes == model.config.num_labels == 2
    assert zoo[0].columns["parameters"] == sum(p.numel() for p in model.parameters())
    assert np.isnan(zoo.sizes).all()


def test_catalog_of_published_names_refuses():
    with pytest.raises(ValueError, match="backbone must be .*got 'nothing'"):
        SourceCatalog.from_published(["nothing"])
    with pytest.raises(ValueError, match="has no published weights"):
        SourceCatalog.from_published(["small_resnet"])
    with pytest.raises(ValueError, match="must be a list"):
        SourceCatalog.from_published("resnet18")
    with pytest.raises(ValueError, match="unique"):
        SourceCatalog.from_published(["resnet18", "resnet18"])
    with pytest.raises(ValueError, match=r"checkpoints must be .*\['resnet50'\]"):
        SourceCatalog.from_published(["resnet18"], checkpoints={"resnet50": "a.pth"})


def test_equation_2_refuses_them_and_names_what_does_not():
    zoo = SourceCatalog.from_published(["resnet18", "squeezenet1_1"])
    with pytest.raises(ValueError, match="rank by EvidenceSelector"):
        SourceSelector(zoo, k=-1.0).fit([[0.5, 0.5]])


@pytest.mark.slow
def test_an_extra_that_is_not_installed_is_named(tmp_path):
    """Names of other families are still looked up."""
    script = tmp_path / "without.py"
    script.write_text(
        "import sys\n"
        "sys.modules['timm'] = sys.modules['transformers'] = None\n"
        "from sklearn_p2l import networks\n"
        "networks.open_network('small_resnet', weights=None)\n"
        "for name in ('timm/resnet18', 'hf/a/b', 'resnet_18'):\n"
        "    try:\n"
        "        networks.open_network(name, weights=None)\n"
        "    except (ImportError, ValueError) as error:\n"
        "        print(error)\n"
    )
    told = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert 'pip install "sklearn-p2l[timm]"' in told[0]
    assert 'pip install "sklearn-p2l[huggingface]"' in told[1]
    assert "did you mean resnet18" in told[2]


# -- ranked, tried, trained ----------------------------------------------------------


@pytest.fixture
def mixed(tmp_path, rng):
    """Networks of three families and sizes; one knows the task, one is broken."""
    X, y = two_classes(rng, 24, n=40)
    y = np.where(np.arange(40) % 2, y, "other")
    X[y == "other", :, ::2] //= 2
    task = Task(X, y)
    knows = NetworkClassifier(image_size=24, epochs=30, random_state=0).fit(task)
    vit(tmp_path / "vit")
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pt")
    timm_file = tmp_path / "timm.pt"
    torch.save(timm.create_model("test_convnext").state_dict(), timm_file)
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    sources = [
        Source("tv", architecture="resnet18", checkpoint=tmp_path / "resnet18.pt"),
        Source("timm", architecture="timm/test_convnext", checkpoint=timm_file),
        Source("hf", architecture=f"hf/{tmp_path / 'vit'}", checkpoint="DEFAULT"),
        Source("broken", architecture="resnet18", checkpoint=tmp_path / "broken.pt"),
        knows.to_source("knows", checkpoint=tmp_path / "knows.safetensors"),
    ]
    sources = [dataclasses.replace(s, size=None) for s in sources]
    return SourceCatalog(sources), task


def test_a_mixed_zoo_is_ranked_one_network_at_a_time(mixed, monkeypatch):
    zoo, task = mixed
    alive, most, opened = [], [], []

    def watch(source, *args):
        built_of, network = real_open(source, *args)
        opened.append(source.name)
        alive.append(weakref.ref(network))
        most.append(sum(ref() is not None for ref in alive))
        return built_of, network

    real_open = _opened._open
    monkeypatch.setattr(_opened, "_open", watch)
    selector = EvidenceSelector(zoo, signals=["logme", "probe", "knn"]).fit([task])
    with pytest.warns(SkippedSourcesWarning, match="1 of 5 .*'broken'"):
        ranking = selector.predict([task])[0]
    assert ranking[0] == "knows" and ranking[-1] == "broken"
    assert sorted(opened) == ["hf", "knows", "timm", "tv"] and max(most) == 1


@pytest.mark.slow
def test_the_pick_of_a_mixed_zoo_is_trained(mixed):
    zoo, task = mixed
    selector = EvidenceSelector(zoo, signals=["probe"], image_size=64)
    classifier = NetworkClassifier(epochs=3, image_size=64, random_state=0)
    tuner = FineTuner(selector, zoo, classifier, n_candidates=2, cv=2)
    with pytest.warns(SkippedSourcesWarning):
        tuner.fit(task)
    tried = {row["source"]: row["score"] for row in tuner.candidates_}
    assert tuner.ranking_[0] == "knows" and tuple(tried) == tuple(tuner.ranking_[:2])
    assert tuner.source_ == max(tried, key=tried.get)
    assert tuner.predict(task.X).shape == (40,)


def test_numbers_of_the_catalog_rank_by_given_weights():
    zoo = SourceCatalog.from_published(["resnet18", "resnet50", "squeezenet1_1"])
    weights = {"accuracy": 1.0, "parameters": 0.1}
    selector = EvidenceSelector(zoo, signals=list(weights), weights=weights)
    vectors = [[0.5, 0.5]]  # not looked at
    assert selector.fit(vectors).predict(vectors)[0, 0] == "resnet50"
