"""evaluate_selectors on matrices whose tables can be worked out by hand."""

import warnings
from itertools import permutations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import spearmanr
from sklearn.model_selection import GridSearchCV, LeaveOneOut
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_p2l import SourceCatalog, SourceSelector
from sklearn_p2l.evaluation import _expected_best, evaluate_selectors
from sklearn_p2l.selection import (
    ConstantRanking,
    FixedSource,
    LargestSource,
    NearestSource,
    NoTransfer,
    RandomSource,
)

pd = pytest.importorskip("pandas")

NAMES = ["a", "b", "c", "d"]
ZOO = SourceCatalog.from_arrays(
    [[8, 1, 1], [1, 8, 1], [1, 1, 8], [3, 3, 3]],
    sizes=[100, 200, 300, 400],
    names=NAMES,
)
X = np.array([[8.0, 1, 2], [1, 8, 2], [1, 2, 8]])
I = pd.DataFrame(  # noqa: E741
    [[0.30, 0.10, 0.20, 0.00], [0.00, 0.40, 0.10, 0.20], [0.10, 0.20, 0.30, np.nan]],
    index=["t0", "t1", "t2"],
    columns=NAMES,
)
BASELINE = np.array([0.5, 0.4, 0.2])


class Given(RandomSource):
    """A selector with scores given in advance, by the first feature of X."""

    def __init__(self, sources=None, *, sizes=None, random_state=None, table=None):
        super().__init__(sources, sizes=sizes, random_state=random_state)
        self.table = table

    def _decision_terms(self, X):
        return {"given": np.array([self.table[row[0]] for row in X], dtype=float)}

    _order = LargestSource._order


TABLE = {8.0: [4, 1, 3, 2], 1.0: [1, 2, 3, 4]}


def evaluate(selectors, **settings):
    settings = {"baseline": BASELINE, **settings}
    return evaluate_selectors(selectors, X, I, **settings)


def of(result, selector):
    frame = result.targets
    return frame[frame["selector"] == selector].set_index("target")


def test_table_of_targets_by_hand():
    result = of(evaluate({"given": Given(ZOO, table=TABLE)}), "given")
    # t2 was not measured on d, so its pick is the next one, c.
    assert result["pick"].tolist() == ["a", "d", "c"]
    assert result["picked_best"].tolist() == [1, 0, 1]
    assert_allclose(result["performance"], [0.8, 0.6, 0.5])
    assert_allclose(result["best_performance"], [0.8, 0.8, 0.5])
    assert_allclose(result["baseline"], BASELINE)
    assert result["picks_to_best"].tolist() == [1, 3, 1]
    assert_allclose(result["regret_at_1"], [0, 0.25, 0])
    assert_allclose(result["regret_at_2"], [0, 0.25, 0])
    assert_allclose(result["regret_at_3"], [0, 0, 0])
    expected = [
        spearmanr([0.3, 0.1, 0.2, 0.0], [4, 1, 3, 2]).statistic,
        spearmanr([0.0, 0.4, 0.1, 0.2], [1, 2, 3, 4]).statistic,
        spearmanr([0.1, 0.2, 0.3], [1, 2, 3]).statistic,
    ]
    assert_allclose(result["spearman"], expected)
    assert result[["k", "k_low", "k_high"]].isna().all(axis=None)


def test_excluded_sources_take_no_part():
    """E = -inf is no candidate: what it would have gained does not matter."""
    y = pd.DataFrame(
        [[0.9, 0.3, 0.2, 0.1], [0.2, 0.9, 0.3, 0.1], [0.1, 0.3, 0.9, 0.2]],
        columns=NAMES,
    )
    own = ZOO.embeddings[:3]  # the targets are the sources a, b and c
    nearest = NearestSource(ZOO, metric="js", exclude_self=True)
    result = evaluate_selectors({"n": nearest}, own, y)
    assert (result.targets["best_performance"] == 0.3).all()
    expected = [nearest.fit(own).score(own[[i]], y.iloc[[i]]) for i in range(3)]
    assert_allclose(result.targets["spearman"], expected)
    assert len(result.scores) == 9


