"""The paper's tables and figures for relations, from what `run.py` has measured.

    python benchmarks/relations/evaluate.py

needs no text, only the tables in results/; it writes RESULTS.md and figures/*.png.
"""

import sys
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
from report import Report, row_of, save, selectors

from sklearn_p2l import SourceCatalog, SourceSelector
from sklearn_p2l.evaluation import evaluate_selectors
from sklearn_p2l.metrics import spearman_score
from sklearn_p2l.plotting import (
    KCurveDisplay,
    PicksDisplay,
    ScoreImprovementDisplay,
    SourceSizesDisplay,
)
from sklearn_p2l.selection import LargestSource, NearestSource

HERE = Path(__file__).parent
RESULTS, FIGURES = HERE / "results", HERE / "figures"
IMAGES = HERE.parent / "transfer" / "results" / "A" / "divergences_and_k.csv"
METRICS = ["kl", "js", "chi2", "euclidean", "cityblock"]


def main():
    warnings.simplefilter("ignore")  # unbounded k are part of the report
    FIGURES.mkdir(exist_ok=True)
    truth = Truth()
    report = Report()
    report.add("# Results of the relations benchmark")
    report.add(
        "Written by `python benchmarks/relations/evaluate.py` from the tables in "
        "`results/`; what they mean stands in [README.md](README.md). The performance "
        "is the micro-averaged area under the precision-recall curve (AUC-PR) on text "
        "that neither sources nor targets have seen. A target's candidates are the "
        "seven other subtasks."
    )
    describe(report, truth)
    tables(report, truth)
    weights(report, truth)
    dependence(report, truth)
    sanity(report)
    throughput(report)
    figures(truth)
    report.write(HERE / "RESULTS.md")


class Truth:
    """What was measured: performances, sizes, divergences, as tables."""

    def __init__(self):
        self.records = pd.read_csv(RESULTS / "measured.csv", keep_default_na=False)
        self.subtasks = pd.read_csv(RESULTS / "subtasks.csv").set_index("subtask")
        self.names = list(self.subtasks.index)
        self.divergences = pd.read_csv(RESULTS / "divergences.csv")
        self.by_seed = {
            (variant, seed): part.pivot(
                index="target", columns="source", values="performance"
            ).loc[self.names, ["none", *self.names]]
            for (variant, seed), part in self.records.groupby(["variant", "seed"])
        }
        self.variant = "default"  # what is judged; its seeds are averaged
        self.main = self.mean(self.variant)

    def mean(self, variant):
        tables = [t for (v, _), t in self.by_seed.items() if v == variant]
        return (sum(tables) / len(tables)).round(12)

    def improvement(self, table=None):
        """I(t, s) with the subtask itself left out."""
        table = self.main if table is None else table
        return self.without_self(table[self.names].sub(table["none"], axis=0).round(12))

    def without_self(self, frame):
        values = frame[self.names].to_numpy(dtype=float, copy=True)
        np.fill_diagonal(values, np.nan)
        return pd.DataFrame(values, index=self.names, columns=self.names)

    def D(self, metric="kl", layer="features", pairs="all"):
        chosen = self.divergences
        for column, value in [("metric", metric), ("layer", layer), ("pairs", pairs)]:
            chosen = chosen[chosen[column] == value]
        return self.without_self(chosen.set_index("target").loc[self.names])

    def catalog(self):
        sizes = self.subtasks["source_pairs"]
        return SourceCatalog.from_arrays(None, sizes=sizes, names=self.names)

    def evaluate(self, D=None, table=None, **settings):
        """P2L and baselines, leave-one-target-out."""
        table = self.main if table is None else table
        return evaluate_selectors(
            selectors(self.catalog(), **settings),
            self.D() if D is None else D,
            self.improvement(table),
            baseline=table["none"],
        )


def auc_row(result, selector="P2L"):
    return row_of(result, "AUC-PR", selector)


