"""PCNN: its arithmetic against a plain loop, and the estimators' path for text."""

import copy
import json
import subprocess
import sys
from functools import partial

import joblib
import numpy as np
import pytest
import torch
from conftest import real_file
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import clone
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from sklearn.pipeline import make_pipeline
from torch import nn

from sklearn_p2l import (
    DatasetEmbedder,
    FineTuner,
    NetworkClassifier,
    Source,
    SourceCatalog,
    SourceSelector,
    networks,
)
from sklearn_p2l.datasets import (
    Bag,
    Context,
    build_vocabulary,
    read_bags,
    relation_labels,
    text_groups,
    tokenize,
)
from sklearn_p2l.divergence import pairwise_divergence
from sklearn_p2l.exceptions import SignedFeaturesWarning, SkippedSamplesWarning
from sklearn_p2l.ground_truth import measure_improvement
from sklearn_p2l.networks import PCNN
from sklearn_p2l.networks.pcnn import BagBatch

TEXT = "In 1912 the town of Zag , near Old Wum , was burnt down ."
WORDS = TEXT.lower().replace("1912", "0000").split()


def span(text, part):
    start = text.index(part)
    return start, start + len(part)


def context(text=TEXT, first="Zag", second="Old Wum"):
    return Context(text, span(text, first), span(text, second))


def bag(*contexts, relations=()):
    return Bag("a", "b", contexts or [context()], relations)


@pytest.fixture(scope="module")
def corpus():
    """Invented pairs: who is the mother of whom, what lies in what, or nothing."""
    rng = np.random.default_rng(0)
    people = ["ann", "bob", "cid", "dora", "eve", "finn", "gus", "hal"]
    places = ["zag", "old wum", "fort nix", "ping", "quay", "rill"]
    kin = ["{1} is the mother of {2} .", "{2} , a son of {1} , was late ."]
    place = ["{1} lies in {2} .", "the streets of {1} , a town of {2} , are wide ."]
    none = ["{1} talked about {2} .", "{1} and {2} met once ."]
    bags = []
    for i in range(240):
        kind = i % 3
        names = rng.choice(places if kind == 1 else people, 2, replace=False)
        contexts = []
        for _ in range(rng.integers(1, 4)):
            text = (kin, place, none)[kind][rng.integers(2)]
            text = text.format("", *(f"<{name}>" for name in names))
            spans = []
            for name in names:
                at = text.index(f"<{name}>")
                text = text.replace(f"<{name}>", name, 1)
                if spans and at < spans[0][0]:
                    spans[0] = (spans[0][0] - 2, spans[0][1] - 2)
                spans.append((at, at + len(name)))
            contexts.append(Context(text, *spans, f"doc{i}"))
        relations = ((">mother",), (">in",), ())[kind]
        bags.append(Bag(f"{i}a", f"{i}b", contexts, relations))
    return bags


@pytest.fixture(scope="module")
def labels(corpus):
    return relation_labels(corpus).y


def small(**settings):
    settings = dict(n_filters=12, n_features=8, word_size=6, n_buckets=16) | settings
    return PCNN(["zag", "town", "the", ","], num_classes=3, **settings)


scratch = partial(
    NetworkClassifier,
    partial(PCNN, n_filters=32, n_features=24, n_buckets=32),
    epochs=12,
    random_state=0,
)


# -- tokens and positions ---------------------------------------------------------


def test_positions_count_words_from_either_entity():
    encoded = small().encode([bag()])
    first, second = (encoded.distances - 60).T.tolist()
    assert len(WORDS) == 15 and WORDS[5] == "zag" and WORDS[8:10] == ["old", "wum"]
    assert first == [i - 5 for i in range(15)]
    assert second == [*range(-8, 0), 0, 0, *range(1, 6)]
    # pieces end with the entity that ends first, with the other one, with the text
    assert encoded.pieces.tolist() == [[6, 4, 5]]
    assert encoded.contexts.tolist() == [1]


def test_entities_in_either_order():
    one = small().encode([bag(context(first="Zag", second="Old Wum"))])
    other = small().encode([bag(context(first="Old Wum", second="Zag"))])
    assert torch.equal(one.distances, other.distances.flip(1))
    assert torch.equal(one.pieces, other.pieces)


