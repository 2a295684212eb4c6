"""Rankings by evidence against equation 2, on the matrix that `run.py` has measured.

    python benchmarks/transfer/evidence.py --folder work/transfer

needs the sources' networks in the folder of `run.py` (it trains them if they are not
there, about 12 minutes), and takes about three minutes then. Writes
results/evidence.csv and EVIDENCE.md.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from run import RESULTS, SOURCE_CLASSIFIER, SOURCE_STEPS, embedder
from scipy.stats import spearmanr
from sklearn import clone
from sklearn.pipeline import make_pipeline
from tasks import TRAINING_GROUP, load_tasks

from sklearn_p2l import EvidenceSelector, SourceSelector
from sklearn_p2l.ground_truth import train_sources

HERE = Path(__file__).parent
OPENED = ["logme", "probe", "knn"]
ALL = ["size", "prior", "euclidean", *OPENED]
RANKERS = {
    "equation 2": dict(metric="euclidean"),
    **{name: dict(signals=[name]) for name in [*ALL, "h_score"]},
    "one pass": dict(signals=["size", "prior", "euclidean"]),
    "all": dict(signals=ALL),
    "all, equal weights": dict(signals=ALL, weights="equal"),
    "all, nothing measured": dict(
        signals=["size", "euclidean", *OPENED], weights="equal"
    ),
    "prior and opened": dict(signals=["prior", *OPENED]),
    **{f"all, {n} opened": dict(signals=ALL, n_opened=n) for n in (3, 5, 8)},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", required=True, help="that of run.py")
    folder = Path(parser.parse_args().folder)
    sources, targets = load_tasks()
    reference = embedder("squeezenet", image_size=64, memory=folder / "vectors")
    zoo = train_sources(
        sources,
        SOURCE_CLASSIFIER,
        embedder=reference,
        folder=folder / "sources",
        n_steps=SOURCE_STEPS,
        n_jobs=2,
    )
    tasks = list(targets.values())
    performances, improvements = measured(list(targets), zoo.names)
    rows = []
    for name, settings in RANKERS.items():
        for split, folds in splits(list(targets)).items():
            start, judged = time.perf_counter(), []
            for training, test in folds:
                E = scores(
                    zoo, reference, settings, tasks, improvements, training, test
                )
                judged += [
                    judge(e, i, p)
                    for e, i, p in zip(E, improvements[test], performances[test])
                ]
            seconds = time.perf_counter() - start
            order = np.concatenate([test for _, test in folds])
            rows += [
                dict(ranker=name, split=split, target=list(targets)[i], **row)
                for i, row in zip(order, judged)
            ]
            print(f"{name}, {split}: {seconds:.1f} s", flush=True)
    frame = pd.DataFrame(rows)
    frame.to_csv(RESULTS / "evidence.csv", index=False, float_format="%.4f")
    (HERE / "EVIDENCE.md").write_text(report(frame), encoding="utf-8")


def measured(targets, sources):
    """Performances and improvements (n_targets, n_sources), means of the seeds."""
    records = pd.read_csv(RESULTS / "measured.csv")
    records = records.query("architecture == 'small_resnet' and steps == 200")
    means = records.groupby(["target", "source"])["performance"].mean().unstack()
    performances = means.loc[targets, sources].to_numpy()
    return performances, performances - means.loc[targets, ["none"]].to_numpy()


def splits(targets):
    """Pairs of training and test rows."""
    rows = np.arange(len(targets))
    group = np.isin(targets, TRAINING_GROUP)
    return {
        "leave one out": [(np.delete(rows, i), rows[[i]]) for i in rows],
        "held out": [(rows[group], rows[~group])],
    }


def scores(zoo, reference, settings, tasks, improvements, training, test):
    """E (n_test, n_sources) of a ranker that has learned from the training targets."""
    known = [tasks[i] for i in training]
    if "metric" in settings:
        selector = make_pipeline(clone(reference), SourceSelector(zoo, **settings))
    else:
        selector = EvidenceSelector(zoo, embedder=reference, image_size=24, **settings)
    selector.fit(known, improvements[training])
    return selector.decision_function([tasks[i] for i in test])


def judge(E, improvements, performances):
    order = np.argsort(-E, kind="stable")
    best = performances.max()
    regrets = {
        f"regret_at_{n}": 1 - performances[order[:n]].max() / best for n in (1, 2, 3)
    }
    return dict(
        spearman=spearmanr(E, improvements).statistic,
        picked_best=float(performances[order[0]] == best),
        **regrets,
    )


def report(frame):
    """EVIDENCE.md: one table per split, differences to equation 2 with intervals."""
    sections = [TEXT]
    for split, own in frame.groupby("split", sort=False):
        rows = [
            "| ranked by | ρ | ρ - that of equation 2 | best picked "
            "| regret@1 | regret@2 | regret@3 |",
            "|---|---|---|---|---|---|---|",
        ]
        first = own[own["ranker"] == "equation 2"]["spearman"].to_numpy()
        for ranker, table in own.groupby("ranker", sort=False):
            spearman = table["spearman"].to_numpy()
            low, high = interval(spearman - first)
            regrets = [
                f"{100 * table[f'regret_at_{n}'].mean():.1f} %" for n in (1, 2, 3)
            ]
            rows.append(
                f"| {ranker} | {spearman.mean():.2f} "
                f"| {(spearman - first).mean():+.2f} ({low:+.2f} to {high:+.2f}) "
                f"| {100 * table['picked_best'].mean():.0f} % | {' | '.join(regrets)} |"
            )
        n_targets = own["target"].nunique()
        sections.append(f"## {split.capitalize()}: {n_targets} targets\n")
        sections.append("\n".join(rows) + "\n")
    return "\n".join(sections)


def interval(differences, n_draws=10_000):
    """95 % of the means of resampled targets."""
    rng = np.random.default_rng(0)
    rows = rng.integers(len(differences), size=(n_draws, len(differences)))
    return np.quantile(differences[rows].mean(axis=1), [0.025, 0.975])


TEXT = """# Ranking by evidence

What `python benchmarks/transfer/evidence.py --folder work/transfer` has measured, on
the sources, targets and improvements of [README.md](README.md). Each ranker learns from
training targets alone and is judged on others: all but one at a time, or the seven of
the training group and the ten that are held out. *Best picked*: share of targets whose
best source ranks first. *Regret@n*: what the best of the first n lacks of the best
accuracy, relative. Intervals of the differences are 95 % of bootstrap resamples of the
targets.

Single signals are named as in `EvidenceSelector`. *One pass*: size, prior and
divergence, which open no source. *All*: these and LogME, probe and neighbours of every
source's own features; *n opened*: of the first n by the others alone. *Nothing
measured*: equal weights, no prior.
"""


if __name__ == "__main__":
    main()