def test_a_target_with_one_source_counts_where_it_can():
    y = I.copy()
    y.loc["t2"] = [np.nan, np.nan, 0.3, np.nan]
    selectors = {"given": Given(ZOO, table=TABLE), "largest": LargestSource(ZOO)}
    result = evaluate_selectors(selectors, X, y, baseline=BASELINE)
    rows = of(result, "given")
    assert np.isnan(rows.loc["t2", "spearman"]) and rows.loc["t2", "picked_best"] == 1
    summary = result.summary.set_index(["selector", "measure"])
    assert summary.loc[("given", "spearman"), "mean"] == rows["spearman"][:2].mean()
    assert np.isfinite(summary.loc["largest"].loc["spearman"]).all()
    zero = pd.DataFrame([[0.0, -0.1], [0.2, 0.1]], columns=["a", "b"])
    result = evaluate_selectors(
        {"b": FixedSource(ZOO[["a", "b"]], source="b")}, X[:2], zero
    )
    assert np.isinf(result.summary.query("measure == 'regret_at_1'")["mean"]).all()


def test_names_are_matched_wherever_there_are_some():
    order = ["t2", "t0", "t1"]
    frame = pd.DataFrame(X, index=I.index)
    selectors = {"nearest": NearestSource(ZOO, metric="js")}
    shuffled = evaluate_selectors(selectors, frame.loc[order], I)
    pd.testing.assert_frame_equal(
        shuffled.targets, evaluate_selectors(selectors, X, I).targets
    )
    mask = pd.Series([False, True, True], index=order)
    for training in (mask, ["t0", "t1"], np.array(["t1", "t0"])):
        result = evaluate_selectors(selectors, X, I, training=training)
        assert result.targets["target"].tolist() == ["t2"]
    numbered = I.set_axis([10, 11, 12])
    result = evaluate_selectors(selectors, X, numbered, training=[10, 11])
    assert result.targets["target"].tolist() == ["12"]
    # where rows go by position, names in another order are no accident
    with pytest.raises(ValueError, match="same names in another order"):
        SourceSelector(ZOO).fit(frame.loc[order], I)


def test_random_is_the_expected_value():
    result = of(evaluate({"random": RandomSource(ZOO)}), "random")
    assert result["pick"].isna().all()
    performance = I.add(BASELINE, axis=0)
    assert_allclose(result["performance"], performance.mean(axis=1))
    assert_allclose(result["picked_best"], [1 / 4, 1 / 4, 1 / 3])
    assert_allclose(result["picks_to_best"], [2.5, 2.5, 2])
    best = performance.max(axis=1)
    assert_allclose(result["regret_at_1"], (best - performance.mean(axis=1)) / best)
    # The best of three drawn from four is missed when the best one is left out.
    assert_allclose(
        result["regret_at_3"], [0.1 / 0.8 / 4, 0.2 / 0.8 / 4, 0], atol=1e-12
    )
    assert (result["spearman"] == 0).all()


def test_expected_best_of_ties_against_all_orders(rng):
    for _ in range(30):
        E = rng.integers(0, 3, size=5).astype(float)
        values = rng.normal(size=5)
        for top in (1, 2, 3, 6):
            reached = []
            for order in permutations(range(5)):  # all ways to break ties alike
                order = sorted(order, key=lambda j: -E[j])
                reached.append(values[order[:top]].max())
            assert _expected_best(E, values, top) == pytest.approx(np.mean(reached))


def test_no_transfer_and_fixed_source():
    result = evaluate({"none": NoTransfer(ZOO), "b": FixedSource(ZOO, source="b")})
    none, fixed = of(result, "none"), of(result, "b")
    assert none["pick"].tolist() == [None] * 3 and (none["picked_best"] == 0).all()
    assert_allclose(none["performance"], BASELINE)
    assert_allclose(none["regret_at_1"], [0.3 / 0.8, 0.4 / 0.8, 0.3 / 0.5])
    assert_allclose(none["regret_at_3"], none["regret_at_1"])
    assert none[["spearman", "picks_to_best"]].isna().all(axis=None)
    assert fixed["pick"].tolist() == ["b"] * 3
    assert_allclose(fixed["performance"], [0.6, 0.8, 0.4])


