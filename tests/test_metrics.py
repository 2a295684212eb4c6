import itertools
import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.stats import spearmanr, weightedtau
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_p2l import SourceCatalog, metrics
from sklearn_p2l.metrics import (
    picks_to_best_loss,
    regret_loss,
    spearman_score,
    top_accuracy_score,
    weighted_tau_score,
)
from sklearn_p2l.selection import NearestSource

ALL = [
    spearman_score,
    top_accuracy_score,
    picks_to_best_loss,
    regret_loss,
    weighted_tau_score,
]


@pytest.fixture
def matrices(rng):
    """Measured and predicted values with ties and unmeasured cells."""
    y_true = rng.integers(1, 8, size=(20, 9)) / 10
    y_score = rng.integers(0, 6, size=(20, 9)).astype(float)
    y_true[rng.random(y_true.shape) < 0.2] = np.nan
    return y_true, y_score


@pytest.mark.parametrize(
    "metric, oracle", [(spearman_score, spearmanr), (weighted_tau_score, weightedtau)]
)
def test_correlations_match_scipy(metric, oracle, matrices):
    y_true, y_score = matrices
    expected = []
    for truth, score in zip(y_true, y_score):
        known = ~np.isnan(truth)
        expected.append(oracle(truth[known], score[known]).statistic)
    assert_allclose(metric(y_true, y_score, average=None), expected, atol=1e-12)
    assert_allclose(metric(y_true, y_score), np.mean(expected), atol=1e-12)


def test_top_spearman(rng):
    y_true = np.array([[5.0, 4.0, 4.0, 2.0, 1.0, np.nan]])
    y_score = rng.random((1, 6))
    # The three best and what ties with the last of them.
    expected = spearmanr(y_true[0, :3], y_score[0, :3]).statistic
    assert_allclose(spearman_score(y_true, y_score, top=2), expected)
    assert_allclose(spearman_score(y_true, y_score, top=3), expected)
    full = spearman_score(y_true, y_score)
    assert_allclose(spearman_score(y_true, y_score, top=5), full)


def test_picks_and_top_accuracy_and_regret_agree(rng):
    y_true, y_score = rng.random((50, 7)), rng.random((50, 7))
    picks = picks_to_best_loss(y_true, y_score, average=None)
    # by sorting each target's scores
    for truth, score, n in zip(y_true, y_score, picks):
        order = np.argsort(-score)
        assert order[int(n) - 1] == truth.argmax()
    for top in range(1, 8):
        assert top_accuracy_score(y_true, y_score, top=top) == np.mean(picks <= top)
        lost = regret_loss(y_true, y_score, top=top, average=None)
        assert_allclose(lost == 0, picks <= top)
    best = y_true.max(axis=1)
    picked = np.take_along_axis(y_true, y_score.argmax(axis=1)[:, None], 1)[:, 0]
    assert_allclose(regret_loss(y_true, y_score, average=None), (best - picked) / best)


def test_regret_of_improvements_with_baseline():
    improvements, E = [[0.3, 0.1], [-0.1, -0.2]], [[0.0, 1.0], [0.0, 1.0]]
    lost = regret_loss(improvements, E, baseline=[0.5, 0.6], average=None)
    assert_allclose(lost, [0.2 / 0.8, 0.1 / 0.5])
    assert regret_loss([[0.0, -1.0]], [[0.0, 1.0]]) == np.inf
    assert regret_loss([[0.0, -1.0]], [[1.0, 0.0]]) == 0
    for baseline in ([1, 2, 3], [1, np.nan]):
        with pytest.raises(ValueError, match="baseline"):
            regret_loss(improvements, E, baseline=baseline)


def test_ties_never_reward_the_ranking():
    y_true, tied = [[0.1, 0.3, 0.2]], [[1.0, 1.0, 0.0]]
    assert picks_to_best_loss(y_true, tied) == 1.5
    assert top_accuracy_score(y_true, tied) == 0
    assert_allclose(regret_loss(y_true, tied), 0.2 / 0.3)
    assert top_accuracy_score(y_true, tied, top=2) == 1
    # Several best sources: any will do.
    assert picks_to_best_loss([[0.3, 0.3, 0.1]], [[1.0, 2.0, 3.0]]) == 2


@pytest.mark.parametrize(
    "metric", [spearman_score, top_accuracy_score, weighted_tau_score]
)
def test_constant_prediction_scores_zero(metric):
    with pytest.warns(UndefinedMetricWarning, match="set to 0"):
        assert metric([[0.1, 0.2, 0.3]], [[1.0, 1.0, 1.0]]) == 0


def test_constant_prediction_needs_half_of_all_picks():
    assert picks_to_best_loss([[0.1, 0.2, 0.3]], [[1.0, 1.0, 1.0]]) == 2