def describe(report, truth):
    report.add("## What was measured")
    report.table(truth.subtasks)
    report.add(
        "AUC-PR of each source (columns) on each target, by the default recipe, mean "
        "over two seeds:"
    )
    table = truth.main.copy()
    best = truth.without_self(table).idxmax(axis=1)
    report.table(table.assign(best=best))
    I = truth.improvement()  # noqa: E741
    cells = I.to_numpy()[~np.isnan(I.to_numpy())]
    own = np.diag(truth.main[truth.names])
    seconds = truth.records["seconds"].astype(float)
    report.add(
        f"Transfer is better than random weights in {(cells > 0).mean():.0%} of the "
        f"{len(cells)} cells; the mean improvement is {cells.mean():.3f}, that of the "
        f"best source of each target {I.max(axis=1).mean():.3f}. (A target's own "
        f"subtask as its source reaches {own.mean():.3f} on average; it is no "
        f"candidate.) {len(seconds)} trainings took {seconds.median():.1f} s each "
        f"(median), {seconds.sum() / 3600:.2f} h of one worker in all."
    )


def tables(report, truth):
    report.add("## P2L and the baselines, leave-one-target-out")
    result = truth.evaluate()
    report.summary(result, "AUC-PR")
    report.add("Relative gain of P2L over each baseline (Table 4), and its ρ:")
    own = result.targets[result.targets["selector"] == "P2L"].set_index("target")
    gains = result.gains.copy()
    gains.insert(0, "pick", own["pick"])
    best = truth.improvement().idxmax(axis=1)
    gains.insert(1, "best source", best)
    gains.insert(2, "Spearman", own["spearman"])
    gains.insert(3, "picks to best", own["picks_to_best"])
    gains.loc["mean", "Spearman"] = own["spearman"].mean()
    gains.loc["mean", "picks to best"] = own["picks_to_best"].mean()
    gains[["pick", "best source"]] = gains[["pick", "best source"]].fillna("")
    report.table(gains)
    report.add(
        "![Figure 6 A](figures/figure6a_kl_and_size.png)\n\n"
        "![Figure 6 B](figures/figure6b_size_only.png)\n\n"
        "![Figure 7](figures/figure7_picks.png)"
    )


def weights(report, truth):
    report.add("## k, learned and borrowed from images")
    D, y = truth.D(), truth.improvement()
    images = pd.read_csv(IMAGES).set_index(["reference", "divergence"])
    rows = {}
    for metric in METRICS:
        D = truth.D(metric)
        fitted = SourceSelector(truth.catalog(), metric="precomputed").fit(D, y)
        borrowed = images.loc[("squeezenet", metric), "k"]
        rows[metric] = {
            "k, learned on all": fitted.k_,
            "from": fitted.k_interval_[0],
            "to": fitted.k_interval_[1],
            "ρ with it": fitted.k_curve_[:, 2].max(),
            "ρ, leave-one-out": auc_row(truth.evaluate(D))["Spearman"],
            "k of images": borrowed,
            "ρ with the k of images": auc_row(truth.evaluate(D, k=borrowed))[
                "Spearman"
            ],
            "nearest alone (B5)": auc_row(truth.evaluate(D), "nearest (B5)")[
                "Spearman"
            ],
        }
    report.table(pd.DataFrame(rows).T.rename_axis("divergence"))
    report.add("![Figure 1](figures/figure1_k_curves.png)")