def test_gains_are_relative_to_the_baseline():
    result = evaluate(
        {
            "given": Given(ZOO, table=TABLE),
            "largest": LargestSource(ZOO),
            "none": NoTransfer(ZOO),
        }
    )
    gains = result.gains
    assert gains.index.tolist() == ["t0", "t1", "t2", "mean"]
    assert gains.columns.tolist() == ["picked_best", "largest", "none"]
    # largest takes d, d and (d not measured) c: 0.5, 0.6, 0.5
    assert_allclose(gains["largest"][:3], [0.3 / 0.5, 0, 0])
    assert_allclose(gains["none"][:3], [0.3 / 0.5, 0.2 / 0.4, 0.3 / 0.2])
    assert_allclose(gains.loc["mean"], gains.iloc[:3].mean())


def test_summary_has_means_and_bootstrap_intervals():
    selectors = {"given": Given(ZOO, table=TABLE), "random": RandomSource(ZOO)}
    result = evaluate(selectors)
    summary = result.summary.set_index(["selector", "measure"])
    values = of(result, "given")["performance"].to_numpy()
    row = summary.loc[("given", "performance")]
    assert row["mean"] == pytest.approx(values.mean())
    assert values.min() <= row["low"] < row["mean"]
    assert row["mean"] < row["high"] <= values.max() + 1e-12
    assert row[["difference", "difference_low", "difference_high"]].tolist() == [
        0,
        0,
        0,
    ]
    # With three targets all 27 resamples can be listed.
    means = [np.mean([a, b, c]) for a in values for b in values for c in values]
    many = evaluate(selectors, n_bootstraps=100_000, confidence_level=0.5).summary
    many = many.set_index(["selector", "measure"]).loc[("given", "performance")]
    # their values lie up to 0.034 apart
    assert many["low"] == pytest.approx(np.quantile(means, 0.25), abs=0.034)
    assert many["high"] == pytest.approx(np.quantile(means, 0.75), abs=0.034)
    difference = of(result, "random")["performance"].to_numpy() - values
    row = summary.loc[("random", "performance")]
    assert row["difference"] == pytest.approx(difference.mean())
    assert row["difference_low"] >= difference.min()
    same = evaluate(selectors).summary
    pd.testing.assert_frame_equal(same, result.summary)


def test_k_is_learned_without_the_judged_target():
    selector = SourceSelector(ZOO, metric="cityblock")
    result = of(evaluate({"p2l": selector}), "p2l")
    for i, target in enumerate(I.index):
        others = [j for j in range(3) if j != i]
        alone = SourceSelector(ZOO, metric="cityblock")
        with warnings.catch_warnings():  # of best intervals without bound
            warnings.simplefilter("ignore")
            alone.fit(X[others], I.iloc[others])
        assert result.loc[target, "k"] == alone.k_
        assert (result.loc[target, "k_low"], result.loc[target, "k_high"]) == (
            alone.k_interval_
        )
    worse = I.copy()
    worse.loc["t1"] = [0.9, 0.0, 0.5, 0.7]
    changed = evaluate_selectors({"p2l": selector}, X, worse).targets.set_index(
        "target"
    )
    assert changed.loc["t1", "k"] == result.loc["t1", "k"]


