"""Whether the choice of a source matters, beyond the noise of the measurement."""

import numpy as np
import pandas as pd
from truth import KINDS


def matters(truth):
    """One row per target, their means by kind, and how many targets a source improves.

    The best source is the best on the other seeds, so that it is not the luckiest. What
    it gains is compared with its standard error: that of the seeds, and that of a test
    part of this size, as if the two had been tested on different samples.
    """
    best, noise = best_of_other_seeds(truth), truth.noise()
    n_seeds, n_test = len(truth.by_seed), truth.targets["n_test"]
    rows = pd.DataFrame(
        {
            "kind": truth.kinds,
            "random weights": truth.baseline,
            "ImageNet (B2)": truth.imagenet["imagenet"],
            "mean source": truth.performance.mean(axis=1),
            "best source": best,
            "spread over sources": truth.performance.std(axis=1),
            "noise of a seed": noise,
        }
    )
    sure = {}
    for other in ("random weights", "ImageNet (B2)"):
        sampled = (best * (1 - best) + rows[other] * (1 - rows[other])) / n_test
        error = np.sqrt(2 * noise**2 / n_seeds + sampled)
        sure[other] = best - rows[other] > 2 * error
    sure["both"] = sure["random weights"] & sure["ImageNet (B2)"]
    kinds = [kind for kind in KINDS if (truth.kinds == kind).any()]
    shares = pd.DataFrame(
        {
            kind: {
                f"better than {other}": f"{own[which].sum()} of {which.sum()}"
                for other, own in sure.items()
            }
            for kind, which in [
                *((kind, truth.kinds == kind) for kind in kinds),
                ("all", truth.kinds.notna()),
            ]
        }
    ).rename_axis("the best source, by more than two standard errors, is")
    means = rows.groupby("kind").mean().reindex(kinds)
    means.loc["all"] = rows.drop(columns="kind").mean()
    return rows, means, shares


def best_of_other_seeds(truth):
    """Mean performance of the source that is the best on the other seeds."""
    names = list(truth.sizes.index)
    tables = {seed: table[names].to_numpy() for seed, table in truth.by_seed.items()}
    values = []
    for seed, own in tables.items():
        others = np.mean([t for s, t in tables.items() if s != seed], axis=0)
        values.append(own[np.arange(len(own)), others.argmax(axis=1)])
    return pd.Series(np.mean(values, axis=0), truth.targets.index)
