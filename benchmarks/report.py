"""What the reports of the benchmarks share: tables in Markdown, and their rows."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sklearn_p2l import SourceSelector
from sklearn_p2l.selection import (
    ConstantRanking,
    LargestSource,
    NearestSource,
    NoTransfer,
    RandomSource,
)

MEASURES = {
    "performance": "{} of the pick",
    "picked_best": "best source picked",
    "spearman": "Spearman ρ",
    "picks_to_best": "picks to the best",
    "regret_at_1": "regret@1",
    "regret_at_2": "regret@2",
    "regret_at_3": "regret@3",
}


def bootstrap_interval(values, n_draws=10_000):
    """95 % of the means of resampled targets."""
    rng = np.random.default_rng(0)
    rows = rng.integers(len(values), size=(n_draws, len(values)))
    return np.quantile(values[rows].mean(axis=1), [0.025, 0.975])


class Report:
    """Paragraphs and tables, to be joined to a page."""

    def __init__(self):
        self.parts = []

    def add(self, text):
        self.parts.append(text)

    def table(self, frame, digits=3):
        def cell(value):
            if isinstance(value, (bool, np.bool_)):
                return "yes" if value else "no"
            if isinstance(value, (float, np.floating)):
                return "–" if np.isnan(value) else f"{value:.{digits}f}"
            return str(value)

        frame = frame.reset_index()
        lines = ["| " + " | ".join(map(str, frame.columns)) + " |"]
        lines.append("|" + "---|" * len(frame.columns))
        for row in frame.itertuples(index=False):
            lines.append("| " + " | ".join(map(cell, row)) + " |")
        self.parts.append("\n".join(lines))

    def summary(self, result, performance):
        """Table 1 of the paper: each selector's means with their intervals."""
        rows = {}
        for (selector, measure), row in result.summary.set_index(
            ["selector", "measure"]
        ).iterrows():
            text = "–"
            if not np.isnan(row["mean"]):
                text = f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
            name = MEASURES[measure].format(performance)
            rows.setdefault(selector, {})[name] = text
            if measure == "performance":
                rows[selector]["less P2L's"] = (
                    f"{row['difference']:.3f} [{row['difference_low']:.3f}, "
                    f"{row['difference_high']:.3f}]"
                )
        frame = pd.DataFrame(rows).T.rename_axis("selector")
        most = result.targets.groupby("selector")["picks_to_best"].max()
        frame["most picks"] = most
        self.table(frame, digits=1)
        self.add("In brackets: 95 % bootstrap intervals over targets.")

    def write(self, path):
        path.write_text("\n\n".join(self.parts) + "\n", encoding="utf-8")


def selectors(catalog, metric="precomputed", **settings):
    """P2L and the paper's baselines."""
    return {
        "P2L": SourceSelector(catalog, metric=metric, **settings),
        "largest (B1)": LargestSource(catalog),
        "random (B3)": RandomSource(catalog),
        "none (B4)": NoTransfer(catalog),
        "nearest (B5)": NearestSource(catalog, metric=metric),
        "constant": ConstantRanking(catalog),
    }


def row_of(result, performance, selector="P2L"):
    """One line of numbers about one selector."""
    rows = result.targets[result.targets["selector"] == selector]
    return {
        "Spearman": rows["spearman"].mean(),
        "best picked": rows["picked_best"].mean(),
        "mean picks": rows["picks_to_best"].mean(),
        "most picks": rows["picks_to_best"].max(),
        performance: rows["performance"].mean(),
        "regret@1": rows["regret_at_1"].mean(),
        "regret@3": rows["regret_at_3"].mean(),
    }


def save(display, path, title):
    display.ax_.set_title(title)
    display.figure_.savefig(path, dpi=80)
    plt.close(display.figure_)
