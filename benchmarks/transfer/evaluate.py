"""The paper's tables and figures from the measured matrices of this benchmark.

    python benchmarks/transfer/evaluate.py

needs no image, only the tables in results/; it writes RESULTS.md, results/*.csv and
figures/*.png. The two matrices of other people's transfer experiments are evaluated as
well where SKLEARN_P2L_DATA holds them.
"""

import os
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
    RankingDisplay,
    ScoreImprovementDisplay,
    SizeSimilarityDisplay,
    SourceComparisonDisplay,
    SourceSizesDisplay,
)
from sklearn_p2l.selection import ConstantRanking, LargestSource, NearestSource

HERE = Path(__file__).parent
RESULTS, FIGURES = HERE / "results", HERE / "figures"
DATA = Path(os.environ.get("SKLEARN_P2L_DATA", HERE.parents[2] / "shared")).absolute()
# The divergences of the paper, section 3.1.
PAPER = ["kl", "js", "chi2", "euclidean", "cityblock"]
MERGED = "photos_merged"
MEMBERS = ["scenes", "clothing", "fruit", "trash"]


def main():
    warnings.simplefilter("ignore")  # unbounded k are part of the report
    FIGURES.mkdir(exist_ok=True)
    truth = Truth()
    report = Report()
    report.add("# Results of the transfer benchmark")
    report.add(
        "Written by `python benchmarks/transfer/evaluate.py` from the tables in "
        "`results/`; what they mean stands in [README.md](README.md)."
    )
    describe(report, truth)
    chosen = choose(report, truth)
    held_out(report, truth, chosen)
    leave_one_out(report, truth, chosen)
    effects(report, truth, chosen)
    merged(report, truth, chosen)
    figures(truth, chosen)
    elsewhere(report)
    report.write(HERE / "RESULTS.md")


class Truth:
    """What was measured: performances, sizes, divergences, as tables."""

    def __init__(self):
        records = pd.read_csv(RESULTS / "measured.csv", keep_default_na=False)
        self.records = records.astype({"performance": float})
        self.targets = pd.read_csv(RESULTS / "targets.csv").set_index("target")
        sources = pd.read_csv(RESULTS / "sources.csv").set_index("source")
        self.sizes = sources["size"].drop("imagenet")
        self.n_classes = sources["n_classes"].drop("imagenet")
        self.divergences = pd.read_csv(RESULTS / "divergences.csv")
        self.training = (self.targets["group"] == "training").to_numpy()
        small = self.records[self.records["architecture"] == "small_resnet"]
        tables = {
            key: part.pivot(index="target", columns="source", values="performance").loc[
                self.targets.index, ["none", *self.sizes.index]
            ]
            for key, part in small.groupby(["steps", "seed"])
        }
        self.steps, self.long_steps = sorted({steps for steps, _ in tables})
        self.long = tables[self.long_steps, 0]
        self.by_seed = {
            seed: table
            for (steps, seed), table in tables.items()
            if steps == self.steps
        }
        mean = sum(self.by_seed.values()) / len(self.by_seed)
        mean = mean.round(12)  # equal means stay equal in spite of round-off
        self.baseline = mean["none"]
        self.performance = mean[list(self.sizes.index)]
        self.improvement = self.performance.sub(self.baseline, axis=0).round(12)
        large = self.records[self.records["architecture"] == "squeezenet"]
        self.imagenet = large.groupby(["target", "source"])["performance"].mean()
        self.imagenet = self.imagenet.unstack().loc[self.targets.index]

    def catalog(self, names=None, sizes=None):
        names = list(self.sizes.index) if names is None else names
        sizes = self.sizes if sizes is None else sizes
        return SourceCatalog.from_arrays(None, sizes=sizes[names], names=names)

    def D(self, reference, metric, image_size=224, summary="mean"):
        key = {"reference": reference, "metric": metric}
        key |= {"image_size": image_size, "summary": summary}
        chosen = self.divergences
        for column, value in key.items():
            chosen = chosen[chosen[column] == value]
        return chosen.set_index("target").loc[self.targets.index, self.sizes.index]


