"""The linear probe, against refits without each sample and against scikit-learn."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.special import expit, softmax
from sklearn.linear_model import Ridge
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from sklearn_p2l import _ridge
from sklearn_p2l._probe import fit_probe


def make(rng, n, d, n_classes=3):
    y = np.arange(n) % n_classes
    X = rng.normal(size=(n, d)) + 2 * np.eye(n_classes, d)[y]
    return X * rng.uniform(0.1, 50, d) + 7, np.eye(n_classes)[y]


def by_refits(X, Y, penalty, weight):
    """Outputs for each sample of a ridge regression without it.

    The features are standardised once, with all samples, as they are by the probe.
    """
    Z = StandardScaler().fit(X, sample_weight=weight).transform(X)
    outputs = np.empty_like(Y)
    for i in range(len(X)):
        rest = np.arange(len(X)) != i
        ridge = Ridge(alpha=penalty * weight.sum(), solver="svd")
        ridge.fit(Z[rest], Y[rest], sample_weight=weight[rest])
        outputs[i] = ridge.predict(Z[i : i + 1])
    return outputs


@pytest.mark.parametrize("n, d", [(40, 5), (24, 60)])
@pytest.mark.parametrize("weighted", [False, True])
def test_left_out_outputs_are_those_of_refits(n, d, weighted, rng, monkeypatch):
    X, Y = make(rng, n, d)
    weight = rng.uniform(0.5, 2, n) if weighted else np.ones(n)
    monkeypatch.setattr(_ridge, "_PENALTIES", np.array([0.3]))
    probe = fit_probe(X, Y, sample_weight=weight)
    Z = StandardScaler().fit(X, sample_weight=weight).transform(X)
    root = np.sqrt(weight / weight.sum())[:, None]
    penalty = 0.3 * np.mean(np.linalg.svd(root * Z, compute_uv=False) ** 2)
    shares = weight @ Y / weight.sum()
    expected = by_refits(X, Y, penalty, weight) - shares
    # logits are the log shares plus a multiple of the outputs' deviations from them
    got = probe.left_out - np.log((shares * n + 0.5) / (n + 1.5))
    factor = (got * expected).sum() / (expected**2).sum()
    assert_allclose(got, factor * expected, rtol=1e-6, atol=1e-8)
    ridge = Ridge(alpha=penalty * weight.sum(), solver="svd").fit(
        Z, Y, sample_weight=weight
    )
    fitted = X @ probe.coef.T + probe.intercept
    assert_allclose(fitted, probe.fitted)
    deviations = ridge.predict(Z) - shares
    log_shares = np.log((shares * n + 0.5) / (n + 1.5))
    assert_allclose(fitted, log_shares + factor * deviations, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("exclusive", [True, False])
def test_penalty_and_factor_are_the_best_on_left_out_samples(exclusive, rng):
    X, Y = make(rng, 30, 50)
    probe = fit_probe(X, Y, exclusive=exclusive)
    shares = (Y.mean(axis=0) * 30 + 0.5) / (30 + (1.5 if exclusive else 1))
    prior = np.log(shares) - (0 if exclusive else np.log1p(-shares))

    def loss(factor):
        logits = prior + factor * (probe.left_out - prior)
        if exclusive:
            return log_loss(Y.argmax(axis=1), softmax(logits, axis=1))
        p = expit(logits)
        return -np.where(Y == 1, np.log(p), np.log1p(-p)).sum(axis=1).mean()

    best = minimize_scalar(loss, bounds=(0.1, 10), method="bounded")
    assert best.x == pytest.approx(1, abs=0.05)
    assert loss(1) < loss(0) - 0.1  # there is something to learn


def test_the_penalty_with_the_smallest_squared_error_wins(rng, monkeypatch):
    X, Y = make(rng, 24, 40)
    X += 300 * rng.normal(size=X.shape)  # hardly anything to learn
    Z = StandardScaler().fit_transform(X)
    energy = np.mean(np.linalg.svd(Z / np.sqrt(24), compute_uv=False) ** 2)
    tried = np.array([1e-3, 1e3, 1e-1])
    errors = [
        ((by_refits(X, Y, p * energy, np.ones(24)) - Y) ** 2).sum() for p in tried
    ]
    assert np.argmin(errors) == 1
    monkeypatch.setattr(_ridge, "_PENALTIES", tried)
    chosen = fit_probe(X, Y)
    monkeypatch.setattr(_ridge, "_PENALTIES", tried[1:2])
    assert_allclose(chosen.coef, fit_probe(X, Y).coef)


def test_no_accident_of_the_features_matters(rng):
    X, Y = make(rng, 40, 12)
    new = rng.normal(size=(7, 12)) * 20
    expected = fit_probe(X, Y)
    Q, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    for scale, shift in [(1e-3, 0.0), (1e3, 0.0), (1.0, 100.0)]:
        probe = fit_probe(X * scale + shift, Y)
        got = (new * scale + shift) @ probe.coef.T + probe.intercept
        assert_allclose(got, new @ expected.coef.T + expected.intercept, rtol=1e-6)
        assert_allclose(probe.left_out, expected.left_out, rtol=1e-6)
    with_constant = fit_probe(np.c_[X, np.full(40, 5.0)], Y)
    assert_allclose(with_constant.coef[:, :-1], expected.coef, rtol=0.2)
    assert_allclose(with_constant.coef[:, -1], 0)


def test_samples_of_weight_zero_are_not_there(rng):
    X, Y = make(rng, 40, 6)
    weight = np.r_[np.ones(30), np.zeros(10)]
    probe, without = fit_probe(X, Y, sample_weight=weight), fit_probe(X[:30], Y[:30])
    assert_allclose(probe.coef, without.coef, rtol=0.05)
    twice = fit_probe(np.r_[X, X], np.r_[Y, Y], sample_weight=np.ones(80))
    heavier = fit_probe(X, Y, sample_weight=np.full(40, 2.0))
    assert np.isfinite(twice.coef).all()
    assert_allclose(heavier.coef, fit_probe(X, Y).coef)  # only ratios count


def test_noise_gives_the_shares(rng):
    """And not confident nonsense, though d is larger than n."""
    X = rng.normal(size=(60, 500))
    y = rng.permutation(np.repeat([0, 1, 2], [40, 15, 5]))
    probe = fit_probe(X, np.eye(3)[y])
    p = softmax(probe.left_out, axis=1)
    constant = log_loss(y, np.tile(np.bincount(y) / 60, (60, 1)))
    assert log_loss(y, p) < constant + 0.1


@pytest.mark.parametrize(
    "X, Y",
    [
        (np.zeros((4, 3)), np.eye(2)[[0, 1, 0, 1]]),
        (np.ones((2, 1)), np.eye(2)),
        (np.array([[0.0], [1.0]]), np.eye(2)),
        (np.array([[0.0], [1.0], [2.0]]), np.eye(3)),  # classes of one sample
    ],
    ids=["no features vary", "two equal samples", "two samples", "single samples"],
)
def test_degenerate_input_gives_finite_logits(X, Y):
    probe = fit_probe(X, Y)
    for values in (probe.coef, probe.intercept, probe.left_out):
        assert np.isfinite(values).all()
