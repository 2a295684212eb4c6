"""Rankings by evidence against equation 2, on the matrices that `run.py` has measured.

    python benchmarks/transfer/evidence.py --folder work/transfer

needs the sources' networks in the folder of `run.py` (it trains them if they are not
there, about 20 minutes), and takes about half an hour then. Writes
results/evidence.csv and EVIDENCE.md.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from run import ZOOS, embedder, published
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from tasks import load_tasks
from truth import KINDS, RESULTS, Truth, measured_zoos

sys.path.insert(0, str(Path(__file__).parents[1]))
from chances import reliability
from report import Report, bootstrap_interval

from sklearn_p2l import EvidenceSelector, SourceCatalog, SourceSelector
from sklearn_p2l.datasets import load_transfer_results
from sklearn_p2l.evaluation import evaluate_selectors
from sklearn_p2l.selection import NearestSource, _opened

HERE = Path(__file__).parent
REGRETS = [f"regret_at_{n}" for n in (1, 2, 3)]
MEASURES = ["spearman", "picked_best", *REGRETS]
ONE_PASS = ["size", "prior", "similar_targets", "kl", "separability"]
FROM_MEASURED = ["prior", "similar_targets"]
OPENED = ["logme", "probe", "knn"]
ALL = [*ONE_PASS, *OPENED]
WITHOUT_OPENING = {
    **{name: [name] for name in [*ONE_PASS, "coverage"]},
    "prior and separability": ["prior", "separability"],
    "one pass": ONE_PASS,
    "one pass and coverage": [*ONE_PASS, "coverage"],
}
RANKERS = {
    **WITHOUT_OPENING,
    **{name: [name] for name in [*OPENED, "h_score", "leep"]},
    "opened": OPENED,
    "prior and opened": ["prior", *OPENED],
    "measured and opened": [*FROM_MEASURED, *OPENED],
    "all": ALL,
    "all and leep": [*ALL, "leep"],
}
SETTINGS = {
    **{name: dict(signals=signals) for name, signals in RANKERS.items()},
    "all, equal weights": dict(signals=ALL, weights="equal"),
    "all, nothing measured": dict(
        signals=[name for name in ALL if name not in FROM_MEASURED], weights="equal"
    ),
    **{f"all, {n} opened": dict(signals=ALL, n_opened=n) for n in (3, 5, 8)},
}
# Those that can rank a source of which nothing is known but its size and its weights.
WITHOUT_VECTORS = ["size", *FROM_MEASURED, *OPENED, "opened", "all"]
# Timed: one target after another, nothing remembered from before.
TIMED = ["equation 2", "one pass", "logme", "all, 3 opened", "all, 5 opened", "all"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", required=True, help="that of run.py")
    folder = Path(parser.parse_args().folder)
    sources, all_targets = load_tasks()
    settings = dict(image_size=64, class_means=True)
    reference = embedder("squeezenet", memory=folder / "vectors", **settings)
    cold_reference = embedder("squeezenet", **settings)
    page, frames = Report(), []
    page.add(TEXT)
    for zoo in measured_zoos():
        truth, (train, classifier) = Truth(zoo), ZOOS[zoo]
        targets = {name: all_targets[name] for name in truth.targets.index}
        catalog = train(sources, reference, folder, n_jobs=2)
        selectors = selectors_of(
            catalog, reference, classifier.image_size, folder / "features"
        )
        splits = {"leave one out": None}
        if zoo == "A":
            splits["held out"] = truth.split
        for split, mask in splits.items():
            frames.append(judge(page, selectors, catalog, truth, targets, split, mask))
        if zoo == "A":
            frames.append(by_the_papers_recipe(page, selectors, catalog, targets))
        tasks = list(targets.values())
        page.add(RELIABILITY)
        page.table(how_sure(selectors["all"], tasks, truth))
        page.add(COSTS)
        page.table(costs(selectors, cold_reference, tasks, truth))
        if zoo == "B":
            catalog = SourceCatalog([*catalog, *published()])
            with_it = {
                name: clone(selectors[name]).set_params(sources=catalog)
                for name in WITHOUT_VECTORS
            }
            with_it["all"].set_params(signals="auto")
            split = "leave one out, the published network among the sources"
            frames.append(judge(page, with_it, catalog, truth, targets, split, None))
    results = at_full_size()
    for split, result in results.items():
        add_table(page, "A", split, result)
        frames.append(result.targets.assign(zoo="A", split=split))
    columns = ["zoo", "split", "selector", "target", "performance", *MEASURES]
    frame = pd.concat(frames)[columns]
    frame.to_csv(RESULTS / "evidence.csv", index=False, float_format="%.4f")
    page.write(HERE / "EVIDENCE.md")


def selectors_of(catalog, reference, image_size, memory):
    return {
        "equation 2": make_pipeline(
            reference, SourceSelector(catalog, metric="euclidean")
        ),
        "nearest": make_pipeline(reference, NearestSource(catalog, metric="euclidean")),
        **{
            name: EvidenceSelector(
                catalog,
                embedder=reference,
                image_size=image_size,
                memory=memory,
                **own,
            )
            for name, own in SETTINGS.items()
        },
    }


def judge(page, selectors, catalog, truth, targets, split, training):
    """Add the tables of one zoo and one split to the page; return the rows."""
    improvement = truth.improvements_by(catalog.names)
    result = evaluate_selectors(
        selectors,
        list(targets.values()),
        improvement,
        baseline=truth.baseline,
        training=training,
    )
    add_table(page, truth.zoo, split, result)
    if "nearest" in selectors:
        page.add(AHEAD)
        page.table(ahead(result, truth))
        page.add("*All*, by what the sources have seen of the targets:")
        own = result.targets[result.targets["selector"] == "all"].set_index("target")
        kinds = truth.kinds[own.index]
        means = own[MEASURES].groupby(kinds).mean().reindex(KINDS).dropna(how="all")
        page.table(means.rename_axis("kind"))
    return result.targets.assign(zoo=truth.zoo, split=split)


def by_the_papers_recipe(page, selectors, catalog, targets):
    """The same rankers, where targets were fine-tuned as in the paper."""
    names = ["equation 2", "nearest", "size", *FROM_MEASURED, *OPENED]
    names += ["one pass", "opened", "all"]
    some = {name: selectors[name] for name in names}
    split = "leave one out, the paper's recipe"
    return judge(page, some, catalog, Truth("A", "paper"), targets, split, None)


def add_table(page, zoo, split, result):
    n_targets = result.targets["target"].nunique()
    page.add(f"## Zoo {zoo}, {split}: {n_targets} targets")
    page.table(table_of(result))


def ahead(result, truth):
    """Accuracy of the pick of all evidence less that of simple rules."""
    picks = result.targets.pivot(
        index="target", columns="selector", values="performance"
    )
    others = {
        "the nearest source": picks["nearest"],
        "the largest": picks["size"],
        "the prior": picks["prior"],
        "equation 2": picks["equation 2"],
        "a random source": truth.performance.mean(axis=1),
        "the published network (B2)": truth.imagenet["imagenet"],
        "random weights": truth.baseline,
    }
    rows = {}
    for name, other in others.items():
        difference = (picks["all"] - other.loc[picks.index]).to_numpy()
        low, high = bootstrap_interval(difference)
        rows[name] = {
            "its accuracy": other.loc[picks.index].mean(),
            "all": picks["all"].mean(),
            "difference": f"{difference.mean():+.3f} ({low:+.3f} to {high:+.3f})",
        }
    return pd.DataFrame(rows).T.rename_axis("less that of")


def at_full_size():
    """The same without opening networks, by the vectors that come with the package."""
    bundled = load_transfer_results()
    improvement = pd.DataFrame(
        bundled.improvements, index=bundled.target_names, columns=bundled.sources.names
    )
    selectors = {
        "equation 2": SourceSelector(bundled.sources, metric="euclidean"),
        **{
            name: EvidenceSelector(bundled.sources, signals=signals)
            for name, signals in WITHOUT_OPENING.items()
        },
    }
    return {
        f"{split}, reference at 224 pixels": evaluate_selectors(
            selectors,
            bundled.vectors,
            improvement,
            baseline=bundled.baseline,
            training=training,
        )
        for split, training in [("leave one out", None), ("held out", bundled.training)]
    }


def table_of(result):
    """Means with their intervals, and differences to the first ranker with theirs."""
    summary = result.summary.set_index(["selector", "measure"])
    rows = {}
    for name in result.targets["selector"].unique():
        row = rows[name] = {}
        for measure in MEASURES:
            own, digits = summary.loc[name, measure], ".2f"
            label = measure.replace("regret_at_", "regret@").replace("_", " ")
            if measure != "spearman":
                digits = ".0%" if measure == "picked_best" else ".1%"
            text = f"{own['mean']:{digits}}"
            row[label] = f"{text} ({own['low']:{digits}} to {own['high']:{digits}})"
            if measure in ("spearman", "regret_at_1"):
                low, high = own["difference_low"], own["difference_high"]
                text = f"{own['difference']:+{digits}}"
                row[f"{label}: difference"] = (
                    f"{text} ({low:+{digits}} to {high:+{digits}})"
                )
    return pd.DataFrame(rows).T.rename_axis("ranked by")


def how_sure(selector, tasks, truth):
    """Chances of left-out targets against what came true."""
    I = truth.improvement.to_numpy()  # noqa: E741
    best, gain = np.empty_like(I), np.empty_like(I)
    for i, task in enumerate(tasks):
        others = np.delete(np.arange(len(tasks)), i)
        fitted = clone(selector).fit([tasks[j] for j in others], I[others])
        best[i], gain[i] = fitted.predict_proba([task]), fitted.transfer_proba([task])
    is_best = I == I.max(axis=1, keepdims=True)
    rows = [("is the best", best, is_best), ("beats no transfer", gain, I > 0)]
    return pd.DataFrame(
        [
            dict(what=what, **bin)
            for what, P, true in rows
            for bin in reliability(P, true)
        ]
    ).set_index("what")


def costs(selectors, reference, tasks, truth):
    """Seconds for the ranking of one target, and networks that it passes."""
    rows = {}
    some = tasks[::3]
    for name in TIMED:
        selector = clone(selectors[name])
        is_pipeline = hasattr(selector, "steps")
        if is_pipeline:
            selector.steps[0] = ("embedder", reference)
        else:
            selector.set_params(embedder=reference)
        selector.fit(tasks, truth.improvement)
        if not is_pipeline:
            selector.set_params(memory=None)
        seconds = []
        for task in some:
            _opened._kept.clear()
            embedding = selector[0] if is_pipeline else selector.embedder_
            embedding._kept.clear()
            start = time.perf_counter()
            selector.predict([task])
            seconds.append(time.perf_counter() - start)
        opened = 0
        if not is_pipeline and set(selector.signals_) & {*OPENED}:
            opened = selector.n_opened or len(truth.improvement.columns)
        embeds = name != "logme"
        rows[name] = {
            "passes": opened + embeds,
            "seconds": f"{np.median(seconds):.2f}",
        }
    return pd.DataFrame(rows).T.rename_axis("ranked by")


TEXT = """# Ranking by evidence

