"""Whether the choice of a source matters, beyond the noise of the measurement."""

import numpy as np
import pandas as pd
from truth import KINDS


def matters(truth):
    """One row per target, and a sentence on how many of them a source improves.

    The best source is the best on the other seeds, so that it is not the luckiest; what
    it gains, over the better one of random weights and the published network, is
    compared with its standard error: that of the seeds, and that of a test part of this
    size, as if the two had been tested on different samples.
    """
    names = list(truth.sizes.index)
    best, rivals = best_of_other_seeds(truth), truth.imagenet["imagenet"].to_frame("B2")
    rivals["none"] = truth.baseline
    rival = rivals.max(axis=1)
    noise, n_seeds = truth.noise(names), len(truth.by_seed)
    n_test = truth.targets["n_test"]
    sampled = (best * (1 - best) + rival * (1 - rival)) / n_test
    error = np.sqrt(2 * noise**2 / n_seeds + sampled)
    gain = best - rival
    rows = pd.DataFrame(
        {
            "kind": truth.kinds,
            "random weights": truth.baseline,
            "ImageNet (B2)": rivals["B2"],
            "mean source": truth.performance.mean(axis=1),
            "best source": best,
            "spread over sources": truth.performance.std(axis=1),
            "noise of a seed": noise,
            "gain over both": gain,
            "its error": error,
        }
    )
    means = rows.groupby("kind").mean().reindex(KINDS)
    sure = gain > 2 * error
    spread, noise = rows["spread over sources"].mean(), noise.mean()
    text = (
        f"Sources of one target differ by {spread:.3f} (standard deviation over "
        f"sources, mean over targets), trainings of one source with different seeds by "
        f"{noise:.3f}. The best source is better than random weights and the published "
        f"network, by more than two standard errors, on {sure.sum()} of {len(sure)} "
        f"targets: {sure.mean():.0%}"
        + "".join(
            f"; {kind}: {sure[truth.kinds == kind].sum()} of "
            f"{(truth.kinds == kind).sum()}"
            for kind in KINDS
            if (truth.kinds == kind).any()
        )
        + "."
    )
    return rows, means.dropna(how="all"), text


def best_of_other_seeds(truth):
    """Mean performance of the source that is the best on the other seeds."""
    names = list(truth.sizes.index)
    tables = {seed: table[names].to_numpy() for seed, table in truth.by_seed.items()}
    values = []
    for seed, own in tables.items():
        others = np.mean([t for s, t in tables.items() if s != seed], axis=0)
        values.append(own[np.arange(len(own)), others.argmax(axis=1)])
    return pd.Series(np.mean(values, axis=0), truth.targets.index)
