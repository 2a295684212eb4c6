"""What was measured in one zoo, by one recipe, as tables."""

from pathlib import Path

import numpy as np
import pandas as pd

from sklearn_p2l import SourceCatalog

HERE = Path(__file__).parent
RESULTS = HERE / "results"
KINDS = ["classes of a source", "other classes of its kind", "kinds no source has seen"]


def measured_zoos():
    """The zoos, "A" or "B", whose sources `run.py` has measured."""
    records = pd.read_csv(RESULTS / "measured.csv", keep_default_na=False)
    of_sources = records[~records["source"].isin(["none", "imagenet"])]
    return sorted(of_sources["zoo"].unique())


class Truth:
    """Performances, sizes and divergences of zoo "A" or "B", by target and source.

    Targets are those on which all sources were measured; performances are means over
    seeds, except in `by_seed`.
    """

    def __init__(self, zoo="A", recipe="default"):
        self.zoo = zoo
        records = pd.read_csv(RESULTS / "measured.csv", keep_default_na=False)
        sources = pd.read_csv(RESULTS / "sources.csv").set_index("source")
        self.sizes = sources["size"].drop("imagenet")
        self.n_classes = sources["n_classes"].drop("imagenet")
        names = list(self.sizes.index)
        own = (records["zoo"] == zoo) & (records["recipe"] == recipe)
        self.records = records[own]
        tables = {
            seed: part.pivot(index="target", columns="source", values="performance")
            for seed, part in self.records.groupby("seed")
        }
        measured = next(iter(tables.values()))[names].dropna().index
        targets = pd.read_csv(RESULTS / "targets.csv").set_index("target")
        self.targets = targets[targets.index.isin(measured)]
        self.by_seed = {s: t.loc[self.targets.index] for s, t in tables.items()}
        mean = sum(self.by_seed.values()) / len(self.by_seed)
        mean = mean.round(12)  # equal means stay equal in spite of round-off
        self.everything = mean
        self.baseline = mean["none"]
        self.performance = mean[names]
        self.improvement = self.improvements_by(names)
        # In zoo A some targets only teach, and the others judge, as in the paper. Of
        # those that teach there, zoo B has few: in it each target is left out in turn.
        self.learning = (self.targets["group"] == "training").to_numpy() | (zoo == "B")
        self.judged = ~self.learning | (zoo == "B")
        self.split = self.learning if zoo == "A" else None
        self.kinds = pd.Series(
            map(self.kind_of, self.targets.index), self.targets.index
        )
        # SqueezeNet from ImageNet (B2), and from random weights.
        large = records[(records["zoo"] == "B") & (records["recipe"] == "default")]
        large = large.groupby(["target", "source"])["performance"].mean().unstack()
        self.imagenet = large.loc[self.targets.index, ["imagenet", "none"]]
        self.divergences = pd.read_csv(RESULTS / "divergences.csv")

    def improvements_by(self, names):
        """Improvements by sources, the published network "imagenet" among them."""
        return self.everything[list(names)].sub(self.baseline, axis=0).round(12)

    def kind_of(self, target):
        """What the sources have seen of a target, one of `KINDS`."""
        if self.targets.loc[target, "group"] == "training":
            return KINDS[0]
        return KINDS[1 if target.removesuffix("_b") in self.sizes.index else 2]

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

    def noise(self):
        """Standard deviation over seeds of one training of each target, pooled."""
        values = np.stack([table[self.sizes.index] for table in self.by_seed.values()])
        return pd.Series(
            np.sqrt(values.var(axis=0, ddof=1).mean(axis=1)), self.targets.index
        )