@pytest.mark.parametrize(
    "text, first, second, pieces",
    [
        ("Zag", "Zag", "Zag", [1, 0, 0]),
        ("Zag Wum", "Zag", "Wum", [1, 1, 0]),
        ("Zag Wum", "Wum", "Zag", [1, 1, 0]),
        ("University of Zag .", "University of Zag", "Zag", [3, 0, 1]),
        ("a Zag-like Wum", "Zag", "Wum", [2, 3, 0]),
        ("xZagy met Wum", "Zag", "Wum", [1, 2, 0]),
    ],
)
def test_pieces_may_be_empty(text, first, second, pieces):
    model = small().eval()
    batch = model.encode([bag(context(text, first, second))])
    assert batch.pieces.tolist() == [pieces]
    features = model.features(batch)
    assert features.shape == (1, 8) and features.isfinite().all()
    described = model.contexts(batch).view(3, 12)
    for piece, n in zip(described, pieces):
        assert (n == 0) == bool((piece == 0).all())


def test_words_are_known_hashed_or_shared():
    model = small(n_buckets=2)
    encoded = model.encode([bag()])
    rows = dict(zip(WORDS, encoded.words.tolist()))
    assert [rows[w] for w in ("zag", "town", "the", ",")] == [0, 1, 2, 3]
    assert {rows["burnt"], rows["0000"], rows["of"]} <= {4, 5}
    again = small(n_buckets=2).encode([bag()])
    assert torch.equal(again.words, encoded.words)


def test_long_contexts_keep_what_is_near_the_entities():
    text = "x " * 500 + "Zag " + "y " * 500 + "Wum" + " z" * 500
    (first, second) = span(text, "Zag"), span(text, "Wum")
    encoded = small(max_tokens=21).encode([bag(Context(text, first, second))])
    distances = encoded.distances - 60
    assert len(encoded.words) == 21
    nearest = distances.abs().min(dim=1).values
    assert nearest.max() <= 5 and (distances.abs().min(dim=0).values == 0).all()
    assert encoded.pieces.sum() == 21 and (encoded.pieces > 0).all()
    # far distances share the last vectors
    assert distances.min() == -60 and distances.max() == 60
    whole = small(max_tokens=5000).encode([bag(Context(text, first, second))])
    assert len(whole.words) == len(tokenize(text)[0])


def test_many_contexts_are_sampled_whatever_their_order():
    contexts = [context(f"{'w' * i} Zag Wum", "Zag", "Wum") for i in range(1, 1001)]
    every, few = small(max_contexts=1000), small(max_contexts=20)
    assert every.encode([bag(*contexts)]).contexts.tolist() == [1000]
    one, other = few.encode([bag(*contexts)]), few.encode([bag(*contexts[::-1])])
    assert one.contexts.tolist() == [20] and torch.equal(one.words, other.words)
    seeded = small(max_contexts=20, seed=1).encode([bag(*contexts)])
    assert not torch.equal(one.words, seeded.words)


# -- arithmetic -------------------------------------------------------------------


def by_hand(model, bags):
    """The same network, one context after the other, with torch's own convolution."""
    width = model.words.weight.shape[1] + 2 * model.positions[0].weight.shape[1]
    conv = nn.Conv1d(width, model.settings["n_filters"], 3, padding=1)
    weight = model.convolution.weight.detach().view(-1, 3, width).permute(0, 2, 1)
    conv.weight.data, conv.bias.data = weight, model.convolution.bias.detach()
    rows = []
    for one in bags:
        described = []
        for c in one.contexts:
            batch = model.encode([Bag("a", "b", [c])])
            x = torch.cat(
                [
                    model.words(batch.words),
                    model.positions[0](batch.distances[:, 0]),
                    model.positions[1](batch.distances[:, 1]),
                ],
                dim=1,
            )
            y = conv(x.T[None])[0].T
            pieces = [
                piece.max(dim=0).values if len(piece) else torch.zeros(y.shape[1])
                for piece in y.split(batch.pieces[0].tolist())
            ]
            h = torch.cat(pieces).tanh()
            for layer in model.network_in_network:
                h = layer(h)
            described.append(h)
        rows.append(torch.stack(described).max(dim=0).values)
    return torch.stack(rows)


def test_against_a_plain_loop(corpus):
    torch.manual_seed(0)
    model = small().eval()
    with torch.no_grad():
        expected = by_hand(model, corpus[:30])
        features = model.features(model.encode(corpus[:30]))
        assert_allclose(features, expected, rtol=1e-5, atol=1e-6)
        logits = model(model.encode(corpus[:30]))
        assert_allclose(logits, model.fc(expected), rtol=1e-5, atol=1e-6)
    assert (features >= 0).all() and (features > 0).any()


