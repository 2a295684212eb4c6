"""Training against a bare PyTorch loop, linear probes, and the ground truth's cost.

``python benchmarks/training/throughput.py`` takes about 12 minutes on 2 CPU cores. The
ratio to the bare loop is the median of those of the rounds, in each of which both run.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import joblib
import numpy as np
import torch
from sklearn import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import DATA, device_suffix, rounded, rounds_of, side_by_side, write

from sklearn_p2l import NetworkClassifier, Source, SourceCatalog, Task, networks
from sklearn_p2l.datasets import list_images
from sklearn_p2l.ground_truth import measure_improvement

HERE = Path(__file__).parent
EPOCHS = 20  # what "auto" is for so few images
CASES = [
    ("small_resnet", 32, 480),
    ("squeezenet1_1", 64, 240),
    ("resnet18", 64, 80),
    ("squeezenet1_1", 224, 48),
]


def real_images(name, n):
    with np.load(DATA / "data" / "images" / f"{name}.npz") as file:
        return file["images"][:n], file["labels"][:n]


def checkpoint_of(name, size, folder):
    """Random weights in a file, so that training begins as from a source."""
    network = networks.open_network(name, weights=None, image_size=size)
    path = Path(folder) / f"{name}.safetensors"
    weights = networks.get_weights(network.model)
    networks.write_checkpoint(path, weights, network.metadata)
    return path


def bare_loop(name, size, images, labels, precision):
    """The least that trains the same network with the same settings."""
    network = networks.open_network(name, weights=None, image_size=size)
    network.reset_classifier(labels.max() + 1, zero=True)
    device, half = networks.choose_device("auto"), precision != "float32"
    network = network.to(device)
    model = network.model.train()
    x = torch.cat(list(network.read(images, 16))).contiguous().to(device)
    rule = network.preprocessing
    mean, std = (
        torch.tensor(values, device=device).view(3, 1, 1)
        for values in (rule.mean, rule.std)
    )
    y = torch.from_numpy(labels).to(device)
    parameters = network.classifier_parameters() + network.body_parameters()
    groups = [
        {"params": network.classifier_parameters(), "lr": 2e-3},
        {"params": network.body_parameters(), "lr": 2e-4},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    n_steps = EPOCHS * -(-len(x) // 16)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    for _ in range(EPOCHS):
        for part in torch.randperm(len(x)).split(16):
            batch = x[part].contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, getattr(torch, precision), enabled=half):
                logits = model((batch / 255 - mean) / std)
            loss = nn.functional.cross_entropy(logits.float(), y[part])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            rates.step()
    if device.type == "cuda":
        torch.cuda.synchronize()


def compare(name, size, n, precision, folder):
    """One network: NetworkClassifier against the bare loop, and its linear probe."""
    images, labels = real_images("scenes15", n)
    classifier = NetworkClassifier(
        checkpoint_of(name, size, folder),
        epochs=EPOCHS,
        random_state=0,
        precision=precision,
    )
    probe = clone(classifier).set_params(body_learning_rate_multiplier=0)
    rounds = rounds_of(
        {
            "bare": lambda: bare_loop(name, size, images, labels, precision),
            "ours": lambda: fit(classifier, images, labels),
            "probe": lambda: fit(probe, images, labels),
        },
        repeats=5,
    )
    seconds = {key: np.median(values) for key, values in rounds.items()}
    ratios = np.divide(rounds["bare"], rounds["ours"])
    return {
        "network": f"{name}, {size} px",
        "precision": precision,
        "bare_images_per_second": rounded(n * EPOCHS / seconds["bare"]),
        "classifier_images_per_second": rounded(n * EPOCHS / seconds["ours"]),
        "to_bare_loop": rounded(np.median(ratios)),
        "probe_factor": rounded(seconds["ours"] / seconds["probe"]),
    }


def fit(classifier, images, labels):
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # random weights, ten passes
        classifier.fit(images, labels)


def tasks():
    """Two targets, split: arrays and JPEG files."""
    files = list_images(DATA / "data" / "folders" / "clothing")
    classes = [Path(file).parent.name for file in files]
    for name, X, y in [
        ("trashnet, arrays", *real_images("trashnet", 400)),
        ("clothing, JPEG files", files, classes),
    ]:
        X, X_test, y, y_test = train_test_split(X, y, stratify=y, random_state=0)
        yield name, Task(X, y, X_test=X_test, y_test=y_test)


def ground_truth(name, task, folder):
    """Time of a ground truth over that of its trainings and scores by hand."""
    checkpoint = checkpoint_of("small_resnet", 32, folder)
    zoo = SourceCatalog([Source(f"s{i}", checkpoint=checkpoint) for i in range(3)])
    classifier = NetworkClassifier(image_size=32, epochs=20)

    def by_hand():
        for start in (None, *(source.checkpoint for source in zoo)):
            one = clone(classifier).set_params(weights=start, random_state=0)
            one.fit(task.X, task.y).score(task.X_test, task.y_test)

    def measured():
        with tempfile.TemporaryDirectory() as records:
            measure_improvement(
                {name: task}, zoo, classifier, folder=records, verbose=0
            )

    seconds = side_by_side({"by hand": by_hand, "measured": measured})
    return {
        "target": name,
        "trainings": 1 + len(zoo),
        "seconds_by_hand": rounded(seconds["by hand"]),
        "seconds_measured": rounded(seconds["measured"]),
        "ratio": rounded(seconds["measured"] / seconds["by hand"]),
    }


def precisions():
    """float32, and what "auto" is where it is not that."""
    fast = networks.devices.has_fast_bfloat16(networks.choose_device("auto"))
    return ["float32", "bfloat16"] if fast else ["float32"]


def main():
    torch.set_num_threads(joblib.cpu_count())
    with tempfile.TemporaryDirectory() as folder:
        write(
            HERE / "results" / f"training{device_suffix()}.csv",
            [compare(*c, p, folder) for c in CASES for p in precisions()],
        )
        rows = [ground_truth(*task, folder) for task in tasks()]
        write(HERE / "results" / f"ground_truth{device_suffix()}.csv", rows)


if __name__ == "__main__":
    main()
