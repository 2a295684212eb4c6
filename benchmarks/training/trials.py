"""What trials of the first three of a ranking gain over the first, and what they cost.

    python benchmarks/training/trials.py --folder work/trials

Fifteen sources of the transfer benchmark, one small network each, ranked for four
held-out targets by equation 2 with k = -1; two seeds. Every source is fine-tuned on
every target, so that the best there is is known. About 15 minutes on 2 CPU cores.
Writes measured/trials.csv; `report.py` makes a table.
"""

import argparse
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from joblib import Parallel, delayed
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

sys.path.insert(0, str(Path(__file__).parents[1]))
from dealing import DATA, tasks_of

from sklearn_p2l import DatasetEmbedder, FineTuner, NetworkClassifier, SourceSelector
from sklearn_p2l.ground_truth import train_sources

HERE = Path(__file__).parent
TARGETS = ("fruit_b", "trash_b", "clothing_b", "sign_digits")
SEEDS = (0, 1)
CLASSIFIER = NetworkClassifier("small_resnet", image_size=24)


def run(selector, zoo, name, task, seed):
    """One row per source: its rank, what trials gave it, and what it really gives."""
    torch.set_num_threads(1)
    classifier = CLASSIFIER.set_params(random_state=seed)
    start = time.perf_counter()
    tuner = FineTuner(selector, zoo, classifier, n_candidates=3).fit(task)
    seconds_of_three = time.perf_counter() - start
    tried = {row["source"]: row for row in tuner.candidates_}
    rows = []
    for rank, source in enumerate(tuner.ranking_, start=1):
        start = time.perf_counter()
        one = FineTuner(sources=zoo[[source]], estimator=classifier).fit(task)
        rows.append(
            dict(
                target=name,
                seed=seed,
                source=source,
                rank=rank,
                accuracy=one.score(task.X_test, task.y_test),
                trial=tried[source]["score"] if source in tried else None,
                first_fold=tried[source]["scores"][0] if source in tried else None,
                log_loss=tried[source]["log_loss"] if source in tried else None,
                chosen=source == tuner.source_,
                seconds=time.perf_counter() - start,
                seconds_of_three=seconds_of_three,
            )
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", required=True, help="for weights")
    folder = Path(parser.parse_args().folder).absolute()
    sources, targets = tasks_of("transfer").load_tasks()
    targets = {name: targets[name] for name in TARGETS}
    embedder = DatasetEmbedder(
        "squeezenet1_1",
        weights=DATA / "models" / "squeezenet1_1.safetensors",
        image_size=64,
        memory=folder / "vectors",
    )
    zoo = train_sources(
        sources, CLASSIFIER, embedder=embedder, folder=folder / "zoo", n_jobs=2
    )
    pipe = make_pipeline(embedder, SourceSelector(zoo, k=-1.0)).fit(
        [task.X for task in targets.values()]
    )
    results = Parallel(n_jobs=2, verbose=5)(
        delayed(run)(FrozenEstimator(pipe), zoo, name, targets[name], seed)
        for name in TARGETS
        for seed in SEEDS
    )
    (HERE / "measured").mkdir(exist_ok=True)
    frame = pd.DataFrame([row for rows in results for row in rows]).round(4)
    frame.to_csv(HERE / "measured" / "trials.csv", index=False)


if __name__ == "__main__":
    main()
