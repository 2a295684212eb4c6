"""Make the zoo that comes with the package: train, describe, measure, write.

    python benchmarks/zoo/run.py --folder work/zoo --n-jobs 2

trains sixteen small networks on openly licensed images, has one of them describe all,
fine-tunes each on fourteen targets, and writes what `sklearn_p2l.datasets.load_zoo`
loads: weights and numbers, no image. It can be stopped and called again. The images
are found through SKLEARN_P2L_DATA. About 40 minutes on two cores.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
from safetensors import safe_open
from tasks import PAPER, REFERENCE, load_tasks

import sklearn_p2l
from sklearn_p2l import (
    DatasetEmbedder,
    EvidenceSelector,
    NetworkClassifier,
    SourceCatalog,
)
from sklearn_p2l.ground_truth import measure_improvement, train_sources
from sklearn_p2l.networks import write_checkpoint

OUTPUT = Path(sklearn_p2l.__file__).parent / "datasets" / "zoo"
IMAGE_SIZE = 24
SEED = 0
# From random weights, as in benchmarks/transfer.
SOURCE_CLASSIFIER = NetworkClassifier(
    "small_resnet",
    image_size=IMAGE_SIZE,
    learning_rate=0.1,
    batch_size=32,
    augment="shift",
    precision="float32",
    **PAPER,
)
# The recipe that a user gets.
TARGET_CLASSIFIER = NetworkClassifier("small_resnet", image_size=IMAGE_SIZE)
# Tiny sources would only learn their images by heart, large ones have more to learn.
STEPS = {"few": 400, "one": 1500, "merged": 3000}
LICENCES = {
    "shapes": "CC BY 4.0 (frobertpixto/hand-drawn-shapes-dataset)",
    "alphabets": "MIT (brendenlake/omniglot)",
    "characters": "MIT (brendenlake/omniglot)",
    "clothing": "CC0 (alexeygrigorev/clothing-dataset-small)",
    "fruit": "MIT (marcusklasson/GroceryStoreDataset)",
    "vegetables": "MIT (marcusklasson/GroceryStoreDataset)",
    "trash": "MIT (garythung/trashnet)",
    "sign_digits": "Apache-2.0 (ardamavi/Sign-Language-Digits-Dataset)",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", required=True, help="for weights and records")
    parser.add_argument("--n-jobs", type=int, default=2, help="trainings at a time")
    options = parser.parse_args()
    folder = Path(options.folder)
    sources, targets = load_tasks()
    trained = train_zoo(sources, folder, options.n_jobs)
    catalog, embedder = describe(sources, trained, folder / "zoo")
    measured = measure_improvement(
        targets,
        catalog,
        TARGET_CLASSIFIER,
        folder=folder / "measured",
        seeds=[SEED],
        n_jobs=options.n_jobs,
    )
    write(catalog, embedder, targets, measured, folder / "zoo")


def kind_of(name):
    """How long a source is trained, by its kind."""
    if name.endswith("_few"):
        return "few"
    return "one" if name in LICENCES else "merged"


def train_zoo(sources, folder, n_jobs):
    """Train all sources; return them by name, with scores on their test parts."""
    untrained = DatasetEmbedder("small_resnet", weights=None, random_state=0)
    trained = {}
    for kind in reversed(STEPS):  # the longest first
        tasks = {n: task for n, task in sources.items() if kind_of(n) == kind}
        catalog = train_sources(
            tasks,
            SOURCE_CLASSIFIER,
            embedder=untrained,
            folder=folder / kind,
            n_steps=STEPS[kind],
            n_jobs=n_jobs,
        )
        trained |= {source.name: source for source in catalog}
    return trained


def describe(sources, trained, folder):
    """Write half-precision weights, and describe the sources through one of them."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {n: folder / f"{n}.safetensors" for n in sources}
    for name, file in files.items():
        half_precision(trained[name].checkpoint, file)
    embedder = DatasetEmbedder(files[REFERENCE], class_means=True)
    names = list(sources)
    catalog = SourceCatalog.from_arrays(
        embedder.fit_transform(list(sources.values())),
        sizes=[len(sources[name]) for name in names],
        names=names,
        checkpoints=[files[name] for name in names],
        architectures="small_resnet",
        n_classes=[trained[name].n_classes for name in names],
        columns={"score": [round(trained[n].columns["score"], 4) for n in names]},
        metadata=[{"licence": licence_of(name)} for name in names],
    )
    return catalog, embedder


