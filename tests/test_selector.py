import itertools
import tracemalloc
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from conftest import real_file
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import rankdata, spearmanr, zscore
from sklearn import clone, config_context
from sklearn.model_selection import GridSearchCV, LeaveOneOut, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_p2l import Source, SourceCatalog, SourceSelector, metrics
from sklearn_p2l.divergence import METRICS, pairwise_divergence
from sklearn_p2l.embedding import Vectors
from sklearn_p2l.exceptions import LearnedWeightWarning, TiedRankingWarning
from sklearn_p2l.selection import NearestSource, _sweep, explain

NAMES = ["birds", "cars", "food", "scenes", "tools"]


@pytest.fixture
def problem(rng):
    """Five sources and twelve targets whose improvements obey equation 2, k = -0.8."""
    S = rng.dirichlet(np.ones(20), 5)
    X = rng.dirichlet(np.ones(20), 12)
    sizes = np.array([200, 5_000, 900, 40_000, 2_500])
    catalog = SourceCatalog.from_arrays(
        S, sizes=sizes, names=NAMES, fingerprint="net:1"
    )
    D = pairwise_divergence(X, S, metric="js")
    y = zscore(np.log(sizes)) - 0.8 * zscore(D, axis=1)
    return catalog, X, y + rng.normal(scale=0.1, size=y.shape)


def random_problem(seed):
    """A problem with ties in sizes, vectors and improvements, and unmeasured cells."""
    rng = np.random.default_rng(seed)
    n_targets, n_sources = rng.integers(2, 6), rng.integers(3, 9)
    S = rng.dirichlet(np.ones(6), n_sources)
    S[-1] = S[0]  # one vector under two names
    X = rng.dirichlet(np.ones(6), n_targets)
    sizes = rng.integers(1, 5, n_sources) * 100
    y = rng.integers(0, 5, (n_targets, n_sources)) / 10
    y[rng.random(y.shape) < 0.15] = np.nan
    y[0, :3] = 0, 0.1, 0.2  # something to learn from
    return X, S, sizes, y


def mean_spearman(X, S, sizes, y, k, metric="js"):
    """The definition, one target at a time, by scipy."""
    D = pairwise_divergence(X, S, metric=metric)
    values = []
    for d, truth in zip(D, y):
        known = ~np.isnan(truth)
        if np.unique(truth[known]).size < 2:
            continue
        size_term = zscore(np.log(sizes)) if np.ptp(sizes) else np.zeros(len(sizes))
        E = np.round(size_term, 9) + k * np.round(zscore(d), 9)
        # Round-off must not split ties.
        E = np.round(E[known], 9)
        values.append(spearmanr(E, truth[known]).statistic if np.ptp(E) else 0.0)
    return np.mean(values)


def breakpoints(X, S, sizes, metric="js"):
    """All k at which two sources of one target tie, pair by pair."""
    D = pairwise_divergence(X, S, metric=metric)
    a = zscore(np.log(sizes)) if np.ptp(sizes) else np.zeros(len(sizes))
    ks = []
    for d in D:
        b = zscore(d)
        for i, j in itertools.combinations(range(len(a)), 2):
            if abs(b[i] - b[j]) > 1e-9:
                ks.append(-(a[i] - a[j]) / (b[i] - b[j]))
    return np.unique(np.round(ks, 9))


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_k_is_exact(seed):
    X, S, sizes, y = random_problem(seed)
    selector = SourceSelector(S, sizes=sizes, metric="js").fit(X, y)
    ks = breakpoints(X, S, sizes)
    between = np.concatenate([[ks[0] - 1], (ks[1:] + ks[:-1]) / 2, [ks[-1] + 1]])
    brute = np.array([mean_spearman(X, S, sizes, y, k) for k in between])
    best = selector.k_curve_[:, 2].max()
    assert_allclose(best, brute.max(), atol=1e-9)
    assert_allclose(mean_spearman(X, S, sizes, y, selector.k_), best, atol=1e-9)
    # the whole curve, interval by interval
    left, right, score = selector.k_curve_.T
    where = np.searchsorted(right, between)
    assert_allclose(score[where], brute, atol=1e-9)
    # the interval is the widest of the best ones
    low, high = selector.k_interval_
    widths = (right - left)[score >= best - 1e-9]
    assert high - low == widths.max()


