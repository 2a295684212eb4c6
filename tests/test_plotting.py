"""What the displays draw, read back from the artists."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import cdist
from scipy.stats import rankdata, spearmanr
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_p2l import (
    DatasetEmbedder,
    EvidenceSelector,
    SourceCatalog,
    SourceSelector,
    Task,
)
from sklearn_p2l.embedding import Vectors
from sklearn_p2l.exceptions import LearnedWeightWarning
from sklearn_p2l.selection import (
    ConstantRanking,
    FixedSource,
    LargestSource,
    NearestSource,
    NoTransfer,
    RandomSource,
)

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

from sklearn_p2l import plotting  # noqa: E402
from sklearn_p2l.plotting import (  # noqa: E402
    KCurveDisplay,
    PicksDisplay,
    RankingDisplay,
    ScoreImprovementDisplay,
    SizeSimilarityDisplay,
    SourceComparisonDisplay,
    SourceSizesDisplay,
)

NAMES = ["birds", "cars", "a very long source", "scenes", "tools"]
SIZES = np.array([300, 20_000, 5_000, 150, 1_000])


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture
def X(rng):
    return rng.random((6, 4))


@pytest.fixture
def S():
    return np.random.default_rng(1).random((5, 4))


@pytest.fixture
def y(rng):
    y = rng.normal(size=(6, 5))
    y[0, 1] = y[3, 4] = np.nan
    return y


@pytest.fixture
def frame(y):
    """The improvements with named columns in another order."""
    order = [3, 0, 4, 2, 1]
    return pd.DataFrame(
        y[:, order],
        columns=[NAMES[j] for j in order],
        index=[f"target {i}" for i in range(len(y))],
    )


@pytest.fixture
def selector(X, S):
    catalog = SourceCatalog.from_arrays(S, sizes=SIZES, names=NAMES)
    return SourceSelector(catalog, metric="cityblock", k=-1.5).fit(X)


class CountingEmbedder(DatasetEmbedder):
    """An embedder that counts its calls."""

    n_calls = 0

    def transform(self, X):
        self.n_calls += 1
        return super().transform(X)


@pytest.fixture
def datasets(X):
    """Ready features whose summaries are the rows of X, scaled."""
    return [np.array([0.5 * x, 1.5 * x, x]) for x in X]


@pytest.fixture
def pipeline(datasets, selector, y):
    pipeline = make_pipeline(CountingEmbedder(), SourceSelector(selector.sources))
    pipeline.set_params(sourceselector__metric="cityblock", sourceselector__k=-1.5)
    pipeline.fit(datasets, y)
    pipeline[0].n_calls = 0
    return pipeline


def content(display):
    """All numbers that are drawn."""
    ax = display.ax_
    bars = [[bar.get_x(), bar.get_y(), bar.get_width()] for bar in ax.patches]
    points = [collection.get_offsets() for collection in ax.collections]
    values = [c.get_array() for c in ax.collections if c.get_array() is not None]
    arrays = [*(line.get_xydata() for line in ax.lines), *points, *values, bars]
    return np.concatenate([np.asarray(array, float).ravel() for array in arrays])


def oracle_terms(X, S, k):
    """The two terms of equation 2 by scipy and numpy."""
    D = oracle_divergence(X, S)
    logs = np.log(SIZES)
    size = (logs - logs.mean()) / logs.std()
    D = (D - D.mean(axis=1, keepdims=True)) / D.std(axis=1, keepdims=True)
    return np.tile(size, (len(X), 1)), k * D


def oracle_divergence(X, S):
    return cdist(
        X / X.sum(axis=1, keepdims=True),
        S / S.sum(axis=1, keepdims=True),
        "cityblock",
    )


def by_row(points):
    points = np.asarray(points)
    return points[np.lexsort(points.T[::-1])]


def oracle_rho(y, E):
    known = [~np.isnan(row) for row in y]
    return np.mean([spearmanr(t[m], e[m]).statistic for t, e, m in zip(y, E, known)])


# KCurveDisplay

CURVES = {
    "KL": [[-np.inf, -3, 0.2], [-3, -1, 0.7], [-1, 0.5, 0.6], [0.5, np.inf, -0.1]],
    "L1": [[-np.inf, -2, 0.1], [-2, 0, 0.4], [0, np.inf, 0.3]],
}


def test_k_curve_draws_steps_and_the_chosen_k():
    display = KCurveDisplay.from_predictions(CURVES, k_range=(-4, 2))
    kl, l1 = display.lines_
    assert_array_equal(kl.get_xdata(), [-4, -3, -1, 0.5, 2])
    assert_array_equal(kl.get_ydata(), [0.2, 0.7, 0.6, -0.1, -0.1])
    assert_array_equal(l1.get_xdata(), [-4, -2, 0, 2])
    assert_array_equal(l1.get_ydata(), [0.1, 0.4, 0.3, 0.3])
    assert kl.get_drawstyle() == "steps-post"
    assert [m.get_xydata().tolist() for m in display.best_] == [
        [[-2, 0.7]],
        [[-1, 0.4]],
    ]
    assert display.ax_.get_xlim() == (-4, 2)
    assert kl.get_color() != l1.get_color()
    assert kl.get_linestyle() != l1.get_linestyle()
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == ["KL\n(ρ = 0.700 at k = -2)", "L1\n(ρ = 0.400 at k = -1)"]


def test_k_curve_leaves_out_what_is_beyond_the_range():
    display = KCurveDisplay.from_predictions(CURVES, k_range=(-0.5, 0.2))
    assert_array_equal(display.lines_[0].get_xdata(), [-0.5, 0.2])
    assert_array_equal(display.lines_[0].get_ydata(), [0.6, 0.6])


def test_k_curve_shows_best_intervals_and_not_the_tails():
    ends = np.concatenate([[-1e6, -40, -30], np.linspace(-2, 2, 400), [1e6]])
    score = np.zeros(len(ends) + 1)
    score[2] = 1  # between -40 and -30
    curve = np.column_stack([[-np.inf, *ends], [*ends, np.inf], score])
    low, high = KCurveDisplay.from_predictions({"far": curve}).ax_.get_xlim()
    assert -50 < low < -40 and 1.5 < high < 5


def test_k_curve_without_any_breakpoint():
    display = KCurveDisplay.from_predictions({"flat": [[-np.inf, np.inf, 0.5]]})
    assert display.ax_.get_xlim() == (-2, 0)  # around k = -1
    assert_array_equal(display.lines_[0].get_ydata(), [0.5, 0.5])


def test_k_curve_from_estimator_learns_with_each_metric(selector, X, y, frame):
    metrics = ["cityblock", "kl"]
    display = KCurveDisplay.from_estimator(
        selector, X, frame, metrics=metrics, k_range=(-5, 5)
    )
    assert list(display.curves) == ["cityblock", "KL"]
    assert selector.k_ == -1.5 and not hasattr(selector, "k_curve_")
    for metric, line, best in zip(metrics, display.lines_, display.best_):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = SourceSelector(selector.sources, metric=metric).fit(X, y)
        # The heights of the steps, from E itself.
        x, heights = line.get_data()
        middles = (x[1:] + x[:-1]) / 2
        for k, height in zip(middles, heights):
            E = SourceSelector(selector.sources, metric=metric, k=k).fit(X)
            rho = oracle_rho(y, np.asarray(E.decision_function(X)))
            assert_allclose(height, rho, atol=1e-9)
        assert_allclose(best.get_xdata(), [fitted.k_])
        assert_allclose(best.get_ydata(), [fitted.k_curve_[:, 2].max()])
    own = KCurveDisplay.from_estimator(selector, X, y, k_range=(-5, 5))
    assert list(own.curves) == ["cityblock"]
    assert_array_equal(own.lines_[0].get_xydata(), display.lines_[0].get_xydata())
    assert list(KCurveDisplay.from_estimator(selector, X, y, metrics="js").curves) == [
        "JS"
    ]


class TalkativeSelector(SourceSelector):
    """Warns of something else than the weight."""

    def fit(self, X, y=None):
        warnings.warn("something else", UserWarning, stacklevel=2)
        return super().fit(X, y)


def test_k_curve_silences_warnings_on_k_alone(selector, X, S):
    y = oracle_divergence(X, S)  # the more distant, the better
    y[2] = 1.0
    with pytest.warns(LearnedWeightWarning) as record:
        SourceSelector(selector.sources, metric="cityblock").fit(X, y)
    assert len(record) == 3  # a target without a ranking, no bound, and positive
    KCurveDisplay.from_estimator(selector, X, y)
    talkative = TalkativeSelector(selector.sources, metric="cityblock")
    with pytest.warns(UserWarning, match="something else") as record:
        KCurveDisplay.from_estimator(talkative, X, y)
    assert len(record) == 1


def test_k_curve_of_a_pipeline_learns_from_its_vectors(pipeline, selector, X, y):
    datasets = [np.array([x]) for x in X]
    metrics = ["cityblock", "kl"]
    expected = KCurveDisplay.from_estimator(selector, X, y, metrics=metrics)
    unfitted = make_pipeline(pipeline[0], SourceSelector(selector.sources))
    display = KCurveDisplay.from_estimator(unfitted, datasets, y, metrics=metrics)
    assert pipeline[0].n_calls == 1
    assert not hasattr(unfitted[-1], "k_")
    assert_allclose(content(display), content(expected), atol=1e-9)
    with pytest.raises(NotFittedError):
        KCurveDisplay.from_estimator(
            make_pipeline(DatasetEmbedder(), selector), datasets, y
        )


def test_k_curve_refuses_signs_before_embedding(y):
    datasets = [np.array([[i - 3.0, 1.0, 2.0]]) for i in range(6)]
    embedder = CountingEmbedder().fit(datasets)
    catalog = SourceCatalog.from_arrays(np.eye(5, 3) + 1, sizes=SIZES, names=NAMES)
    pipeline = make_pipeline(embedder, SourceSelector(catalog, metric="cityblock"))
    with pytest.raises(ValueError, match="have a sign"):
        KCurveDisplay.from_estimator(pipeline, datasets, y, metrics=["cosine", "js"])
    assert embedder.n_calls == 0
    KCurveDisplay.from_estimator(pipeline, datasets, y, metrics=["cosine"])


@pytest.mark.parametrize(
    "curves, match",
    [
        ([[-np.inf, np.inf, 0.5]], "curves must be a mapping"),
        ({}, "curves must be a mapping"),
        ({"KL": [[1.0, 2.0]]}, r"curves\['KL'\] must be of shape \(n_intervals, 3\)"),
    ],
)
def test_k_curve_refuses(curves, match):
    with pytest.raises(ValueError, match=match):
        KCurveDisplay.from_predictions(curves)


def test_k_range_must_increase():
    with pytest.raises(ValueError, match="k_range must be increasing"):
        KCurveDisplay.from_predictions(CURVES, k_range=(2, -2))
    assert not plt.get_fignums()


# PicksDisplay


def test_picks_draws_the_share_of_targets_reached():
    y = [
        [3, 1, 2, np.nan],
        [1, 3, 2, 0],
        [0, 1, np.nan, 4],
        [np.nan, 1, np.nan, np.nan],
    ]
    first = [4.0, 3.0, 2.0, 1.0]  # best sources reached with picks 1, 2 and 3
    display = PicksDisplay.from_predictions(y, [first] * 4)
    (line,) = display.lines_
    assert_array_equal(line.get_xdata(), [1, 2, 3, 4])
    assert_allclose(line.get_ydata(), [1 / 3, 2 / 3, 1, 1])
    assert line.get_drawstyle() == "steps-post"
    assert line.get_label() == "E (mean 2)"


def test_picks_compares_selectors_whose_best_are_tied():
    y = [[1.0, 2.0, 0.0, -1.0]]
    scores = {"perfect": [[1, 2, 0, -1]], "constant": [[5, 5, 5, 5]]}
    display = PicksDisplay.from_predictions(y, scores)
    perfect, constant = display.lines_
    assert_array_equal(perfect.get_ydata(), [1, 1, 1, 1])
    assert_array_equal(constant.get_ydata(), [0, 0, 1, 1])  # 2.5 picks
    assert perfect.get_linestyle() != constant.get_linestyle()
    assert perfect.get_marker() != constant.get_marker()


class Largest(BaseEstimator):
    """A baseline that knows no sources and names no columns."""

    def fit(self, X, y=None):
        return self

    def decision_function(self, X):
        return np.tile(np.log(SIZES), (len(X), 1))


def test_picks_from_estimators(selector, X, S, y, frame):
    pipeline = make_pipeline(FunctionTransformer(), selector)
    estimators = {"P2L": pipeline, "largest": Largest()}
    display = PicksDisplay.from_estimator(estimators, X, y)
    for line, E in zip(
        display.lines_, [sum(oracle_terms(X, S, -1.5)), np.tile(SIZES, (6, 1))]
    ):
        picks = [
            rankdata(-e[~np.isnan(t)])[np.nanargmax(t[~np.isnan(t)])]
            for t, e in zip(y, E)
        ]
        share = [np.mean(np.array(picks) <= n) for n in range(1, 6)]
        assert_allclose(line.get_ydata(), share)
    alone = PicksDisplay.from_estimator(selector, X, frame)
    assert list(alone.picks) == ["SourceSelector"]
    assert_array_equal(alone.lines_[0].get_xydata(), display.lines_[0].get_xydata())
    assert list(PicksDisplay.from_estimator(pipeline, X, y).picks) == ["SourceSelector"]
    same = PicksDisplay.from_predictions(
        y, {name: e.decision_function(X) for name, e in estimators.items()}
    )
    for a, b in zip(same.lines_, display.lines_):
        assert_array_equal(a.get_xydata(), b.get_xydata())


def test_picks_matches_the_columns_of_each_estimator(selector, X, frame):
    names = NAMES[::-1]
    other = SourceSelector(selector.sources[names], metric="cityblock", k=-1.5).fit(X)
    display = PicksDisplay.from_estimator({"a": selector, "b": other}, X, frame)
    a, b = display.lines_
    assert_array_equal(a.get_xydata(), b.get_xydata())


def test_picks_refuses():
    with pytest.raises(ValueError, match="same shape"):
        PicksDisplay.from_predictions([[1, 2]], [[1, 2, 3]])
    with pytest.raises(ValueError, match="at least two measured sources"):
        PicksDisplay.from_predictions([[1, np.nan]], [[1, 2]])
    with pytest.raises(ValueError, match="at least one ranker"):
        PicksDisplay.from_predictions([[1, 2]], {})


# RankingDisplay


def spans(bars):
    return [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars]


def row_names(display):
    return [t.get_text() for t in display.ax_.get_yticklabels()]


def test_ranking_stacks_each_sign_on_its_side():
    display = RankingDisplay.from_predictions(
        {
            "size": [1.0, -2.0, 0.5, -np.inf, -1.0],
            "divergence": [2.0, -1.0, -1.0, 0.0, 3.0],
        },
        names=["both up", "both down", "down", "excluded", "up"],
    )
    assert row_names(display) == ["both up", "up", "down", "both down"]
    assert spans(display.bars_["size"]) == [(0, 1), (0, -1), (0, 0.5), (0, -2)]
    assert spans(display.bars_["divergence"]) == [(1, 3), (0, 3), (0, -1), (-2, -3)]
    assert_array_equal(display.scores_.get_xdata(), [3, 2, -0.5, -3])
    bars = display.bars_["size"]
    middles = [bar.get_y() + bar.get_height() / 2 for bar in bars]
    assert_allclose(middles, display.scores_.get_ydata())
    # The best is on top.
    heights = display.ax_.transData.transform(display.scores_.get_xydata())[:, 1]
    assert (np.diff(heights) < 0).all()
    assert display.ax_.get_xlabel() == "score E = z(log|s|) + k · z(D)"


def test_ranking_stacks_any_number_of_terms():
    display = RankingDisplay.from_predictions(
        {"prior": [2, -1, 3], "probe": [1, -2, -1], "logme": [-4, 1, 2]},
        names=["a", "b", "c"],
    )
    assert row_names(display) == ["c", "a", "b"]
    assert list(display.bars_) == ["prior", "probe", "logme"]
    assert spans(display.bars_["prior"]) == [(0, 3), (0, 2), (0, -1)]
    assert spans(display.bars_["probe"]) == [(0, -1), (2, 3), (-1, -3)]
    assert spans(display.bars_["logme"]) == [(3, 5), (0, -4), (0, 1)]
    assert_array_equal(display.scores_.get_xdata(), [4, -1, -2])
    colors = {bars[0].get_facecolor() for bars in display.bars_.values()}
    assert len(colors) == 3
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == ["prior", "probe", "logme", "E, their sum"]
    assert display.ax_.get_xlabel() == "score E, the sum of its terms"


def test_ranking_tells_more_terms_apart_than_there_are_colours():
    terms = {f"term {i}": [1.0, 2.0] for i in range(10)}
    display = RankingDisplay.from_predictions(terms, names="ab")
    assert spans(display.bars_["term 9"]) == [(18, 20), (9, 10)]
    looks = {(b[0].get_facecolor(), b[0].get_hatch()) for b in display.bars_.values()}
    assert len(looks) == 10


def test_ranking_keeps_a_given_order():
    terms = {"prior": [1.0, 2.0, 3.0, -np.inf]}
    display = RankingDisplay.from_predictions(terms, names="abcd", order=[1, 3, 0])
    assert row_names(display) == ["b", "a"]
    assert spans(display.bars_["prior"]) == [(0, 2), (0, 1)]
    display = RankingDisplay.from_predictions(terms, names="abcd", order=[0, 2], top=1)
    assert row_names(display) == ["a"]


def test_ranking_of_one_target(selector, X, S):
    size, divergence = (term[2] for term in oracle_terms(X, S, -1.5))
    order = np.argsort(-(size + divergence))
    for x in (X[2], X[2:3], X[2].tolist(), tuple(X[2]), [X[2]], pd.Series(X[2])):
        display = RankingDisplay.from_estimator(selector, x, top=3)
        assert row_names(display) == [NAMES[j] for j in order[:3]]
        widths = [bar.get_width() for bar in display.bars_["size"]]
        assert_allclose(widths, size[order[:3]], atol=1e-9)
        widths = [bar.get_width() for bar in display.bars_["divergence"]]
        assert_allclose(widths, divergence[order[:3]], atol=1e-9)
    terms = {name: term[2] for name, term in selector.decision_terms(X).items()}
    same = RankingDisplay.from_predictions(terms, names=NAMES, top=3)
    assert_array_equal(content(same), content(display))
    assert len(display.plot().bars_["size"]) == 5


def test_ranking_tells_how_sure_it_is(selector, X, y):
    """On the right, where weights were learned; `explain` tells the same."""
    ranker = EvidenceSelector(selector.sources, signals=["size", "cityblock"])
    display = RankingDisplay.from_estimator(ranker.fit(X, y), X[1], top=3)
    (right,) = display.ax_.child_axes
    chances = ranker.predict_proba(X[1:2])[0]
    order = np.argsort(-ranker.decision_function(X[1:2])[0])
    labels = [tick.get_text() for tick in right.get_yticklabels()]
    assert labels == [f"{chances[j]:.0%}" for j in order[:3]]
    assert_allclose(ranker.explain(X[1:2])["p_best"], chances[order])
    display.figure_.draw_without_rendering()
    legend = display.ax_.get_legend().get_window_extent()
    assert legend.x0 > right.yaxis.get_tightbbox().x0
    equal = EvidenceSelector(selector.sources, signals=["size"]).fit(X)
    assert not RankingDisplay.from_estimator(equal, X[1]).ax_.child_axes
    assert "p_best" not in equal.explain(X[1:2])


def test_ranking_of_every_ranker(selector, X, y):
    catalog = selector.sources
    for ranker, terms in [
        (selector, ["size", "divergence"]),
        (NearestSource(catalog), ["divergence"]),
        (LargestSource(catalog), ["size"]),
        (FixedSource(catalog, source="tools"), ["fixed"]),
        (ConstantRanking(catalog), ["prior"]),
        (RandomSource(catalog, random_state=3), ["constant"]),
        (NoTransfer(catalog), ["constant"]),
    ]:
        display = RankingDisplay.from_estimator(ranker.fit(X, y), X[1])
        expected = [name for name in ranker.predict(X[1:2])[0] if name is not None]
        assert row_names(display) == expected
        assert list(display.bars_) == terms
        E = dict(zip(NAMES, ranker.decision_function(X)[1]))
        drawn = dict(zip(expected, display.scores_.get_xdata()))
        assert drawn == pytest.approx(E)
    order = RandomSource(catalog, random_state=3).fit(X).order_
    assert sorted(order) != list(order)  # not what sorting equal scores gives


class WorstFirst(SourceSelector):
    """Ranks otherwise than by E."""

    def _order(self, E, n_top=None):
        return np.argsort(E, axis=1)[:, :n_top]


def test_ranking_goes_by_the_order_of_the_ranker(selector, X):
    ranker = WorstFirst(selector.sources, metric="cityblock", k=-1.5).fit(X)
    display = RankingDisplay.from_estimator(ranker, X[0])
    assert (np.diff(display.scores_.get_xdata()) > 0).all()
    assert row_names(display) == list(ranker.predict(X)[0])


def test_ranking_refuses_vectors_of_another_network(X, S):
    catalog = SourceCatalog.from_arrays(
        S, sizes=SIZES, names=NAMES, fingerprint="squeezenet"
    )
    selector = SourceSelector(catalog, metric="cityblock", k=-1.0).fit(X)
    same, other = Vectors(X, "squeezenet"), Vectors(X, "vgg16")
    expected = content(RankingDisplay.from_estimator(selector, X[1]))
    for x in (1, [1], slice(1, 2)):
        display = RankingDisplay.from_estimator(selector, same[x])
        assert_array_equal(content(display), expected)
        with pytest.raises(ValueError, match="same reference network"):
            RankingDisplay.from_estimator(selector, other[x])


def test_ranking_of_a_dataset(pipeline, selector, datasets, X):
    expected = content(RankingDisplay.from_estimator(selector, X[4]))
    alone = np.empty(1, dtype=object)
    alone[0] = datasets[4]
    task = Task(datasets[4], ["a", "b", "a"])
    for x in ([datasets[4]], (datasets[4],), alone, [task]):
        display = RankingDisplay.from_estimator(pipeline, x)
        assert_allclose(content(display), expected, atol=1e-9)
    for x in (datasets[4], task, datasets):
        with pytest.raises(ValueError, match=r"x must be one target, .*\[dataset\]"):
            RankingDisplay.from_estimator(pipeline, x)


def test_ranking_takes_a_name_for_no_vector(selector, X):
    """A list of one path is a batch of one dataset."""
    read = FunctionTransformer(lambda paths: np.array([X[int(p)] for p in paths]))
    pipeline = make_pipeline(read, selector)
    expected = content(RankingDisplay.from_estimator(selector, X[3]))
    for x in (["3"], np.array(["3"]), pd.Series(["3"])):
        display = RankingDisplay.from_estimator(pipeline, x)
        assert_array_equal(content(display), expected)


def test_ranking_of_a_row_of_a_frame(X, S):
    columns = list("abcd")
    sources = pd.DataFrame(S, columns=columns, index=NAMES)
    X = pd.DataFrame(X, columns=columns)
    selector = SourceSelector(sources, metric="cityblock", k=-1.0).fit(X)
    by_series = RankingDisplay.from_estimator(selector, X.iloc[1])
    by_frame = RankingDisplay.from_estimator(selector, X.iloc[[1]])
    assert_array_equal(content(by_series), content(by_frame))


def test_ranking_leaves_the_target_itself_out(X):
    selector = SourceSelector(metric="cityblock", k=-1.0, exclude_self=True).fit(X)
    display = RankingDisplay.from_estimator(selector, X[4])
    names = {t.get_text() for t in display.ax_.get_yticklabels()}
    assert names == {"0", "1", "2", "3", "5"}


def test_ranking_refuses(selector, X):
    with pytest.raises(ValueError, match="x must be one target, got 6 rows"):
        RankingDisplay.from_estimator(selector, X)
    draw = RankingDisplay.from_predictions
    two = {"size": [1, 2]}
    for terms in ([1, 2], {}):
        with pytest.raises(ValueError, match="terms must be a mapping of names"):
            draw(terms, names="ab")
    with pytest.raises(
        ValueError, match=r"terms\['divergence'\] must be of shape \(2,\)"
    ):
        draw({"size": [1, 2], "divergence": [1, 2, 3]}, names="ab")
    with pytest.raises(ValueError, match="names must hold 2 names, got 1"):
        draw(two, names=["a"])
    for size in ([1, np.nan], [1, np.inf], [-np.inf, -np.inf]):
        with pytest.raises(ValueError, match="terms must be finite for some source"):
            draw({"size": size}, names="ab")
    with pytest.raises(ValueError, match="top must be an int of at least 1"):
        draw(two, names="ab", top=0)
    for order in ([0, 0], [0, 2], [-1, 0], [0.0, 1.0], [[0, 1]], ["a"]):
        with pytest.raises(ValueError, match="order must hold positions"):
            draw(two, names="ab", order=order)
    assert not plt.get_fignums()


# ScoreImprovementDisplay


def test_score_improvement_draws_measured_cells(y, rng):
    E = rng.normal(size=y.shape)
    display = ScoreImprovementDisplay.from_predictions(y, E, target_names="ABCDEF")
    assert len(display.scatters_) == 6
    for scatter, truth, score in zip(display.scatters_, y, E):
        known = ~np.isnan(truth)
        expected = np.column_stack([score[known], truth[known]])
        assert_array_equal(by_row(scatter.get_offsets()), by_row(expected))
    assert display.text_.get_text() == f"mean ρ = {oracle_rho(y, E):.2f}"
    labels = [t.get_text() for t in display.ax_.get_legend().get_texts()]
    assert labels == list("ABCDEF")
    colors = {tuple(s.get_facecolor()[0]) for s in display.scatters_}
    assert len(colors) == 6


def test_score_improvement_of_many_targets_has_one_colour(rng):
    y, E = rng.normal(size=(9, 3)), rng.normal(size=(9, 3))
    display = ScoreImprovementDisplay.from_predictions(y, E)
    (scatter,) = display.scatters_
    expected = np.column_stack([E.ravel(), y.ravel()])
    assert_array_equal(by_row(scatter.get_offsets()), by_row(expected))
    assert display.text_.get_text() == f"mean ρ = {oracle_rho(y, E):.2f}"
    assert len(ScoreImprovementDisplay.from_predictions(y[:8], E[:8]).scatters_) == 8


def test_score_improvement_from_estimator(selector, X, S, y, frame):
    E = sum(oracle_terms(X, S, -1.5))
    for estimator in (selector, make_pipeline(FunctionTransformer(), selector)):
        display = ScoreImprovementDisplay.from_estimator(estimator, X, frame)
        drawn = np.concatenate([s.get_offsets() for s in display.scatters_])
        known = ~np.isnan(y)
        expected = np.column_stack([E[known], y[known]])
        assert_allclose(by_row(drawn), by_row(expected), atol=1e-9)
        labels = [t.get_text() for t in display.ax_.get_legend().get_texts()]
        assert labels == list(frame.index)
    same = ScoreImprovementDisplay.from_predictions(y, selector.decision_function(X))
    assert same.text_.get_text() == display.text_.get_text()
    baseline = ScoreImprovementDisplay.from_estimator(Largest(), X, y)
    assert_array_equal(
        baseline.scatters_[1].get_offsets(), np.column_stack([np.log(SIZES), y[1]])
    )


def test_excluded_sources_are_not_drawn(X, y):
    # The sources are the targets; without the diagonal, where E is -inf.
    selector = SourceSelector(metric="cityblock", k=-1.0, exclude_self=True).fit(X)
    square = np.arange(36.0).reshape(6, 6)
    off = ~np.eye(6, dtype=bool)
    display = ScoreImprovementDisplay.from_estimator(selector, X, square)
    drawn = np.concatenate([s.get_offsets()[:, 1] for s in display.scatters_])
    assert_array_equal(np.sort(drawn), np.sort(square[off]))
    assert display.text_.get_text() == f"mean ρ = {selector.score(X, square):.2f}"
    display = SizeSimilarityDisplay.from_estimator(selector, X, square)
    assert_array_equal(np.sort(display.scatter_.get_array()), np.sort(square[off]))
    display = PicksDisplay.from_estimator(selector, X, square + 100 * np.eye(6))
    E = np.asarray(selector.decision_function(X))
    best = np.where(off, square, -1).argmax(axis=1)
    picks = [rankdata(-E[i])[best[i]] for i in range(6)]
    assert_allclose(display.picks["SourceSelector"], picks)


def test_score_improvement_refuses():
    with pytest.raises(ValueError, match="same shape"):
        ScoreImprovementDisplay.from_predictions([[1, 2]], [[1, 2, 3]])
    with pytest.raises(ValueError, match="y must hold measured improvements"):
        ScoreImprovementDisplay.from_predictions([[np.nan, np.nan]], [[1, 2]])
    with pytest.raises(ValueError, match="target_names must hold 1 names, got 2"):
        ScoreImprovementDisplay.from_predictions([[1, 2]], [[1, 2]], target_names="ab")


# SizeSimilarityDisplay


def test_size_similarity_draws_one_bubble_per_measured_cell():
    display = SizeSimilarityDisplay.from_predictions(
        [10, 1000], [[0.1, 0.2], [0.3, 0.4]], [[5.0, np.nan], [1.0, 3.0]], metric="kl"
    )
    scatter = display.scatter_
    assert_array_equal(scatter.get_offsets(), [[10, 0.1], [1000, 0.4], [10, 0.3]])
    assert_array_equal(scatter.get_array(), [5, 3, 1])
    areas = scatter.get_sizes()
    assert areas[0] > areas[2] > 0
    assert_allclose(areas[1], (areas[0] + areas[2]) / 2)
    ax = display.ax_
    assert ax.get_xscale() == "log"
    assert ax.get_ylabel() == "divergence (KL), nearer is up"
    near, far = ax.transData.transform([[10, 0.1], [10, 0.4]])[:, 1]
    assert near > far
    assert display.colorbar_.ax.get_ylabel() == "improvement"


def test_size_similarity_standardizes_within_targets(y):
    D = np.arange(30.0).reshape(6, 5)
    display = SizeSimilarityDisplay.from_predictions(SIZES, D, y, standardize=True)
    z = (y - np.nanmean(y, axis=1, keepdims=True)) / np.nanstd(y, axis=1, keepdims=True)
    drawn = dict(
        zip(display.scatter_.get_offsets()[:, 1], display.scatter_.get_array())
    )
    expected = dict(zip(D[~np.isnan(y)], z[~np.isnan(y)]))
    assert drawn.keys() == expected.keys()
    assert_allclose([drawn[d] for d in expected], list(expected.values()), atol=1e-9)
    assert "z within target" in display.colorbar_.ax.get_ylabel()


def test_size_similarity_stays_inverted_when_drawn_twice():
    display = SizeSimilarityDisplay.from_predictions([1, 2], [[0.1, 0.5]], [[1, 1]])
    assert np.unique(display.scatter_.get_sizes()).size == 1
    display.plot(display.ax_)
    assert display.ax_.yaxis_inverted()


def test_size_similarity_from_estimator(selector, X, S, y, frame):
    D = oracle_divergence(X, S)
    display = SizeSimilarityDisplay.from_estimator(selector, X, frame)
    known = ~np.isnan(y)
    expected = np.column_stack([np.tile(SIZES, (6, 1))[known], D[known], y[known]])
    scatter = display.scatter_
    drawn = np.column_stack([scatter.get_offsets(), scatter.get_array()])
    assert_allclose(by_row(drawn), by_row(expected))
    assert "(cityblock)" in display.ax_.get_ylabel()
    same = SizeSimilarityDisplay.from_predictions(SIZES, D, y)
    assert_allclose(same.scatter_.get_offsets(), scatter.get_offsets())
    assert_allclose(same.scatter_.get_sizes(), scatter.get_sizes())


def test_size_similarity_matches_frames_and_skips_unknown_divergences(y, frame):
    D = np.arange(30.0).reshape(6, 5)
    D[1, 1] = np.nan
    display = SizeSimilarityDisplay.from_predictions(
        pd.Series(SIZES, NAMES)[::-1], pd.DataFrame(D, columns=NAMES), frame
    )
    known = ~np.isnan(y) & ~np.isnan(D)
    sizes = display.scatter_.get_offsets()[:, 0]
    assert_array_equal(np.sort(sizes), np.sort(np.tile(SIZES, (6, 1))[known]))
    assert np.unique(known.sum(axis=0)).size > 1  # sizes mixed up would be seen
    drawn = np.column_stack(
        [display.scatter_.get_offsets()[:, 1], display.scatter_.get_array()]
    )
    assert_array_equal(by_row(drawn), np.column_stack([D[known], y[known]]))


@pytest.mark.parametrize(
    "sizes, D, y, match",
    [
        ([1, 2], [[1, 2]], [[1, 2, 3]], r"improvements must be of shape \(1, 2\)"),
        ([1, 2, 3], [[1, 2]], [[1, 2]], r"sizes must be of shape \(2,\)"),
        ([1, 2], [1, 2], [1, 2], "divergences must be of shape 2-D"),
        ([0, 2], [[1, 2]], [[1, 2]], "sizes must be positive"),
        ([1, 2], [[1, 2]], [[np.nan, np.nan]], "improvements must hold"),
    ],
)
def test_size_similarity_refuses(sizes, D, y, match):
    with pytest.raises(ValueError, match=match):
        SizeSimilarityDisplay.from_predictions(sizes, D, y)


# SourceComparisonDisplay


def test_comparison_separates_wins_from_losses():
    x, difference = [0.1, 0.2, 0.3, 0.4, 0.5], [-1.0, -2.0, 0.0, np.nan, 3.0]
    display = SourceComparisonDisplay.from_predictions(
        x, difference, source="big", reference="small", target_names="ABCDE"
    )
    assert_array_equal(display.wins_.get_offsets(), [[0.5, 3]])
    assert_array_equal(display.losses_.get_offsets(), [[0.1, -1], [0.2, -2]])
    assert_array_equal(display.ties_.get_offsets(), [[0.3, 0]])
    assert_array_equal(display.line_.get_ydata(), [0, 0])
    rho = spearmanr([0.1, 0.2, 0.3, 0.5], [-1, -2, 0, 3]).statistic
    assert display.text_.get_text() == f"ρ = {rho:.2f}"
    labels = {label.get_text(): label.xy for label in display.labels_}
    assert labels == {"A": (0.1, -1), "B": (0.2, -2), "C": (0.3, 0), "E": (0.5, 3)}
    legend = [t.get_text() for t in display.ax_.get_legend().get_texts()]
    assert legend == ["big wins (1)", "small wins (2)", "tie (1)"]
    colors = [tuple(s.get_facecolor()[0]) for s in (display.wins_, display.losses_)]
    assert colors[0] != colors[1]
    assert "small" in display.ax_.get_xlabel()


def test_comparison_from_estimator(selector, X, S, y, frame):
    display = SourceComparisonDisplay.from_estimator(
        selector, X, frame, source="cars", reference="scenes"
    )
    D, difference = oracle_divergence(X, S)[:, 3], y[:, 1] - y[:, 3]
    drawn = np.concatenate([display.wins_.get_offsets(), display.losses_.get_offsets()])
    known = ~np.isnan(difference)
    assert known.sum() == 5
    expected = np.column_stack([D, difference])[known]
    assert_allclose(by_row(drawn), by_row(expected))
    assert display.labels_ == []
    assert display.ax_.get_xlabel() == "divergence from scenes (cityblock)"
    same = SourceComparisonDisplay.from_predictions(
        D, difference, source="cars", reference="scenes"
    )
    assert_allclose(same.wins_.get_offsets(), display.wins_.get_offsets())
    assert same.text_.get_text() == display.text_.get_text()


def test_distances_given_instead_of_summaries(X, S, y, frame):
    D = oracle_divergence(X, S)
    D[1, 1] = np.nan  # no candidate
    catalog = SourceCatalog.from_arrays(S, sizes=SIZES, names=NAMES)
    distances = pd.DataFrame(D, columns=NAMES)[NAMES[::-1]]
    selector = SourceSelector(catalog, metric="precomputed", k=-1.0).fit(distances)
    display = SizeSimilarityDisplay.from_estimator(selector, distances, frame)
    known = ~np.isnan(y) & ~np.isnan(D)
    drawn = np.column_stack(
        [display.scatter_.get_offsets()[:, 1], display.scatter_.get_array()]
    )
    assert_array_equal(by_row(drawn), by_row(np.column_stack([D[known], y[known]])))
    assert display.ax_.get_ylabel() == "divergence, nearer is up"
    display = SourceComparisonDisplay.from_estimator(
        selector, distances, frame, source="birds", reference="cars"
    )
    drawn = np.concatenate([display.wins_.get_offsets(), display.losses_.get_offsets()])
    expected = np.column_stack([D[:, 1], y[:, 0] - y[:, 1]])[known[:, 1] & known[:, 0]]
    assert len(expected) == 4  # neither target 0, not measured, nor target 1
    assert_array_equal(by_row(drawn), by_row(expected))
    swapped = SourceComparisonDisplay.from_estimator(
        selector, distances, frame, source="cars", reference="birds"
    )
    x = [s.get_offsets()[:, 0] for s in (swapped.wins_, swapped.losses_)]
    assert_array_equal(np.sort(np.concatenate(x)), np.sort(D[[2, 3, 4, 5], 0]))
    display = RankingDisplay.from_estimator(selector, distances.iloc[1])
    names = {t.get_text() for t in display.ax_.get_yticklabels()}
    assert names == set(NAMES) - {"cars"}


def test_comparison_refuses(selector, X, y):
    for source, reference, match in [
        ("boats", "cars", "source must be the name of a source, got 'boats'"),
        ("cars", "boats", "reference must be the name of a source, got 'boats'"),
    ]:
        with pytest.raises(ValueError, match=match):
            SourceComparisonDisplay.from_estimator(
                selector, X, y, source=source, reference=reference
            )
    with pytest.raises(ValueError, match=r"differences must be of shape \(2,\)"):
        SourceComparisonDisplay.from_predictions(
            [1, 2], [1, 2, 3], source="a", reference="b"
        )
    with pytest.raises(ValueError, match="differences must hold measured ones"):
        SourceComparisonDisplay.from_predictions(
            [1, np.nan], [np.nan, 1], source="a", reference="b"
        )
    with pytest.raises(ValueError, match="target_names must hold 2 names, got 3"):
        SourceComparisonDisplay.from_predictions(
            [1, 2], [1, 2], source="a", reference="b", target_names="abc"
        )


# SourceSizesDisplay


def test_sizes_are_logarithms_with_the_largest_on_top(selector):
    for display in (
        SourceSizesDisplay.from_estimator(selector),
        SourceSizesDisplay.from_predictions(SIZES, NAMES),
    ):
        widths = [bar.get_width() for bar in display.bars_]
        assert_allclose(widths, np.log10([20_000, 5_000, 1_000, 300, 150]))
        ax = display.ax_
        assert [t.get_text() for t in ax.get_yticklabels()] == [
            "cars",
            "a very long source",
            "tools",
            "birds",
            "scenes",
        ]
        rows = ax.transData.transform([[0, bar.get_y()] for bar in display.bars_])
        assert (np.diff(rows[:, 1]) < 0).all()
        assert [t.get_text() for t in ax.texts][:2] == ["20,000", "5,000"]


def test_sizes_refuses():
    with pytest.raises(ValueError, match="sizes must be positive, got -1"):
        SourceSizesDisplay.from_predictions([1, -1], ["a", "b"])
    with pytest.raises(ValueError, match="sizes must be of shape 1-D"):
        SourceSizesDisplay.from_predictions([[1, 2]], ["a", "b"])
    with pytest.raises(ValueError, match="names must hold 2 names, got 3"):
        SourceSizesDisplay.from_predictions([1, 2], ["a", "b", "c"])


# All of them


def draw_all(selector, X, y):
    """One function of `ax` per display."""
    return {
        "KCurveDisplay": lambda **kw: KCurveDisplay.from_predictions(CURVES, **kw),
        "PicksDisplay": lambda **kw: PicksDisplay.from_estimator(selector, X, y, **kw),
        "RankingDisplay": lambda **kw: RankingDisplay.from_estimator(
            selector, X[0], **kw
        ),
        "ScoreImprovementDisplay": lambda **kw: ScoreImprovementDisplay.from_estimator(
            selector, X, y, **kw
        ),
        "SizeSimilarityDisplay": lambda **kw: SizeSimilarityDisplay.from_estimator(
            selector, X, y, **kw
        ),
        "SourceComparisonDisplay": lambda **kw: SourceComparisonDisplay.from_estimator(
            selector, X, y, source="cars", reference="birds", **kw
        ),
        "SourceSizesDisplay": lambda **kw: SourceSizesDisplay.from_estimator(
            selector, **kw
        ),
    }


@pytest.mark.parametrize("name", plotting.__all__)
def test_axes_are_honoured(name, selector, X, y):
    draw = draw_all(selector, X, y)[name]
    figure, axes = plt.subplots(1, 2)
    display = draw(ax=axes[1])
    assert display.ax_ is axes[1] and display.figure_ is figure
    assert not axes[0].has_data() and axes[1].has_data()
    assert plt.get_fignums() == [figure.number]
    assert display.plot(axes[0]) is display
    assert display.ax_ is axes[0] and axes[0].has_data()
    own = draw()
    assert own.figure_ is not figure and own.ax_.has_data()


@pytest.mark.parametrize("name", plotting.__all__)
def test_no_text_is_cut(name, selector, X, y):
    """In a figure of its own, labels and legends stay within the figure."""
    display = draw_all(selector, X, y)[name]()
    figure = display.figure_
    figure.canvas.draw()
    tight, whole = figure.get_tightbbox(), figure.bbox_inches
    assert tight.x0 >= -0.01 and tight.x1 <= whole.x1 + 0.01
    assert tight.y0 >= -0.01 and tight.y1 <= whole.y1 + 0.01


def test_legends_are_beside_lone_axes_only():
    lone = KCurveDisplay.from_predictions(CURVES)
    figure, axes = plt.subplots(2, layout="constrained")
    shared = KCurveDisplay.from_predictions(CURVES, ax=axes[0])
    for display, inside in ((lone, False), (shared, True)):
        display.figure_.canvas.draw()
        legend = display.ax_.get_legend().get_window_extent()
        assert (legend.x1 <= display.ax_.bbox.x1) == inside


@pytest.mark.parametrize("name", plotting.__all__)
@pytest.mark.parametrize("searched", [False, True])
def test_pipelines_are_taken(name, searched, pipeline, selector, datasets, X, y):
    if searched:
        grid = {"sourceselector__metric": ["cityblock"]}
        pipeline = GridSearchCV(pipeline, grid, cv=2).fit(datasets, y)
    embedder = pipeline.best_estimator_[0] if searched else pipeline[0]
    embedder.n_calls = 0
    draw = getattr(plotting, name).from_estimator

    def drawn(estimator, data):
        if name == "RankingDisplay":
            return content(draw(estimator, data[2:3]))
        if name == "SourceSizesDisplay":
            return content(draw(estimator))
        if name == "SourceComparisonDisplay":
            return content(draw(estimator, data, y, source="cars", reference="birds"))
        return content(draw(estimator, data, y))

    expected = drawn(selector, X)
    assert expected.size > 5
    assert_allclose(drawn(pipeline, datasets), expected, atol=1e-9)
    assert embedder.n_calls == (name != "SourceSizesDisplay")


@pytest.mark.parametrize(
    "name",
    [n for n in plotting.__all__ if n not in ("RankingDisplay", "SourceSizesDisplay")],
)
def test_columns_are_matched_by_name(name, pipeline, selector, datasets, X, y, frame):
    draw = getattr(plotting, name).from_estimator
    names = {"source": "cars", "reference": "birds"}
    given = names if name == "SourceComparisonDisplay" else {}
    expected = content(draw(selector, X, y, **given))
    for estimator, data in ((selector, X), (pipeline, datasets)):
        drawn = content(draw(estimator, data, frame, **given))
        assert_allclose(drawn, expected, atol=1e-9)
    by_position = content(draw(selector, X, frame.to_numpy(), **given))
    assert by_position.shape != expected.shape or not np.allclose(by_position, expected)
    X = pd.DataFrame(X, index=frame.index)
    selector = SourceSelector(selector.sources, metric="cityblock", k=-1.5).fit(X)
    with pytest.raises(ValueError, match="rows of y must be in the order"):
        draw(selector, X, frame[::-1], **given)


def test_divergences_of_the_nearest_source(selector, X, y):
    nearest = NearestSource(selector.sources, metric="cityblock").fit(X)
    for draw in (
        SizeSimilarityDisplay.from_estimator,
        lambda *args: SourceComparisonDisplay.from_estimator(
            *args, source="cars", reference="birds"
        ),
    ):
        assert_array_equal(content(draw(nearest, X, y)), content(draw(selector, X, y)))


@pytest.mark.parametrize(
    "draw, needs",
    [
        (KCurveDisplay.from_estimator, "k"),
        (SizeSimilarityDisplay.from_estimator, "divergences"),
        (
            lambda e, X, y: SourceComparisonDisplay.from_estimator(
                e, X, y, source="cars", reference="birds"
            ),
            "divergences",
        ),
        (lambda e, X, y: RankingDisplay.from_estimator(e, X[:1]), "decision_terms"),
        (lambda e, X, y: SourceSizesDisplay.from_estimator(e), "decision_terms"),
    ],
)
def test_other_estimators_are_refused_before_embedding(
    draw, needs, pipeline, selector, datasets, y
):
    other = Largest() if needs == "decision_terms" else LargestSource(selector.sources)
    embedder = pipeline[0]
    chain = make_pipeline(embedder, other.fit(embedder.transform(datasets)))
    embedder.n_calls = 0
    search = GridSearchCV(pipeline, {"sourceselector__k": [-1.0]})
    for estimator in (chain, search):
        with pytest.raises(TypeError, match=f"a ranker that has {needs!r}, .*, got"):
            draw(estimator, datasets, y)
    assert embedder.n_calls == 0


def test_unknown_sizes_are_refused(X, S, y):
    sizes = [*SIZES[:4], np.nan]
    catalog = SourceCatalog.from_arrays(S, sizes=sizes, names=NAMES)
    nearest = NearestSource(catalog, metric="cityblock").fit(X)
    with pytest.raises(ValueError, match="sources must have sizes.*tools"):
        SourceSizesDisplay.from_estimator(nearest)
    with pytest.raises(ValueError, match="sources must have sizes.*tools"):
        SizeSimilarityDisplay.from_estimator(nearest, X, y)
    RankingDisplay.from_estimator(nearest, X[0])


def test_unfitted_selectors_are_refused(selector, X, y):
    unfitted = SourceSelector(selector.sources)
    with pytest.raises(NotFittedError):
        SourceSizesDisplay.from_estimator(unfitted)
    with pytest.raises(NotFittedError):
        SizeSimilarityDisplay.from_estimator(unfitted, X, y)


def test_unknown_columns_are_refused(selector, X, frame):
    frame = frame.rename(columns={"cars": "boats"})
    for draw in (SizeSimilarityDisplay, ScoreImprovementDisplay, PicksDisplay):
        with pytest.raises(ValueError, match="unknown .*boats"):
            draw.from_estimator(selector, X, frame)


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )


def test_importing_needs_no_matplotlib():
    result = run(
        "import sys, sklearn_p2l.plotting\n"
        "print([n for n in sys.modules if n.split('.')[0] in ('matplotlib', 'torch')])"
    )
    assert result.stdout == "[]\n", result.stderr


def test_without_matplotlib_the_error_tells_what_to_install():
    result = run(
        "import sys\n"
        "sys.modules['matplotlib'] = None\n"
        "from sklearn_p2l.plotting import SourceSizesDisplay\n"
        "SourceSizesDisplay.from_predictions([1, 2], ['a', 'b'])"
    )
    assert "ImportError: Displays need matplotlib" in result.stderr
    assert 'pip install "sklearn-p2l[plot]"' in result.stderr
