"""Rankings by evidence against equation 2, on the matrix that `run.py` has measured.

    python benchmarks/transfer/evidence.py --folder work/transfer

needs the sources' networks in the folder of `run.py` (it trains them if they are not
there, about 12 minutes), and takes about three minutes then. Writes
results/evidence.csv and EVIDENCE.md.
"""

import argparse
from pathlib import Path

import pandas as pd
from evaluate import RESULTS, Truth
from report import Report
from run import embedder, train_zoo
from sklearn.pipeline import make_pipeline
from tasks import load_tasks

from sklearn_p2l import EvidenceSelector, SourceSelector
from sklearn_p2l.evaluation import evaluate_selectors
from sklearn_p2l.metrics import regret_loss

HERE = Path(__file__).parent
REGRETS = [f"regret_at_{n}" for n in (1, 2, 3)]
OPENED = ["logme", "probe", "knn"]
ALL = ["size", "prior", "euclidean", *OPENED]
RANKERS = {
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
    truth = Truth()
    reference = embedder("squeezenet", image_size=64, memory=folder / "vectors")
    zoo = train_zoo(sources, reference, folder, n_jobs=2)
    selectors = {
        "equation 2": make_pipeline(reference, SourceSelector(zoo, metric="euclidean")),
        **{
            name: EvidenceSelector(zoo, embedder=reference, image_size=24, **settings)
            for name, settings in RANKERS.items()
        },
    }
    results = {
        split: evaluate_selectors(
            selectors,
            list(targets.values()),
            truth.improvement,
            baseline=truth.baseline,
            training=training,
        )
        for split, training in [("leave one out", None), ("held out", truth.training)]
    }
    for result in results.values():
        add_regret_at_2(result, truth.baseline)
    frame = pd.concat(r.targets.assign(split=split) for split, r in results.items())
    columns = ["selector", "split", "target", "spearman", "picked_best", *REGRETS]
    frame[columns].to_csv(RESULTS / "evidence.csv", index=False, float_format="%.4f")
    report(results)


def add_regret_at_2(result, baseline):
    """As the evaluation's regrets, of the best of the first two picks."""
    for selector, own in result.scores.groupby("selector"):
        table = own.pivot(index="target", columns="source")
        regret = regret_loss(
            table["improvement"],
            table["score"],
            top=2,
            baseline=baseline[table.index],
            average=None,
        )
        rows = result.targets["selector"] == selector
        by_target = pd.Series(regret, table.index)
        names = result.targets.loc[rows, "target"]
        result.targets.loc[rows, "regret_at_2"] = by_target[names].to_numpy()


def report(results):
    """EVIDENCE.md: one table per split, differences to equation 2 with intervals."""
    page = Report()
    page.add(TEXT)
    for split, result in results.items():
        n_targets = result.targets["target"].nunique()
        page.add(f"## {split.capitalize()}: {n_targets} targets")
        summary = result.summary.query("measure == 'spearman'").set_index("selector")
        rows = {}
        for name, own in result.targets.groupby("selector", sort=False):
            rho = summary.loc[name]
            rows[name] = {
                "ρ": f"{rho['mean']:.2f}",
                "ρ - that of equation 2": f"{rho['difference']:+.2f} "
                f"({rho['difference_low']:+.2f} to {rho['difference_high']:+.2f})",
                "best picked": f"{own['picked_best'].mean():.0%}",
                **{
                    column.replace("regret_at_", "regret@"): f"{own[column].mean():.1%}"
                    for column in REGRETS
                },
            }
        page.table(pd.DataFrame(rows).T.rename_axis("ranked by"))
    page.write(HERE / "EVIDENCE.md")


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
