import functools
import os
import pickle
import subprocess
import sys
import tempfile
from dataclasses import replace

import joblib
import numpy as np
import pytest
import torch
from conftest import real_file, real_images
from joblib.externals.loky import get_reusable_executor
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageOps
from scipy.stats import chisquare, trim_mean
from sklearn import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, LeaveOneOut, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from torch import nn
from torchvision import transforms

from sklearn_p2l import (
    DatasetEmbedder,
    SourceCatalog,
    SourceSelector,
    Task,
    networks,
)
from sklearn_p2l.divergence import pairwise_divergence
from sklearn_p2l.embedding import Vectors, _summary
from sklearn_p2l.exceptions import SignedFeaturesWarning, SkippedSamplesWarning
from sklearn_p2l.networks import small as small_networks
from sklearn_p2l.samples import image_batches, random_part

small = functools.partial(
    DatasetEmbedder,
    "small_resnet",
    weights=None,
    image_size=16,
    random_state=0,
    precision="float32",
)


@pytest.fixture
def datasets(rng):
    """Five datasets of different sizes and looks."""
    return [
        rng.integers(low, low + 90, size=(n, 16, 16, 3), dtype=np.uint8)
        for low, n in [(0, 9), (40, 14), (80, 6), (120, 11), (160, 8)]
    ]


def fresh(embedder):
    """The same embedder without the summaries that it remembers."""
    return pickle.loads(pickle.dumps(embedder))


@pytest.fixture
def passes(monkeypatch):
    """A list that grows by one with each dataset that passes through a network."""
    passes = []
    original = networks.extract_features
    monkeypatch.setattr(
        networks,
        "extract_features",
        lambda *a, **k: passes.append(1) or original(*a, **k),
    )
    return passes


def features(images, embedder):
    """Features of single images, by hand."""
    network = networks.open_network(
        "small_resnet", weights=None, image_size=16, seed=embedder.seed_
    )
    with torch.inference_mode():
        rows = [network.forward_features(network.preprocess([i])) for i in images]
    return torch.cat(rows).double().numpy()


def test_mean_by_hand(datasets):
    embedder = small().fit(datasets)
    vectors = embedder.transform(datasets)
    assert vectors.shape == (5, 64) and vectors.dtype == np.float64
    for vector, images in zip(vectors, datasets):
        expected = features(images, embedder).mean(axis=0)
        assert_allclose(vector, expected / np.abs(expected).sum(), atol=1e-8)


@pytest.mark.parametrize("summary", ["median", "trimmed_mean"])
def test_order_statistics_by_hand(datasets, summary, monkeypatch):
    monkeypatch.setattr(_summary, "_BLOCK_VALUES", 100)  # several blocks of columns
    embedder = small(summary=summary, proportion=0.2).fit(datasets)
    vectors = embedder.transform(datasets)
    for vector, images in zip(vectors, datasets):
        rows = features(images, embedder)
        expected = np.median(rows, axis=0)
        if summary == "trimmed_mean":
            expected = trim_mean(rows, 0.2, axis=0)
        assert_allclose(vector, expected / np.abs(expected).sum(), atol=1e-7)


def test_invariances(datasets, rng):
    embedder = small().fit(datasets)
    vectors = embedder.transform(datasets)
    alone = np.vstack([fresh(embedder).transform([d]) for d in datasets])
    assert_allclose(alone, vectors, atol=1e-12)
    shuffled = [d[rng.permutation(len(d))] for d in datasets]
    assert_allclose(embedder.transform(shuffled), vectors, atol=1e-7)
    doubled = [np.concatenate([d, d]) for d in datasets]
    assert_allclose(embedder.transform(doubled), vectors, atol=1e-7)
    batched = small(batch_size=3).fit(datasets).transform(datasets)
    assert_allclose(batched, vectors, atol=1e-7)
    as_lists = embedder.transform([list(d) for d in datasets])
    assert_allclose(as_lists, vectors, atol=1e-12)
    assert_allclose(np.sum(vectors, axis=1), 1)


def test_images_of_differing_sizes(rng):
    images = [
        rng.integers(0, 256, size=(h, w, 3), dtype=np.uint8)
        for h, w in [(16, 16), (40, 20), (9, 30), (16, 16)]
    ]
    embedder = small().fit([images])
    expected = features(images, embedder).mean(axis=0)
    vector = embedder.transform([images])[0]
    assert_allclose(vector, expected / expected.sum(), atol=1e-8)


def test_determinism_and_global_state(datasets):
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    one = small().fit_transform(datasets)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert_array_equal(small().fit_transform(datasets), one)
    other = small(random_state=1).fit(datasets)
    assert other.fingerprint_ != small().fit(datasets).fingerprint_
    free = small(random_state=None).fit(datasets)
    assert_array_equal(fresh(free).transform(datasets), free.transform(datasets))


def test_fingerprint_says_what_vectors_depend_on(datasets, tmp_path):
    base = small().fit(datasets)
    assert base.fingerprint_.startswith("small_resnet:flatten:mean:")
    assert small(batch_size=5).fit(datasets).fingerprint_ == base.fingerprint_
    different = [
        small(image_size=20),
        small(summary="median"),
        small(summary="trimmed_mean"),
        small(summary="trimmed_mean", proportion=0.2),
        small(layer="body.4.relu"),
        small(random_state=3),
    ]
    prints = {e.fit(datasets).fingerprint_ for e in different}
    assert len(prints | {base.fingerprint_}) == 7
    # The same weights from a file are the same network, whatever its head.
    network = networks.open_network("small_resnet", weights=None, seed=base.seed_)
    path = tmp_path / "w.safetensors"
    network.reset_classifier(3)
    networks.write_checkpoint(path, networks.get_weights(network.model), {})
    assert small(weights=path).fit(datasets).fingerprint_ == base.fingerprint_
    vectors = base.transform(datasets)
    assert vectors.fingerprint == vectors[1:].fingerprint == base.fingerprint_
    names = base.get_feature_names_out()
    assert names[5] == f"{base.fingerprint_}#5" and len(names) == 64


