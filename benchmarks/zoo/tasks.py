"""Sources and targets of the zoo that comes with the package.

Eight datasets whose images are openly licensed: shapes drawn by hand (CC BY 4.0),
handwritten glyphs (MIT), clothing (CC0), fruit, vegetables and waste (MIT), hand signs
(Apache-2.0). As in `benchmarks/transfer`, a dataset with enough classes lends the first
half of them ("a") to sources and training targets, and the second ("b") to a target of
classes that no source knows; most lend a larger and a smaller source. No image serves
twice, except that three sources are several in one.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from dealing import DATA as DATA
from dealing import PAPER as PAPER
from dealing import cut, merge

# target: (file, classes, parts); parts are dealt in this order, as many images each as
# stated; None takes all that are left.
_PARTS = {
    "shapes": (
        "hand_shapes",
        "all",
        {"shapes": 4500, "shapes_few": 60, "train": 150, "test": 1000},
    ),
    "alphabets": (
        "omniglot_alphabets",
        "all",
        {"alphabets": 1600, "alphabets_few": 110, "train": 200, "test": 1000},
    ),
    "characters_a": (
        "omniglot_chars",
        "a",
        {"characters": 500, "train": 130, "test": None},
    ),
    "clothing_a": (
        "clothing",
        "a",
        {"clothing": 400, "clothing_few": 50, "train": 100, "test": None},
    ),
    "fruit_a": (
        "grocery_fruit",
        "a",
        {"fruit": 300, "fruit_few": 70, "train": 110, "test": None},
    ),
    "vegetables_a": (
        "grocery_vegetables",
        "a",
        {"vegetables": 200, "train": 90, "test": None},
    ),
    "trash_a": (
        "trashnet",
        "a",
        {"trash": 240, "trash_few": 40, "train": 100, "test": None},
    ),
    "sign_digits_a": (
        "sign_digits",
        "a",
        {"sign_digits": 150, "train": 60, "test": None},
    ),
    "characters_b": ("omniglot_chars", "b", {"train": 300, "test": None}),
    "clothing_b": ("clothing", "b", {"train": 150, "test": None}),
    "fruit_b": ("grocery_fruit", "b", {"train": 200, "test": None}),
    "vegetables_b": ("grocery_vegetables", "b", {"train": 150, "test": None}),
    "trash_b": ("trashnet", "b", {"train": 120, "test": None}),
    "sign_digits_b": ("sign_digits", "b", {"train": 100, "test": None}),
}
# Several sources as one: their images are its images, their classes its classes.
MERGED = {
    "drawings": ["shapes", "alphabets", "characters"],
    "photos": ["clothing", "fruit", "vegetables", "trash", "sign_digits"],
    "everything": ["drawings", "photos"],
}
# Its network is the reference network, which describes sources and new data alike.
REFERENCE = "everything"


def load_tasks():
    """Return the sources and the targets, two dicts of tasks.

    A task holds images (n, 64, 64, 3) with labels (n,), and a test part: that of a
    source are the test images of the target with the same classes, if it has one.
    """
    sources, targets = cut(_PARTS, tested_sources=True)
    for name, members in MERGED.items():
        sources[name] = merge([sources[member] for member in members])
    return sources, targets
