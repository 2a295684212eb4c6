"""The table of the README, from what the other scripts have written.

    python benchmarks/transfer/front.py

reads results/evidence.csv, results/trials.csv and the measured matrices, writes
results/front.csv, and puts it into README.md.
"""

import sys
from pathlib import Path

import pandas as pd
from truth import RESULTS, Truth

sys.path.insert(0, str(Path(__file__).parents[1]))
from page import fill_file

# The rankers of evidence.csv that are shown.
SHOWN = {
    "size": "the largest source",
    "nearest": "the nearest",
    "prior": "the best on other targets",
    "equation 2": "equation 2 of the paper",
    "all": "all evidence",
}


def main():
    evidence = pd.read_csv(RESULTS / "evidence.csv")
    evidence = evidence[evidence["split"] == "leave one out"]
    trials = pd.read_csv(RESULTS / "trials.csv")
    tables = {}
    for zoo, own in evidence.groupby("zoo"):
        truth, rows = Truth(zoo), {}
        rows["random weights"] = [truth.baseline.mean()]
        rows["ImageNet as it is (SqueezeNet)"] = [truth.imagenet["imagenet"].mean()]
        rows["a random source"] = [truth.performance.mean(axis=None)]
        for selector, label in SHOWN.items():
            means = own[own["selector"] == selector]
            means = means[["performance", "picked_best", "spearman"]].mean()
            rows[label] = list(means)
        tried = trials.loc[trials["zoo"] == zoo, "accuracy_of_taken"]
        rows["all evidence, first three tried"] = [tried.mean()]
        rows["the best source there is"] = [truth.performance.max(axis=1).mean()]
        columns = ["accuracy", "best picked", "ρ"]
        padded = {key: [*row, None, None][:3] for key, row in rows.items()}
        table = pd.DataFrame.from_dict(padded, orient="index", columns=columns)
        digits = {"accuracy": "{:.3f}", "best picked": "{:.0%}", "ρ": "{:.2f}"}
        for column, form in digits.items():
            table[column] = table[column].map(
                lambda value, form=form: "" if pd.isna(value) else form.format(value)
            )
        tables[zoo] = table
    front = pd.concat(tables, axis=1)
    front.columns = [f"{zoo}: {measure}" for zoo, measure in front.columns]
    front.rename_axis("fine-tuned").to_csv(RESULTS / "front.csv")
    fill_file(Path(__file__).parents[2] / "README.md")


if __name__ == "__main__":
    main()