def evaluate(
    truth,
    D,
    *,
    names=None,
    sizes=None,
    table=None,
    training="group",
    **settings,
):
    """Evaluate on the means over seeds, or on another `table` of performances."""
    names = list(truth.sizes.index) if names is None else names
    baseline, improvement = truth.baseline, truth.improvement
    if table is not None:
        baseline = table["none"]
        improvement = table[truth.sizes.index].sub(baseline, axis=0)
    return evaluate_selectors(
        selectors(truth.catalog(names, sizes), **settings),
        D[names],
        improvement[names],
        baseline=baseline,
        training=truth.training if training == "group" else None,
    )


def accuracy_row(result, selector="P2L"):
    return row_of(result, "accuracy", selector)


def describe(report, truth):
    report.add("## What was measured")
    targets = truth.targets.copy()
    targets["none (B4)"] = truth.baseline
    targets["best"] = truth.performance.max(axis=1)
    targets["best source"] = truth.performance.idxmax(axis=1)
    targets["SqueezeNet from ImageNet (B2)"] = truth.imagenet["imagenet"]
    targets["SqueezeNet from random weights"] = truth.imagenet["none"]
    report.table(targets)
    report.add("Mean improvement I of each source, over the targets of each group:")
    sources = truth.sizes.to_frame("size")
    for group, rows in [("training", truth.training), ("held out", ~truth.training)]:
        sources[f"on {group} targets"] = truth.improvement[rows].mean()
    sources["spread over seeds"] = (
        pd.concat(
            {
                seed: table[truth.sizes.index].sub(table["none"], axis=0)
                for seed, table in truth.by_seed.items()
            }
        )
        .groupby(level=1)
        .std()
        .mean()
    )
    report.table(sources.sort_values("size", ascending=False))
    small = truth.records[truth.records["architecture"] == "small_resnet"]
    long = truth.long[truth.sizes.index].sub(truth.long["none"], axis=0)
    short = truth.by_seed[0][truth.sizes.index].sub(truth.by_seed[0]["none"], axis=0)
    report.add(
        f"With {truth.long_steps} steps in place of {truth.steps} (seed 0), random "
        f"weights reach {truth.long['none'].mean():.3f} in place of "
        f"{truth.by_seed[0]['none'].mean():.3f}, the mean over sources "
        f"{truth.long[truth.sizes.index].mean(axis=None):.3f} in place of "
        f"{truth.by_seed[0][truth.sizes.index].mean(axis=None):.3f}, and transfer is "
        f"better than random weights in {(long > 0).mean(axis=None):.0%} of the cells "
        f"in place of {(short > 0).mean(axis=None):.0%}. The two rank the sources of a "
        f"target with a mean Spearman correlation of {spearman_score(long, short):.3f}."
    )
    report.add(
        f"{len(truth.records)} trainings; one of the small network took "
        f"{small['seconds'].astype(float).median():.1f} s (median), all together "
        f"{truth.records['seconds'].astype(float).sum() / 3600:.2f} h of one worker."
    )


def choose(report, truth):
    """k, divergence and reference network, by the training group alone (Figure 1)."""
    report.add("## k, divergence and reference network, learned on the training group")
    rows = []
    for reference in ("squeezenet", "mobilenet"):
        for metric in PAPER:
            D = truth.D(reference, metric)
            fitted = SourceSelector(truth.catalog(), metric="precomputed").fit(
                D[truth.training], truth.improvement[truth.training]
            )
            group = evaluate_selectors(
                {"P2L": SourceSelector(truth.catalog(), metric="precomputed")},
                D[truth.training],
                truth.improvement[truth.training],
                baseline=truth.baseline[truth.training],
            )
            judged = accuracy_row(evaluate(truth, D))
            rows.append(
                {
                    "reference": reference,
                    "divergence": metric,
                    "k": fitted.k_,
                    "from": fitted.k_interval_[0],
                    "to": fitted.k_interval_[1],
                    "training ρ": fitted.k_curve_[:, 2].max(),
                    "training ρ, leave-one-out": accuracy_row(group)["Spearman"],
                    "held-out ρ": judged["Spearman"],
                    "held-out best picked": judged["best picked"],
                    "held-out most picks": judged["most picks"],
                }
            )
    frame = pd.DataFrame(rows).set_index(["reference", "divergence"])
    frame.to_csv(RESULTS / "divergences_and_k.csv", float_format="%.5f")
    report.table(frame)
    chosen = frame["training ρ, leave-one-out"].idxmax()
    report.add(
        f"Chosen by the training group's leave-one-out correlation: **{chosen[1]}** of "
        f"**{chosen[0]}**. The held-out columns took no part in the choice.\n\n"
        "![Figure 1](figures/figure1_k_curves.png)"
    )
    return chosen


