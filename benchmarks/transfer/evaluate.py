"""The paper's tables and figures from the measured matrices of this benchmark.

    python benchmarks/transfer/evaluate.py

needs no image, only the tables in results/; it writes RESULTS.md, results/*.csv and
figures/*.png. The two matrices of other people's transfer experiments are evaluated as
well where SKLEARN_P2L_DATA holds them.
"""

import sys
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from matters import matters
from report import Report, row_of, save, selectors
from timing import DATA
from truth import RESULTS, Truth, measured_zoos

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
FIGURES = HERE / "figures"
# The divergences of the paper, section 3.1.
PAPER = ["kl", "js", "chi2", "euclidean", "cityblock"]
MERGED = "photos_merged"
MEMBERS = ["scenes", "clothing", "fruit", "trash"]
ZOOS = {
    "A": "small networks, trained from random weights",
    "B": "a published network, adapted to each source",
}


def main():
    warnings.simplefilter("ignore")  # unbounded k are part of the report
    report = Report()
    report.add("# Results of the transfer benchmark")
    report.add(
        "Written by `python benchmarks/transfer/evaluate.py` from the tables in "
        "`results/`; what they mean stands in [README.md](README.md)."
    )
    chosen = None
    for zoo in measured_zoos():
        report.add(f"# Zoo {zoo}: {ZOOS[zoo]}")
        truth = Truth(zoo)
        for folder in (FIGURES, RESULTS):
            (folder / zoo).mkdir(parents=True, exist_ok=True)
        describe(report, truth)
        of_this_zoo = choose(report, truth)
        chosen = chosen or of_this_zoo  # zoo A has targets of its own for the choice
        judge(report, truth, chosen)
        merged(report, truth, chosen)
        figures(truth, chosen)
        if zoo == "A":
            effects(report, truth, chosen)
    elsewhere(report)
    report.write(HERE / "RESULTS.md")


def evaluate(
    truth,
    D,
    *,
    names=None,
    sizes=None,
    table=None,
    split="as told",
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
        training=truth.split if split == "as told" else split,
    )


def accuracy_row(result, selector="P2L"):
    return row_of(result, "accuracy", selector)


def describe(report, truth):
    report.add("## Does the source matter?")
    rows, means, shares = matters(truth)
    rows.to_csv(RESULTS / truth.zoo / "matters.csv", float_format="%.5f")
    columns = ["n_train", "n_test", "n_classes"]
    table = truth.targets[columns].join(rows)
    table.insert(7, "which", truth.performance.idxmax(axis=1))
    report.table(table)
    report.add("Means over the targets of each kind:")
    report.table(means)
    spread, noise = rows[["spread over sources", "noise of a seed"]].mean()
    report.add(
        f"Sources of one target differ by {spread:.3f} (standard deviation over "
        "sources, mean over targets), trainings of one source with different seeds by "
        f"{noise:.3f}. {noise_of_rankings(truth)}"
    )
    report.table(shares)
    report.add("Mean improvement I of each source, over the targets of each kind:")
    sources = truth.sizes.to_frame("size")
    for kind in truth.kinds.unique():
        sources[kind] = truth.improvement[truth.kinds == kind].mean()
    report.table(sources.sort_values("size", ascending=False))
    seconds = truth.records["seconds"].astype(float)
    report.add(
        f"{len(truth.records)} trainings; one took {seconds.median():.1f} s (median), "
        f"all together {seconds.sum() / 3600:.2f} h of one worker."
    )
    if truth.zoo == "A":
        compare_recipes(report, truth, Truth("A", "paper"))


def compare_recipes(report, truth, papers):
    """What the recipe of the targets changes, seed by seed alike."""
    names = list(truth.sizes.index)
    rows, gains = {}, []
    for recipe, table in [
        ("paper's", papers.by_seed[0]),
        ("default", truth.by_seed[0]),
    ]:
        gains.append(table[names].sub(table["none"], axis=0))
        rows[recipe] = {
            "random weights": table["none"].mean(),
            "mean source": table[names].mean(axis=None),
            "best source": table[names].max(axis=1).mean(),
            "sources better than random weights": (gains[-1] > 0).mean(axis=None),
        }
    report.add("What the recipe changes, mean accuracies with seed 0:")
    report.table(pd.DataFrame(rows).T.rename_axis("recipe"))
    report.add(
        "The two rank the sources of a target with a mean Spearman correlation of "
        f"{spearman_score(*gains):.3f}."
    )