def test_training_group():
    selectors = {
        "search": GridSearchCV(
            SourceSelector(ZOO), {"metric": ["kl", "js"]}, cv=LeaveOneOut()
        ),
        "constant": ConstantRanking(ZOO),
    }
    result = evaluate(selectors, training=["t0", "t1"])
    by_mask = evaluate(selectors, training=[True, True, False])
    pd.testing.assert_frame_equal(result.targets, by_mask.targets)
    assert result.targets["target"].unique().tolist() == ["t2"]
    assert np.isfinite(of(result, "search").loc["t2", "k"])
    # mean improvements on t0 and t1, their own means taken off
    rows = I.iloc[:2].to_numpy()
    mean = (rows - rows.mean(axis=1, keepdims=True)).mean(axis=0)
    scores = result.scores.query("selector == 'constant'")
    assert scores["source"].tolist() == ["a", "b", "c"]
    assert_allclose(scores["score"], mean[:3])
    assert_allclose(scores["improvement"], [0.1, 0.2, 0.3])


def test_pipelines_and_columns_in_another_order():
    selectors = {
        "nearest": NearestSource(ZOO, metric="js"),
        "piped": make_pipeline(
            FunctionTransformer(), NearestSource(ZOO[["d", "b", "a", "c"]], metric="js")
        ),
    }
    result = evaluate_selectors(selectors, X, I[["c", "d", "a", "b"]])
    nearest, piped = of(result, "nearest"), of(result, "piped")
    pd.testing.assert_frame_equal(
        nearest.drop(columns="selector"), piped.drop(columns="selector")
    )
    assert nearest["pick"].tolist() == ["a", "b", "c"]
    assert (nearest["picked_best"] == 1).all()


def test_baseline_is_matched_by_name():
    series = pd.Series(BASELINE, index=I.index)[["t2", "t0", "t1"]]
    result = evaluate({"b": FixedSource(ZOO, source="b")}, baseline=series)
    assert_allclose(of(result, "b")["performance"], [0.6, 0.8, 0.4])


@pytest.mark.parametrize(
    "change, told",
    [
        ({"selectors": []}, "selectors must be a non-empty mapping"),
        ({"improvements": I.to_numpy()}, "improvements must be a DataFrame"),
        ({"X": X[:2]}, "one row per target, got 2 and 3"),
        ({"baseline": [0.1]}, "one finite performance per target"),
        ({"training": ["t9"]}, "unknown .*t9"),
        ({"training": "t0"}, r"pass \['t0'\]"),
        ({"selectors": {"picked_best": RandomSource(ZOO)}}, "must not name a selector"),
        ({"n_bootstraps": 0}, "'n_bootstraps' parameter"),
        ({"confidence_level": 95}, "'confidence_level' parameter"),
        ({"training": ["t0", "t1", "t2"]}, "got 3 of 3 for training"),
        ({"improvements": I.set_axis(["t0", "t0", "t1"])}, "repeated names"),
        (
            {"improvements": I.assign(a=np.nan, b=np.nan, c=np.nan)},
            "got none for 't2' and 'r'",
        ),
    ],
)
def test_wrong_input(change, told):
    arguments = {"selectors": {"r": RandomSource(ZOO)}, "X": X, "improvements": I}
    arguments |= change
    with pytest.raises(ValueError, match=told):
        evaluate_selectors(**arguments)


class Counting(NearestSource):
    """Counts how often it is asked, and warns of something of its own."""

    calls = []

    def decision_function(self, X):
        self.calls.append(len(X))
        warnings.warn("mind the gap", UserWarning, stacklevel=2)
        return super().decision_function(X)


def test_scores_are_computed_once_per_fold_and_warnings_are_heard():
    Counting.calls.clear()
    with pytest.warns(UserWarning, match="mind the gap"):
        evaluate_selectors({"nearest": Counting(ZOO)}, X, I)
    assert Counting.calls == [1, 1, 1]


def test_what_is_reported_in_the_tables_does_not_warn_beside_them():
    """A k without bound is k_low or k_high, and ties are expected values."""
    tied = SourceCatalog.from_arrays(
        [[1, 1, 1]] * 4, sizes=[100, 100, 100, 100], names=NAMES
    )
    selectors = {"P2L": SourceSelector(tied), "size": LargestSource(tied)}
    result = evaluate_selectors(selectors, X, I)
    assert of(result, "P2L")["pick"].isna().all()
    assert np.isneginf(of(result, "P2L")["k_low"]).all()
