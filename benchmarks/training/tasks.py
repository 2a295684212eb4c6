"""Thirteen small targets cut out of ten image datasets, to judge recipes on.

Settings were chosen on one half of them ("chosen on"); what is claimed is what the
other half gives. Train and test part share no image, and no group (who drew a shape,
which film a sign is from).
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

sys.path.insert(0, str(Path(__file__).parents[1]))
from dealing import deal, read_images, rows_of

from sklearn_p2l import Task

# target: dataset, classes, training images
CHOSEN_ON = {
    "shapes": ("hand_shapes", "all", 60),
    "clothing_a": ("clothing", "a", 100),
    "alphabets": ("omniglot_alphabets", "all", 150),
    "fruit_a": ("grocery_fruit", "a", 200),
    "signs_a": ("gtsrb", "a", 250),
    "monkeys": ("monkeys", "all", 400),
}
JUDGED_ON = {
    "sign_digits": ("sign_digits", "all", 100),
    "fruit_b": ("grocery_fruit", "b", 100),
    "trash": ("trashnet", "all", 120),
    "clothing_b": ("clothing", "b", 150),
    "signs_b": ("gtsrb", "b", 200),
    "vegetables": ("grocery_vegetables", "all", 300),
    "characters": ("omniglot_chars", "all", 500),
}
# The dataset that the small source is trained on; no target has seen it.
SOURCE = "scenes15"
MOST_TESTED = 600


def load_target(name):
    """Return a target as a task, with at most 600 images to test on."""
    dataset, half, n = (CHOSEN_ON | JUDGED_ON)[name]
    images, labels, groups = read_images(dataset)
    # A draw of few groups may miss a class: whole groups first, then some of them.
    dealt = 1000 if name == "shapes" else n
    parts = deal(rows_of(labels, half), labels, groups, {"train": dealt, "test": None})
    train = some(parts["train"], labels, n)
    test = some(parts["test"], labels, MOST_TESTED)
    return Task(images[train], labels[train], X_test=images[test], y_test=labels[test])


def some(rows, labels, n):
    """At most n of the rows, over the classes in proportion."""
    if len(rows) <= n:
        return rows
    part, _ = train_test_split(
        rows, train_size=n, stratify=labels[rows], random_state=0
    )
    return np.sort(part)


def load_source():
    """Return images and labels that the small source is trained on."""
    images, labels, _ = read_images(SOURCE)
    return images, labels