def held_out(report, truth, chosen):
    report.add("## Held-out targets: Tables 1, 2 and 3")
    result = evaluate(truth, truth.D(*chosen))
    result.targets.to_csv(RESULTS / "held_out.csv", index=False, float_format="%.5f")
    report.summary(result, "accuracy")
    report.add(
        "Relative gain of P2L over each baseline (Table 3), and its ρ (Table 2):"
    )
    own = result.targets[result.targets["selector"] == "P2L"].set_index("target")
    gains = result.gains.copy()
    imagenet = truth.imagenet["imagenet"].loc[own.index]
    gains["ImageNet (B2)"] = (own["performance"] - imagenet) / imagenet
    gains.loc["mean", "ImageNet (B2)"] = gains["ImageNet (B2)"].mean()
    gains.insert(0, "pick", own["pick"])
    gains.insert(1, "Spearman", own["spearman"])
    gains.loc["mean", "Spearman"] = own["spearman"].mean()
    gains["pick"] = gains["pick"].fillna("")
    report.table(gains)
    report.add(
        f"Mean accuracy on these targets: {own['performance'].mean():.3f} with P2L's "
        f"pick, {imagenet.mean():.3f} with SqueezeNet from ImageNet (B2), "
        f"{truth.imagenet['none'].loc[own.index].mean():.3f} with SqueezeNet from "
        "random weights."
    )
    report.add(
        "![Figure 7](figures/figure7_picks.png)\n\n"
        "![Figure 6](figures/figure6_scores.png)"
    )
    known = [t for t in own.index if t.removesuffix("_b") in truth.sizes.index]
    large = own.index[truth.targets.loc[own.index, "n_train"] >= 250]
    rho = own["spearman"]
    report.add(
        f"Mean ρ is {rho[known].mean():.3f} on the {len(known)} targets whose kind of "
        f"images is among the sources, {rho.drop(known).mean():.3f} on the "
        f"{len(rho) - len(known)} others; {rho[large].mean():.3f} on the {len(large)} "
        f"targets of at least 250 images, {rho.drop(large).mean():.3f} on the smaller "
        "ones."
    )
    report.add("Where P2L loses, its pick against the best source, per target:")
    lost = own[own["picked_best"] < 1].copy()
    lost["best source"] = truth.performance.idxmax(axis=1)
    columns = ["pick", "best source", "performance", "best_performance"]
    report.table(lost[[*columns, "picks_to_best", "regret_at_1"]])


def leave_one_out(report, truth, chosen):
    report.add("## All targets, leave-one-target-out")
    report.summary(evaluate(truth, truth.D(*chosen), training=None), "accuracy")


