"""Measure transfer among relation subtasks. CPU suffices, and it can be stopped.

    python benchmarks/relations/run.py --folder work/relations --n-jobs 2

trains a PCNN on each subtask, fine-tunes each of them on every target, and writes the
tables that `evaluate.py` works on into benchmarks/relations/results/. The text is found
through SKLEARN_P2L_DATA.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from tasks import load_semeval, load_tasks, positives

from sklearn_p2l import DatasetEmbedder, NetworkClassifier
from sklearn_p2l.datasets import tokenize
from sklearn_p2l.divergence import NON_NEGATIVE, pairwise_divergence
from sklearn_p2l.ground_truth import measure_improvement, train_sources

RESULTS = Path(__file__).parent / "results"
METRICS = ["kl", "js", "chi2", "euclidean", "cityblock"]
REFERENCE = "hasLocation"  # the largest source
SEEDS = (0, 1)
# Sources learn from random weights, by the paper's optimisation.
SETTINGS = dict(
    backbone="pcnn",
    optimizer="sgd",
    learning_rate=0.1,
    weight_decay=1e-5,
    warmup=0.0,
    max_grad_norm=None,
    scale_features=False,
    precision="float32",
    batch_size=32,
    schedule="step",
    step_size=0.25,
    gamma=0.3,
)
SOURCE_CLASSIFIER = NetworkClassifier(**SETTINGS)
SOURCE_STEPS = 10_000
# Targets learn by the recipe that a user gets; and, with one seed, with a body that
# learns at a tenth of the rate, and by the paper's recipe, until the loss on a
# validation part no longer falls, and in any case so many steps.
DEFAULT = NetworkClassifier("pcnn")
A_TENTH = NetworkClassifier("pcnn", body_learning_rate_multiplier=0.1)
PAPER = NetworkClassifier(
    early_stopping=True, validation_fraction=0.15, n_iter_no_change=10, **SETTINGS
)
PAPER_STEPS = 3000
VARIANTS = {
    "default": (DEFAULT, None, SEEDS),
    "body at a tenth": (A_TENTH, None, SEEDS[:1]),
    "paper": (PAPER, PAPER_STEPS, SEEDS[:1]),
}


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

    # 1. The sources. The largest one is also the reference network.
    zoo, embedder = train_zoo(sources, folder, options.n_jobs)

    # 2. The matrix: every source, and random weights, on every target.
    measured = {
        variant: measure_improvement(
            targets,
            zoo,
            classifier,
            folder=folder / variant.replace(" ", "_"),
            seeds=seeds,
            n_steps=n_steps,
            n_jobs=options.n_jobs,
            dry_run=options.dry_run,
        )
        for variant, (classifier, n_steps, seeds) in VARIANTS.items()
    }
    if not options.dry_run:
        RESULTS.mkdir(exist_ok=True)
        write_measured(measured)
        write_tasks(sources, targets, zoo)
        write_divergences(sources, targets, embedder.backbone)
        write_sanity()


def train_zoo(sources, folder, n_jobs, **settings):
    """Train the sources that are not in the folder yet.

    Returns all as a catalog, and the embedder by the largest, the reference network;
    `settings` are the embedder's.
    """
    arguments = dict(folder=folder / "sources", n_steps=SOURCE_STEPS)
    anything = DatasetEmbedder("pcnn", weights=None, random_state=0)
    reference = train_sources(
        {REFERENCE: sources[REFERENCE]},
        SOURCE_CLASSIFIER,
        embedder=anything,
        **arguments,
    )[0].checkpoint
    embedder = DatasetEmbedder(reference, **settings)
    zoo = train_sources(
        sources, SOURCE_CLASSIFIER, embedder=embedder, n_jobs=n_jobs, **arguments
    )
    return zoo, embedder


def write_measured(measured):
    columns = ["variant", "target", "source", "seed", "performance", "epochs"]
    columns += ["train_loss", "seconds"]
    records = pd.concat(
        bunch.records.assign(variant=variant) for variant, bunch in measured.items()
    )
    records = records.sort_values(["variant", "target", "seed"], kind="stable")
    records["source"] = records["source"].fillna("none")
    records["performance"] = records["performance"].round(5)
    records["train_loss"] = records["train_loss"].round(4)
    records["seconds"] = records["seconds"].round(2)
    records[columns].to_csv(RESULTS / "measured.csv", index=False)


def write_tasks(sources, targets, zoo):
    rows = []
    for name, score in zip(zoo.names, zoo.column("score")):
        source, target = sources[name], targets[name]
        parts = {
            "source": (source.X, source.y),
            "target": (target.X, target.y),
            "test": (target.X_test, target.y_test),
        }
        rows.append(
            {
                "subtask": name,
                "n_relations": source.y.shape[1],
                **{f"{part}_pairs": len(bags) for part, (bags, _) in parts.items()},
                **{f"{p}_positives": len(positives(*parts[p])) for p in parts},
                "source_auc_pr": round(score, 5),
            }
        )
    pd.DataFrame(rows).to_csv(RESULTS / "subtasks.csv", index=False)


def write_divergences(sources, targets, reference):
    """Divergences of all targets from all sources, for several kinds of summary."""
    tables = []
    for layer in ("features", "contexts"):
        embedder = DatasetEmbedder(reference, layer=layer, verbose=1)
        for pairs in ("all", "positives"):
            S, T = (
                embedder.fit_transform(
                    [
                        task if pairs == "all" else positives(task.X, task.y)
                        for task in tasks.values()
                    ]
                )
                for tasks in (sources, targets)
            )
            for metric in METRICS:
                if metric in NON_NEGATIVE and layer == "contexts":
                    continue  # these have a sign
                D = pairwise_divergence(T, S, metric=metric)
                table = pd.DataFrame(D, columns=list(sources))
                for i, column in enumerate([layer, pairs, metric, list(targets)]):
                    name = ["layer", "pairs", "metric", "target"][i]
                    table.insert(i, name, column)
                tables.append(table)
    frame = pd.concat(tables)
    frame.to_csv(RESULTS / "divergences.csv", index=False, float_format="%.8g")


def write_sanity():
    """The network against words without their order, on SemEval-2010 task 8."""
    bags, y, test = load_semeval()
    texts = [" ".join(tokenize(bag.contexts[0].text)[0]) for bag in bags]
    X = TfidfVectorizer(token_pattern=r"\S+").fit_transform(texts)
    train, test = np.flatnonzero(~test), np.flatnonzero(test)
    y_train, y_test = y[train], y[test]
    words = OneVsRestClassifier(LogisticRegression(C=10)).fit(X[train], y_train)
    pcnn = clone(SOURCE_CLASSIFIER).set_params(epochs=16, random_state=0)
    pcnn.fit([bags[i] for i in train], y_train)
    rows = []
    for name, scores in [
        ("bag of words, logistic regression", words.decision_function(X[test])),
        ("PCNN", pcnn.decision_function([bags[i] for i in test])),
    ]:
        of_any = y_test.any(axis=1)
        right = scores[of_any].argmax(axis=1) == y_test[of_any].argmax(axis=1)
        rows.append(
            {
                "method": name,
                "auc_pr": average_precision_score(y_test, scores, average="micro"),
                "accuracy": right.mean(),
                "n_train": len(train),
                "n_test": len(test),
            }
        )
    frame = pd.DataFrame(rows)
    frame.to_csv(RESULTS / "sanity.csv", index=False, float_format="%.5f")


if __name__ == "__main__":
    main()