def dependence(report, truth):
    report.add("## What the picture depends on: one change at a time")
    rows = {"as above": auc_row(truth.evaluate())}
    for seed in sorted({s for v, s in truth.by_seed if v == truth.variant}):
        table = truth.by_seed[truth.variant, seed]
        rows[f"seed {seed} alone"] = auc_row(truth.evaluate(table=table))
    for variant in sorted({v for v, _ in truth.by_seed if v != truth.variant}):
        rows[f"{variant}, seed 0 alone"] = auc_row(
            truth.evaluate(table=truth.by_seed[variant, 0])
        )
    kl = truth.D()
    rows["KL of positive pairs only"] = auc_row(
        truth.evaluate(truth.D(pairs="positives"))
    )
    rows["cityblock"] = auc_row(truth.evaluate(truth.D("cityblock")))
    rows["cityblock of signed features"] = auc_row(
        truth.evaluate(truth.D("cityblock", layer="contexts"))
    )
    rows["cityblock of signed features, positive pairs only"] = auc_row(
        truth.evaluate(truth.D("cityblock", layer="contexts", pairs="positives"))
    )
    rows["size alone (B1)"] = auc_row(truth.evaluate(kl), "largest (B1)")
    rows["nearest alone (B5)"] = auc_row(truth.evaluate(kl), "nearest (B5)")
    report.table(pd.DataFrame(rows).T.rename_axis("change"))
    report.add(
        "Rows with other seeds or training are judged by their own truth, so their "
        "AUC-PR and regret do not compare with the first row."
    )
    training = {}
    for variant in dict.fromkeys(v for v, _ in truth.by_seed):
        table = truth.mean(variant)
        I = truth.improvement(table).to_numpy()  # noqa: E741
        cells = I[~np.isnan(I)]
        training[variant] = {
            "seeds": sum(v == variant for v, _ in truth.by_seed),
            "random weights": table["none"].mean(),
            "mean over sources": np.nanmean(truth.without_self(table)),
            "transfer is better": f"{(cells > 0).mean():.0%}",
            f"ρ of its ranking with that of {truth.variant}": spearman_score(
                truth.improvement(), truth.improvement(table).fillna(0)
            ),
        }
    report.table(pd.DataFrame(training).T.rename_axis("training"))
    report.add(
        "Mean over sources, without the target's own subtask, seed 0. The rate of the "
        "body was chosen on the first half of the targets:"
    )
    halves = {}
    for half, names in enumerate(np.array_split(truth.names, 2)):
        halves["chosen on" if half == 0 else "judged on"] = {
            variant: np.nanmean(truth.without_self(table).loc[names])
            for (variant, seed), table in truth.by_seed.items()
            if seed == 0
        }
    report.table(pd.DataFrame(halves).T.rename_axis("targets"))
    seeds = [t for (v, _), t in truth.by_seed.items() if v == truth.variant]
    if len(seeds) > 1:
        pairs = [
            spearman_score(truth.improvement(a), truth.improvement(b).fillna(0))
            for i, a in enumerate(seeds)
            for b in seeds[i + 1 :]
        ]
        r, n = np.mean(pairs), len(seeds)
        report.add(
            f"Noise of the truth: two seeds rank the sources of a target with a mean "
            f"Spearman correlation of {r:.3f}; by the Spearman-Brown formula the mean "
            f"of {n} seeds agrees with the mean of {n} others at "
            f"{n * r / (1 + (n - 1) * r):.3f}."
        )


def sanity(report):
    report.add("## The network against a bag of words, SemEval-2010 task 8")
    report.table(pd.read_csv(RESULTS / "sanity.csv").set_index("method"))
    report.add(
        "The authors' split; 18 directed relations, of which AUC-PR is the micro "
        "average; accuracy is that of the strongest label, over the sentences that "
        "have a relation."
    )


def throughput(report):
    report.add("## Throughput")
    report.table(pd.read_csv(RESULTS / "reading.csv").set_index("what"), digits=2)
    report.add(
        "From `reading.py`: megabytes a second and the peak memory of the process; the "
        "ratio is to merely splitting the same lines."
    )
    report.table(pd.read_csv(RESULTS / "network.csv").set_index("what"), digits=2)
    report.add(
        "From `network.py`: contexts a second, the median of five turns; the ratio is "
        "to the same network with all contexts of a batch padded to the longest."
    )


def figures(truth):
    y, catalog = truth.improvement(), truth.catalog()
    fitted = {
        metric: SourceSelector(catalog, metric="precomputed").fit(truth.D(metric), y)
        for metric in METRICS
    }
    D = truth.D()
    save(
        KCurveDisplay.from_predictions({m: s.k_curve_ for m, s in fitted.items()}),
        FIGURES / "figure1_k_curves.png",
        "all targets",
    )
    save(
        SourceSizesDisplay.from_estimator(fitted["kl"]),
        FIGURES / "figure5_sizes.png",
        "sources",
    )
    everyone = {
        "P2L": fitted["kl"],
        "largest (B1)": LargestSource(catalog).fit(D, y),
        "nearest (B5)": NearestSource(catalog, metric="precomputed").fit(D, y),
    }
    for name, key in [("P2L", "a_kl_and_size"), ("largest (B1)", "b_size_only")]:
        save(
            ScoreImprovementDisplay.from_estimator(
                everyone[name], D, y, target_names=truth.names
            ),
            FIGURES / f"figure6{key}.png",
            "KL and size" if name == "P2L" else "size only",
        )
    save(
        PicksDisplay.from_estimator(everyone, D, y),
        FIGURES / "figure7_picks.png",
        "all targets",
    )


if __name__ == "__main__":
    main()
