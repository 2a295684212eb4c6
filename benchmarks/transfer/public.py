"""Learned weights on transfer that others have measured, with scores they published.

    python benchmarks/transfer/public.py

needs the folder groundtruth (`SKLEARN_P2L_DATA`), and takes about a minute. Each
target is left out in turn; its ranking is by weights, and a prior, learned from the
others. Writes PUBLIC.md.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import LinearRegression, RidgeCV

sys.path.insert(0, str(Path(__file__).parents[1]))
from chances import reliability
from report import bootstrap_interval
from timing import DATA

from sklearn_p2l.divergence import pairwise_divergence
from sklearn_p2l.metrics import spearman_score
from sklearn_p2l.selection._ranker import zscore
from sklearn_p2l.selection._signals import Measured
from sklearn_p2l.selection._weights import learn_weights, shares_of_best

HERE = Path(__file__).parent
PUBLIC = DATA / "groundtruth" / "public"
# Numbers of training images, of the datasets' paper.
MEDMNIST_SIZES = dict(
    bloodmnist=11_959,
    breastmnist=546,
    chestmnist=78_468,
    dermamnist=7_007,
    octmnist=97_477,
    organamnist=34_561,
    organcmnist=12_975,
    organsmnist=13_932,
    pathmnist=89_996,
    pneumoniamnist=4_708,
    retinamnist=1_080,
    tissuemnist=165_466,
)


def medmnist():
    """Twelve sources and targets of one dataset each, fine-tuned; AUC."""
    names = list(MEDMNIST_SIZES)

    def read(what):
        frame = pd.read_csv(PUBLIC / f"medmnist_dataset_{what}.csv", index_col="source")
        return frame.reindex(index=names, columns=names).T

    performances = read("aucs")
    signals = {"size": np.tile(np.log(list(MEDMNIST_SIZES.values())), (12, 1))}
    for what in ("lp", "nleep", "leep", "logme", "parc", "ncti"):
        signals[what] = read(what).to_numpy()
    performances = performances.to_numpy(copy=True)
    np.fill_diagonal(performances, np.nan)  # the target itself
    return performances, signals


def transfergraph():
    """Hugging Face's text models, fully fine-tuned; accuracy."""
    records = pd.read_csv(PUBLIC / "transfergraph_text_records.csv")
    records = records[records["peft_method"].isna()]
    table = records.pivot_table(
        index="finetuned_dataset", columns="model", values="eval_accuracy"
    )
    scores = pd.read_csv(PUBLIC / "transfergraph_text_scores.csv")
    targets = table.index.intersection(scores["target_dataset"].unique())
    table = table.loc[targets].dropna(axis=1, thresh=3)
    signals = {}
    for name, what in [("logme", "LOG_ME"), ("h_score", "REG_H_SCORE")]:
        own = scores[scores["metric"] == f"TransferabilityMethod.{what}"]
        own = own.pivot_table(index="target_dataset", columns="model", values="score")
        signals[name] = own.reindex(index=targets, columns=table.columns).to_numpy()
    sources = pd.read_csv(PUBLIC / "transfergraph_text_sources.csv")
    sources = sources.drop_duplicates("model").set_index("model")
    n_parameters = sources["number_of_parameters"].reindex(table.columns)
    signals["parameters"] = np.tile(np.log(n_parameters), (len(table), 1))
    return table.to_numpy(), signals


def two_phase(what):
    """Published networks, fine-tuned; accuracy. No scores are published."""
    return pd.read_csv(PUBLIC / f"two_phase_{what}.csv", index_col=0).to_numpy(), {}


def quick_tune():
    """timm's networks on Meta-Album: the best of each network's random settings."""
    curves = pd.read_csv(PUBLIC / "quicktune_extended_curves.csv")
    table = curves.pivot_table(
        index="dataset", columns="model", values="best", aggfunc="max"
    )
    return table.to_numpy(), {}


def t5_prompts():
    """Soft prompts of T5 that start from those of others; cityblock of mean prompts."""
    frame = pd.read_csv(PUBLIC.parent / "prompt_transfer_t5.csv")
    table = frame.pivot(index="target", columns="source", values="performance")
    sizes = frame.groupby("source")["source_size"].first()[table.columns]
    with np.load(PUBLIC.parent / "prompt_transfer_t5_vectors.npz") as file:
        prompts = {name: file[name].mean(axis=0) for name in file.files}
    D = pairwise_divergence(
        [prompts[name] for name in table.index],
        [prompts[name] for name in table.columns],
        metric="cityblock",
    )
    performances = table.to_numpy(copy=True)
    performances[D < 1e-6] = np.nan  # the target itself
    signals = {"size": np.tile(np.log(sizes), (len(table), 1)), "cityblock": -D}
    return performances, signals


def xlm_r():
    """Part-of-speech tagging by XLM-R, trained on another language; LDND distance."""
    frame = pd.read_csv(PUBLIC.parent / "xpos_udpos.csv")
    values = "performance_10000_samples"
    table = frame.pivot(index="target", columns="source", values=values)
    D = frame.pivot(index="target", columns="source", values="distance_ldnd")
    known = D.notna() & table.notna()
    rows, columns = known.any(axis=1), known.any(axis=0)
    performances = table.where(known).loc[rows, columns].to_numpy()
    return performances, {"distance": -D.loc[rows, columns].to_numpy()}