def test_set_output(datasets):
    pytest.importorskip("pandas")
    embedder = small().set_output(transform="pandas")
    frame = embedder.fit_transform(datasets)
    assert list(frame.columns) == list(embedder.get_feature_names_out())
    assert_array_equal(frame.to_numpy(), small().fit_transform(datasets))
    catalog = SourceCatalog.from_frame(
        frame.assign(size=range(1, 6), name=list("abcde"))
    )
    assert catalog.fingerprint == embedder.fingerprint_


def test_vectors_of_two_networks_do_not_mix(datasets):
    vectors = small().fit_transform(datasets)
    catalog = SourceCatalog.from_arrays(vectors, sizes=range(1, 6), names=list("abcde"))
    other = make_pipeline(small(random_state=1), SourceSelector(catalog, k=-1.0))
    with pytest.raises(ValueError, match="same reference network"):
        other.fit(datasets)
    other[0].set_output(transform="pandas")
    with pytest.raises(ValueError, match="same reference network"):
        other.fit(datasets)
    same = make_pipeline(small(), SourceSelector(catalog, k=-100.0)).fit(datasets)
    assert_array_equal(same.predict(datasets[1:2])[0, 0], "b")


def test_ready_features(rng):
    pd = pytest.importorskip("pandas")
    tables = [rng.random((n, 7)) for n in (5, 9)]
    embedder = DatasetEmbedder().fit(tables)  # no network, so no download
    expected = [t.mean(axis=0) / t.mean(axis=0).sum() for t in tables]
    assert_allclose(embedder.transform(tables), expected)
    assert_allclose(embedder.transform([pd.DataFrame(t) for t in tables]), expected)
    assert embedder.n_features_out_ == 7 and embedder.fingerprint_ == "features:7:mean"
    median = DatasetEmbedder(summary="median").fit_transform(tables)
    expected = np.median(tables[1], axis=0)
    assert_allclose(median[1], expected / expected.sum(), atol=1e-7)
    with pytest.raises(ValueError, match="dataset 1: features must be 7 wide"):
        embedder.transform([tables[0], tables[1][:, :6]])
    with pytest.raises(ValueError, match="dataset 0: .*NaN"):
        embedder.transform([np.full((3, 7), np.nan)])
    with pytest.raises(ValueError, match="ready features must not be uint8.*pass"):
        DatasetEmbedder().fit_transform(list(np.zeros((4, 16, 16), np.uint8)))
    with pytest.raises(ValueError, match="dataset 1 must hold features.*got images"):
        embedder.transform([tables[0], np.zeros((4, 16, 16), np.uint8)])
    with pytest.raises(ValueError, match="dataset 0 must hold images.*got features"):
        small().fit([np.zeros((4, 16, 16), np.uint8)]).transform(tables)


def test_errors_name_the_dataset_and_the_image(datasets):
    embedder = small().fit(datasets)
    bad = datasets[1] / 255
    bad[4, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="dataset 2: image 4 must be finite"):
        embedder.transform([datasets[0], datasets[1], bad])
    skipping = small(on_error="skip").fit(datasets)
    with pytest.warns(SkippedSamplesWarning, match=r"Skipped 1 image.*image 4"):
        vectors = skipping.transform([bad])
    expected = embedder.transform([np.delete(datasets[1], 4, axis=0)])
    assert_allclose(vectors, expected, atol=1e-7)
    with pytest.raises(ValueError, match="dataset 1: a dataset must have at least one"):
        embedder.transform([datasets[0], datasets[0][:0]])


@pytest.mark.parametrize(
    "X, message",
    [
        (np.zeros((9, 16, 16, 3), np.uint8), r"list of datasets.*pass \[X\]"),
        ("folder", r"list of datasets.*pass \[X\]"),
        ([], "at least one dataset"),
    ],
)
def test_one_dataset_is_not_a_list_of_datasets(X, message):
    with pytest.raises(ValueError, match=message):
        small().fit(X)


def test_images_instead_of_datasets(datasets, tmp_path):
    from PIL import Image

    embedder = small().fit(datasets)
    with pytest.raises(ValueError, match=r"pass one image as \[image\]"):
        embedder.transform(list(datasets[0]))
    with pytest.raises(ValueError, match=r"got an image as dataset 0; pass \[X\]"):
        embedder.transform([Image.new("RGB", (16, 16))])
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="got a file"):
        embedder.transform([tmp_path / "a.png"])


def test_unfitted():
    with pytest.raises(NotFittedError):
        small().transform([np.zeros((4, 16, 16), np.uint8)])
    with pytest.raises(NotFittedError):
        small().get_feature_names_out()


class Tiny(nn.Module):
    """A user's own network; only its head has a bias."""

    def __init__(self, sign=1.0):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.fc = nn.Linear(8, 4)
        self.sign = sign

    def forward(self, x):
        return self.fc(self.sign * torch.relu(self.conv(x)).mean(dim=(2, 3)))


def make_tiny(sign=1.0):
    return Tiny(sign)


class SideBranch(Tiny):
    def forward(self, x):
        x = torch.relu(self.conv(x))
        features, side = x.mean(dim=(2, 3)), x.amax(dim=(2, 3))
        return self.fc(features) + side.mean()


def not_traceable():
    class Dynamic(Tiny):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else x

    return Dynamic()


def test_factory(datasets):
    embedder = DatasetEmbedder(make_tiny, image_size=16, random_state=0).fit(datasets)
    assert embedder.fingerprint_.startswith("test_embedder.make_tiny:")
    assert embedder.transform(datasets).shape == (5, 8)
    assert clone(embedder).fit(datasets).fingerprint_ == embedder.fingerprint_
    for bad, error, message in [
        (make_tiny(), TypeError, "pass the function that builds it"),
        (dict, TypeError, "must return a torch nn.Module"),
        (not_traceable, ValueError, "must be traceable"),
        (nn.Identity, ValueError, "must end in"),
        (SideBranch, ValueError, "layer must be given for test_embedder.SideBranch"),
    ]:
        with pytest.raises(error, match=message):
            DatasetEmbedder(bad).fit(datasets)