def noise_of_rankings(truth):
    """How well two measurements of the same agree on the order of sources, as text."""
    judged, names = truth.judged, truth.sizes.index
    pairs = [
        spearman_score(a.loc[judged, names], b.loc[judged, names])
        for i, a in truth.by_seed.items()
        for j, b in truth.by_seed.items()
        if i < j
    ]
    r, n = np.mean(pairs), len(truth.by_seed)
    return (
        f"Two seeds rank the sources of a {'held-out ' * (truth.split is not None)}"
        f"target with a mean Spearman correlation of {r:.3f}; by the Spearman-Brown "
        f"formula the mean of {n} seeds then agrees with the mean of {n} others at "
        f"{n * r / (1 + (n - 1) * r):.3f}: about what a perfect prediction could reach."
    )


def choose(report, truth):
    """k, divergence and reference network, by the targets that teach (Figure 1)."""
    report.add("## k, divergence and reference network")
    learning = truth.learning
    rows = []
    for reference in ("squeezenet", "mobilenet"):
        for metric in PAPER:
            D = truth.D(reference, metric)
            fitted = SourceSelector(truth.catalog(), metric="precomputed").fit(
                D[learning], truth.improvement[learning]
            )
            group = evaluate_selectors(
                {"P2L": SourceSelector(truth.catalog(), metric="precomputed")},
                D[learning],
                truth.improvement[learning],
                baseline=truth.baseline[learning],
            )
            judged = accuracy_row(evaluate(truth, D))
            rows.append(
                {
                    "reference": reference,
                    "divergence": metric,
                    "k": fitted.k_,
                    "from": fitted.k_interval_[0],
                    "to": fitted.k_interval_[1],
                    "ρ of those that teach": fitted.k_curve_[:, 2].max(),
                    "leave-one-out": accuracy_row(group)["Spearman"],
                    "ρ": judged["Spearman"],
                    "best picked": judged["best picked"],
                    "most picks": judged["most picks"],
                }
            )
    frame = pd.DataFrame(rows).set_index(["reference", "divergence"])
    frame.to_csv(RESULTS / truth.zoo / "divergences_and_k.csv", float_format="%.5f")
    report.table(frame)
    chosen = frame["leave-one-out"].idxmax()
    if truth.split is None:
        report.add("Judged by what zoo A chose.")
    else:
        report.add(
            "Chosen by the leave-one-out correlation of the targets that only teach: "
            f"**{chosen[1]}** of **{chosen[0]}**. The last three columns, of the "
            "targets that judge, took no part in the choice."
        )
    report.add(f"![Figure 1](figures/{truth.zoo}/figure1_k_curves.png)")
    return chosen


def judge(report, truth, chosen):
    report.add(
        "## All targets, each left out in turn: Tables 1, 2 and 3"
        if truth.split is None
        else "## Held-out targets: Tables 1, 2 and 3"
    )
    result = evaluate(truth, truth.D(*chosen))
    result.targets.to_csv(
        RESULTS / truth.zoo / "judged.csv", index=False, float_format="%.5f"
    )
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
        f"![Figure 7](figures/{truth.zoo}/figure7_picks.png)\n\n"
        f"![Figure 6](figures/{truth.zoo}/figure6_scores.png)"
    )
    rho, kinds = own["spearman"], truth.kinds[own.index]
    report.add(
        "Mean ρ by what sources have seen: "
        + ", ".join(
            f"{value:.3f} ({kind})" for kind, value in rho.groupby(kinds).mean().items()
        )
        + "."
    )
    report.add("Where P2L loses, its pick against the best source, per target:")
    lost = own[own["picked_best"] < 1].copy()
    lost["best source"] = truth.performance.idxmax(axis=1)
    columns = ["pick", "best source", "performance", "best_performance"]
    report.table(lost[[*columns, "picks_to_best", "regret_at_1"]])
    if truth.split is not None:
        report.add("## All targets, each left out in turn")
        report.summary(evaluate(truth, truth.D(*chosen), split=None), "accuracy")


