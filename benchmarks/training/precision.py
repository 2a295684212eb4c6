"""What half precision costs in accuracy: the default recipe in float32 and in bfloat16.

``python benchmarks/training/precision.py`` takes about 3 minutes on 2 CPU cores that
have instructions for bfloat16, and very long without them.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed
from scipy.stats import t

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from recipes import SEEDS, SQUEEZENET, train
from tasks import JUDGED_ON, load_target
from timing import device_suffix, write

from sklearn_p2l import NetworkClassifier

HERE = Path(__file__).parent
PRECISIONS = ("float32", "bfloat16")


def accuracy(name, precision, seed):
    torch.set_num_threads(1)
    settings = SQUEEZENET | dict(image_size=64, precision=precision, random_state=seed)
    return train(load_target(name), NetworkClassifier(**settings))["accuracy"]


def main():
    jobs = [(n, p, s) for n in JUDGED_ON for p in PRECISIONS for s in SEEDS]
    values = Parallel(cpu_count())(delayed(accuracy)(*job) for job in jobs)
    values = np.reshape(values, (len(JUDGED_ON), len(PRECISIONS), len(SEEDS)))
    means = values.mean(axis=2)
    rows = [
        {
            "target": name,
            "float32": f"{single:.3f}",
            "bfloat16": f"{half:.3f}",
            "difference": f"{half - single:+.3f}",
        }
        for name, (single, half) in zip(JUDGED_ON, means)
    ]
    difference = means[:, 1] - means[:, 0]
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    low, high = difference.mean() + error * np.array(t.interval(0.95, len(rows) - 1))
    interval = f"{difference.mean():+.3f} ({low:+.3f} to {high:+.3f})"
    single, half = (f"{mean:.3f}" for mean in means.mean(axis=0))
    rows.append(dict(zip(rows[0], ["mean", single, half, interval])))
    write(HERE / "results" / f"precision{device_suffix()}.csv", rows)


if __name__ == "__main__":
    main()
