"""Measure the transfer matrix of the benchmark. CPU suffices, and it can be stopped.

    python benchmarks/transfer/run.py --folder work/transfer --n-jobs 2

trains all sources, fine-tunes each of them on each target, and writes the tables that
`evaluate.py` works on into benchmarks/transfer/results/. The images and the reference
networks are found through SKLEARN_P2L_DATA.
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
SEEDS = (0, 1, 2)
IMAGENET_SIZE = 1_281_167
REFERENCES = {
    "squeezenet": ("squeezenet1_1", DATA / "models" / "squeezenet1_1.safetensors"),
    "mobilenet": (
        "mobilenet_v2",
        DATA / "models" / "mobilenet_v2_features.safetensors",
    ),
}
# All sources learn equally long, and so do all targets, a tenth of it, as in the paper.
SOURCE_STEPS, TARGET_STEPS = 2000, 200
# Once more, with one seed, to see whether the targets were trained long enough.
LONG_STEPS = 600
PROTOCOL = PAPER | dict(precision="float32")
SMALL = PROTOCOL | dict(
    backbone="small_resnet", image_size=24, learning_rate=0.1, batch_size=16
)
SOURCE_CLASSIFIER = NetworkClassifier(augment="shift", **SMALL | {"batch_size": 32})
TARGET_CLASSIFIER = NetworkClassifier(**SMALL)
# SqueezeNet has no batch normalisation and 1.2 million weights: smaller steps, and
# larger images, for which its strides were made.
SQUEEZENET_CLASSIFIER = NetworkClassifier(
    "squeezenet1_1", image_size=64, learning_rate=0.003, **PROTOCOL
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", required=True, help="for weights and records")
    parser.add_argument("--n-jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="train the sources, then only count and estimate",
    )
    options = parser.parse_args()
    folder = Path(options.folder)
    sources, targets = load_tasks()

    # 1. The sources: one small network for each, all trained equally long.
    reference = embedder("squeezenet", image_size=64)
    zoo = train_zoo(sources, reference, folder, options.n_jobs)
    imagenet = SourceCatalog(
        [
            Source(
                "imagenet",
                size=IMAGENET_SIZE,
                checkpoint=REFERENCES["squeezenet"][1],
                architecture="squeezenet1_1",
            )
        ]
    )

    # 2. The matrix: every source, and random weights, on every target.
    measured = {
        (architecture, n_steps): measure_improvement(
            targets,
            catalog,
            classifier,
            folder=folder / f"{architecture}_{n_steps}",
            seeds=seeds,
            n_steps=n_steps,
            n_jobs=options.n_jobs,
            dry_run=options.dry_run,
        )
        for architecture, catalog, classifier, n_steps, seeds in [
            ("small_resnet", zoo, TARGET_CLASSIFIER, TARGET_STEPS, SEEDS),
            ("squeezenet", imagenet, SQUEEZENET_CLASSIFIER, TARGET_STEPS, SEEDS),
            ("small_resnet", zoo, TARGET_CLASSIFIER, LONG_STEPS, SEEDS[:1]),
        ]
    }
    if not options.dry_run:
        write_measured(measured, sources, targets)
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


def embedder(reference, **settings):
    backbone, weights = REFERENCES[reference]
    return DatasetEmbedder(backbone, weights=weights, **settings)


def write_measured(measured, sources, targets):
    RESULTS.mkdir(exist_ok=True)
    columns = ["target", "source", "seed", "performance", "n_train", "n_test"]
    columns += ["epochs", "train_loss", "seconds"]
    records = pd.concat(
        bunch.records.assign(architecture=architecture, steps=n_steps)
        for (architecture, n_steps), bunch in measured.items()
    )
    order = ["architecture", "steps", "target", "seed"]
    records = records.sort_values(order, kind="stable")
    records["source"] = records["source"].fillna("none")
    records["performance"] = records["performance"].round(5)
    records["train_loss"] = records["train_loss"].round(4)
    records["seconds"] = records["seconds"].round(2)
    records[["architecture", "steps", *columns]].to_csv(
        RESULTS / "measured.csv", index=False
    )
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