What `python benchmarks/transfer/evidence.py --folder work/transfer` has measured, on
the sources, targets and improvements of [README.md](README.md). Each ranker learns from
training targets alone and is judged on others: all but one at a time, or, in zoo A, the
seven of the training group and the ten that are held out. *Picked best*: share of
targets whose best source ranks first. *Regret@n*: what the best of the first n lacks of
the best accuracy, relative. *Difference*: to the first row. Intervals are 95 % of
bootstrap resamples of the targets.

Single signals are named as in `EvidenceSelector`. *One pass*: size, prior, similar
targets, divergence and separability, which open no source. *All*: these and LogME,
probe and neighbours of every source's own features, which is what `signals="auto"`
takes; *n opened*: of the first n by the others alone. *Nothing measured*: equal
weights, neither prior nor similar targets. The reference network sees images of 64
pixels, as fast as a source sees them; in the last two tables, which are made from
`load_transfer_results()` alone, of 224.

Of the published network nothing is known that a divergence could compare. Where it is
among the sources, *all* is what `signals="auto"` takes then: size, prior, similar
targets and the signals of opened networks.
"""
AHEAD = """Accuracy after fine-tuning of the first by *all*, less that of others:"""
RELIABILITY = """### How sure

Of all pairs of a target, left out, and a source, by the chance that `predict_proba` or
`transfer_proba` of *all* computes: its mean, and the share for which it came true.
"""
COSTS = """### What it costs

The ranking of one target by 15 sources: passes of the target through a network, the
reference network's included, and the median of the seconds, with nothing remembered.
"""


if __name__ == "__main__":
    main()
