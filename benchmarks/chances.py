"""How often predicted chances come true."""

from itertools import pairwise

import numpy as np

BINS = (0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.01)


def reliability(chances, true):
    """Rows of a table, one per bin of chances, and the expected calibration error.

    `true`: whether it came true, or its share where several are equally best. Pairs
    with NaN as their chance are left out.
    """
    known = ~np.isnan(chances)
    P, true = chances[known], np.asarray(true)[known]
    rows, error = [], 0.0
    for low, high in pairwise(BINS):
        within = (low <= P) & (P < high)
        if within.any():
            expected, share = P[within].mean(), true[within].mean()
            error += within.mean() * abs(expected - share)
            rows.append(
                {
                    "chance": f"{low:g} to {min(high, 1):g}",
                    "pairs": str(within.sum()),
                    "mean chance": f"{expected:.3f}",
                    "came true": f"{share:.3f}",
                }
            )
    last = {"chance": "expected calibration error", "pairs": "", "mean chance": ""}
    return [*rows, last | {"came true": f"{error:.3f}"}]