def test_gradients_against_a_plain_loop(corpus):
    torch.manual_seed(0)
    model = small().eval()
    other = copy.deepcopy(model)
    model.features(model.encode(corpus[:6])).square().sum().backward()
    # the loop's convolution is a copy, so only what comes before it is compared
    by_hand(other, corpus[:6]).square().sum().backward()
    for name in ("words.weight", "positions.0.weight", "network_in_network.0.weight"):
        ours, theirs = (m.get_parameter(name).grad for m in (model, other))
        assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7)
        assert ours.abs().sum() > 0


def test_neighbours_in_a_batch_change_nothing(corpus):
    model = small().eval()
    long = bag(context("so " * 90 + "Zag Wum", "Zag", "Wum"))
    with torch.no_grad():
        alone = [model.features(model.encode([b])) for b in corpus[:20]]
        together = model.features(model.encode([long, *corpus[:20], long]))
    assert_allclose(together[1:-1], torch.cat(alone), rtol=1e-5, atol=1e-6)


def test_order_of_contexts_changes_nothing(corpus):
    model = small().eval()
    several = [b for b in corpus if len(b.contexts) == 3][:10]
    turned = [Bag(b.id_1, b.id_2, b.contexts[::-1]) for b in several]
    with torch.no_grad():
        features = [model.features(model.encode(bags)) for bags in (several, turned)]
    assert_allclose(features[0], features[1], rtol=1e-5, atol=1e-6)


def test_parts_of_a_batch(corpus):
    model = small()
    whole = model.encode(corpus[:12])
    assert len(whole) == 12
    chosen = torch.tensor([7, 0, 11, 7])
    expected = model.encode([corpus[i] for i in chosen])
    for name, part in vars(whole[chosen]).items():
        assert torch.equal(part, getattr(expected, name)), name
    empty = whole[torch.tensor([], dtype=torch.int64)]
    assert isinstance(empty, BagBatch) and len(empty) == len(empty.words) == 0


def test_small_contract():
    network = networks.open_network(
        "pcnn", weights=None, samples=[bag(), bag()], seed=3
    )
    assert network.takes == "bags" and network.image_size is None
    assert "zag" in network.model.vocabulary
    batch = network.preprocess([bag()])
    assert network.forward_features(batch).shape == (1, network.num_features)
    body = [p.clone() for p in network.body_parameters()]
    network.reset_classifier(7, zero=True)
    assert network(batch).shape == (1, 7) and not network(batch).any()
    assert all(map(torch.equal, body, network.body_parameters()))
    assert len(network.classifier_parameters()) == 2
    n_all = sum(1 for _ in network.model.parameters())
    assert len(network.body_parameters()) + 2 == n_all
    hashed = network.features_hash()
    network.reset_classifier(5, seed=9)
    assert network.features_hash() == hashed
    with pytest.raises(ValueError, match="layer must be 'features' or 'contexts'"):
        networks.open_network("pcnn", weights=None, layer="fc")
    with pytest.raises(ValueError, match="image_size must be None"):
        networks.open_network("pcnn", weights=None, image_size=24)
    with pytest.raises(ValueError, match="no published weights"):
        networks.open_network("pcnn", weights="DEFAULT")
    with pytest.raises(ValueError, match="kernel_size must be odd"):
        PCNN(kernel_size=4)


