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
# In zoo B the published network is one more source, for those who can rank it.
SPLITS = [
    "leave one out",
    "leave one out, the published network among the sources",
]
MEASURES = {
    "performance": "accuracy",
    "picked_best": "best picked",
    "spearman": "ρ",
}


def main():
    evidence = pd.read_csv(RESULTS / "evidence.csv")
    evidence = evidence[evidence["split"].isin(SPLITS)]
    trials = pd.read_csv(RESULTS / "trials.csv")
    tables = {}
    for zoo, own in evidence.groupby("zoo"):
        truth, rows = Truth(zoo), {}
        rows["random weights"] = {"accuracy": truth.baseline.mean()}
        imagenet = truth.imagenet["imagenet"].mean()
        rows["ImageNet as it is (SqueezeNet)"] = {"accuracy": imagenet}
        rows["a random source"] = {"accuracy": truth.performance.mean(axis=None)}
        for selector, label in SHOWN.items():
            of_selector = own[own["selector"] == selector]
            split = max(of_selector["split"], key=SPLITS.index)
            of_split = of_selector[of_selector["split"] == split]
            means = of_split[list(MEASURES)].mean()
            rows[label] = means.rename(MEASURES).to_dict()
        tried = trials.loc[trials["zoo"] == zoo, "accuracy_of_taken"]
        rows["all evidence, first three tried"] = {"accuracy": tried.mean()}
        candidates = truth.everything.drop(columns="none")
        best = candidates.max(axis=1).mean()
        rows["the best source there is"] = {"accuracy": best}
        table = pd.DataFrame(rows).T
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
