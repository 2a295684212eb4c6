"""What trials of the first three gain over the first, and what all of it costs.

    python benchmarks/transfer/trials.py --folder work/transfer

needs the sources' networks and the tables that `run.py` has written. For each target,
left out in turn, the sources are ranked by all evidence, and `FineTuner` tries the
first three; what the source that it takes is worth is the mean over the seeds of the
matrix. About three quarters of an hour on two cores. Writes results/trials.csv and
TRIALS.md.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from joblib import Parallel, delayed
from run import ZOOS, embedder, published
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from tasks import load_tasks
from truth import RESULTS, Truth, measured_zoos

sys.path.insert(0, str(Path(__file__).parents[1]))
from report import Report, bootstrap_interval

from sklearn_p2l import EvidenceSelector, FineTuner, SourceCatalog
from sklearn_p2l._files import atomic_write
from sklearn_p2l.selection import _opened

HERE = Path(__file__).parent
N_CANDIDATES = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", required=True, help="that of run.py")
    parser.add_argument("--n-jobs", type=int, default=2, help="trainings at a time")
    options = parser.parse_args()
    folder = Path(options.folder)
    records = folder / "trials"
    records.mkdir(parents=True, exist_ok=True)
    sources, tasks = load_tasks()
    settings = dict(image_size=64, class_means=True)
    reference = embedder("squeezenet", memory=folder / "vectors", **settings)
    rows = []
    for zoo in measured_zoos():
        truth, (train, classifier) = Truth(zoo), ZOOS[zoo]
        catalog = train(sources, reference, folder, 2)
        if zoo == "B":
            catalog = SourceCatalog([*catalog, *published()])
        selector = EvidenceSelector(
            catalog,
            embedder=reference,
            image_size=classifier.image_size,
            memory=folder / "features",
        )
        # Computed once, and remembered by all that follow.
        targets = [tasks[name] for name in truth.targets.index]
        selector.fit(targets, truth.improvements_by(catalog.names))
        rows += Parallel(n_jobs=options.n_jobs, verbose=5)(
            delayed(run)(records, zoo, name, selector, classifier, tasks)
            for name in truth.targets.index
        )
    frame = pd.DataFrame(rows).sort_values(["zoo", "target"])
    frame.to_csv(RESULTS / "trials.csv", index=False, float_format="%.4f")
    write(frame)


def run(records, zoo, name, selector, classifier, tasks):
    """One target: what is tried, what is taken, what they are worth."""
    torch.set_num_threads(1)
    truth, catalog = Truth(zoo), selector.sources
    improvement = truth.improvements_by(catalog.names)
    others = truth.targets.index.drop(name)
    selector = clone(selector).fit([tasks[n] for n in others], improvement.loc[others])
    selector.set_params(memory=None)  # what the ranking costs is measured, too
    _opened._kept.clear()
    start = time.perf_counter()
    first = selector.predict_top([tasks[name]], N_CANDIDATES)[0].tolist()
    ranked = time.perf_counter() - start
    path = records / f"{zoo}--{name}--{'--'.join(first)}.json"
    if path.exists():
        tried = json.loads(path.read_text())
    else:
        tuner = FineTuner(
            FrozenEstimator(selector),
            catalog,
            clone(classifier).set_params(random_state=0),
            n_candidates=N_CANDIDATES,
        )
        start = time.perf_counter()
        tuner.fit(tasks[name])
        tried = dict(
            taken=tuner.source_,
            seconds=time.perf_counter() - start,
            seconds_of_trials=sum(row["seconds"] for row in tuner.candidates_),
        )
        with atomic_write(path) as file:
            file.write(json.dumps(tried).encode())
    worth = truth.everything.loc[name, list(catalog.names)]
    return dict(
        zoo=zoo,
        target=name,
        n_sources=len(catalog),
        first=first[0],
        taken=tried["taken"],
        best=worth.idxmax(),
        accuracy_of_first=worth[first[0]],
        accuracy_of_taken=worth[tried["taken"]],
        accuracy_of_best_tried=worth[first].max(),
        accuracy_of_best=worth.max(),
        seconds_of_ranking=ranked,
        seconds_of_trials=tried["seconds_of_trials"],
        seconds=ranked + tried["seconds"],
    )


def write(frame):
    page = Report()
    page.add(TEXT)
    rows = {}
    for zoo, own in frame.groupby("zoo"):
        best, n = own["accuracy_of_best"], own["n_sources"].iloc[0]
        row = rows[f"zoo {zoo}, {len(own)} targets, {n} sources"] = {}
        for label, column in [
            ("the first", "accuracy_of_first"),
            ("taken by trials", "accuracy_of_taken"),
            ("the best of those tried", "accuracy_of_best_tried"),
        ]:
            regret = ((best - own[column]) / best).to_numpy()
            low, high = bootstrap_interval(regret)
            row[label] = f"{regret.mean():.1%} ({low:.1%} to {high:.1%})"
        trial = own["seconds_of_trials"] / N_CANDIDATES
        last = own["seconds"] - own["seconds_of_trials"] - own["seconds_of_ranking"]
        everything = trial * n + last
        row["seconds"] = f"{own['seconds'].median():.0f}"
        row["share of the cost of trying all"] = (
            f"{(own['seconds'] / everything).median():.0%}"
        )
    page.table(pd.DataFrame(rows).T.rename_axis("zoo"))
    page.add("Target by target:")
    columns = ["zoo", "target", "first", "taken", "best"]
    columns += [c for c in frame if c.startswith("accuracy")]
    page.table(frame[columns].set_index(["zoo", "target"]))
    page.write(HERE / "TRIALS.md")


TEXT = """# Trials of the first three

Written by `python benchmarks/transfer/trials.py --folder work/transfer`. Regret: what
the source lacks of the accuracy of the best source there is, relative; in brackets 95 %
of bootstrap resamples of the targets. Trials train each candidate on two thirds of the
target, three times, and validate on the rest; the winner is then trained on everything.
Trying all means the same for every source.
"""


if __name__ == "__main__":
    main()
