import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.spatial.distance import cdist, jensenshannon
from scipy.special import rel_entr

from sklearn_p2l import divergence
from sklearn_p2l.divergence import METRICS, NON_NEGATIVE, pairwise_divergence


def oracle(metric, t, s):
    """One pair of distributions, by scipy or by the definition."""
    if metric == "kl":
        return rel_entr(t, s).sum()
    if metric == "js":
        return jensenshannon(t, s)
    if metric == "chi2":
        total = t + s
        return sum((a - b) ** 2 / c for a, b, c in zip(t, s, total) if c > 0)
    if metric == "hellinger":
        return np.sqrt(max(0.0, 1 - np.sqrt(t * s).sum()))
    return cdist(t[None], s[None], metric)[0, 0]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("width", [2, 50, 4096])
def test_matches_scipy(metric, width, rng):
    T, S = rng.random((5, width)) + 1e-3, rng.random((7, width)) + 1e-3
    expected = [[oracle(metric, t / t.sum(), s / s.sum()) for s in S] for t in T]
    atol = 1e-8 if metric == "hellinger" else 1e-10  # the oracle's own cancellation
    assert_allclose(
        pairwise_divergence(T, S, metric=metric), expected, atol=atol, rtol=0
    )


def test_hellinger_matches_euclidean_distance_of_roots(rng):
    T, S = rng.dirichlet(np.ones(30), 5), rng.dirichlet(np.ones(30), 7)
    expected = cdist(np.sqrt(T), np.sqrt(S)) / np.sqrt(2)
    D = pairwise_divergence(T, S, metric="hellinger")
    assert_allclose(D, expected, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_properties(metric, rng):
    X = rng.dirichlet(np.full(40, 0.3), size=12)
    X[:, :3] = 0  # features that no dataset shows
    X[0, 10:] = 0  # and some that one lacks
    D = pairwise_divergence(X, metric=metric)
    assert (D >= 0).all()
    assert np.isfinite(D).all()
    assert_allclose(np.diag(D), 0, atol=1e-10)
    if metric != "kl":
        assert_allclose(D, D.T, atol=1e-12)
    else:
        assert np.abs(D - D.T).max() > 0.1
    # the scale of a summary does not matter
    scaled = pairwise_divergence(X * rng.uniform(0.1, 1e3, (12, 1)), X, metric=metric)
    assert_allclose(scaled, D, atol=1e-10)
    # nor the order of features
    order = rng.permutation(40)
    assert_allclose(pairwise_divergence(X[:, order], metric=metric), D, atol=1e-10)
    some = pairwise_divergence(X, X[:4], metric=metric)
    assert_allclose(some, D[:, :4], atol=1e-12)


def test_direction_of_kl():
    # The source lacks what the target shows: expensive. The reverse is cheap.
    target, source = [[0.5, 0.5]], [[1.0, 0.0]]
    assert pairwise_divergence(target, source, metric="kl")[0, 0] > 10
    assert pairwise_divergence(source, target, metric="kl")[0, 0] < 1


def test_epsilon():
    T, S = [[0.5, 0.5]], [[1.0, 0.0]]
    for epsilon in (1e-3, 1e-6):
        s = np.array([1.0, epsilon]) / (1 + epsilon)
        expected = rel_entr([0.5, 0.5], s).sum()
        D = pairwise_divergence(T, S, metric="kl", epsilon=epsilon)
        assert_allclose(D, [[expected]])
    assert pairwise_divergence(T, S, metric="kl", epsilon=0)[0, 0] == np.inf
    assert_allclose(pairwise_divergence(S, S, metric="kl", epsilon=0), [[0]])


@pytest.mark.parametrize("metric", METRICS)
def test_blocks_of_sources_change_nothing(metric, rng, monkeypatch):
    T, S = rng.dirichlet(np.ones(20), 4), rng.dirichlet(np.ones(20), 11)
    whole = pairwise_divergence(T, S, metric=metric)
    monkeypatch.setattr(divergence, "_BLOCK_VALUES", 60)
    assert_allclose(pairwise_divergence(T, S, metric=metric), whole, atol=1e-14)


def test_memory_mapped_sources(rng, tmp_path):
    S = rng.random((6, 8)).astype(np.float32)
    np.save(tmp_path / "S.npy", S)
    mapped = np.load(tmp_path / "S.npy", mmap_mode="r")
    assert_allclose(pairwise_divergence(S, mapped), pairwise_divergence(S, S))


@pytest.mark.parametrize("metric", METRICS)
def test_negative_components(metric):
    X = [[0.5, 0.5], [-0.5, 0.5]]
    if metric in NON_NEGATIVE:
        with pytest.raises(ValueError, match="must be non-negative.*row 1.*cityblock"):
            pairwise_divergence(X, metric=metric)
    else:
        assert np.isfinite(pairwise_divergence(X, metric=metric)).all()


@pytest.mark.parametrize("metric", sorted({"cosine", *NON_NEGATIVE}))
def test_all_zero_vectors_are_refused(metric):
    with pytest.raises(
        ValueError, match=r"S \(sources\) must not hold all-zero vectors.*row 1"
    ):
        pairwise_divergence([[1.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]], metric=metric)


def test_bad_arguments():
    with pytest.raises(ValueError, match="same number of features, got 2 and 3"):
        pairwise_divergence([[1, 2]], [[1, 2, 3]])
    with pytest.raises(ValueError, match="metric"):
        pairwise_divergence([[1, 2]], metric="manhattan")
    with pytest.raises(ValueError, match="epsilon"):
        pairwise_divergence([[1, 2]], epsilon=-1)
    with pytest.raises(ValueError, match="NaN"):
        pairwise_divergence([[1, 2]], [[1, np.nan]])
    with pytest.raises(TypeError):  # swapped arguments are a classic: keywords only
        pairwise_divergence([[1, 2]], [[1, 2]], "kl")


def test_an_epsilon_below_single_precision_still_smooths():
    T, S = [[0.5, 0.5]], [[1.0, 0.0]]
    double = pairwise_divergence(T, S, epsilon=1e-300)
    single = pairwise_divergence(T, np.array(S, np.float32), epsilon=1e-300)
    assert np.isfinite(single).all()
    assert_allclose(single, double)