def test_word_vectors_are_where_it_starts(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("the 1 2 3\nZag 4 5 6\n")
    model = PCNN(word_vectors=path)
    assert model.vocabulary == ("the", "zag")
    assert_allclose(model.words.weight[:2].detach(), [[1, 2, 3], [4, 5, 6]])
    assert PCNN(["zag"], word_vectors=path).vocabulary == ("zag",)
    rebuilt = PCNN.from_metadata({"pcnn": model.describe()})
    assert rebuilt.vocabulary == model.vocabulary
    assert rebuilt.words.weight.shape == model.words.weight.shape


# -- the three estimators ---------------------------------------------------------


def test_learns_relations(corpus, labels):
    tuner = scratch().fit(corpus[:180], labels[:180])
    assert tuner.image_size_ is None and tuner.y_type_ == "multilabel-indicator"
    score = tuner.score(corpus[180:], labels[180:])
    assert score > 0.95
    probabilities = tuner.predict_proba(corpus[180:])
    assert probabilities.shape == (60, 2)
    assert score == pytest.approx(
        average_precision_score(labels[180:], probabilities, average="micro")
    )
    again = scratch().fit(corpus[:180], labels[:180])
    assert_array_equal(again.predict_proba(corpus[180:]), probabilities)
    assert tuner.history_[-1]["train_loss"] < tuner.history_[0]["train_loss"] / 2


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_loss_is_the_sum_over_labels(corpus, labels):
    """A label that never occurs costs its own log loss, and none of the others'."""
    tuner = scratch(learning_rate=1e-9, epochs=1).fit(corpus, labels)
    p = np.clip(tuner.predict_proba(corpus), 1e-12, 1 - 1e-12)
    log_loss = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).sum(axis=1).mean()
    # dropout makes the training loss differ a little
    assert tuner.history_[0]["train_loss"] == pytest.approx(log_loss, rel=0.05)


def test_early_stopping_and_frozen_body(corpus, labels, tmp_path):
    tuner = scratch(early_stopping=True, n_iter_no_change=2).fit(corpus, labels)
    assert "validation_loss" in tuner.history_[0]
    path = tmp_path / "s.safetensors"
    tuner.to_source("s", checkpoint=path)
    frozen = NetworkClassifier(
        path,
        body_learning_rate_multiplier=0,
        epochs=1,
        learning_rate=0.1,
    ).fit(corpus[:60], labels[:60][:, [0, 1, 0]])
    learning = NetworkClassifier(path, epochs=1).fit(corpus[:60], labels[:60])
    assert learning.body_learning_rate_multiplier_ == 1.0  # also from a source
    for key, value in tuner.weights_.items():
        if not key.startswith("fc."):
            assert_array_equal(frozen.weights_[key], value)
    assert frozen.weights_["fc.weight"].shape[0] == 3


def test_checkpoint_brings_its_vocabulary(corpus, labels, tmp_path):
    tuner = NetworkClassifier("pcnn", epochs=1, random_state=0)
    tuner.fit(corpus, labels)
    path = tmp_path / "reference.safetensors"
    embedder = DatasetEmbedder(path)
    source = tuner.to_source("kin", checkpoint=path)
    assert source.architecture == "pcnn" and source.size == 240
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        described = json.loads(file.metadata()["pcnn"])
    assert described["vocabulary"] == build_vocabulary(corpus)
    vectors = embedder.fit_transform([corpus[:50], corpus])
    assert vectors.shape == (2, 200) and (vectors >= 0).all()
    assert_allclose(np.sum(vectors, axis=1), 1)
    # the mean of the features of single bags, whatever the batches
    singles = DatasetEmbedder(path, batch_size=7, precision="float32")
    network = tuner._network
    with torch.no_grad():
        features = network.forward_features(network.preprocess(corpus[:50])).numpy()
    mean = features.mean(axis=0)
    assert_allclose(
        singles.fit_transform([corpus[:50]])[0], mean / mean.sum(), rtol=1e-4
    )
    assert embedder.fingerprint_.startswith("pcnn:features:mean:")
    other = scratch(epochs=1).fit(corpus, labels)
    other.to_source("o", checkpoint=tmp_path / "o.safetensors")
    second = DatasetEmbedder(tmp_path / "o.safetensors").fit([corpus])
    assert second.fingerprint_ != embedder.fingerprint_


def test_signed_features_are_refused_by_kl(corpus, labels, tmp_path):
    path = tmp_path / "reference.safetensors"
    scratch(epochs=1).fit(corpus, labels).to_source("s", checkpoint=path)
    with pytest.warns(SignedFeaturesWarning, match="'pcnn', layer 'contexts'"):
        embedder = DatasetEmbedder(path, layer="contexts").fit([corpus])
    signed = embedder.transform([corpus, corpus[:9]])
    assert (signed < 0).any()
    with pytest.raises(ValueError, match="non-negative"):
        pairwise_divergence(signed, signed, metric="kl")
    D = pairwise_divergence(signed, signed, metric="cityblock")
    assert D[0, 0] == 0 < D[0, 1]
    vectors = DatasetEmbedder(path).fit_transform([corpus, corpus[:9]])
    assert pairwise_divergence(vectors, vectors, metric="kl")[0, 1] > 0