def effects(report, truth, chosen):
    """What limits the correlation: one change at a time, judged on held-out targets."""
    report.add("## What limits it: one change at a time")
    reference, metric = chosen
    D, held = truth.D(*chosen), ~truth.training
    rows = {"as above": accuracy_row(evaluate(truth, D))}
    rows["the other reference network"] = accuracy_row(
        evaluate(
            truth,
            truth.D({"squeezenet": "mobilenet"}.get(reference, "squeezenet"), metric),
        )
    )
    rows["reference at 64 pixels"] = accuracy_row(
        evaluate(truth, truth.D(reference, metric, image_size=64))
    )
    for (name, size, summary), _ in truth.divergences.groupby(
        ["reference", "image_size", "summary"]
    ):
        if summary != "mean":
            rows[f"{summary}, {name} at {size} pixels"] = accuracy_row(
                evaluate(truth, truth.D(name, metric, size, summary))
            )
            rows[f"mean, {name} at {size} pixels"] = accuracy_row(
                evaluate(truth, truth.D(name, metric, size))
            )
    rows["z over the training targets"] = accuracy_row(
        evaluate(truth, D, standardize="training")
    )
    rows["k for the first 5 sources of each target"] = accuracy_row(
        evaluate(truth, D, top=5)
    )
    rows["k = -1"] = accuracy_row(evaluate(truth, D, k=-1.0))
    best_k = SourceSelector(truth.catalog(), metric="precomputed").fit(
        D[~truth.training], truth.improvement[~truth.training]
    )
    rows[f"the best k for these targets ({best_k.k_:.2f})"] = accuracy_row(
        evaluate(truth, D, k=best_k.k_)
    )
    for seed, table in truth.by_seed.items():
        rows[f"seed {seed} alone"] = accuracy_row(evaluate(truth, D, table=table))
    rows[f"seed 0 alone, {truth.long_steps} steps in place of {truth.steps}"] = (
        accuracy_row(evaluate(truth, D, table=truth.long))
    )
    rows["number of classes in place of size"] = accuracy_row(
        evaluate(truth, D, sizes=truth.n_classes)
    )
    rows["size times number of classes"] = accuracy_row(
        evaluate(truth, D, sizes=truth.sizes * truth.n_classes)
    )
    for whose, chosen_rows in [("training", truth.training), ("held-out", held)]:
        quality = truth.improvement[chosen_rows].mean()
        oracle = ", which no one knows beforehand" if whose == "held-out" else ""
        rows[f"mean improvement on {whose} targets in place of log size{oracle}"] = (
            accuracy_row(evaluate(truth, D, sizes=np.exp(10 * quality)))
        )
    rows["no size at all (nearest, B5)"] = accuracy_row(
        evaluate(truth, D), "nearest (B5)"
    )
    names = [name for name in truth.sizes.index if name != MERGED]
    rows["without the merged source"] = accuracy_row(evaluate(truth, D, names=names))
    large = [name for name in names if not name.endswith("_few")]
    rows["without small and merged sources"] = accuracy_row(
        evaluate(truth, D, names=large)
    )
    frame = pd.DataFrame(rows).T.rename_axis("change")
    frame.to_csv(RESULTS / "effects.csv", float_format="%.5f")
    report.table(frame)
    report.add(
        "Rows with other training targets, seeds, steps or sources are judged by their "
        "own truth, so their accuracy and regret do not compare with the first row."
    )
    pairs = [
        spearman_score(a[held][truth.sizes.index], b[held][truth.sizes.index])
        for i, a in truth.by_seed.items()
        for j, b in truth.by_seed.items()
        if i < j
    ]
    r = np.mean(pairs)
    n = len(truth.by_seed)
    report.add(
        f"Noise of the truth: two seeds rank the sources of a held-out target with a "
        f"mean Spearman correlation of {r:.3f}. By the Spearman-Brown formula the mean "
        f"of {n} seeds then agrees with the mean of {n} others at "
        f"{n * r / (1 + (n - 1) * r):.3f}: about what a perfect prediction could reach."
    )


def merged(report, truth, chosen):
    report.add("## The merged source (section 4.3.3)")
    held = ~truth.training
    I, D = truth.improvement, truth.D(*chosen)  # noqa: E741
    rows = {}
    for name in MEMBERS:
        difference = I[MERGED] - I[name]
        rows[name] = {
            "size": truth.sizes[name],
            "merged is better, training targets": f"{(difference[~held] > 0).sum()} of "
            f"{(~held).sum()}",
            "merged is better, held-out targets": f"{(difference[held] > 0).sum()} of "
            f"{held.sum()}",
            "mean difference, all": difference.mean(),
            "ρ of difference and divergence from it": spearman_score(
                [difference], [D[name]]
            ),
        }
    report.table(pd.DataFrame(rows).T.rename_axis("member"))
    rank = I.rank(axis=1, ascending=False)[MERGED]
    best = I[MEMBERS].max(axis=1)
    report.add(
        f"The merged source ({truth.sizes[MERGED]} images) ranks {rank.mean():.1f} of "
        f"{len(truth.sizes)} on average and is the best of all for "
        f"{(rank == 1).sum()} of {len(rank)} targets; it beats all four of its members "
        f"at once on {(I[MERGED] > best).sum()}.\n\n"
        "![Figure 8](figures/figure8_merged.png)"
    )