def test_signed_features_are_refused_by_kl_with_a_remedy(datasets):
    signed = functools.partial(make_tiny, -1.0)
    embedder = DatasetEmbedder(signed, image_size=16, random_state=0)
    with pytest.warns(SignedFeaturesWarning, match="make_tiny.*metric='cityblock'"):
        vectors = embedder.fit_transform(datasets)
    assert (vectors <= 0).all() and embedder.signed_
    assert not small().fit(datasets).signed_
    assert_allclose(np.abs(vectors).sum(axis=1), 1)
    with pytest.raises(ValueError, match="after a ReLU"):
        pairwise_divergence(vectors, metric="kl")


@pytest.mark.parametrize("name", ["resnett18", "small_resnett"])
def test_unknown_backbones_suggest_known_ones(name, datasets):
    with pytest.raises(ValueError, match=f"did you mean.*{name.replace('tt', 't')}"):
        DatasetEmbedder(name, weights=None).fit(datasets)


def test_bad_weights_and_layers(datasets, tmp_path):
    with pytest.raises(ValueError, match="no published weights"):
        DatasetEmbedder("small_resnet").fit(datasets)
    with pytest.raises(ValueError, match=r"must be one of \['IMAGENET1K_V1'"):
        DatasetEmbedder("squeezenet1_1", weights="IMAGENET21K").fit(datasets)
    with pytest.raises(
        FileNotFoundError, match="a file at .*missing.safetensors, got none"
    ):
        DatasetEmbedder("small_resnet", weights=tmp_path / "missing.safetensors").fit(
            datasets
        )
    with pytest.raises(ValueError, match="layer must be a node.*body"):
        small(layer="body.9").fit(datasets)
    for name in ("text.safetensors", "text.pt"):
        (tmp_path / name).write_text("no tensors")
        with pytest.raises(ValueError, match="must be a safetensors file"):
            small(weights=tmp_path / name).fit(datasets)


class Malicious:
    def __reduce__(self):
        return (open, ("/nonexistent/p2l-was-here", "w"))


