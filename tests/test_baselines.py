"""The baselines rank as the paper says, wherever a selector does."""

import joblib
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from sklearn_p2l import (
    DatasetEmbedder,
    FineTuner,
    NetworkClassifier,
    SourceCatalog,
    SourceSelector,
)
from sklearn_p2l.divergence import pairwise_divergence
from sklearn_p2l.metrics import spearman_scorer, top_accuracy_scorer
from sklearn_p2l.selection import (
    ConstantRanking,
    FixedSource,
    LargestSource,
    NearestSource,
    NoTransfer,
    RandomSource,
)

ZOO = SourceCatalog.from_arrays(
    [[8, 1, 1], [1, 8, 1], [1, 1, 8]], sizes=[20, 300, 100], names=["a", "b", "c"]
)
X = np.array([[7.0, 1, 2], [1, 7, 2], [1, 2, 7], [3, 3, 4]])
Y = np.array([[0.3, 0.1, 0.0], [0.1, 0.2, 0.1], [np.nan, 0.1, 0.3], [0.5, 0.2, 0.3]])
ALL = [
    LargestSource(ZOO),
    FixedSource(ZOO, source="c"),
    RandomSource(ZOO, random_state=0),
    NearestSource(ZOO),
    ConstantRanking(ZOO),
    NoTransfer(ZOO),
]


def test_rankings():
    picks = {type(r).__name__: r.fit(X, Y).predict(X)[:, 0].tolist() for r in ALL}
    assert picks["LargestSource"] == ["b"] * 4
    assert picks["FixedSource"] == ["c"] * 4
    assert picks["NearestSource"] == ["a", "b", "c", "c"]
    assert picks["NoTransfer"] == [None] * 4
    order = LargestSource(ZOO).fit(X).predict(X)
    assert_array_equal(order, [["b", "c", "a"]] * 4)


def test_nearest_is_minus_the_divergence():
    for metric in ("kl", "js", "cityblock"):
        E = NearestSource(ZOO, metric=metric).fit(X).decision_function(X)
        D = pairwise_divergence(X, ZOO.embeddings, metric=metric)
        assert_array_equal(np.asarray(E), -D)
    twin = NearestSource(ZOO, exclude_self=True).fit(X)
    E = np.asarray(twin.decision_function([[8.0, 1, 1]]))
    assert np.isneginf(E[0, 0]) and np.isfinite(E[0, 1:]).all()
    assert twin.predict([[8.0, 1, 1]])[0, -1] == "a"


def test_constant_ranking_takes_off_each_targets_level():
    ranker = ConstantRanking(ZOO).fit(X, Y)
    centred = Y - np.nanmean(Y, axis=1, keepdims=True)
    np.testing.assert_allclose(ranker.mean_improvement_, np.nanmean(centred, axis=0))
    # b is measured on the hard target only, yet it is the best one there.
    y = [[0.9, np.nan, 0.8], [0.1, 0.2, np.nan]]
    assert ConstantRanking(ZOO).fit(X[:2], y).predict(X)[0, 0] == "b"
    y = [[0.9, np.nan, 0.8], [0.1, np.nan, 0.2]]
    never = ConstantRanking(ZOO).fit(X[:2], y)
    assert np.isnan(never.mean_improvement_[1])
    assert never.predict(X)[0, -1] == "b"
    assert np.isfinite(never.decision_function(X)).all()  # last, but a candidate
    with pytest.raises(ValueError, match="requires y to be passed"):
        ConstantRanking(ZOO).fit(X, None)


def test_random_order_is_drawn_once_and_by_its_seed():
    first = RandomSource(ZOO, random_state=0).fit(X).predict(X)
    assert_array_equal(first, RandomSource(ZOO, random_state=0).fit(X).predict(X))
    assert all(set(row) == set(ZOO.names) for row in first)
    orders = {
        tuple(RandomSource(ZOO, random_state=s).fit(X).predict(X)[0]) for s in range(40)
    }
    assert len(orders) == 6


def test_fixed_source_must_exist():
    with pytest.raises(ValueError, match="source must be one of .*'a', 'b', 'c'"):
        FixedSource(ZOO, source="z").fit(X)
    assert FixedSource(X, source=2).fit(X).predict(X)[0, 0] == 2


@pytest.mark.parametrize("ranker", ALL, ids=lambda r: type(r).__name__)
def test_contract_of_a_selector(ranker, tmp_path):
    fitted = clone(ranker).fit(X, Y)
    E = fitted.decision_function(X)
    assert E.shape == (4, 3) and type(E) is np.ndarray
    assert fitted.source_labels_.tolist() == ["a", "b", "c"]
    assert_array_equal(sum(fitted.decision_terms(X).values()), E)
    joblib.dump(fitted, tmp_path / "ranker.joblib")
    loaded = joblib.load(tmp_path / "ranker.joblib")
    assert_array_equal(loaded.predict(X), fitted.predict(X))
    if len(np.unique(E[0])) > 1:
        assert fitted.score(X, Y) == spearman_scorer(fitted, X, Y)
        picks = np.where(np.isnan(Y), -np.inf, E).argmax(axis=1)
        hits = np.nanargmax(Y, axis=1) == picks
        assert top_accuracy_scorer(fitted, X, Y) == hits.mean()
    ranking = fitted.predict(X)
    for n_top in (1, 2, 3):
        assert_array_equal(fitted.predict_top(X, n_top), ranking[:, :n_top])


@pytest.mark.parametrize(
    "ranker, source",
    [
        (LargestSource, "light"),
        (NoTransfer, None),
        (lambda zoo: FixedSource(zoo, source="dark"), "dark"),
    ],
)
def test_as_selector_of_a_fine_tuner(ranker, source, dark_and_light, tmp_path):
    X, y = dark_and_light
    classifier = NetworkClassifier(image_size=8, epochs=1, random_state=0)
    embedder = DatasetEmbedder(
        "small_resnet", weights=None, image_size=8, random_state=0
    )
    vectors = embedder.fit_transform([X[:20], X[20:]])
    scratch = clone(classifier).fit(X, y)
    zoo = SourceCatalog(
        scratch.to_source(
            name,
            embedding=vector,
            size=size,
            checkpoint=tmp_path / f"{name}.safetensors",
        )
        for name, vector, size in zip(["dark", "light"], vectors, [10, 20])
    )
    selector = make_pipeline(embedder, ranker(zoo)).fit([X])
    tuner = FineTuner(FrozenEstimator(selector), zoo, classifier).fit(X, y)
    assert tuner.source_ == source
    assert set(tuner.ranking_) - {None} == {"dark", "light"}


def test_only_those_that_look_at_x_refuse_nan():
    hole = X.copy()
    hole[0, 0] = np.nan
    assert LargestSource(ZOO).fit(X).predict(hole)[0, 0] == "b"
    for ranker in (NearestSource(ZOO), SourceSelector(ZOO, k=-1.0)):
        with pytest.raises(ValueError, match="NaN"):
            ranker.fit(X).predict(hole)
