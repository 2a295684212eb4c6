"""Tables of what the other scripts here have measured of accuracy.

    python benchmarks/training/report.py && python benchmarks/page.py

Reads measured/ and writes results/. Intervals are 95 % of a t distribution over
targets, each the mean of its seeds.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

HERE = Path(__file__).parent
MEASURED, RESULTS = HERE / "measured", HERE / "results"


def main():
    recipes = pd.read_csv(MEASURED / "recipes.csv")
    tables = {
        "targets": by_target(recipes),
        "recipes": by_start(recipes),
        "ingredients": ingredients(recipes),
    }
    for name, table_of in (
        ("text", text),
        ("trials", trials),
        ("precision", precision),
        ("precision_cuda", precision),
    ):
        if (MEASURED / f"{name}.csv").exists():
            tables[name] = table_of(pd.read_csv(MEASURED / f"{name}.csv"))
    for name, table in tables.items():
        table.to_csv(RESULTS / f"{name}.csv", index=False, float_format="%.3f")


def interval(differences):
    """ "mean (low to high)" of differences, one per target."""
    differences = np.asarray(differences)
    mean, n = differences.mean(), len(differences)
    half = stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n)
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


def means(records):
    """Mean accuracy over seeds: targets by recipes."""
    return records.groupby(["target", "recipe"])["accuracy"].mean().unstack()


def by_target(records):
    records = records[records["start"] == "imagenet, 64 px"]
    table = means(records)[["probe", "closed-form probe", "before", "paper", "default"]]
    half = records.groupby("target")["half"].first()
    table.insert(0, "half", half)
    table["default - probe"] = table["default"] - table["probe"]
    return table.sort_values("half", kind="stable").reset_index()


def by_start(records):
    """One row per start, half of the targets, and recipe."""
    rows = []
    for (start, half), own in records.groupby(["start", "half"], sort=False):
        table = means(own)
        for recipe in [r for r in _ORDER if r in table]:
            trained = own[own["recipe"] == recipe]
            row = dict(
                start=start,
                half=half,
                recipe=recipe,
                targets=len(table),
                accuracy=table[recipe].mean(),
                to_probe="",
                worst_target="",
                dead=f"{(~trained['converged']).sum()} of {len(trained)}",
            )
            if "probe" in table and recipe != "probe":
                difference = table[recipe] - table["probe"]
                row["to_probe"] = interval(difference)
                row["worst_target"] = f"{difference.min():+.3f}"
            rows.append(row)
    return pd.DataFrame(rows)


_ORDER = (
    *("probe", "closed-form probe", "before", "paper", "default"),
    "body at a tenth",
)


def ingredients(records):
    """What the default loses by each change, on the same targets and seeds."""
    records = records[records["start"] == "imagenet, 64 px"]
    default = records[records["recipe"] == "default"]
    default = default.set_index(["target", "seed"])["accuracy"]
    rows = []
    for recipe, own in records.groupby("recipe", sort=False):
        if recipe in _ORDER:
            continue
        own = own.set_index(["target", "seed"])
        difference = (own["accuracy"] - default).dropna()
        rows.append(
            dict(
                change=recipe,
                accuracy=own["accuracy"].mean(),
                to_default=interval(difference.groupby("target").mean()),
                dead=f"{(~own['converged']).sum()} of {len(own)}",
            )
        )
    return pd.DataFrame(rows).sort_values("accuracy", ascending=False)


def text(records):
    table = records.groupby(["subtask", "recipe"])["auc_pr"].mean().unstack()
    spread = records.groupby(["subtask", "recipe"])["auc_pr"].std().unstack()
    table = table[["before", "default"]].copy()
    table["difference"] = table["default"] - table["before"]
    table["sd_of_seeds"] = spread.mean(axis=1)
    return table.reset_index()


def precision(records):
    """Accuracy in either precision by target, and in the mean."""
    order = records["target"].unique()
    table = records.groupby(["target", "precision"])["accuracy"].mean().unstack()
    table = table.loc[order, ["float32", "bfloat16"]]
    difference = table["bfloat16"] - table["float32"]
    mean = table.mean()
    table["difference"] = [f"{value:+.3f}" for value in difference]
    table.loc["mean"] = [*mean, interval(difference)]
    return table.reset_index()


def trials(records):
    """Accuracy of what each way of choosing takes, its regret, and its cost."""
    ways = {
        "first of the ranking": lambda own: own.loc[own["rank"].idxmin()],
        "trials of three, one fold": lambda own: own.loc[own["first_fold"].idxmax()],
        "trials of three": lambda own: own[own["chosen"]].iloc[0],
        "best of the first three": lambda own: own.loc[
            own[own["rank"] <= 3]["accuracy"].idxmax()
        ],
        "best of all": lambda own: own.loc[own["accuracy"].idxmax()],
    }
    groups = list(records.groupby(["target", "seed"]))
    first = np.array(
        [ways["first of the ranking"](own)["accuracy"] for _, own in groups]
    )
    best = np.array([own["accuracy"].max() for _, own in groups])
    one = sum(ways["first of the ranking"](own)["seconds"] for _, own in groups)
    three = sum(own["seconds_of_three"].iloc[0] for _, own in groups)
    cost = {
        "first of the ranking": 1.0,
        "trials of three": three / one,
        "best of all": records["seconds"].sum() / one,
    }
    rows = []
    for name, way in ways.items():
        got = np.array([way(own)["accuracy"] for _, own in groups])
        targets = pd.Series(got - first).groupby([t for (t, _), _ in groups]).mean()
        rows.append(
            dict(
                choice=name,
                accuracy=got.mean(),
                to_first="" if name.startswith("first") else interval(targets),
                regret=np.mean((best - got) / best),
                trainings_of_one=f"{cost[name]:.1f}" if name in cost else "",
            )
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
