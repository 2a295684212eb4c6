"""Scores of features: against evidences, refits, scikit-learn; noise and corners."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import null_space, svd
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from sklearn_p2l import transferability
from sklearn_p2l._ridge import left_singular
from sklearn_p2l.transferability import (
    h_score,
    knn_score,
    leep_score,
    logme_score,
    probe_score,
    score_features,
)

OF_FEATURES = [logme_score, probe_score, knn_score, h_score]


def labelled(n, d, n_classes=3, signal=1.0, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % n_classes)
    means = rng.normal(size=(n_classes, d)) / np.sqrt(d)
    return rng.normal(size=(n, d)) + 2 * signal * means[y], y


@pytest.mark.parametrize("n, d", [(30, 80), (80, 30), (40, 40)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_decomposition_is_that_of_singular_values(n, d, scale):
    rng = np.random.default_rng(0)
    X = scale * rng.normal(size=(n, 12)) @ np.diag(np.logspace(0, -5, 12))
    X = X @ np.linalg.qr(rng.normal(size=(d, 12)))[0].T  # of rank 12
    U, S = left_singular(X)
    expected_U, expected_S, _ = svd(X, full_matrices=False)
    assert U.shape == (n, 12)
    assert_allclose(S[::-1], expected_S[:12], rtol=1e-5)
    assert_allclose(U.T @ U, np.eye(12), atol=1e-6)
    # Vectors but for their signs.
    overlap = np.abs(np.sum(U[:, ::-1] * expected_U[:, :12], axis=0))
    assert_allclose(overlap, 1, atol=1e-6)
    assert left_singular(np.zeros((n, d)))[0].shape == (n, 0)


def evidence_by_search(F, y):
    """Log evidence per sample of each class's indicator, by a grid and Nelder-Mead."""
    values = []
    basis = null_space(np.ones((1, len(F))))  # what centring leaves: n - 1 directions
    F = basis.T @ F
    for label in np.unique(y):
        t = basis.T @ (y == label).astype(float)

        def minus(logs, t=t):
            alpha, beta = np.exp(logs)
            covariance = F @ F.T / alpha + np.eye(len(F)) / beta
            return -multivariate_normal.logpdf(t, cov=covariance)

        grid = [(a, b) for a in np.arange(-4, 12, 2) for b in np.arange(-2, 8, 2)]
        start = min(grid, key=minus)
        best = minimize(minus, start, method="Nelder-Mead", options={"xatol": 1e-6})
        values.append(-best.fun / len(F))
    return np.mean(values)


@pytest.mark.parametrize("n, d", [(40, 8), (24, 60), (30, 30)])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_logme_is_the_largest_evidence(n, d, scale):
    F, y = labelled(n, d)
    expected = evidence_by_search(F, y)
    assert logme_score(scale * F, y) == pytest.approx(expected, abs=1e-5)


