"""Rankings by evidence against equation 2, on the matrix that `run.py` has measured.

    python benchmarks/transfer/evidence.py --folder work/transfer

needs the sources' networks in the folder of `run.py` (it trains them if they are not
there, about 12 minutes), and takes about six minutes then. Writes
results/evidence.csv and EVIDENCE.md.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from evaluate import RESULTS, Truth
from report import Report
from run import embedder, train_zoo
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from tasks import load_tasks

sys.path.insert(0, str(Path(__file__).parents[1]))
from reliability import reliability

from sklearn_p2l import EvidenceSelector, SourceSelector
from sklearn_p2l.datasets import load_transfer_results
from sklearn_p2l.evaluation import evaluate_selectors
from sklearn_p2l.selection import _opened

HERE = Path(__file__).parent
REGRETS = [f"regret_at_{n}" for n in (1, 2, 3)]
MEASURES = ["spearman", "picked_best", *REGRETS]
ONE_PASS = ["size", "prior", "kl", "separability"]
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
    "all": ALL,
    "all and leep": [*ALL, "leep"],
}
SETTINGS = {
    **{name: dict(signals=signals) for name, signals in RANKERS.items()},
    "all, equal weights": dict(signals=ALL, weights="equal"),
    "all, nothing measured": dict(
        signals=[name for name in ALL if name != "prior"], weights="equal"
    ),
    **{f"all, {n} opened": dict(signals=ALL, n_opened=n) for n in (3, 5, 8)},
}
# Timed: one target after another, nothing remembered from before.
TIMED = ["equation 2", "one pass", "logme", "all, 3 opened", "all, 5 opened", "all"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", required=True, help="that of run.py")
    folder = Path(parser.parse_args().folder)
    sources, targets = load_tasks()
    truth, tasks = Truth(), list(targets.values())
    splits = {"leave one out": None, "held out": truth.training}
    settings = dict(image_size=64, class_means=True)
    reference = embedder("squeezenet", memory=folder / "vectors", **settings)
    zoo = train_zoo(sources, reference, folder, n_jobs=2)
    selectors = {
        "equation 2": make_pipeline(reference, SourceSelector(zoo, metric="euclidean")),
        **{
            name: EvidenceSelector(
                zoo,
                embedder=reference,
                image_size=24,
                memory=folder / "features",
                **own,
            )
            for name, own in SETTINGS.items()
        },
    }
    results = {
        split: evaluate_selectors(
            selectors,
            tasks,
            truth.improvement,
            baseline=truth.baseline,
            training=training,
        )
        for split, training in splits.items()
    }
    results |= at_full_size(splits)
    frame = pd.concat(r.targets.assign(split=split) for split, r in results.items())
    columns = ["selector", "split", "target", *MEASURES]
    frame[columns].to_csv(RESULTS / "evidence.csv", index=False, float_format="%.4f")
    page = Report()
    page.add(TEXT)
    for split, result in results.items():
        n_targets = result.targets["target"].nunique()
        page.add(f"## {split.capitalize()}: {n_targets} targets")
        page.table(table_of(result))
    page.add(RELIABILITY)
    page.table(how_sure(selectors["all"], tasks, truth))
    page.add(COSTS)
    page.table(costs(selectors, embedder("squeezenet", **settings), tasks, truth))
    page.write(HERE / "EVIDENCE.md")


def at_full_size(splits):
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
        f"{split}, 224 pixels": evaluate_selectors(
            selectors,
            bundled.vectors,
            improvement,
            baseline=bundled.baseline,
            training=training,
        )
        for split, training in splits.items()
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
    for name in TIMED:
        selector = clone(selectors[name])
        is_pipeline = hasattr(selector, "steps")
        if is_pipeline:
            selector.steps[0] = ("embedder", reference)
        else:
            selector.set_params(embedder=reference, memory=None)
        selector.fit(tasks, truth.improvement)
        seconds = []
        for task in tasks:
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
training targets alone and is judged on others: all but one at a time, or the seven of
the training group and the ten that are held out. *Picked best*: share of targets whose
best source ranks first. *Regret@n*: what the best of the first n lacks of the best
accuracy, relative. *Difference*: to equation 2. Intervals are 95 % of bootstrap
resamples of the targets.

Single signals are named as in `EvidenceSelector`. *One pass*: size, prior, divergence
and separability, which open no source. *All*: these and LogME, probe and neighbours of
every source's own features, which is what `signals="auto"` takes; *n opened*: of the
first n by the others alone. *Nothing measured*: equal weights, no prior. The reference
network sees images of 64 pixels, as fast as a source sees them; in the last two tables,
which are made from `load_transfer_results()` alone, of 224.
"""
RELIABILITY = """## How sure

Of all pairs of a target, left out, and a source, by the chance that `predict_proba` or
`transfer_proba` of *all* computes: its mean, and the share for which it came true.
"""
COSTS = """## What it costs

The ranking of one target by 15 sources: passes of the target through a network, the
reference network's included, and the median of the seconds, with nothing remembered.
"""


if __name__ == "__main__":
    main()