def test_images_and_text_are_not_mixed_up(corpus, labels):
    images = np.zeros((4, 16, 16), np.uint8)
    text = DatasetEmbedder("pcnn", weights=None, random_state=0).fit([corpus])
    with pytest.raises(ValueError, match="dataset 0 must hold bags.*got images"):
        text.transform([images])
    pixels = DatasetEmbedder("small_resnet", weights=None, image_size=16).fit([images])
    with pytest.raises(ValueError, match="dataset 0 must hold images.*got bags"):
        pixels.transform([corpus])
    with pytest.raises(ValueError, match="got a bag as dataset 0; pass"):
        text.transform(corpus)
    with pytest.raises(ValueError, match="augment must be None for text"):
        scratch(augment="shift", epochs=1).fit(corpus, labels)
    with pytest.raises(ValueError, match="must be a sequence of Bag"):
        NetworkClassifier("pcnn").fit(images, [0, 1, 0, 1])


def test_weights_of_another_architecture_are_refused(corpus, labels, tmp_path):
    path = tmp_path / "text.safetensors"
    tuner = scratch(epochs=1).fit(corpus, labels)
    tuner.to_source("s", checkpoint=path)
    with pytest.raises(ValueError, match="must fit the architecture, got keys"):
        DatasetEmbedder("small_resnet", weights=path).fit([corpus])
    by_name = DatasetEmbedder("pcnn", weights=path).fit([corpus])
    assert by_name.fingerprint_ == DatasetEmbedder(path).fit([corpus]).fingerprint_


def test_arrays_of_bags_have_a_vocabulary_too(corpus, labels):
    array = np.empty(len(corpus), object)
    array[:] = corpus
    expected = scratch(epochs=1).fit(corpus, labels).predict_proba(corpus[:9])
    tuner = scratch(epochs=1).fit(array, labels)
    assert_array_equal(tuner.predict_proba(array[:9]), expected)


def test_macro_average_on_request(corpus, labels, tmp_path):
    search = GridSearchCV(
        scratch(), {"epochs": [3]}, scoring="average_precision", cv=2, refit=True
    ).fit(corpus, labels)
    tuner = search.best_estimator_
    macro = average_precision_score(labels, tuner.predict_proba(corpus))
    assert search.score(corpus, labels) == pytest.approx(macro)
    halves = [
        clone(tuner)
        .fit([corpus[i] for i in train], labels[train])
        .predict_proba([corpus[i] for i in test])
        for train, test in KFold(2).split(corpus)
    ]
    expected = [
        average_precision_score(labels[part], p)
        for part, p in zip(np.split(np.arange(240), 2), halves)
    ]
    assert search.best_score_ == pytest.approx(np.mean(expected))


def test_tsv_files_are_datasets(tmp_path):
    lines = []
    for i in range(6):
        fields = [f"a{i}", f"b{i}", "", "", "[20,23)", "[31,38)", "", TEXT, f"d{i}"]
        lines.append("\t".join(fields))
    path = tmp_path / "target.tsv"
    path.write_text("\n".join(lines) + "\nbroken\n", encoding="utf-8")
    embedder = DatasetEmbedder("pcnn", weights=None, random_state=0, on_error="skip")
    with pytest.warns(SkippedSamplesWarning, match=r"Skipped 1 line\(s\)"):
        vector = embedder.fit_transform([path])
    assert_allclose(vector, embedder.transform([[bag()] * 6]), rtol=1e-5)
    with pytest.raises(ValueError, match="dataset 0: line 7 of"):
        embedder.set_params(on_error="raise").fit_transform([str(path)])


@pytest.mark.slow
def test_persistence(corpus, labels, tmp_path):
    tuner = scratch(epochs=2).fit(corpus, labels)
    joblib.dump(tuner, tmp_path / "tuner.joblib")
    joblib.dump((corpus[:5], tuner.predict_proba(corpus[:5])), tmp_path / "x.joblib")
    code = (
        "import joblib, sys, numpy as np\n"
        "tuner = joblib.load(sys.argv[1]); X, expected = joblib.load(sys.argv[2])\n"
        "np.testing.assert_allclose(tuner.predict_proba(X), expected, rtol=1e-6)\n"
    )
    files = [str(tmp_path / name) for name in ("tuner.joblib", "x.joblib")]
    subprocess.run([sys.executable, "-c", code, *files], check=True)