@pytest.mark.parametrize("seed", range(100, 140))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_thinned_k_scores_what_the_curve_says(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    X, S = rng.dirichlet(np.ones(6), 4), rng.dirichlet(np.ones(6), 7)
    sizes, y = rng.uniform(10, 1000, 7), rng.random((4, 7))
    monkeypatch.setattr(_sweep, "_MAX_BREAKPOINTS", 8)
    selector = SourceSelector(S, sizes=sizes, metric="js").fit(X, y)
    assert_allclose(selector.score(X, y), selector.k_curve_[:, 2].max(), atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_k_is_never_worse_than_a_grid(seed):
    rng = np.random.default_rng(seed)
    S, X = rng.dirichlet(np.ones(9), 15), rng.dirichlet(np.ones(9), 8)
    sizes, y = rng.integers(10, 10_000, 15), rng.random((8, 15))
    selector = SourceSelector(S, sizes=sizes).fit(X, y)
    a = zscore(np.log(sizes))
    b = zscore(pairwise_divergence(X, S), axis=1)
    E = a + np.linspace(-10, 10, 10_001)[:, None, None] * b
    ranks, truth = rankdata(E, axis=2), rankdata(y, axis=1)
    # without ties, Spearman's correlation is 1 - 6 sum d^2 / (n^3 - n)
    rho = 1 - 6 * ((ranks - truth) ** 2).sum(axis=2) / (15**3 - 15)
    assert selector.k_curve_[:, 2].max() >= rho.mean(axis=1).max() - 1e-12
    assert_allclose(selector.score(X, y), selector.k_curve_[:, 2].max())


def test_k_is_the_middle_of_a_bounded_interval(problem):
    catalog, X, y = problem
    selector = SourceSelector(catalog, metric="js").fit(X, y)
    low, high = selector.k_interval_
    assert low < selector.k_ < high and selector.k_ == (low + high) / 2
    assert -1.2 < selector.k_ < -0.5  # it was -0.8
    assert selector.score(X, y) == pytest.approx(selector.k_curve_[:, 2].max())
    assert selector.score(X, y) > 0.9
    assert selector.k_curve_[0, 0] == -np.inf and selector.k_curve_[-1, 1] == np.inf
    assert_array_equal(selector.k_curve_[1:, 0], selector.k_curve_[:-1, 1])


def test_thinned_breakpoints_are_still_scored_exactly(problem, monkeypatch):
    catalog, X, y = problem
    whole = SourceSelector(catalog, metric="js").fit(X, y)
    monkeypatch.setattr(_sweep, "_MAX_BREAKPOINTS", 40)
    thin = SourceSelector(catalog, metric="js").fit(X, y)
    assert len(thin.k_curve_) < len(whole.k_curve_)
    left, right, score = thin.k_curve_.T
    assert thin.score(X, y) == pytest.approx(score.max())
    assert score.max() > whole.k_curve_[:, 2].max() - 0.05


def test_many_targets_and_sources(rng):
    S, X = rng.random((100, 30)), rng.random((100, 30))
    D = pairwise_divergence(X, S)
    sizes = rng.integers(10, 10_000, 100)
    y = zscore(np.log(sizes)) - 2 * zscore(D, axis=1)
    selector = SourceSelector(S, sizes=sizes).fit(X, y)
    assert selector.score(X, y) == pytest.approx(1.0)
    low, high = selector.k_interval_
    assert low < -2 < high


def test_equation_2(problem):
    catalog, X, y = problem
    selector = SourceSelector(catalog, metric="kl", k=-0.7).fit(X)
    D = pairwise_divergence(X, catalog.embeddings, metric="kl")
    expected = zscore(np.log(catalog.sizes)) - 0.7 * zscore(D, axis=1)
    assert_allclose(selector.decision_function(X), expected, atol=1e-9)
    assert type(selector.decision_function(X)) is np.ndarray
    terms = selector.decision_terms(X)
    assert list(terms) == ["size", "divergence"]
    assert_allclose(terms["size"] + terms["divergence"], expected, atol=1e-9)
    assert_allclose(selector.divergences(X), D)
    ranking = selector.predict(X)
    for row, E in zip(ranking, expected):
        assert row.tolist() == [NAMES[j] for j in np.argsort(-E)]
    assert selector.k_ == -0.7 and not hasattr(selector, "k_interval_")


@pytest.mark.parametrize("standardize", ["target", "training"])
@pytest.mark.parametrize("metric", METRICS)
def test_rows_do_not_depend_on_each_other(problem, metric, standardize):
    catalog, X, y = problem
    selector = SourceSelector(catalog, metric=metric, k=-1.0, standardize=standardize)
    E = selector.fit(X).decision_function(X)
    one_by_one = np.vstack([selector.decision_function(x[None]) for x in X])
    assert_allclose(one_by_one, E, atol=1e-9)


def test_standardize_with_training_scale(problem):
    catalog, X, y = problem
    selector = SourceSelector(catalog, metric="js", k=-0.7, standardize="training")
    D = pairwise_divergence(X, catalog.embeddings, metric="js")
    expected = zscore(np.log(catalog.sizes)) - 0.7 * (D[3] - D.mean()) / D.std()
    E = selector.fit(X).decision_function(X[3:4])
    assert_allclose(E, [expected], atol=1e-9)


def test_order_of_sources_is_only_an_order(problem, rng):
    catalog, X, y = problem
    order = rng.permutation(5)
    one = SourceSelector(catalog, metric="js").fit(X, y)
    other = SourceSelector(catalog[order], metric="js").fit(X, y[:, order])
    assert_allclose(other.k_, one.k_)
    assert_array_equal(other.predict(X), one.predict(X))
    assert_allclose(other.decision_function(X), one.decision_function(X)[:, order])


@pytest.mark.filterwarnings("ignore:A ranking of equal values")
def test_nothing_to_rank_by():
    S = np.ones((3, 4))
    selector = SourceSelector(S, k=0.0).fit([[1.0, 2, 3, 4]])
    assert_array_equal(selector.decision_function([[1.0, 2, 3, 4]]), np.zeros((1, 3)))
    with pytest.warns(
        TiedRankingWarning, match=r"for 1 of 1 targets \(row 0: 0, 1, 2\)"
    ):
        assert_array_equal(selector.predict([[1.0, 2, 3, 4]]), [[0, 1, 2]])
    assert selector.score([[1.0, 2, 3, 4]], [[0.1, 0.3, 0.2]]) == 0
    # equal vectors: size alone ranks, whatever round-off says
    S = np.full((3, 7), 0.1) * [[1], [3], [7]]
    selector = SourceSelector(S, sizes=[1, 3, 2], k=-1e6).fit(np.ones((1, 7)))
    assert_array_equal(selector.predict(np.ones((1, 7))), [[1, 2, 0]])


def test_two_sources_that_tie_are_told_of():
    """Of two sources z is 1 and -1, so that k = -1 ties a nearer with a larger one."""
    zoo = SourceCatalog.from_arrays(
        [[0.9, 0.1], [0.1, 0.9]], sizes=[100, 900], names=["small", "large"]
    )
    nearer_small, nearer_large = [0.8, 0.2], [0.2, 0.8]
    selector = SourceSelector(zoo, k=-1.0).fit([nearer_large])
    assert selector.predict([nearer_large])[0, 0] == "large"
    both = [nearer_large, nearer_small]
    for predict in (selector.predict, selector.predict_top, selector.explain):
        arguments = [both, 1] if predict == selector.predict_top else [both]
        with pytest.warns(
            TiedRankingWarning, match=r"1 of 2 targets \(row 1: small, large\)"
        ):
            predict(*arguments)
    for k, pick in [(-1.01, "small"), (-0.99, "large")]:  # as the warning advises
        selector = SourceSelector(zoo, k=k).fit([nearer_small])
        assert selector.predict([nearer_small])[0, 0] == pick


def test_with_sources_keeps_the_names_of_the_same_features(problem):
    catalog, X, y = problem
    X = pd.DataFrame(X, columns=[f"net:1#{j}" for j in range(20)])
    selector = SourceSelector(catalog, metric="js").fit(X, y)
    other = selector.with_sources(catalog[:3])
    assert other.predict(X).shape == (12, 3)  # without a warning of names
    assert list(other.feature_names_in_) == list(X.columns)
    another = SourceCatalog.from_arrays(
        catalog.embeddings, sizes=catalog.sizes, names=NAMES, fingerprint="net:2"
    )
    assert not hasattr(selector.with_sources(another), "feature_names_in_")
    D = pd.DataFrame(np.ones((2, 3)) + np.eye(3)[:2], columns=["a", "b", "c"])
    selector = SourceSelector(SIZED, metric="precomputed", k=-1.0).fit(D)
    assert not hasattr(selector.with_sources(SIZED), "feature_names_in_")


def test_explain(problem):
    catalog, X, y = problem
    selector = SourceSelector(catalog, metric="js").fit(X, y)
    ranking = selector.explain(X)
    assert len(ranking) == len(X) * len(catalog)
    assert ranking["target"].tolist() == np.repeat(range(len(X)), 5).tolist()
    picks = ranking.pivot(index="target", columns="rank", values="source")
    assert_array_equal(picks.to_numpy(), selector.predict(X))
    # each term by scipy
    D = pairwise_divergence(X, catalog.embeddings, metric="js")
    for term, expected in [
        ("size_term", np.tile(zscore(np.log(catalog.sizes)), (len(X), 1))),
        ("divergence_term", selector.k_ * zscore(D, axis=1)),
        ("size", np.tile(catalog.sizes, (len(X), 1))),
        ("E", selector.decision_function(X)),
    ]:
        table = ranking.pivot(index="target", columns="source", values=term)
        assert_allclose(table[list(catalog.names)], expected, atol=1e-9)
    E = ranking.pivot(index="target", columns="rank", values="E").to_numpy()
    margin = ranking.pivot(index="target", columns="rank", values="margin")
    assert_allclose(margin.to_numpy()[:, :-1], E[:, :-1] - E[:, 1:])
    assert margin[5].isna().all()


def test_explain_names_targets_and_leaves_out_who_is_no_candidate(problem):
    catalog, X, _ = problem
    X = pd.DataFrame(np.vstack([catalog.embeddings[1], X[0]]), index=["own", "other"])
    selector = SourceSelector(catalog, k=-1.0, exclude_self=True).fit(X)
    ranking = selector.explain(X)
    assert ranking["target"].tolist() == ["own"] * 4 + ["other"] * 5
    own = ranking[ranking["target"] == "own"]
    assert NAMES[1] not in own["source"].tolist()
    assert np.isfinite(own["E"]).all()
    assert ranking["margin"].isna().tolist() == [False] * 3 + [True] + [False] * 4 + [
        True
    ]


def test_warns_when_size_adds_nothing(rng):
    S, X = rng.dirichlet(np.ones(9), 6), rng.dirichlet(np.ones(9), 4)
    y = -pairwise_divergence(X, S)
    with pytest.warns(LearnedWeightWarning, match="no bound.*the divergence of"):
        selector = SourceSelector(S, sizes=[5, 3, 8, 1, 2, 9]).fit(X, y)
    assert selector.k_interval_[0] == -np.inf
    assert selector.k_ < selector.k_interval_[1]
    assert selector.score(X, y) == 1
    with pytest.warns(LearnedWeightWarning, match="no bound"):
        equal = SourceSelector(S).fit(X, y)
    assert equal.k_ == -1


def test_warns_when_k_does_not_matter():
    with pytest.warns(LearnedWeightWarning, match="does not depend on k"):
        SourceSelector(np.ones((3, 4)), sizes=[1, 2, 3]).fit(
            [[1.0, 2, 3, 4]], [[0.1, 0.2, 0.3]]
        )


def test_warns_when_k_is_positive(problem):
    catalog, X, y = problem
    D = pairwise_divergence(X, catalog.embeddings, metric="js")
    losses = zscore(np.log(catalog.sizes)) + 0.8 * zscore(D, axis=1)
    with pytest.warns(LearnedWeightWarning, match="positive"):
        selector = SourceSelector(catalog, metric="js").fit(X, losses)
    assert selector.k_ > 0


def test_warns_of_a_positive_k_without_bound_twice(rng):
    S, X = rng.dirichlet(np.ones(9), 6), rng.dirichlet(np.ones(9), 4)
    with pytest.warns(LearnedWeightWarning) as caught:
        SourceSelector(S, sizes=[5, 3, 8, 1, 2, 9]).fit(X, pairwise_divergence(X, S))
    assert len(caught) == 2 and caught[0].filename == __file__
    assert "no bound" in str(caught[0].message)
    assert "positive" in str(caught[1].message)


def test_size_alone_ranks():
    rng = np.random.default_rng(1)
    S, X = rng.dirichlet(np.ones(9), 6), rng.dirichlet(np.ones(9), 3)
    sizes = np.array([5, 3, 8, 1, 2, 9])
    selector = SourceSelector(S, sizes=sizes).fit(X, np.tile(sizes, (3, 1)))
    low, high = selector.k_interval_
    assert low < 0 < high and selector.score(X, sizes) == 1


def test_targets_without_information_are_dropped(problem):
    catalog, X, y = problem
    y = y.copy()
    y[1] = np.nan
    y[4, 1:] = np.nan
    y[5] = 0.25
    with pytest.warns(LearnedWeightWarning, match=r"3 of 12 targets.*rows \[1, 4, 5\]"):
        selector = SourceSelector(catalog, metric="js").fit(X, y)
    keep = [i for i in range(12) if i not in (1, 4, 5)]
    expected = SourceSelector(catalog, metric="js").fit(X[keep], y[keep])
    assert selector.k_ == expected.k_
    with pytest.raises(ValueError, match="at least two measured sources"):
        SourceSelector(catalog).fit(X[[1, 4]], y[[1, 4]])


def test_top(problem):
    catalog, X, y = problem
    selector = SourceSelector(catalog, metric="js", top=3).fit(X, y)
    E = selector.decision_function(X)
    expected = [
        spearmanr(e[np.argsort(-t)[:3]], np.sort(t)[::-1][:3]).statistic
        for e, t in zip(E, y)
    ]
    assert_allclose(selector.score(X, y), np.mean(expected))
    assert_allclose(selector.k_curve_[:, 2].max(), np.mean(expected))


def test_frames_are_matched_by_name(problem, rng):
    catalog, X, y = problem
    expected = SourceSelector(catalog, metric="js").fit(X, y)
    frame = pd.DataFrame(y, columns=NAMES)[["food", "tools", "birds", "scenes", "cars"]]
    selector = SourceSelector(catalog, metric="js").fit(X, frame)
    assert selector.k_ == expected.k_
    assert selector.score(X, frame) == expected.score(X, y)
    part = frame[["food", "birds", "cars"]]  # the others were not measured
    without = y.copy()
    without[:, [3, 4]] = np.nan
    assert SourceSelector(catalog, metric="js").fit(X, part).k_ == (
        SourceSelector(catalog, metric="js").fit(X, without).k_
    )
    with pytest.raises(ValueError, match=r"unknown \['foot'\]; the sources are"):
        selector.fit(X, frame.rename(columns={"food": "foot"}))
    with pytest.raises(ValueError, match=r"repeated \['cars'\]"):
        selector.fit(X, frame.rename(columns={"food": "cars"}))


@pytest.mark.parametrize(
    "y, message",
    [
        (None, "requires y to be passed, but the target y is None"),
        (np.ones((12, 4)), "one column per source.*4 columns for 5"),
        (np.ones((11, 5)), "one row per target, got 11 rows for 12"),
        (np.ones(12), "2D array"),
        (np.full((12, 5), np.inf), "infinity"),
        (np.full((12, 5), "a"), "could not convert"),
    ],
)
def test_misaligned_y(problem, y, message):
    catalog, X, _ = problem
    with pytest.raises(ValueError, match=message):
        SourceSelector(catalog).fit(X, y)


def test_sources_as_rows_of_X(rng):
    X = rng.dirichlet(np.ones(8), 6)
    sizes = rng.integers(10, 1000, 6)
    y = rng.random((6, 6))
    np.fill_diagonal(y, np.nan)
    selector = SourceSelector(sizes=sizes, metric="js", k=-5.0).fit(X, y)
    # A target identical to a source has D = 0 and wins ...
    assert_array_equal(selector.predict(X)[:, 0], np.arange(6))
    # ... unless it is excluded, which takes it out of z, too.
    selector = SourceSelector(sizes=sizes, metric="js", k=-5.0, exclude_self=True)
    E = selector.fit(X, y).decision_function(X)
    assert_array_equal(np.diag(E), np.full(6, -np.inf))
    assert_array_equal(selector.predict(X)[:, -1], np.arange(6))
    D = pairwise_divergence(X, metric="js")
    others = np.arange(6) != 2
    expected = zscore(np.log(sizes[others])) - 5 * zscore(D[2, others])
    assert_allclose(E[2, others], expected, atol=1e-9)
    # Learning and scoring leave it out, even if it was measured, and among the top.
    measured = np.where(np.eye(6, dtype=bool), 9.0, y)
    assert selector.score(X, measured) == selector.score(X, y)
    learned = clone(selector).set_params(k="auto", top=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert learned.fit(X, measured).k_ == clone(learned).fit(X, y).k_
    assert learned.score(X, measured) == pytest.approx(learned.k_curve_[:, 2].max())
    # Single precision is the same vector.
    assert selector.decision_function(X.astype(np.float32))[0, 0] == -np.inf
    assert np.isfinite(selector.score(X, y))


def test_the_target_itself_is_one_definition(rng):
    """At most 1e-6 away, whether the distance is computed or given."""
    X = rng.dirichlet(np.ones(8), 4)
    sizes = [10, 20, 30, 40]
    for step, excluded in [(0.0, True), (3e-7, True), (1e-5, False)]:
        moved = X.copy()
        moved[:, 0] += step / 2  # rows stay L1-normalised
        moved[:, 1] -= step / 2
        D = pairwise_divergence(moved, X, metric="cityblock")
        computed = SourceSelector(
            X, sizes=sizes, metric="cityblock", k=-1.0, exclude_self=True
        )
        given = SourceSelector(
            sizes=sizes, metric="precomputed", k=-1.0, exclude_self=True
        )
        nearest = NearestSource(X, metric="cityblock", exclude_self=True)
        for selector, target in ((computed, moved), (given, D), (nearest, moved)):
            E = selector.fit(target).decision_function(target)
            assert_array_equal(np.isneginf(E), np.eye(4, dtype=bool) & excluded)


def test_tags_tell_of_a_row_of_improvements_per_target():
    for ranker in (SourceSelector(), SourceSelector(k=-1.0)):
        tags = ranker.__sklearn_tags__().target_tags
        assert tags.two_d_labels and tags.multi_output and not tags.single_output
        assert tags.required == (ranker.k == "auto")


def test_unknown_sizes_and_vectors_are_refused():
    sources = [
        Source("a", size=10, embedding=[0.5, 0.5]),
        Source("b", embedding=[0.1, 0.9]),
        Source("c", size=30),
    ]
    with pytest.raises(ValueError, match=r"must have sizes.*got none for \['b'\]"):
        SourceSelector(SourceCatalog(sources[:2]), k=-1.0).fit([[0.2, 0.8]])
    with pytest.raises(ValueError, match=r"must have vectors.*got none for \['c'\]"):
        SourceSelector(SourceCatalog(sources[::2]), k=-1.0).fit([[0.2, 0.8]])
    with pytest.raises(ValueError, match=r"must have sizes.*got none for \['b'\]"):
        known = SourceSelector(SourceCatalog(sources[:1]), k=-1.0).fit([[0.2, 0.8]])
        known.with_sources(SourceCatalog(sources[:2]))


def test_explain_of_a_pipeline_and_a_search(problem):
    catalog, X, y = problem
    expected = SourceSelector(catalog, metric="js", k=-0.8).fit(X).explain(X)
    pipe = make_pipeline(
        FunctionTransformer(), SourceSelector(catalog, metric="js", k=-0.8)
    )
    grid = {"sourceselector__k": [-0.8]}
    for estimator in (pipe.fit(X, y), GridSearchCV(pipe, grid, cv=2).fit(X, y)):
        pd.testing.assert_frame_equal(explain(estimator, X), expected)
        rows = explain(estimator, X, targets=list("abcdefghijkl"), as_frame=False)
        assert [row["source"] for row in rows] == expected["source"].tolist()
        assert rows[5]["target"] == "b" and type(rows[0]["E"]) is float


def test_named_rows(rng):
    X = pd.DataFrame(rng.dirichlet(np.ones(3), 4), index=list("abcd"))
    X.columns = X.columns.astype(str)
    selector = SourceSelector(k=-1.0).fit(X)
    assert set(selector.predict(X)[0]) == set("abcd")
    y = pd.DataFrame(rng.random((4, 4)), columns=list("dcba"))
    one = selector.score(X[:1], y[:1])
    assert (
        selector.score(X[:1], y.iloc[0])
        == selector.score(X[:1], y.iloc[0, ::-1])
        == one
    )
    shuffled = X[X.columns[::-1]]
    with pytest.raises(ValueError, match=r"pass X\[sources.columns\]"):
        SourceSelector(X, k=-1.0).fit(shuffled)
    assert selector.score(X, y) == selector.score(X, y[list("abcd")].to_numpy())


def test_with_sources(problem, rng):
    catalog, X, y = problem
    learned = SourceSelector(catalog, metric="js").fit(X, y)
    grown = catalog.append(Source("zebras", size=10**6, embedding=X[0]))
    selector = learned.with_sources(grown)
    assert selector.k_ == learned.k_
    assert selector.predict(X[:1])[0, 0] == "zebras"
    borrowed = SourceSelector(grown, metric="js", k=learned.k_).fit(X)
    assert_allclose(selector.decision_function(X), borrowed.decision_function(X))
    assert len(learned.sources_) == 5 and learned.predict(X).shape == (12, 5)
    # another zoo, of another reference network
    other = SourceCatalog.from_arrays(
        rng.random((3, 7)), sizes=[1, 2, 3], names=list("xyz"), fingerprint="net:2"
    )
    moved = learned.with_sources(other)
    assert moved.predict(rng.random((2, 7))).shape == (2, 3)
    with pytest.raises(ValueError, match="expecting 7 features"):
        moved.predict(X)
    Z, truth = rng.random((2, 7)), rng.random((2, 3))
    rho = [
        spearmanr(*pair).statistic for pair in zip(moved.decision_function(Z), truth)
    ]
    assert moved.score(Z, truth) == pytest.approx(np.mean(rho))
    with pytest.raises(ValueError, match="sources must be"):
        learned.with_sources(None)


def test_vectors_of_another_network_are_refused(problem):
    catalog, X, y = problem
    with pytest.raises(
        ValueError, match="same reference network.*'net:1', got 'net:2'"
    ):
        SourceSelector(catalog).fit(Vectors(X, "net:2"), y)
    selector = SourceSelector(catalog, metric="js").fit(Vectors(X, "net:1"), y)
    selector.predict(X)  # unknown origin: only the width can be checked
    for bad in (
        Vectors(X, "net:2"),
        Vectors(X, "net:2")[:2],
        pd.DataFrame(X, columns=[f"net:2#{j}" for j in range(20)]),
    ):
        with pytest.raises(ValueError, match="same reference network"):
            selector.with_sources(catalog).predict(bad)
    with pytest.raises(ValueError, match="features"):
        SourceSelector(catalog).fit(X[:, :10], y)
    # A catalog of unknown origin takes on that of the vectors it is fitted with.
    unknown = SourceSelector(catalog.embeddings, k=-1.0).fit(Vectors(X, "net:1"))
    with pytest.raises(ValueError, match="same reference network"):
        unknown.predict(Vectors(X, "net:2"))


def test_sizes_belong_to_arrays(problem):
    catalog, X, y = problem
    with pytest.raises(ValueError, match=r"pass SourceCatalog\(sources\)"):
        SourceSelector(list(catalog)).fit(X, y)
    with pytest.raises(ValueError, match="sizes must be None"):
        SourceSelector(catalog, sizes=[1, 2, 3, 4, 5]).fit(X, y)
    with pytest.raises(ValueError, match="sizes must have one entry"):
        SourceSelector(catalog.embeddings, sizes=[1, 2]).fit(X, y)
    with pytest.raises(ValueError, match="sizes must be positive"):
        SourceSelector(catalog.embeddings, sizes=[1, 2, 3, 4, 0]).fit(X, y)


def test_infinite_divergence_names_the_remedy():
    with pytest.raises(ValueError, match="pass epsilon > 0"):
        SourceSelector([[1.0, 0.0]], k=-1.0, epsilon=0).fit([[0.5, 0.5]])


@pytest.mark.parametrize("as_frame", [False, True])
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_model_selection(problem, as_frame, n_jobs):
    catalog, X, y = problem
    if as_frame:
        y = pd.DataFrame(y, columns=NAMES)[NAMES[::-1]]
    y_nan = y.copy()
    if as_frame:
        y_nan.iloc[0, 0] = np.nan
    else:
        y_nan[0, 0] = np.nan
    pipe = make_pipeline(FunctionTransformer(), SourceSelector(catalog))
    scores = cross_val_score(pipe, X, y_nan, cv=LeaveOneOut(), n_jobs=n_jobs)
    assert scores.shape == (12,) and np.isfinite(scores).all()
    search = GridSearchCV(
        pipe,
        {
            "sourceselector__metric": ["js", "kl"],
            "sourceselector__k": ["auto", -0.8, 3.0],
        },
        cv=3,
        n_jobs=n_jobs,
        scoring={"rho": metrics.spearman_scorer, "regret": metrics.regret_scorer},
        refit="rho",
        error_score="raise",
    ).fit(X, y_nan)
    assert search.best_params_["sourceselector__k"] != 3.0
    assert (search.cv_results_["mean_test_regret"] <= 0).all()
    default = cross_val_score(pipe, X, y_nan, cv=3)
    by_scorer = cross_val_score(pipe, X, y_nan, cv=3, scoring=metrics.spearman_scorer)
    assert_allclose(default, by_scorer)
    assert search.predict(X).shape == (12, 5)


def test_pipeline_score_with_metadata_routing(problem):
    catalog, X, y = problem
    with config_context(enable_metadata_routing=True):
        selector = SourceSelector(catalog, metric="js").set_score_request(
            sample_weight=True
        )
        pipe = make_pipeline(FunctionTransformer(), selector).fit(X, y)
        weight = np.arange(12.0)
        score = pipe.score(X, y, sample_weight=weight)
    each = metrics.spearman_score(y, pipe.decision_function(X), average=None)
    assert_allclose(score, np.average(each, weights=weight))


def test_refit_forgets_a_learned_k(problem):
    catalog, X, y = problem
    selector = SourceSelector(catalog, metric="js").fit(X, y)
    selector.set_params(k=-1.0).fit(X)
    assert selector.k_ == -1 and not hasattr(selector, "k_curve_")


def test_persistence(problem, tmp_path):
    skops = pytest.importorskip("skops.io")
    catalog, X, y = problem
    selector = SourceSelector(catalog, metric="js").fit(X, y)
    joblib.dump(selector, tmp_path / "selector.joblib")
    skops.dump(selector, tmp_path / "selector.skops")
    untrusted = skops.get_untrusted_types(file=tmp_path / "selector.skops")
    assert all(name.startswith("sklearn_p2l.") for name in untrusted), untrusted
    for loaded in (
        joblib.load(tmp_path / "selector.joblib"),
        skops.load(tmp_path / "selector.skops", trusted=untrusted),
    ):
        assert loaded.sources_ == catalog
        assert_array_equal(loaded.predict(X), selector.predict(X))
        assert_array_equal(loaded.decision_function(X), selector.decision_function(X))
        assert clone(loaded).fit(X, y).k_ == selector.k_
    vectors = Vectors(catalog.embeddings, "net:1")
    by_array = SourceSelector(vectors, k=-1.0).fit(X)
    loaded = skops.loads(
        skops.dumps(by_array),
        trusted=skops.get_untrusted_types(data=skops.dumps(by_array)),
    )
    assert_array_equal(loaded.predict(X), by_array.predict(X))
    with pytest.raises(ValueError, match="same reference network"):
        loaded.predict(Vectors(X, "net:2"))


def test_prompt_transfer_of_t5():
    """Measured transfer among 17 tasks: k learned without the target judged."""
    frame = pd.read_csv(real_file("groundtruth", "prompt_transfer_t5.csv"))
    performance = frame.pivot(index="target", columns="source", values="performance")
    baseline = frame.groupby("target")["baseline"].first()
    sizes = frame.groupby("source")["source_size"].first()[performance.columns]
    with np.load(real_file("groundtruth", "prompt_transfer_t5_vectors.npz")) as file:
        mean_prompts = {name: file[name].mean(axis=0) for name in file.files}
    X = np.stack([mean_prompts[name] for name in performance.index])
    S = np.stack([mean_prompts[name] for name in performance.columns])
    y = performance.sub(baseline, axis=0).to_numpy()
    selector = SourceSelector(
        S, sizes=sizes.to_numpy(), metric="cityblock", exclude_self=True
    )
    E = np.empty(y.shape)
    for train, test in LeaveOneOut().split(X):
        E[test] = clone(selector).fit(X[train], y[train]).decision_function(X[test])
    assert metrics.spearman_score(performance, E) >= 0.475  # 0.514
    assert metrics.top_accuracy_score(performance, E) >= 0.588  # 10 of 17
    assert metrics.regret_loss(performance, E) <= 0.08
    largest = np.tile(np.log(sizes), (17, 1))
    assert metrics.spearman_score(performance, largest) < 0.1


# -- distances given --------------------------------------------------------------


SIZED = SourceCatalog.from_arrays(None, sizes=[10, 200, 40], names=["a", "b", "c"])


def test_precomputed_distances_rank_as_the_vectors_they_come_from(rng):
    vectors = rng.random((6, 5))
    targets = rng.random((7, 5))
    y = rng.normal(size=(7, 6))
    names = list("abcdef")
    sizes = rng.integers(10, 1000, size=6)
    zoo = SourceCatalog.from_arrays(vectors, sizes=sizes, names=names)
    bare = SourceCatalog.from_arrays(None, sizes=sizes, names=names)
    D = pairwise_divergence(targets, vectors, metric="js")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # k may be positive here
        usual = SourceSelector(zoo, metric="js").fit(targets, y)
        given = SourceSelector(bare, metric="precomputed").fit(D, y)
        unnamed = SourceSelector(sizes=sizes, metric="precomputed").fit(D, y)
    assert given.k_ == usual.k_ == unnamed.k_
    assert_array_equal(given.predict(D), usual.predict(targets))
    assert_array_equal(np.array(names)[unnamed.predict(D)], given.predict(D))
    assert given.score(D, y) == usual.score(targets, y)


def test_precomputed_columns_are_matched_by_name():
    pd = pytest.importorskip("pandas")
    D = pd.DataFrame([[0.1, 0.9, 0.5], [0.8, 0.2, 0.4]], columns=["a", "b", "c"])
    selector = SourceSelector(SIZED, metric="precomputed", k=-3.0).fit(D)
    assert selector.predict(D)[:, 0].tolist() == ["a", "b"]
    assert_array_equal(selector.predict(D[["c", "a", "b"]]), selector.predict(D))
    named = SourceSelector(sizes=[10, 200, 40], metric="precomputed", k=-3.0).fit(D)
    assert_array_equal(named.predict(D), selector.predict(D))
    numbers = D.set_axis([2, 0, 1], axis=1)
    numbered = SourceSelector(sizes=[10, 200, 40], metric="precomputed", k=-3.0)
    assert_array_equal(numbered.fit(numbers).predict(numbers), [[2, 1, 0], [0, 1, 2]])
    assert_array_equal(numbered.predict(numbers[[0, 1, 2]]), numbered.predict(numbers))
    with pytest.raises(ValueError, match=r"absent: \['c'\], unknown: \['z'\]"):
        selector.predict(D.rename(columns={"c": "z"}))


def test_precomputed_nan_is_no_candidate():
    D = np.array([[0.1, np.nan, 0.5], [0.8, 0.2, 0.4]])
    selector = SourceSelector(SIZED, metric="precomputed", k=-0.5).fit(D)
    E = np.asarray(selector.decision_function(D))
    assert np.isneginf(E[0, 1]) and np.isfinite(E).sum() == 5
    assert selector.predict(D)[0].tolist()[-1] == "b"
    # z is over the candidates of each target: two of them, so -1 and 1
    assert_allclose(
        np.sort(np.abs(selector.decision_terms(D)["divergence"][0])), [0, 0.5, 0.5]
    )
    with pytest.raises(ValueError, match="got none in row 1"):
        selector.predict([[0.1, 0.2, 0.3], [np.nan] * 3])
    itself = SourceSelector(SIZED, metric="precomputed", k=-1.0, exclude_self=True)
    E = np.asarray(itself.fit(D).decision_function([[0.0, 0.3, 0.2]]))
    assert np.isneginf(E[0, 0])


def test_precomputed_asks_for_distances():
    with pytest.raises(
        ValueError, match="one column of distances per source.*3.*got 2"
    ):
        SourceSelector(SIZED, metric="precomputed", k=-1.0).fit([[0.1, 0.2]])
    with pytest.raises(ValueError, match="a SourceCatalog or None for metric='prec"):
        SourceSelector([[1.0], [2.0]], metric="precomputed", k=-1.0).fit([[0.1, 0.2]])
    with pytest.raises(ValueError, match="sources must have vectors for metric='kl'"):
        SourceSelector(SIZED, k=-1.0).fit([[0.1, 0.2]])
    larger = SourceCatalog.from_arrays(None, sizes=[1, 2], names=["x", "y"])
    selector = SourceSelector(SIZED, metric="precomputed", k=-1.0).fit([[1, 2, 3.0]])
    assert selector.with_sources(larger).predict([[0.5, 0.1]])[0, 0] == "y"


def test_predict_top_is_the_begin_of_the_ranking(rng):
    vectors = rng.random((50, 6))
    vectors[30:] = vectors[:20]  # ties
    selector = SourceSelector(vectors, sizes=np.repeat([10, 20], 25), k=-1.0)
    X = rng.random((7, 6))
    ranking = selector.fit(X).predict(X)
    for n_top in (1, 2, 5, 49, 50):
        np.testing.assert_array_equal(
            selector.predict_top(X, n_top), ranking[:, :n_top]
        )
    for wrong in (0, 51, 2.5):
        with pytest.raises(ValueError, match="n_top must be an integer from 1 to 50"):
            selector.predict_top(X, wrong)


@pytest.mark.slow
def test_a_memory_mapped_catalog_is_read_and_never_copied(tmp_path, rng):
    """Its peak memory stays far below the file's size."""
    path = tmp_path / "embeddings.npy"
    file = np.lib.format.open_memmap(path, "w+", np.float32, shape=(40_000, 1024))
    file[:] = rng.random((1, 1024), dtype=np.float32)
    file[7] = rng.random(1024)
    catalog = SourceCatalog.from_arrays(
        np.load(path, mmap_mode="r"),
        sizes=np.ones(40_000),
        names=[str(i) for i in range(40_000)],
    )
    X = np.asarray(file[7:8], dtype=float)
    for metric in METRICS:
        selector = SourceSelector(catalog, metric=metric, k=-1.0)
        tracemalloc.start()
        best = selector.fit(X).predict_top(X, 1)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert best == [["7"]]
        assert peak < file.nbytes / 2
    assert isinstance(catalog.embeddings, np.memmap)