@pytest.mark.parametrize("metric", ALL)
def test_invariances(metric, matrices, rng):
    y_true, y_score = matrices
    value = metric(y_true, y_score)
    columns, rows = rng.permutation(9), rng.permutation(20)
    assert_allclose(metric(y_true[:, columns], y_score[:, columns]), value)
    assert_allclose(metric(y_true[rows], y_score[rows]), value)
    assert_allclose(metric(y_true, 3 * y_score - 7), value)
    # A cell that was not measured does not count, whatever was predicted.
    changed = np.where(np.isnan(y_true), 99, y_score)
    assert_allclose(metric(y_true, changed), value)
    weight = rng.integers(0, 3, 20)
    repeated = np.repeat(np.arange(20), weight)
    assert_allclose(
        metric(y_true, y_score, sample_weight=weight),
        metric(y_true[repeated], y_score[repeated]),
    )


@pytest.mark.parametrize("metric", ALL)
def test_targets_with_fewer_than_two_measurements_are_left_out(metric):
    y_true = np.array([[0.3, 0.1, 0.2], [np.nan, np.nan, 0.2], [np.nan] * 3])
    y_score = np.array([[1.0, 3.0, 2.0]] * 3)
    assert metric(y_true, y_score) == metric(y_true[:1], y_score[:1])
    each = metric(y_true, y_score, average=None)
    assert np.isnan(each).tolist() == [False, True, True]
    with pytest.warns(UndefinedMetricWarning, match="No target"):
        assert np.isnan(metric(y_true[1:], y_score[1:]))


@pytest.mark.parametrize("metric", ALL)
def test_bad_input(metric):
    with pytest.raises(ValueError, match="same shape"):
        metric([[1, 2, 3]], [[1, 2]])
    with pytest.raises(ValueError, match="y_score must not hold NaN"):
        metric([[1, 2]], [[1, np.nan]])
    with pytest.raises(ValueError, match="infinity"):
        metric([[1, np.inf]], [[1, 2]])
    with pytest.raises(ValueError, match="2D array"):
        metric([1, 2], [1, 2])
    with pytest.raises(ValueError, match="sample_weight must not be negative"):
        metric([[1, 2]], [[1, 2]], sample_weight=[-1])
    with pytest.raises(ValueError, match="average"):
        metric([[1, 2]], [[1, 2]], average="median")


@pytest.mark.parametrize("top", [0, 1.5, True])
def test_bad_top(top):
    with pytest.raises(ValueError, match="top must be an int"):
        regret_loss([[1, 2]], [[1, 2]], top=top)


@pytest.mark.parametrize("metric", ALL)
def test_frames_are_matched_by_name(metric):
    y_true = pd.DataFrame({"a": [0.3, 0.2], "b": [0.1, 0.3], "c": [0.2, 0.1]})
    E = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
    shuffled = y_true[["c", "a", "b"]]
    expected = metric(y_true.to_numpy(), E)
    assert metric(shuffled, pd.DataFrame(E, columns=["a", "b", "c"])) == expected
    with pytest.raises(ValueError, match="unknown"):
        metric(
            y_true.rename(columns={"a": "z"}), pd.DataFrame(E, columns=["a", "b", "c"])
        )


@pytest.mark.parametrize("metric", ALL)
def test_scorers_match_a_frame_to_the_columns_of_a_ranker(metric):
    y = pd.DataFrame({"a": [0.1, 0.3], "b": [0.2, 0.1], "c": [0.3, 0.2]})
    ranker = NearestSource(
        SourceCatalog.from_arrays(np.eye(3), sizes=[1, 2, 3], names=["a", "b", "c"])
    )
    X = [[1.0, 3.0, 5.0], [4.0, 1.0, 2.0]]
    stem = metric.__name__.removesuffix("_score").removesuffix("_loss")
    scorer = getattr(metrics, f"{stem}_scorer")
    for estimator in (ranker.fit(X), make_pipeline(FunctionTransformer(), ranker)):
        estimator.fit(X)
        expected = scorer(estimator, X, y.to_numpy())
        assert scorer(estimator, X, y[["c", "a", "b"]]) == expected
        assert scorer(estimator, X, y[["c", "a", "b"]].to_numpy()) != expected


@pytest.mark.parametrize("metric", ALL)
def test_scorers(metric, matrices):
    y_true, y_score = matrices

    class Ranker:
        def decision_function(self, X):
            return y_score[X]

    stem = metric.__name__.removesuffix("_score").removesuffix("_loss")
    scorer = pickle.loads(pickle.dumps(getattr(metrics, f"{stem}_scorer")))
    sign = -1 if metric.__name__.endswith("_loss") else 1
    X, weight = np.arange(7), np.arange(7)
    assert scorer(Ranker(), X, y_true[:7]) == sign * metric(y_true[:7], y_score[:7])
    weighted = metric(y_true[:7], y_score[:7], sample_weight=weight)
    assert scorer(Ranker(), X, y_true[:7], sample_weight=weight) == sign * weighted


def test_picks_to_best_is_the_expected_number(rng):
    """Against all orders in which equal scores can be taken."""
    for _ in range(50):
        truth = rng.integers(0, 3, size=5).astype(float)
        score = rng.integers(0, 3, size=5).astype(float)
        needed = []
        for order in itertools.permutations(range(5)):
            order = sorted(order, key=lambda j: -score[j])
            needed.append(1 + np.argmax(truth[order] == truth.max()))
        assert picks_to_best_loss([truth], [score]) == pytest.approx(np.mean(needed))
