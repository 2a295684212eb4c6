"""What trials of the first three of a ranking gain over the first, and what they cost.

    python benchmarks/training/trials.py

The zoo that comes with the package, ranked by all evidence for four of its targets
whose classes no source knows, each by what was measured on the other targets; what
every source gives on each target is part of the zoo. About six minutes on 2 CPU cores.
Writes measured/trials.csv; `report.py` makes a table.
"""

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from sklearn.frozen import FrozenEstimator

sys.path.insert(0, str(Path(__file__).parents[1]))
from dealing import tasks_of

from sklearn_p2l import EvidenceSelector, FineTuner, NetworkClassifier
from sklearn_p2l.datasets import load_zoo

HERE = Path(__file__).parent
TARGETS = ("clothing_b", "fruit_b", "trash_b", "sign_digits_b")
CLASSIFIER = NetworkClassifier("small_resnet", image_size=24, random_state=0)


def run(zoo, name, task):
    """One row per source: its rank, what trials gave it, and what it really gives."""
    torch.set_num_threads(1)
    i = zoo.target_names.index(name)
    others = np.arange(len(zoo.target_names)) != i
    selector = EvidenceSelector(zoo.sources, embedder=zoo.embedder)
    selector.fit(
        zoo.vectors[others],
        zoo.improvements[others],
        scores={key: values[others] for key, values in zoo.scores.items()},
    )
    start = time.perf_counter()
    ranker = FrozenEstimator(selector)
    tuner = FineTuner(ranker, zoo.sources, CLASSIFIER, n_candidates=3).fit(task)
    seconds_of_three = time.perf_counter() - start
    start = time.perf_counter()
    FineTuner(ranker, zoo.sources, CLASSIFIER).fit(task)
    seconds = time.perf_counter() - start
    accuracies = dict(zip(zoo.sources.names, zoo.baseline[i] + zoo.improvements[i]))
    tried = {row["source"]: row for row in tuner.candidates_}
    return [
        dict(
            target=name,
            seed=0,
            source=source,
            rank=rank,
            accuracy=accuracies[source],
            trial=tried[source]["score"] if source in tried else None,
            first_fold=tried[source]["scores"][0] if source in tried else None,
            log_loss=tried[source]["log_loss"] if source in tried else None,
            chosen=source == tuner.source_,
            seconds=seconds,
            seconds_of_three=seconds_of_three,
        )
        for rank, source in enumerate(tuner.ranking_, start=1)
    ]


def main():
    zoo, (_, targets) = load_zoo(), tasks_of("zoo").load_tasks()
    results = Parallel(n_jobs=2, verbose=5)(
        delayed(run)(zoo, name, targets[name]) for name in TARGETS
    )
    (HERE / "measured").mkdir(exist_ok=True)
    frame = pd.DataFrame([row for rows in results for row in rows]).round(4)
    frame.to_csv(HERE / "measured" / "trials.csv", index=False)


if __name__ == "__main__":
    main()