# What learns from the same rows, in place of this package's weights.
LEARNERS = {
    "ridge": RidgeCV(np.logspace(-2, 4, 13), fit_intercept=False),
    "non-negative": LinearRegression(fit_intercept=False, positive=True),
    "boosted trees": HistGradientBoostingRegressor(random_state=0),
}
MATRICES = {
    "MedMNIST": medmnist,
    "TransferGraph, text": transfergraph,
    "two-phase, images": lambda: two_phase("cv"),
    "two-phase, text": lambda: two_phase("nlp"),
    "Quick-Tune": quick_tune,
    "T5 prompts": t5_prompts,
    "XLM-R": xlm_r,
}


def left_out(performances, signals):
    """E of every target by what was learned from all others, for each ranker."""
    n = len(performances)
    measured = ~np.isnan(performances)
    z = {name: zscore(np.where(measured, s, np.nan)) for name, s in signals.items()}
    E = {**z, "prior": np.empty_like(performances)}
    chances = np.full_like(performances, np.nan)
    for how in ("learned", "equal", *(LEARNERS if signals else ())):
        E[f"all, {how}"] = np.empty_like(performances)
    for i in range(n):
        others = np.delete(np.arange(n), i)
        others_measured = Measured.of(performances[others])
        prior = others_measured.prior()[0]
        E["prior"][i] = prior
        nested = zscore(others_measured.prior(nested=True))
        training = np.array([*(s[others] for s in z.values()), nested])
        own = np.where(measured[i], prior, np.nan)[np.newaxis]
        test = np.array([*(s[i] for s in z.values()), zscore(own)[0]])
        free = np.zeros(len(test), dtype=bool)
        weights = learn_weights(training, performances[others], free)
        E["all, learned"][i] = weights.values @ test
        draws = weights.draw(test[:, measured[i]])
        chances[i, measured[i]] = shares_of_best(draws)
        E["all, equal"][i] = test.sum(axis=0)
        if signals:
            rows = measured[others]
            A, b = training[:, rows].T, zscore(performances[others])[rows]
            for how, learner in LEARNERS.items():
                E[f"all, {how}"][i] = learner.fit(A, b).predict(test.T)
    return E, chances


def main():
    warnings.simplefilter("ignore", UndefinedMetricWarning)  # equal scores count as 0
    rows, tables = [], []
    for matrix, load in MATRICES.items():
        performances, signals = load()
        rankings, chances = left_out(performances, signals)
        tables.append(how_sure(matrix, performances, chances))
        for ranker, E in rankings.items():
            correlations = spearman_score(performances, E, average=None)
            for i, rho in enumerate(correlations):
                rows.append(dict(matrix=matrix, ranker=ranker, target=i, spearman=rho))
    frame = pd.DataFrame(rows)
    (HERE / "PUBLIC.md").write_text(
        report(frame) + RELIABILITY + "".join(tables), encoding="utf-8"
    )


def how_sure(matrix, performances, chances):
    """Rows of a table: of all sources with such a chance, how many were the best."""
    best = performances == np.nanmax(performances, axis=1, keepdims=True)
    rows = reliability(chances, best / best.sum(axis=1, keepdims=True))
    return "".join(f"| {matrix} | {' | '.join(row.values())} |\n" for row in rows)


def report(frame):
    lines = [TEXT]
    lines.append("| matrix | targets | ranked by | ρ | learned - this |")
    lines.append("|---|---|---|---|---|")
    for matrix, own in frame.groupby("matrix", sort=False):
        table = own.pivot(index="target", columns="ranker", values="spearman")
        learned = table["all, learned"]
        for ranker in own["ranker"].unique():
            mean, difference = table[ranker].mean(), ""
            if ranker != "all, learned":
                low, high = bootstrap_interval((learned - table[ranker]).to_numpy())
                gain = learned.mean() - mean
                difference = f"{gain:+.2f} ({low:+.2f} to {high:+.2f})"
            lines.append(
                f"| {matrix} | {len(table)} | {ranker} | {mean:.2f} | {difference} |"
            )
    return "\n".join(lines) + "\n"


RELIABILITY = """
## How sure: does it come true?

Of all pairs of a left-out target and a source, by the chance of being the best that
`predict_proba` computes: that chance in the mean, and the share that was the best.

| matrix | chance | pairs | mean chance | came true |
|---|---|---|---|---|
"""
TEXT = """# Learned weights on transfer that others have measured

What `python benchmarks/transfer/public.py` gives on published matrices, which are not
part of this repository: MedMNIST (12 sources of one dataset each, six published
scores), TransferGraph's text models, two-phase selection, Quick-Tune, soft prompts of
T5 and tagging by XLM-R. One target at a time is left out; weights and prior are learned
from the others. *All*: the signals of the rows above it, and the prior; *learned*: as
`EvidenceSelector` learns their weights. Ridge, non-negative least squares and boosted
trees learn from the same rows. Intervals are 95 % of bootstrap resamples of the
targets. Where no scores are published, the prior is all there is, and *learned* is the
prior.
"""


if __name__ == "__main__":
    main()