def test_checkpoints_never_run_code(datasets, tmp_path):
    torch.save({"fc.weight": Malicious()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="without executing code"):
        small(weights=tmp_path / "evil.pt").fit(datasets)


def test_state_dicts(datasets, tmp_path):
    base = small().fit(datasets)
    network = networks.open_network("small_resnet", weights=None, seed=base.seed_)
    state = network.model.state_dict()
    torch.save(state, tmp_path / "plain.pt")
    wrapped = {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}
    torch.save(wrapped, tmp_path / "wrapped.pth")
    headless = {k: v for k, v in state.items() if not k.startswith("fc.")}
    torch.save(headless, tmp_path / "headless.pt")
    parallel = {f"module.{k}": v.numpy() for k, v in state.items()}
    networks.write_checkpoint(tmp_path / "parallel.safetensors", parallel, {})
    for name in ("plain.pt", "wrapped.pth", "headless.pt", "parallel.safetensors"):
        embedder = small(weights=tmp_path / name).fit(datasets)
        assert embedder.fingerprint_ == base.fingerprint_, name
    missing = {k: v for k, v in state.items() if k != "body.0.weight"}
    extra = {**state, "body.7.weight": torch.zeros(3)}
    shape = {**state, "body.0.weight": torch.zeros(3)}
    for wrong, message in [
        (missing, "1 missing: body.0.weight"),
        (extra, "1 unexpected: body.7.weight"),
        (shape, "1 of another shape: body.0.weight"),
        ({"a": 3}, "tensors by their names"),
    ]:
        torch.save(wrong, tmp_path / "wrong.pt")
        with pytest.raises(ValueError, match=message):
            small(weights=tmp_path / "wrong.pt").fit(datasets)


def test_backbone_as_file(datasets, tmp_path):
    network = networks.open_network("small_resnet", weights=None, seed=3)
    arrays = networks.get_weights(network.model)
    described = {"architecture": "small_resnet", "image_size": "16"}
    networks.write_checkpoint(tmp_path / "ref.safetensors", arrays, described)
    one = DatasetEmbedder(tmp_path / "ref.safetensors").fit(datasets)
    other = small(weights=tmp_path / "ref.safetensors").fit(datasets)
    assert one.fingerprint_ == other.fingerprint_
    assert DatasetEmbedder(str(tmp_path / "ref.safetensors")).fit(datasets)
    networks.write_checkpoint(tmp_path / "bare.safetensors", arrays, {})
    with pytest.raises(ValueError, match="must name its architecture"):
        DatasetEmbedder(tmp_path / "bare.safetensors").fit(datasets)


def test_pickles_hold_no_network(datasets, tmp_path, monkeypatch):
    embedder = small().fit(datasets)
    vectors = embedder.transform(datasets)
    joblib.dump(embedder, tmp_path / "e.joblib")
    assert (tmp_path / "e.joblib").stat().st_size < 5_000
    opened = []
    original = networks.open_network
    monkeypatch.setattr(
        networks, "open_network", lambda *a, **k: opened.append(1) or original(*a, **k)
    )
    loaded = joblib.load(tmp_path / "e.joblib")
    assert not opened  # lazily ...
    assert_array_equal(loaded.transform(datasets), vectors)
    loaded.transform([datasets[0][:3]])
    assert len(opened) == 1  # ... and once
    assert joblib.hash(loaded) == joblib.hash(embedder)


def test_changed_weights_are_noticed(datasets, tmp_path):
    path = tmp_path / "w.safetensors"
    for seed in (0, 1):
        network = networks.open_network("small_resnet", weights=None, seed=seed)
        networks.write_checkpoint(path, networks.get_weights(network.model), {})
        if seed == 0:
            joblib.dump(small(weights=path).fit(datasets), tmp_path / "e.joblib")
    with pytest.raises(ValueError, match="have changed; fit again"):
        joblib.load(tmp_path / "e.joblib").transform(datasets)


@pytest.mark.slow
def test_loads_in_a_fresh_process(datasets, tmp_path):
    embedder = small().fit(datasets)
    joblib.dump((embedder, datasets), tmp_path / "e.joblib")
    code = (
        "import sys, joblib, numpy; e, d = joblib.load(sys.argv[1]);"
        "numpy.save(sys.argv[2], e.transform(d))"
    )
    out = tmp_path / "v.npy"
    command = [sys.executable, "-c", code, tmp_path / "e.joblib", out]
    subprocess.run(command, check=True)
    assert_array_equal(np.load(out), embedder.transform(datasets))


def test_memory_embeds_each_dataset_once(datasets, tmp_path, passes, rng):
    """A grid search on raw datasets, with as many network passes as datasets."""
    catalog = SourceCatalog.from_arrays(
        small().fit_transform(datasets), sizes=range(1, 6), names=list("abcde")
    )
    passes.clear()
    y = rng.random((5, 5))
    pipe = Pipeline(
        [
            ("embed", small(memory=str(tmp_path))),
            ("select", SourceSelector(catalog)),
        ],
        memory=str(tmp_path / "pipeline"),
    )
    grid = {"select__metric": ["js", "kl"], "select__k": [-2.0, -0.5]}
    search = GridSearchCV(pipe, grid, cv=3, error_score="raise").fit(datasets, y)
    assert len(passes) == 5
    assert search.best_estimator_.predict(datasets).shape == (5, 5)
    scores = cross_val_score(search.best_estimator_, datasets, y, cv=LeaveOneOut())
    assert np.isfinite(scores).all()
    assert len(passes) == 5
    parallel = cross_val_score(
        pipe.set_params(select__k=-1.0), datasets, y, cv=3, n_jobs=2
    )
    assert_allclose(parallel, cross_val_score(pipe, datasets, y, cv=3))
    # a changed dataset is another dataset
    search.best_estimator_.predict([datasets[0][::-1].copy()])
    assert len(passes) == 6


def test_memory_with_files_that_are_missing(tmp_path, datasets):
    from PIL import Image

    Image.fromarray(datasets[0][0]).save(tmp_path / "a.png")
    dataset = [tmp_path / "a.png", tmp_path / "missing.png"]
    embedder = small(memory=str(tmp_path / "cache"), on_error="skip").fit([dataset])
    with pytest.warns(SkippedSamplesWarning, match="Skipped 1 image"):
        embedder.transform([dataset])


def test_tensors_of_a_users_dataset_can_still_be_trained_on():
    class Caching(torch.utils.data.Dataset):
        kept = {}

        def __len__(self):
            return 4

        def __getitem__(self, i):
            return self.kept.setdefault(i, torch.rand(3, 16, 16))

    small().fit_transform([Caching()])
    weight = torch.ones((), requires_grad=True)
    (weight * Caching.kept[0]).sum().backward()
    assert weight.grad is not None


def test_strips_do_not_explode(rng):
    strip = rng.integers(0, 256, size=(2, 4000, 3), dtype=np.uint8)
    network = networks.open_network("small_resnet", weights=None, image_size=16)
    batch = network.preprocess([strip])
    assert batch.shape == (1, 3, 16, 16)
    middle = network.preprocess([strip[:, 1990:2010]])
    assert torch.equal(batch[..., 4:12], middle[..., 4:12])


@pytest.mark.parametrize("shape", [(90, 60), (60, 90), (64, 64), (300, 20)])
def test_preprocessing_is_that_of_torchvision(rng, shape):
    """Pillow's resize and centre crop, but for rounding at the edge of the crop."""
    image = rng.integers(0, 256, size=(*shape, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(image).resize((shape[1] * 2, shape[0] * 2)))
    for size in (224, 48, 32):
        network = networks.open_network("squeezenet1_1", weights=None, image_size=size)
        rule = network.preprocessing
        pil = transforms.Compose(
            [transforms.Resize(rule.resize_size), transforms.CenterCrop(size)]
        )(Image.fromarray(image))
        got = network.preprocess([image])[0].permute(1, 2, 0).numpy()
        assert np.abs(got.astype(int) - np.asarray(pil).astype(int)).max() <= 1


def test_another_input_for_the_same_image_needs_another_revision():
    """If this fails, raise the revision; then give its number and the pixels here."""
    row, column = np.mgrid[:90, :70]
    image = np.stack([row * 2, column * 3, (row * column) % 256], -1).astype(np.uint8)
    rule = networks.open_network("squeezenet1_1", weights=None, image_size=32)
    rule = rule.preprocessing
    assert rule.revision == 2
    red, green, blue = np.moveaxis(rule(image)[::10, ::10], -1, 0)
    assert red.tolist() == [[n] * 4 for n in (32, 70, 108, 146)]
    assert green.tolist() == [[13, 69, 126, 183]] * 4
    assert blue.tolist() == [
        [66, 109, 153, 159],
        [147, 54, 174, 102],
        [137, 164, 137, 141],
        [99, 150, 146, 122],
    ]


def test_vectors_and_caches_of_another_revision_are_not_used(
    datasets, tmp_path, monkeypatch, passes
):
    embedder = small(memory=tmp_path)
    vectors = embedder.fit_transform(datasets)
    zoo = SourceCatalog.from_arrays(vectors, sizes=range(1, 6), names=list("abcde"))
    assert len(passes) == 5
    passes.clear()
    monkeypatch.setattr(
        small_networks,
        "PREPROCESSING",
        replace(small_networks.PREPROCESSING, revision=99),
    )
    others = clone(embedder).fit_transform(datasets)
    assert len(passes) == 5
    with pytest.raises(ValueError, match="reference network"):
        SourceSelector(zoo, k=-1.0).fit(others)
    with pytest.raises(ValueError, match="reference network"):
        pickle.loads(pickle.dumps(embedder)).transform([datasets[0][:2]])


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "densenet121"])
def test_folding_batch_norm_changes_nothing_but_speed(name, rng):
    network = networks.open_network(name, weights=None, image_size=64)
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    network.train(), network.eval()  # what was folded before has changed
    images = rng.integers(0, 256, size=(5, 64, 64, 3), dtype=np.uint8)
    batch = network.preprocess(images)
    with torch.inference_mode():
        hook_input = []
        network.model.get_submodule(network.head).register_forward_pre_hook(
            lambda module, args: hook_input.append(args[0])
        )
        network(batch)
        expected = torch.cat(hook_input).numpy()
        got = network.forward_features(batch).numpy()
    assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    folded = network._fast_extractor.graph.nodes
    n_left = sum("norm" in str(n.target) or "bn" in str(n.target) for n in folded)
    n_all = sum(isinstance(m, nn.BatchNorm2d) for m in network.model.modules())
    assert n_left <= n_all * 0.55  # densenet's norms stand before its convolutions


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_size_moves_no_crop(tmp_path, orientation, rng):
    """Sides that 8 does not divide are padded when decoded at an eighth."""
    small_image = rng.integers(0, 256, size=(4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(small_image).resize((151, 145), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.jpg"
    image.save(path, quality=95, exif=exif)
    network = networks.open_network("resnet18", weights=None, image_size=8)
    with Image.open(path) as file:
        whole = np.asarray(ImageOps.exif_transpose(file))
    (reduced,) = network.read([path], 1)
    (decoded,) = image_batches([path], 1, min_side=18)
    assert min(decoded[0].shape[:2]) == 19
    error = (reduced.float() - network.preprocess([whole]).float()).abs()
    assert error.mean() < 1.5 and error.max() < 8


def test_large_photos_are_decoded_at_a_reduced_size(tmp_path, rng):
    small_image = rng.integers(0, 256, size=(20, 30, 3), dtype=np.uint8)
    image = Image.fromarray(small_image).resize((1200, 800))
    path = tmp_path / "photo.jpg"
    image.save(path, quality=95)
    sizes = []
    for min_side in (None, 800, 400, 399, 100, 64):
        (batch,) = image_batches([path], 1, min_side=min_side)
        sizes.append(batch[0].shape[0])
    assert sizes == [800, 800, 400, 400, 100, 100]
    network = networks.open_network("squeezenet1_1", weights=None)
    (whole,), (reduced,) = (
        network.preprocess([np.asarray(Image.open(path))]),
        next(network.read([path], 1)),
    )
    assert (whole.float() - reduced.float()).abs().mean() < 1


def test_image_sizes_that_a_network_cannot_take(datasets):
    for name, size in [("alexnet", 32), ("vit_b_16", 64)]:
        embedder = DatasetEmbedder(name, weights=None, image_size=size)
        with pytest.raises(
            ValueError, match=f"image_size must suit {name}, got {size}"
        ):
            embedder.fit(datasets)


def test_memory_repeats_warnings(datasets, tmp_path):
    bad = datasets[0] / 255
    bad[2] = np.nan
    embedder = small(memory=str(tmp_path), on_error="skip").fit(datasets)
    for same in (embedder, embedder, fresh(embedder)):
        with pytest.warns(SkippedSamplesWarning, match="Skipped 1 image"):
            same.transform([bad])


def test_progress_names_the_dataset_and_the_total(datasets, capsys, tmp_path):
    small(verbose=1).fit_transform(datasets)
    shown = capsys.readouterr().err
    assert "48/48" in shown and "embedding dataset 4" in shown
    (tmp_path / "birds").mkdir()
    for i in range(3):
        Image.fromarray(datasets[0][i]).save(tmp_path / "birds" / f"{i}.png")
    small(verbose=1).fit_transform([tmp_path / "birds"])
    shown = capsys.readouterr().err
    assert "embedding birds" in shown and "3/3" in shown


# -- the fingerprint stands for what was fitted --------------------------------------


@pytest.mark.parametrize(
    "name, value",
    [
        ("summary", "median"),
        ("proportion", 0.3),
        ("layer", "body.4.relu"),
        ("image_size", 24),
        ("random_state", 5),
        ("weights", "other.safetensors"),
        ("backbone", "resnet18"),
    ],
)
def test_what_the_fingerprint_stands_for_is_fixed_by_fit(
    datasets, tmp_path, name, value
):
    embedder = small(memory=str(tmp_path)).fit(datasets)
    vectors = embedder.transform(datasets)
    embedder.set_params(**{name: value})
    with pytest.raises(ValueError, match=f"{name} must be what it was in fit"):
        embedder.transform(datasets)
    with pytest.raises(ValueError, match=f"{name} must be what it was in fit"):
        fresh(embedder).transform(datasets)
    embedder.set_params(**{name: small().get_params()[name]})
    assert_array_equal(embedder.transform(datasets), vectors)


def test_how_vectors_are_computed_may_change_after_fit(datasets):
    embedder = small().fit(datasets)
    vectors = embedder.transform(datasets)
    embedder.set_params(batch_size=3, device=torch.device("cpu"), verbose=0)
    assert_allclose(fresh(embedder).transform(datasets), vectors, atol=1e-7)


def test_an_unknown_statistic_is_an_error():
    with pytest.raises(ValueError, match="summary must be one of.*got 'mode'"):
        _summary.summarize([np.ones((2, 3))], "mode", 0.1)


def test_a_statistic_more_is_one_entry(datasets, monkeypatch):
    """What CONTRIBUTING promises."""
    monkeypatch.setitem(
        _summary.STATISTICS, "maximum", lambda block, proportion: block.max(axis=0)
    )
    monkeypatch.setitem(DatasetEmbedder._parameter_constraints, "summary", [str])
    embedder = small(summary="maximum").fit(datasets)
    expected = features(datasets[0], embedder).max(axis=0)
    vector = embedder.transform(datasets[:1])[0]
    assert_allclose(vector, expected / expected.sum(), atol=1e-7)
    assert ":maximum:" in embedder.fingerprint_


# -- what is embedded once -------------------------------------------------------------


def test_a_pipeline_embeds_a_dataset_once(datasets, passes):
    vectors = small().fit_transform(datasets)
    catalog = SourceCatalog.from_arrays(vectors, sizes=range(1, 6), names=list("abcde"))
    pipe = make_pipeline(small(), SourceSelector(catalog, k=-1.0))
    passes.clear()
    pipe.fit(datasets[:3])
    pipe.predict(datasets[:2]), pipe.decision_function(datasets[:3])
    assert len(passes) == 3
    pipe.predict(datasets[2:4])
    assert len(passes) == 4
    changed = datasets[0].copy()
    changed[0, 0, 0] += 1
    pipe.predict([changed])
    assert len(passes) == 5
    pipe.fit(datasets[:1])  # another fit, perhaps another network
    assert len(passes) == 6
    clone(pipe).fit(datasets[:1])
    assert len(passes) == 7


def test_what_is_remembered_is_bounded(rng, passes, monkeypatch):
    from sklearn_p2l.embedding import _embedder

    monkeypatch.setattr(_embedder, "_N_KEPT", 2)
    sets = [rng.integers(0, 255, (2, 16, 16), dtype=np.uint8) for _ in range(3)]
    embedder = small().fit(sets)
    embedder.transform(sets)
    assert len(passes) == 3
    embedder.transform(sets[1:])
    assert len(passes) == 3
    embedder.transform(sets[:1])
    assert len(passes) == 4


def test_tasks_and_columns_of_paths_are_datasets(datasets, tmp_path):
    pd = pytest.importorskip("pandas")
    paths = [str(tmp_path / f"{i}.png") for i in range(6)]
    for path, image in zip(paths, datasets[2]):
        Image.fromarray(image).save(path)
    embedder = small().fit(datasets)
    expected = embedder.transform([datasets[2]])
    labels = list("aabbaa")
    for same in (
        Task(datasets[2], labels),
        Task(paths, labels),
        paths,
        pd.Series(paths, index=range(3, 9)),
        pd.DataFrame({"path": paths}),
        np.array(paths),
    ):
        got = fresh(embedder).transform([same])
        assert_allclose(got, expected, atol=1e-12)
        assert isinstance(got, Vectors)


def test_mean_streams_in_constant_memory():
    """A dataset much larger than what is ever held at once."""
    held = []

    class Stream:
        def __iter__(self):
            for i in range(700):
                held.append(1)
                yield np.full((16, 16), i % 256, np.uint8)

    seen = []

    def batches():
        for batch in image_batches(Stream(), 32):
            seen.append(len(held))
            yield np.stack(batch).reshape(len(batch), -1).astype(np.float32)

    mean = _summary.summarize(batches(), "mean", 0.1).vector
    assert_allclose(mean, np.full(768, np.mean(np.arange(700) % 256)))
    assert seen == [*range(32, 700, 32), 700]


@pytest.mark.parametrize(
    "name, width, layer",
    [
        ("squeezenet1_1", 512, "classifier.0"),
        ("mobilenet_v3_small", 1024, "classifier.2"),
        ("resnet18", 512, "flatten"),
        ("shufflenet_v2_x0_5", 1024, "mean"),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn_p2l.exceptions.SignedFeaturesWarning")
def test_torchvision_networks(name, width, layer, datasets):
    embedder = DatasetEmbedder(name, weights=None, image_size=64, random_state=0)
    vectors = embedder.fit_transform(datasets[:2])
    assert vectors.shape == (2, width) and embedder.layer_ == layer
    assert embedder.signed_ == (np.asarray(vectors) < 0).any()
    assert embedder.signed_ == (name == "mobilenet_v3_small")  # hard swish


@pytest.mark.slow
def test_vgg16_gives_fc7_after_relu_without_dropout(rng):
    images = rng.integers(0, 256, size=(2, 40, 40, 3), dtype=np.uint8)
    embedder = DatasetEmbedder(
        "vgg16", weights=None, random_state=0, precision="float32"
    )
    vectors = embedder.fit_transform([images])
    assert vectors.shape == (1, 4096) and (vectors >= 0).all()
    network = networks.open_network("vgg16", weights=None, seed=embedder.seed_)
    model, batch = network.model.eval(), network.preprocess(images)
    assert batch.shape == (2, 3, 224, 224)
    with torch.inference_mode():
        x = model.avgpool(model.features(network._normalize(batch))).flatten(1)
        fc7 = torch.relu(model.classifier[3](torch.relu(model.classifier[0](x))))
    expected = fc7.double().mean(dim=0)
    assert_allclose(vectors[0], expected / expected.sum(), atol=1e-7)


def test_named_weights_come_from_torchvisions_folder(monkeypatch, tmp_path, datasets):
    """torchvision looks for its file before it downloads; a stand-in lies there."""
    import torchvision

    known = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    network = networks.open_network("squeezenet1_1", weights=None, seed=4)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    file = folder / known.url.rpartition("/")[2]
    torch.save(network.model.state_dict(), file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    arguments = {"image_size": 64, "precision": "float32"}
    named = DatasetEmbedder("squeezenet1_1", **arguments).fit(datasets)
    by_path = DatasetEmbedder("squeezenet1_1", weights=file, **arguments).fit(datasets)
    assert named.fingerprint_ == by_path.fingerprint_


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, file, bound",
    [
        ("squeezenet1_1", "squeezenet1_1", 0.02),
        ("mobilenet_v2", "mobilenet_v2_features", 0.1),
    ],
)
def test_precision_on_real_images(name, file, bound):
    """The documented error of bfloat16, against what tells datasets apart."""
    weights = real_file("models", f"{file}.safetensors")
    kinds = ["grocery_fruit", "grocery_vegetables", "omniglot_chars", "scenes15"]
    datasets = [real_images(kind)[0][:16] for kind in kinds]
    exact, rough = (
        DatasetEmbedder(name, weights=weights, precision=p).fit_transform(datasets)
        for p in ("float32", "bfloat16")
    )
    error = np.abs(np.asarray(exact) - np.asarray(rough)).sum(axis=1)
    assert (error > 0).all() and (error < bound).all()
    D = pairwise_divergence(exact, metric="js")
    np.fill_diagonal(D, np.inf)
    # fruit and vegetables of one shop are nearest to each other
    assert D[0].argmin() == 1 and D[1].argmin() == 0
    rough = pairwise_divergence(rough, metric="js")
    np.fill_diagonal(rough, np.inf)
    assert_array_equal(rough.argsort(axis=1), D.argsort(axis=1))


@pytest.mark.slow
def test_real_folder_of_photos():
    weights = real_file("models", "squeezenet1_1.safetensors")
    folder = real_file("data", "folders", "clothing")
    embedder = DatasetEmbedder("squeezenet1_1", weights=weights, image_size=96)
    kinds = ["clothing", "omniglot_chars", "scenes15"]
    others = [real_images(kind)[0][:100] for kind in kinds]
    vectors = embedder.fit_transform([folder, *others])
    D = pairwise_divergence(vectors[:1], vectors[1:])[0]
    assert kinds[int(D.argmin())] == "clothing"


# -- a part of the samples, and several datasets at a time ---------------------------


class Images(torch.utils.data.Dataset):
    """A map-style dataset that counts what is asked of it."""

    def __init__(self, images):
        self.images, self.asked = images, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        self.asked.append(i)
        return self.images[i]


@pytest.mark.parametrize("form", [np.asarray, list, Images, iter])
def test_max_samples_reads_so_many_at_random(form, rng):
    images = np.repeat(np.arange(100, dtype=np.uint8), 16 * 16).reshape(100, 16, 16)
    asked = []
    for seed in range(3):
        dataset = form(images)
        part, n_total = random_part(dataset, 10, seed)
        levels = [int(np.asarray(part[i]).flat[0]) for i in range(len(part))]
        assert len(set(levels)) == 10
        assert n_total == (None if form is iter else 100)
        if form is Images:
            assert sorted(dataset.asked) == sorted(levels)
        asked += levels
    assert len(set(asked)) > 20  # another seed, another part
    embedder = small(max_samples=10).fit([images])
    vectors = embedder.transform([form(images), form(images)])
    assert_array_equal(vectors[0], vectors[1])
    part = form(images) if form is not iter else iter(images)
    expected = (
        small().fit([images]).transform([random_part(part, 10, embedder.seed_)[0]])
    )
    assert_allclose(vectors[:1], expected, rtol=1e-5)


@pytest.mark.parametrize("form", [list, Images, iter])
@pytest.mark.parametrize("max_samples", [12, "auto"])
def test_a_damaged_image_is_named_by_its_number_in_the_dataset(form, max_samples):
    images = [np.zeros((16, 16), np.uint8) for _ in range(12)]
    images[7] = np.full((16, 16), np.nan)
    embedder = small(max_samples=max_samples).fit([np.zeros((2, 16, 16), np.uint8)])
    with pytest.raises(ValueError, match="dataset 0: image 7 "):
        embedder.transform([form(images)])


def test_reservoirs_draw_every_sample_equally_often():
    counts = np.zeros(20)
    for seed in range(2000):
        counts[random_part(iter(range(20)), 5, seed)[0]] += 1
    assert chisquare(counts).pvalue > 0.001


def test_max_samples_of_all_is_the_full_pass(datasets):
    full = small().fit_transform(datasets)
    part = small(max_samples=10_000).fit_transform(datasets)
    assert_allclose(part, full, rtol=1e-5)


def test_auto_stops_when_the_summary_is_known(rng):
    """Against the error that is made, over many draws."""
    features = rng.gamma(1, size=(5000, 40)) * rng.gamma(1, size=40)
    full = features.mean(axis=0) / np.abs(features.mean(axis=0)).sum()
    errors, read = [], []
    for seed in range(40):
        order = np.random.RandomState(seed).permutation(5000)
        n_read = []

        def batches(order=order, n_read=n_read):
            for start in range(0, 5000, 20):
                n_read.append(20)
                yield features[order[start : start + 20]]

        vector = _summary.summarize(
            batches(), "mean", 0, tolerance=0.05, n_total=5000
        ).vector
        errors.append(np.abs(vector / np.abs(vector).sum() - full).sum())
        read.append(sum(n_read))
    assert 0.025 < np.mean(errors) < 0.06
    assert 100 < np.mean(read) < 1000


def test_auto_reads_everything_where_it_must(rng):
    images = rng.integers(0, 256, size=(50, 16, 16, 3), dtype=np.uint8)
    full = small().fit_transform([images])
    strict = small(max_samples="auto", tolerance=1e-9, batch_size=8)
    assert_allclose(strict.fit_transform([images]), full, rtol=1e-5)
    lax = small(max_samples="auto", tolerance=0.5, batch_size=8).fit([images])
    dataset = Images(images)
    lax.transform([dataset])
    assert len(dataset.asked) < 50
    streamed = lax.transform([iter(images)])
    assert_allclose(streamed, full, rtol=1e-5)


def test_auto_needs_the_mean(datasets):
    with pytest.raises(ValueError, match="summary must be 'mean'.*got 'median'"):
        small(max_samples="auto", summary="median").fit(datasets)


def _spied_open(folder):
    """Count networks that are opened, also in other processes."""
    model = small_networks.SmallResNet()
    handle, _ = tempfile.mkstemp(dir=folder)
    os.close(handle)
    return model


@pytest.mark.parametrize("backend", ["loky", "threading"])
@pytest.mark.slow
def test_several_datasets_at_a_time(datasets, tmp_path, backend):
    opened = functools.partial(_spied_open, str(tmp_path))
    embedder = small(weights=None).set_params(backbone=opened).fit(datasets)
    expected = embedder.transform(datasets)
    assert len(os.listdir(tmp_path)) == 1
    embedder = pickle.loads(pickle.dumps(embedder))
    get_reusable_executor().shutdown()  # joblib replaces workers that grow late
    with joblib.parallel_config(backend=backend, n_jobs=2):
        got = embedder.transform(datasets)
    assert_allclose(got, expected, rtol=1e-5)
    assert got.fingerprint == embedder.fingerprint_
    n_opened = len(os.listdir(tmp_path)) - 1
    assert n_opened == 1 if backend == "threading" else n_opened <= 2


@pytest.mark.slow
def test_errors_and_warnings_of_workers_name_the_dataset(datasets):
    bad = datasets[0] / 255
    bad[2] = np.nan
    with pytest.raises(ValueError, match="dataset 1: image 2 must be finite"):
        small(n_jobs=2).fit(datasets).transform([datasets[0], bad])
    skipping = small(n_jobs=2, on_error="skip").fit(datasets)
    with pytest.warns(
        SkippedSamplesWarning, match="Skipped 1 image.*image 2 must be finite"
    ):
        skipping.transform([datasets[0], bad])


@pytest.mark.slow
def test_embedding_on_a_dask_cluster_of_two_processes(datasets, request):
    embedder = small().fit(datasets)
    expected = embedder.transform(datasets)
    request.getfixturevalue("dask_cluster")
    assert_allclose(fresh(embedder).transform(datasets), expected, rtol=1e-5)


def test_summaries_on_disk_serve_several_processes(datasets, tmp_path):
    embedder = small(memory=str(tmp_path), n_jobs=2).fit(datasets)
    twice = embedder.transform(datasets * 2)
    assert_array_equal(twice[: len(datasets)], twice[len(datasets) :])
    assert_allclose(twice[: len(datasets)], small().fit_transform(datasets), rtol=1e-5)
    assert len(list(tmp_path.rglob("output.pkl"))) == len(datasets)


def test_class_means_by_hand(datasets, tmp_path, passes):
    """Of features of unit length, as they are without; in their order, in one pass."""
    y = np.array(list("bbaabcab" + "b"))
    indicator = np.eye(3, dtype=int)[np.unique(y, return_inverse=True)[1]]
    indicator[0] = 1  # all labels at once
    tasks = [Task(datasets[0], y), Task(datasets[0], indicator)]
    embedder = small(class_means=True, batch_size=4, memory=str(tmp_path))
    vectors = embedder.fit_transform([*tasks, datasets[1]])
    n_passes = len(passes)
    plain = small(batch_size=4).fit([datasets[0]])
    assert_array_equal(vectors[0], plain.transform([datasets[0]])[0])
    assert vectors.fingerprint == plain.fingerprint_
    F = features(datasets[0], plain)
    F = F / np.linalg.norm(F, axis=1, keepdims=True)
    one, several, unlabelled = vectors.class_means
    assert_allclose(one, [F[y == c].mean(axis=0) for c in "abc"], atol=1e-5)
    expected = [F[indicator[:, j] == 1].mean(axis=0) for j in range(3)]
    assert_allclose(several, expected, atol=1e-5)
    assert unlabelled is None and one.dtype == np.float32
    # Labels are part of what is remembered, here and in the folder.
    passes.clear()
    again = fresh(embedder).transform([tasks[0]])
    assert not passes and n_passes
    assert_array_equal(again.class_means[0], one)
    other = fresh(embedder).transform([Task(datasets[0], y[::-1])])
    assert passes and not np.allclose(other.class_means[0], one)


def test_class_means_of_a_part_of_the_samples(rng):
    X = rng.integers(0, 255, size=(40, 16, 16), dtype=np.uint8)
    task = Task(X, np.arange(40) % 4)
    part, _ = random_part(X, 12, small(max_samples=12).fit([X]).seed_)
    rows = [next(i for i in range(40) if np.array_equal(X[i], image)) for image in part]
    vectors = small(class_means=True, max_samples=12).fit_transform([task])
    of_part = small(class_means=True).fit_transform([Task(X[rows], task.y[rows])])
    assert_allclose(vectors, of_part, atol=1e-7)
    assert_allclose(vectors.class_means[0], of_part.class_means[0], atol=1e-5)


def test_class_means_of_many_classes_and_of_ready_features(rng):
    X = rng.normal(size=(400, 5))
    y = np.arange(400) % 80
    vectors = DatasetEmbedder(class_means=True).fit_transform([Task(X, y)])
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    means = np.array([unit[y == c].mean(axis=0) for c in range(80)])
    (centres,) = vectors.class_means
    assert centres.shape == (64, 5)
    apart = np.linalg.norm(means[:, None] - centres, axis=2).min(axis=1)
    assert apart.max() < 0.3 and np.sum(apart < 1e-6) >= 40  # most are alone


def test_class_means_need_every_label(datasets):
    with pytest.raises(ValueError, match="on_error must be 'raise' for class_means"):
        small(class_means=True, on_error="skip").fit(datasets)
    later = small(class_means=True).fit(datasets).set_params(on_error="skip")
    with pytest.raises(ValueError, match="on_error must be 'raise' for class_means"):
        later.transform(datasets)


def test_class_means_of_labels_that_no_sample_has(rng):
    task = Task(rng.normal(size=(6, 3)), np.zeros((6, 2), dtype=int))
    vectors = DatasetEmbedder(class_means=True).fit_transform([task])
    assert vectors.class_means == (None,)


def test_ready_features_with_columns_in_another_order_are_refused(rng):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(rng.random((6, 3)), columns=["a", "b", "c"])
    embedder = DatasetEmbedder().fit([frame])
    expected = embedder.transform([frame])
    assert_allclose(embedder.transform([frame.to_numpy()]), expected)
    permuted = frame[["a", "c", "b"]]
    with pytest.raises(
        ValueError, match="dataset 1: .*'c' in place of 'b' as column 1"
    ):
        embedder.transform([frame, permuted])
    with pytest.raises(ValueError, match="dataset 1: .*in one order"):
        DatasetEmbedder().fit([frame, permuted])
    with pytest.raises(ValueError, match="3 wide"):
        embedder.transform([frame.assign(d=1.0)])
