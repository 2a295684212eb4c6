"""What half precision costs in accuracy: the default recipe in float32 and in bfloat16.

``python benchmarks/training/precision.py`` takes about 3 minutes on 2 CPU cores that
have instructions for bfloat16, and very long without them. Then
``python benchmarks/training/report.py`` makes the table.
"""

import sys
from pathlib import Path

import torch
from joblib import Parallel, cpu_count, delayed

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
    rows = [
        dict(zip(("target", "precision", "seed", "accuracy"), (*job, value)))
        for job, value in zip(jobs, values)
    ]
    write(HERE / "measured" / f"precision{device_suffix()}.csv", rows)


if __name__ == "__main__":
    main()