def half_precision(checkpoint, file):
    """Write the weights of a checkpoint to a file, as 16-bit numbers."""
    with safe_open(checkpoint, framework="numpy") as opened:
        metadata = opened.metadata()
        arrays = {key: opened.get_tensor(key) for key in opened.keys()}
    for key, value in arrays.items():
        if value.dtype == np.float32:
            arrays[key] = value.astype(np.float16)
            assert np.isfinite(arrays[key]).all(), key
    write_checkpoint(file, arrays, metadata)


def licence_of(name):
    if kind_of(name) == "merged":
        return "those of its parts"
    return LICENCES[name.removesuffix("_few")]


def write(catalog, embedder, targets, measured, folder):
    """Write the catalog, and what was measured, into the package."""
    catalog.save(folder)
    (folder / "README.md").write_text(card(catalog, measured), encoding="utf-8")
    tasks = list(targets.values())
    vectors = embedder.transform(tasks)
    improvements = measured.improvements.loc[list(targets), list(catalog.names)]
    selector = EvidenceSelector(catalog, embedder=embedder, n_jobs=2, verbose=1)
    selector.fit(tasks, improvements)
    means = [own.astype(np.float16) for own in vectors.class_means]
    np.savez_compressed(
        folder / "measured.npz",
        reference=REFERENCE,
        target_names=list(targets),
        target_sizes=[len(task) for task in tasks],
        vectors=np.asarray(vectors, dtype=np.float32),
        n_class_means=[len(own) for own in means],
        class_means=np.vstack(means),
        improvements=improvements.to_numpy(np.float32),
        baseline=measured.baseline[list(targets)].to_numpy(np.float32),
        score_names=list(selector.scores_),
        scores=np.stack(list(selector.scores_.values())).astype(np.float32),
    )
    shutil.copytree(
        folder,
        OUTPUT,
        dirs_exist_ok=True,
        ignore=lambda _, names: {n for n in names if n.startswith(".")},
    )


def card(catalog, measured):
    """The model card: data, licences, accuracies, and how it was made."""
    sources = "\n".join(
        f"| {s.name} | {s.size:,} | {s.n_classes} | {s.columns['score']:.3f} "
        f"| {s.metadata['licence']} |"
        for s in catalog
    )
    best, chosen = measured.performances.max(axis=1), measured.performances.idxmax(1)
    targets = "\n".join(
        f"| {name} | {measured.baseline[name]:.3f} "
        f"| {measured.performances.loc[name].mean():.3f} | {best[name]:.3f} "
        f"| {chosen[name]} |"
        for name in measured.performances.index
    )
    return CARD.format(sources=sources, targets=targets, size=IMAGE_SIZE)


CARD = """# A zoo of small networks

Weights (16-bit safetensors) and numbers; no image is part of it. The networks are
`small_resnet`, 78 thousand weights, made for images of {size} pixels. They are there to
begin with and to compare with, not to be the best start for photographs.

Made by `benchmarks/zoo/run.py` of the source repository, from random weights: SGD with
momentum, 400 steps for the sources called "_few", 3,000 for those of several kinds, and
1,500 for the others, with random shifts. `everything` is the reference network whose
features describe all data in the catalog.

| source | images | classes | accuracy on other images | data and licence |
|---|---|---|---|---|
{sources}

"drawings" are shapes, alphabets and characters; "photos" are clothing, fruit,
vegetables, trash and sign digits; "everything" is both. Of clothing, fruit, vegetables,
trash, characters and sign digits only the first half of the classes was used.

The hand-drawn shapes are by the contributors to
https://github.com/frobertpixto/hand-drawn-shapes-dataset, CC BY 4.0; Omniglot is by
Brenden Lake, MIT; the clothing photographs were collected by Alexey Grigorev, CC0; the
fruit and vegetables are from the Grocery Store Dataset by Marcus Klasson, MIT; the
waste is TrashNet by Gary Thung and Mindy Yang, MIT; the sign digits are by Arda Mavi
and the students of Turkey Ankara Ayrancı Anadolu High School, Apache-2.0. The weights
are under the licence of the package.

## What they gained

Accuracy on fourteen targets of 60 to 300 images, by the default recipe of the package
(one seed): random weights, the mean over all sources, and the best source. "_b" are
classes that no source knows.

| target | random weights | mean source | best source | which |
|---|---|---|---|---|
{targets}
"""


if __name__ == "__main__":
    main()
