"""Measure the transfer matrices of the benchmark. CPU suffices, and it can be stopped.

    python benchmarks/transfer/run.py --folder work/transfer --n-jobs 2

trains all sources, fine-tunes each of them on each target, and writes the tables that
`evaluate.py` works on into benchmarks/transfer/results/. Two zoos: A, small networks
trained from random weights, and B, a published network adapted to the same sources.
The images and the published networks are found through SKLEARN_P2L_DATA.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from tasks import DATA, PAPER, TRAINING_GROUP, load_tasks

from sklearn_p2l import DatasetEmbedder, NetworkClassifier, Source, SourceCatalog
from sklearn_p2l.divergence import pairwise_divergence
from sklearn_p2l.ground_truth import measure_improvement, train_sources

RESULTS = Path(__file__).parent / "results"
# The divergences of the paper, section 3.1.
METRICS = ["kl", "js", "chi2", "euclidean", "cityblock"]
IMAGENET_SIZE = 1_281_167
REFERENCES = {
    "squeezenet": ("squeezenet1_1", DATA / "models" / "squeezenet1_1.safetensors"),
    "mobilenet": (
        "mobilenet_v2",
        DATA / "models" / "mobilenet_v2_features.safetensors",
    ),
}
# Zoo A: all sources learn equally long, from random weights, as in the paper.
SOURCE_STEPS = 2000
PROTOCOL = PAPER | dict(
    backbone="small_resnet", image_size=24, learning_rate=0.1, precision="float32"
)
SOURCE_CLASSIFIER = NetworkClassifier(batch_size=32, augment="shift", **PROTOCOL)
# The targets by the recipe that a user gets, and, once, by the paper's: a tenth of the
# steps of the sources, and a body that learns at a tenth of the rate.
SMALL = NetworkClassifier("small_resnet", image_size=24)
AS_IN_THE_PAPER = NetworkClassifier(batch_size=16, **PROTOCOL)
PAPER_STEPS = 200
# Zoo B: a published network, adapted to each source by the recipe that a user gets. Its
# strides were made for larger images. Targets with fewer test images are left out.
ADAPTED = NetworkClassifier(
    "squeezenet1_1", weights=REFERENCES["squeezenet"][1], image_size=64
)
FROM_RANDOM_WEIGHTS = NetworkClassifier("squeezenet1_1", image_size=64)
LEAST_TESTED = 400


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", required=True, help="for weights and records")
    parser.add_argument("--n-jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="train the sources, then only count and estimate",
    )
    parser.add_argument(
        "--zoos",
        nargs="+",
        choices=["A", "B"],
        default=["A", "B"],
        help="which to measure; what is known of the other one stays",
    )
    options = parser.parse_args()
    folder, n_jobs = Path(options.folder), options.n_jobs
    sources, targets = load_tasks()
    reference = embedder("squeezenet", image_size=64)

    # The sources, and the matrices: each of them, and random weights, on each target.
    plan = [("B2", "default", targets, published(), FROM_RANDOM_WEIGHTS, (0, 1), None)]
    if "A" in options.zoos:
        zoo = train_zoo(sources, reference, folder, n_jobs)
        plan += [
            ("A", "default", targets, zoo, SMALL, (0, 1, 2), None),
            ("A", "paper", targets, zoo, AS_IN_THE_PAPER, (0,), PAPER_STEPS),
        ]
    if "B" in options.zoos:
        zoo = adapt_zoo(sources, reference, folder, n_jobs)
        tested = {n: t for n, t in targets.items() if len(t.y_test) >= LEAST_TESTED}
        plan.append(("B", "default", tested, zoo, FROM_RANDOM_WEIGHTS, (0, 1), None))
    measured = {
        (zoo, recipe): measure_improvement(
            of_targets,
            catalog,
            classifier,
            folder=folder / f"{zoo[0]}_{recipe}",
            seeds=seeds,
            n_steps=n_steps,
            n_jobs=n_jobs,
            dry_run=options.dry_run,
        )
        for zoo, recipe, of_targets, catalog, classifier, seeds, n_steps in plan
    }
    if not options.dry_run:
        write_tasks(sources, targets)
        write_measured(measured)
        write_divergences(sources, targets, folder / "vectors")


def train_zoo(sources, reference, folder, n_jobs):
    """Train the sources that are not in the folder yet; return all as a catalog."""
    return train_sources(
        sources,
        SOURCE_CLASSIFIER,
        embedder=reference,
        folder=folder / "sources",
        n_steps=SOURCE_STEPS,
        n_jobs=n_jobs,
    )


def adapt_zoo(sources, reference, folder, n_jobs):
    """Adapt the published network to each source; return all as a catalog."""
    return train_sources(
        sources,
        ADAPTED,
        embedder=reference,
        folder=folder / "adapted",
        n_jobs=n_jobs,
    )


# How the sources of a zoo are trained, and what its targets are trained by.
ZOOS = {"A": (train_zoo, SMALL), "B": (adapt_zoo, FROM_RANDOM_WEIGHTS)}


def published():
    """The published network as it is: baseline B2, and one more source of zoo B."""
    return SourceCatalog(
        [
            Source(
                "imagenet",
                size=IMAGENET_SIZE,
                checkpoint=REFERENCES["squeezenet"][1],
                architecture="squeezenet1_1",
            )
        ]
    )


def embedder(reference, **settings):
    backbone, weights = REFERENCES[reference]
    return DatasetEmbedder(backbone, weights=weights, **settings)


def write_measured(measured):
    """Write all records, with those of a zoo that was not measured this time."""
    path = RESULTS / "measured.csv"
    columns = ["zoo", "recipe", "target", "source", "seed", "performance"]
    columns += ["n_train", "n_test", "epochs", "train_loss", "seconds"]
    records = pd.concat(
        bunch.records.assign(zoo=zoo[0], recipe=recipe)
        for (zoo, recipe), bunch in measured.items()
    )
    records["source"] = records["source"].fillna("none")
    records["performance"] = records["performance"].round(5)
    records["train_loss"] = records["train_loss"].round(4)
    records["seconds"] = records["seconds"].round(2)
    if path.exists():
        records = pd.concat([records, pd.read_csv(path, keep_default_na=False)])
    # Random weights serve B and B2; what is new comes first, and stays.
    records = records.drop_duplicates(columns[:5])
    records = records.sort_values(columns[:3] + ["seed"], kind="stable")
    records[columns].to_csv(path, index=False)


def write_tasks(sources, targets):
    RESULTS.mkdir(exist_ok=True)
    rows = [(name, len(task), len(np.unique(task.y))) for name, task in sources.items()]
    rows.append(("imagenet", IMAGENET_SIZE, 1000))
    frame = pd.DataFrame(rows, columns=["source", "size", "n_classes"])
    frame.to_csv(RESULTS / "sources.csv", index=False)
    rows = [
        (
            name,
            "training" if name in TRAINING_GROUP else "held out",
            len(task),
            len(task.y_test),
            len(np.unique(task.y)),
        )
        for name, task in targets.items()
    ]
    columns = ["target", "group", "n_train", "n_test", "n_classes"]
    pd.DataFrame(rows, columns=columns).to_csv(RESULTS / "targets.csv", index=False)


def write_divergences(sources, targets, memory):
    """Divergences of all targets from all sources, for several kinds of summary."""
    kinds = {
        (reference, image_size, summary): embedder(
            reference,
            image_size=image_size,
            summary=summary,
            memory=memory,
            verbose=1,
        )
        for reference, image_size, summary in [
            ("squeezenet", 224, "mean"),
            ("mobilenet", 224, "mean"),
            ("squeezenet", 64, "mean"),
            ("mobilenet", 64, "mean"),
            ("squeezenet", 64, "median"),
            ("mobilenet", 64, "trimmed_mean"),
        ]
    }
    tables = []
    tasks = [*sources.values(), *targets.values()]
    for (reference, image_size, summary), reference_network in kinds.items():
        start = time.perf_counter()
        vectors = reference_network.fit_transform(tasks)
        print(reference, image_size, summary, f"{time.perf_counter() - start:.0f} s")
        of_sources, of_targets = vectors[: len(sources)], vectors[len(sources) :]
        for metric in METRICS:
            D = pairwise_divergence(of_targets, of_sources, metric=metric)
            table = pd.DataFrame(D, columns=list(sources))
            table.insert(0, "target", list(targets))
            table.insert(0, "metric", metric)
            table.insert(0, "summary", summary)
            table.insert(0, "image_size", image_size)
            table.insert(0, "reference", reference)
            tables.append(table)
    frame = pd.concat(tables)
    frame.to_csv(RESULTS / "divergences.csv", index=False, float_format="%.8g")


if __name__ == "__main__":
    main()