def figures(truth, chosen):
    reference, metric = chosen
    fitted, held = {}, ~truth.training
    for name in PAPER:
        selector = SourceSelector(truth.catalog(), metric="precomputed")
        fitted[name] = selector.fit(
            truth.D(reference, name)[truth.training],
            truth.improvement[truth.training],
        )
    p2l, D = fitted[metric], truth.D(*chosen)
    y = truth.improvement
    save(
        KCurveDisplay.from_predictions({m: s.k_curve_ for m, s in fitted.items()}),
        FIGURES / "figure1_k_curves.png",
        f"training targets, {reference}",
    )
    save(
        SizeSimilarityDisplay.from_predictions(
            truth.sizes, D[held], y[held], metric=metric, standardize=True
        ),
        FIGURES / "figure4_size_similarity.png",
        "held-out targets",
    )
    save(
        SourceSizesDisplay.from_estimator(p2l),
        FIGURES / "figure5_sizes.png",
        "sources",
    )
    save(
        ScoreImprovementDisplay.from_estimator(
            p2l, D[held], y[held], target_names=list(y.index[held])
        ),
        FIGURES / "figure6_scores.png",
        "held-out targets",
    )
    catalog = truth.catalog()
    everyone = {"P2L": p2l}
    for name, selector in [
        ("largest (B1)", LargestSource(catalog)),
        ("nearest (B5)", NearestSource(catalog, metric="precomputed")),
        ("constant", ConstantRanking(catalog)),
    ]:
        everyone[name] = selector.fit(D[truth.training], y[truth.training])
    save(
        PicksDisplay.from_estimator(everyone, D[held], y[held]),
        FIGURES / "figure7_picks.png",
        "held-out targets",
    )
    save(
        SourceComparisonDisplay.from_predictions(
            D["scenes"],
            y[MERGED] - y["scenes"],
            source=MERGED,
            reference="scenes",
            metric=metric,
            target_names=list(y.index),
        ),
        FIGURES / "figure8_merged.png",
        "all targets",
    )
    target = "vegetables"
    save(
        RankingDisplay.from_estimator(p2l, D.loc[[target]]),
        FIGURES / "ranking.png",
        f"ranking for {target}",
    )


def elsewhere(report):
    """Transfer matrices that others measured; k leave-one-target-out."""
    folder = DATA / "groundtruth"
    if not folder.exists():
        print(f"no other matrices in {folder}; set SKLEARN_P2L_DATA")
        return
    report.add("## Transfer matrices of others, leave-one-target-out")
    frame = pd.read_csv(folder / "prompt_transfer_t5.csv")
    performance = frame.pivot(index="target", columns="source", values="performance")
    baseline = frame.groupby("target")["baseline"].first()
    sizes = frame.groupby("source")["source_size"].first()[performance.columns]
    with np.load(folder / "prompt_transfer_t5_vectors.npz") as file:
        prompts = {name: file[name].mean(axis=0) for name in file.files}
    catalog = SourceCatalog.from_arrays(
        [prompts[name] for name in performance.columns],
        sizes=sizes,
        names=list(performance.columns),
    )
    X = np.stack([prompts[name] for name in performance.index])
    improvement = performance.sub(baseline, axis=0)
    result = evaluate_selectors(
        selectors(catalog, metric="cityblock", exclude_self=True),
        X,
        improvement,
        baseline=baseline,
    )
    report.add("T5 soft prompts, 17 × 16, cityblock distance of the mean prompts:")
    report.summary(result, "accuracy")

    frame = pd.read_csv(folder / "xpos_udpos.csv")
    performance = frame.pivot(
        index="target", columns="source", values="performance_10000_samples"
    )
    D = frame.pivot(index="target", columns="source", values="distance_ldnd")
    known = D.notna() & performance.notna()
    rows, columns = known.any(axis=1), known.any(axis=0)
    D, performance = D.loc[rows, columns], performance.loc[rows, columns] / 100
    sizes = frame.groupby("source")["source_size"].first()[D.columns]
    catalog = SourceCatalog.from_arrays(None, sizes=sizes, names=list(D.columns))
    result = evaluate_selectors(selectors(catalog), D, performance.where(D.notna()))
    report.add(
        f"XLM-R part-of-speech tagging, {len(D)} × {D.shape[1]} languages with 10,000 "
        'samples each, LDND distance given (`metric="precomputed"`), cells without a '
        "distance left out; performances themselves, as no one was trained without a "
        "source, so B4 is 0 here:"
    )
    report.summary(result, "accuracy")


if __name__ == "__main__":
    main()
