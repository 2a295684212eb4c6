"""Sources and targets of the transfer benchmark, cut out of eleven image datasets.

Seven datasets lend sources and training targets: shapes, alphabets, scenes, clothing,
fruit, trash and signs. Where a dataset has enough classes, sources and training
targets use the first half of them ("a"), a held-out target the second ("b"). Every
such dataset gives one larger and one smaller source, so that size and domain are
independent of one another. The held-out targets are the "b" halves and four datasets
of which no source has ever seen an image: vegetables, monkeys, sign digits, characters.

No image serves twice. Where a dataset says who drew an image or which film it is from
(`groups`), sources, training parts and test parts do not share any group.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from dealing import DATA as DATA
from dealing import PAPER as PAPER
from dealing import cut, merge

# dataset: (file, classes, parts); parts are dealt in this order, as many images each
# as stated; None takes all that are left.
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
    "scenes_a": (
        "scenes15",
        "a",
        {"scenes": 560, "scenes_few": 80, "train": 120, "test": None},
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
    "trash_a": (
        "trashnet",
        "a",
        {"trash": 240, "trash_few": 40, "train": 100, "test": None},
    ),
    "signs_a": (
        "gtsrb",
        "a",
        {"signs": 350, "signs_few": 130, "train": 110, "test": None},
    ),
    "scenes_b": ("scenes15", "b", {"train": 250, "test": None}),
    "clothing_b": ("clothing", "b", {"train": 150, "test": None}),
    "fruit_b": ("grocery_fruit", "b", {"train": 200, "test": None}),
    "trash_b": ("trashnet", "b", {"train": 120, "test": None}),
    "signs_b": ("gtsrb", "b", {"train": 250, "test": None}),
    "vegetables": ("grocery_vegetables", "all", {"train": 300, "test": None}),
    "monkeys": ("monkeys", "all", {"train": 400, "test": None}),
    "sign_digits": ("sign_digits", "all", {"train": 150, "test": None}),
    "characters_a": ("omniglot_chars", "a", {"train": 300, "test": None}),
    "characters_b": ("omniglot_chars", "b", {"train": 300, "test": None}),
}
# Section 4.3.3 of the paper: several sources as one. Its images are theirs.
MERGED = {"photos_merged": ["scenes", "clothing", "fruit", "trash"]}
TRAINING_GROUP = [
    "shapes",
    "alphabets",
    "scenes_a",
    "clothing_a",
    "fruit_a",
    "trash_a",
    "signs_a",
]


def load_tasks():
    """Return the sources and the targets, two dicts of tasks.

    A task holds images (n, 64, 64, 3) with labels (n,), a target also a test part.
    """
    sources, targets = cut(_PARTS, tested_sources=False)
    for name, members in MERGED.items():
        sources[name] = merge([sources[member] for member in members])
    return sources, targets