@pytest.mark.filterwarnings(
    "ignore:.*always giving the shares:sklearn.exceptions.ConvergenceWarning"
)
def test_from_bags_to_a_fine_tuned_pick(corpus, labels, tmp_path):
    """Sources, catalog, improvements, k, ranking and tuning, all as for images."""
    parts = {"kin": labels[:, 1:], "place": labels[:, :1]}
    sources, reference = [], tmp_path / "kin.safetensors"
    for name, y in parts.items():
        tuner = scratch().fit(corpus[:120], y[:120])
        sources.append((name, tuner))
        tuner.to_source(name, checkpoint=tmp_path / f"{name}.safetensors")
    embedder = DatasetEmbedder(reference, memory=str(tmp_path / "memory"))
    related = [
        [b for b, row in zip(corpus[:120], y) if row.any()] for y in parts.values()
    ]
    zoo = SourceCatalog.from_arrays(
        embedder.fit_transform(related),
        sizes=[100, 100],
        names=list(parts),
        checkpoints=[tmp_path / f"{name}.safetensors" for name in parts],
        architectures="pcnn",
    )
    zoo.save(tmp_path / "zoo", copy_checkpoints=True)
    zoo = SourceCatalog.load(tmp_path / "zoo")
    rest = corpus[120:]
    targets = {name: (rest, y[120:], text_groups(rest)) for name, y in parts.items()}
    measured = measure_improvement(
        targets,
        zoo,
        NetworkClassifier("pcnn", epochs=3),
        folder=tmp_path / "cells",
        test_size=0.5,
        verbose=0,
    )
    assert measured.improvements.shape == (2, 2)
    assert not measured.improvements.isna().any(axis=None)
    assert set(measured.records["n_train"] + measured.records["n_test"]) == {120}
    X = [[b for b, row in zip(rest, y[120:]) if row.any()] for y in parts.values()]
    p2l = make_pipeline(embedder, SourceSelector(zoo, k=-1.0)).fit(X)
    borrowed = p2l.predict(X)[:, 0]
    assert borrowed.tolist() == ["kin", "place"]  # nearest
    classifier = NetworkClassifier("pcnn", epochs=2, random_state=0)
    tuner = FineTuner(FrozenEstimator(p2l), zoo, classifier)
    tuner.fit(X[0], relation_labels(X[0], ["in", "mother"]).y)
    assert tuner.source_ == "kin"
    # a search whose folds share no text
    some, y, groups = corpus[:60], labels[:60], text_groups(corpus[:60])
    search = GridSearchCV(
        clone(tuner),
        {"estimator__epochs": [1]},
        cv=GroupKFold(2),
        error_score="raise",
    )
    search.fit(some, y, groups=groups)
    one = clone(tuner).set_params(estimator__epochs=1)
    scores = [
        one.fit([some[i] for i in train], y[train]).score(
            [some[i] for i in test], y[test]
        )
        for train, test in GroupKFold(2).split(some, y, groups)
    ]
    assert search.best_score_ == pytest.approx(np.mean(scores))
    moved = Source(
        "moved", size=5, embedding=zoo.embeddings[0], fingerprint=zoo.fingerprint
    )
    assert "moved" in zoo.append(moved)


@pytest.mark.slow
def test_real_relations_against_a_bag_of_words():
    """SemEval-2010 task 8: the network is far ahead of words without their order."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    path = real_file("data", "relations", "contexts.tsv.gz")
    bags = [b for b in read_bags(path) if b.contexts[0].url.startswith("semeval")]
    y = relation_labels(bags, directed=True).y
    y = y[:, y.sum(axis=0) > 50]
    test = np.array([":test:" in b.contexts[0].url for b in bags])
    train, test = np.flatnonzero(~test)[::5], np.flatnonzero(test)[::5]
    texts = [" ".join(tokenize(b.contexts[0].text)[0]) for b in bags]
    X = TfidfVectorizer(token_pattern=r"\S+").fit_transform(texts)
    words = OneVsRestClassifier(LogisticRegression(C=10)).fit(X[train], y[train])
    of_words = average_precision_score(
        y[test], words.decision_function(X[test]), average="micro"
    )
    tuner = NetworkClassifier("pcnn", epochs=8, batch_size=32, random_state=0)
    tuner.fit([bags[i] for i in train], y[train])
    score = tuner.score([bags[i] for i in test], y[test])
    assert score > of_words + 0.05