def test_logme_of_noise_stays_below_that_of_signal():
    """As published, 200 samples of 2,048 features of noise have 31.8."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 10
    noise = rng.normal(size=(200, 2048))
    shares = 0.1 * np.ones(10)
    nothing = -0.5 * np.log(2 * np.pi * np.e * shares * (1 - shares) * 200 / 199).mean()
    assert logme_score(noise, y) == pytest.approx(nothing, abs=0.02)
    F, y = labelled(200, 20, 10, signal=3)
    assert logme_score(F, y) > logme_score(rng.normal(size=(200, 2048)), y) + 0.3


def test_probe_is_explicit_refits():
    def r2(truth, predicted):
        """Against the mean of all others, as each sample is predicted by them."""
        mean = cross_val_predict(DummyRegressor(), truth, truth, cv=LeaveOneOut())
        return 1 - np.sum((truth - predicted) ** 2) / np.sum((truth - mean) ** 2)

    F, y = labelled(42, 15, signal=1.5)
    indicator = np.eye(3)[y]
    unit = np.mean(np.linalg.svd(F - F.mean(axis=0), compute_uv=False) ** 2)
    errors, accuracies, shares = [], [], []
    for penalty in np.logspace(-4, 4, 25) * unit:
        outputs = cross_val_predict(
            Ridge(alpha=penalty), F, indicator, cv=LeaveOneOut()
        )
        errors.append(((indicator - outputs) ** 2).sum())
        accuracies.append(np.mean(outputs.argmax(axis=1) == y))
        shares.append(np.mean([r2(indicator[:, j], outputs[:, j]) for j in range(3)]))
    best = np.argmin(errors)
    assert probe_score(F, y) == pytest.approx(shares[best])
    got = probe_score(F, y, measure="accuracy")
    assert got == pytest.approx(accuracies[best])
    assert 0.5 < probe_score(F, y) < 1


@pytest.mark.parametrize("k", [1, 4])
def test_knn_is_that_of_scikit_learn(k):
    F, y = labelled(50, 10, signal=1.5)
    knn = KNeighborsClassifier(k, metric="cosine")
    votes = cross_val_predict(knn, F, y, cv=LeaveOneOut(), method="predict_proba")
    expected = votes[np.arange(50), y].mean()
    assert knn_score(F, y, n_neighbors=k) == pytest.approx(expected)
    assert knn_score(F, y, n_neighbors=1000) == knn_score(F, y, n_neighbors=49)


def test_h_score_is_its_formula():
    F, y = labelled(60, 12, signal=1.5)
    covariance, shrinkage = ledoit_wolf(F)
    means = np.array([F[y == c].mean(axis=0) for c in y])
    between = np.cov(means.T, bias=True)
    expected = np.trace(np.linalg.solve(covariance, (1 - shrinkage) * between))
    assert h_score(F, y) == pytest.approx(expected)


def test_h_score_of_noise_is_small():
    """Without shrinkage it is at its maximum, 9, in the first two; 4.5 in the last."""
    rng, y = np.random.default_rng(0), np.arange(1000) % 10
    for n, d, most in [(200, 2048, 1.0), (200, 400, 0.3), (1000, 512, 0.05)]:
        assert h_score(rng.normal(size=(n, d)), y[:n]) < most


def test_leep_is_its_formula():
    rng = np.random.default_rng(0)
    theta, y = rng.dirichlet(np.ones(6), size=30), np.arange(30) % 3
    total = 0.0
    for probabilities, label in zip(theta, y):
        conditional = [theta[y == label, z].sum() / theta[:, z].sum() for z in range(6)]
        total += np.log(probabilities @ conditional)
    assert leep_score(theta, y) == pytest.approx(total / 30)
    # A class of the source without mass, and one that has all.
    empty = np.column_stack([theta, np.zeros(30)])
    assert leep_score(empty, y) == pytest.approx(total / 30)
    assert leep_score(np.eye(3)[[0] * 30], y) == pytest.approx(np.log(1 / 3))
    with pytest.raises(ValueError, match="sum to 1 in every row; pass the softmax"):
        leep_score(theta * 2, y)


@pytest.mark.parametrize("n, d", [(40, 200), (200, 2048), (300, 20)])
def test_a_probe_explains_nothing_of_noise(n, d):
    F = np.random.default_rng(0).normal(size=(n, d))
    assert -0.05 < probe_score(F, np.arange(n) % 4) < 0.05
    assert probe_score(F, np.arange(n) % 4, measure="accuracy") < 0.25 + 0.15


def test_several_scores_share_one_decomposition(monkeypatch):
    F, y = labelled(40, 10)
    expected = [logme_score(F, y), probe_score(F, y), knn_score(F, y), h_score(F, y)]
    calls = []

    def counted(*args, **kwargs):
        calls.append(args)
        return left_singular(*args, **kwargs)

    monkeypatch.setattr(transferability, "left_singular", counted)
    values = score_features(F, y, ["logme", "probe", "knn", "h_score"])
    assert list(values.values()) == expected and len(calls) == 1
    assert list(score_features(F, y, ["knn"])) == ["knn"] and len(calls) == 1
    with pytest.raises(ValueError, match=r"some of \['logme', .* got \['leep'\]"):
        score_features(F, y, ["leep"])


@pytest.mark.parametrize("score", OF_FEATURES)
def test_signal_counts_and_order_does_not(score):
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(60) % 3)
    noise = rng.normal(size=(60, 80))
    scores = [score(noise + s * np.eye(3, 80)[y], y) for s in (0, 2, 6)]
    assert scores[0] < scores[1] < scores[2]
    F = noise + 2 * np.eye(3, 80)[y]
    order, columns = rng.permutation(60), rng.permutation(80)
    names = np.array(["c", "a", "b"])
    assert_allclose(score(F[order][:, columns], names[y[order]]), score(F, y))
    assert_allclose(score(1e-3 * F, y), score(F, y), rtol=1e-6)
    assert_allclose(score(F.astype(np.float32), y), score(F, y), rtol=1e-4)


@pytest.mark.parametrize("score", [logme_score, probe_score, h_score])
def test_a_shift_of_features_changes_nothing(score):
    F, y = labelled(40, 10)
    assert_allclose(score(F + 100, y), score(F, y), rtol=1e-6)


def test_multilabel():
    F, y = labelled(60, 10)
    Y = np.eye(3, dtype=int)[y]
    assert logme_score(F, Y) == pytest.approx(logme_score(F, y))
    constant = np.column_stack([Y, np.zeros(60, int), np.ones(60, int)])
    assert logme_score(F, constant) == pytest.approx(logme_score(F, y))
    assert probe_score(F, Y) == pytest.approx(probe_score(F, y))

    def precision(F, Y):
        return probe_score(F, Y, measure="accuracy")

    for score in (precision, knn_score):
        assert score(F, constant) == pytest.approx(score(F, Y))
        assert score(F, Y) > Y.mean() + 0.1
    assert probe_score(F, constant) == pytest.approx(probe_score(F, Y))
    nearest = KNeighborsClassifier(5, metric="cosine")
    votes = cross_val_predict(nearest, F, y, cv=LeaveOneOut(), method="predict_proba")
    assert knn_score(F, Y) == pytest.approx(average_precision_score(Y, votes))
    for score in (h_score, leep_score):
        with pytest.raises(ValueError, match="one class per sample.*use logme_score"):
            score(Y / Y.sum(axis=1, keepdims=True), Y)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("score", OF_FEATURES)
def test_degenerate_features_have_a_value(score):
    rng = np.random.default_rng(0)
    y = np.arange(12) % 2
    for F in (
        rng.normal(size=(12, 1)),
        np.ones((12, 3)),
        np.zeros((12, 3)),
        np.column_stack([np.ones(12), rng.normal(size=12)]),
        np.repeat(rng.normal(size=(6, 4)), 2, axis=0),
        np.eye(2)[y],
        np.eye(2)[y] * 1e200,
        rng.normal(size=(12, 4)) * 1e-200,
    ):
        value = score(F, y)
        assert isinstance(value, float) and np.isfinite(value)
    two = score(np.array([[0.0, 1.0], [1.0, 0.0]]), ["a", "b"])
    assert isinstance(two, float) and np.isfinite(two)


@pytest.mark.parametrize("score", [*OF_FEATURES, leep_score])
def test_bad_input_is_refused(score):
    F = np.full((4, 2), 0.5)
    with pytest.raises(ValueError, match="at least two classes"):
        score(F, [1, 1, 1, 1])
    with pytest.raises(ValueError, match="NaN"):
        score(np.where(np.eye(4, 2), np.nan, F), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="inconsistent"):
        score(F, [0, 1, 0])
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        score(F[:1], [0])
    with pytest.raises(ValueError, match="indicator of 0 and 1"):
        score(F, [[0, 2], [1, 0], [1, 1], [0, 3]])
    with pytest.raises(ValueError, match="some samples have and others not"):
        score(F, np.ones((4, 2), int))