def effects(report, truth, chosen):
    """What limits the correlation: one change at a time, judged on held-out targets."""
    report.add("## What limits it: one change at a time")
    reference, metric = chosen
    D, held = truth.D(*chosen), truth.judged
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
        D[held], truth.improvement[held]
    )
    rows[f"the best k for these targets ({best_k.k_:.2f})"] = accuracy_row(
        evaluate(truth, D, k=best_k.k_)
    )
    for seed, table in truth.by_seed.items():
        rows[f"seed {seed} alone"] = accuracy_row(evaluate(truth, D, table=table))
    rows["seed 0 alone, the paper's recipe"] = accuracy_row(
        evaluate(truth, D, table=Truth("A", "paper").by_seed[0])
    )
    rows["number of classes in place of size"] = accuracy_row(
        evaluate(truth, D, sizes=truth.n_classes)
    )
    rows["size times number of classes"] = accuracy_row(
        evaluate(truth, D, sizes=truth.sizes * truth.n_classes)
    )
    for whose, chosen_rows in [("training", truth.learning), ("held-out", held)]:
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
    frame.to_csv(RESULTS / truth.zoo / "effects.csv", float_format="%.5f")
    report.table(frame)
    report.add(
        "Rows with other training targets, seeds, steps or sources are judged by their "
        "own truth, so their accuracy and regret do not compare with the first row."
    )


def merged(report, truth, chosen):
    report.add("## The merged source (section 4.3.3)")
    I, D = truth.improvement, truth.D(*chosen)  # noqa: E741
    rows = {}
    for name in MEMBERS:
        difference = I[MERGED] - I[name]
        rows[name] = {
            "size": truth.sizes[name],
            "merged is better": f"{(difference > 0).sum()} of {len(I)} targets",
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
        f"![Figure 8](figures/{truth.zoo}/figure8_merged.png)"
    )


def figures(truth, chosen):
    (reference, metric), folder = chosen, FIGURES / truth.zoo
    fitted, learning, held = {}, truth.learning, truth.judged
    whose = "all targets" if truth.split is None else "held-out targets"
    for name in PAPER:
        selector = SourceSelector(truth.catalog(), metric="precomputed")
        fitted[name] = selector.fit(
            truth.D(reference, name)[learning], truth.improvement[learning]
        )
    p2l, D = fitted[metric], truth.D(*chosen)
    y = truth.improvement
    save(
        KCurveDisplay.from_predictions({m: s.k_curve_ for m, s in fitted.items()}),
        folder / "figure1_k_curves.png",
        f"targets that teach, {reference}",
    )
    save(
        SizeSimilarityDisplay.from_predictions(
            truth.sizes, D[held], y[held], metric=metric, standardize=True
        ),
        folder / "figure4_size_similarity.png",
        whose,
    )
    save(
        SourceSizesDisplay.from_estimator(p2l),
        folder / "figure5_sizes.png",
        "sources",
    )
    save(
        ScoreImprovementDisplay.from_estimator(
            p2l, D[held], y[held], target_names=list(y.index[held])
        ),
        folder / "figure6_scores.png",
        whose,
    )
    catalog = truth.catalog()
    everyone = {"P2L": p2l}
    for name, selector in [
        ("largest (B1)", LargestSource(catalog)),
        ("nearest (B5)", NearestSource(catalog, metric="precomputed")),
        ("constant", ConstantRanking(catalog)),
    ]:
        everyone[name] = selector.fit(D[learning], y[learning])
    save(
        PicksDisplay.from_estimator(everyone, D[held], y[held]),
        folder / "figure7_picks.png",
        whose,
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
        folder / "figure8_merged.png",
        "all targets",
    )
    target = "vegetables"
    save(
        RankingDisplay.from_estimator(p2l, D.loc[[target]]),
        folder / "ranking.png",
        f"ranking for {target}",
    )


def elsewhere(report):
    """Transfer matrices that others measured; k leave-one-target-out."""
    folder = DATA / "groundtruth"
    if not folder.exists():
        print(f"no other matrices in {folder}; set SKLEARN_P2L_DATA")
        return
    report.add("# Transfer matrices of others, leave-one-target-out")
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
