"""What benchmarks of classifiers share: real images, dealt out to disjoint parts."""

import importlib.util
from pathlib import Path

import numpy as np
from timing import DATA

from sklearn_p2l import Task

# The paper's optimisation (section 4.1), and its multiplier (section 4.2).
PAPER = dict(
    optimizer="sgd",
    schedule="step",
    warmup=0.0,
    max_grad_norm=None,
    scale_features=False,
    weight_decay=1e-4,
    body_learning_rate_multiplier=0.1,
)


def tasks_of(benchmark):
    """The module that deals out the tasks of another benchmark."""
    path = Path(__file__).parent / benchmark / "tasks.py"
    spec = importlib.util.spec_from_file_location(f"{benchmark}_tasks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_images(name):
    """Images (n, 64, 64, 3), labels (n,) and groups (n,) of a dataset."""
    with np.load(DATA / "data" / "images" / f"{name}.npz") as file:
        images, labels = file["images"], file["labels"]
        groups = file["groups"] if "groups" in file else np.arange(len(labels))
    return images, labels, groups


def rows_of(labels, half):
    """Rows of all classes, or of the first ("a") or second half ("b") of them."""
    n_classes = labels.max() + 1
    first = {"all": 0, "a": 0, "b": (n_classes + 1) // 2}[half]
    last = (n_classes + 1) // 2 if half == "a" else n_classes
    return np.flatnonzero((labels >= first) & (labels < last))


def deal(rows, labels, groups, sizes):
    """Deal rows out to parts, whole groups at a time, all classes alike.

    Shuffled groups go, one after the other, to the part that is furthest behind its
    share; what a part then has too much is left out.
    """
    rng = np.random.default_rng(0)
    rest = len(rows) - sum(n for n in sizes.values() if n is not None)
    wanted = {name: rest if n is None else n for name, n in sizes.items()}
    share = np.array(list(wanted.values())) / sum(wanted.values())
    dealt = np.zeros(len(wanted))
    parts = [[] for _ in wanted]
    order = rng.permutation(rows)
    order = order[np.argsort(labels[order], kind="stable")]
    for group in dict.fromkeys(groups[order].tolist()):
        members = rows[groups[rows] == group]
        part = np.argmax(share * (dealt.sum() + len(members)) - dealt)
        parts[part].extend(members)
        dealt[part] += len(members)
    return {
        name: np.sort(rng.permutation(part)[:n])
        for (name, n), part in zip(wanted.items(), parts)
    }


def cut(parts, *, tested_sources):
    """Cut sources and targets out of datasets: two dicts of tasks.

    `parts`: by the name of a target, its file, its classes, and the parts that its
    images are dealt to, in this order: sources, "train" and "test"; None takes all that
    are left. `tested_sources`: whether sources have that test part, too.
    """
    sources, targets = {}, {}
    for target, (file_name, half, sizes) in parts.items():
        images, labels, groups = read_images(file_name)
        dealt = deal(rows_of(labels, half), labels, groups, sizes)
        train, test = dealt.pop("train"), dealt.pop("test")
        tested = dict(X_test=images[test], y_test=labels[test])
        targets[target] = Task(images[train], labels[train], **tested)
        for name, part in dealt.items():
            own = tested if tested_sources else {}
            sources[name] = Task(images[part], labels[part], **own)
    return sources, targets


def merge(tasks):
    """One task of several, whose classes stay apart; with a test part if they have."""
    offsets = np.cumsum([0, *(task.y.max() + 1 for task in tasks)])

    def joined(name, offsets):
        values = [getattr(task, name) for task in tasks]
        if values[0] is None:
            return None
        return np.concatenate([v + o for v, o in zip(values, offsets)])

    none = np.zeros(len(tasks), dtype=np.uint8)
    return Task(
        joined("X", none),
        joined("y", offsets),
        X_test=joined("X_test", none),
        y_test=joined("y_test", offsets),
    )
