"""Datasets that come with the package, and what samples of text are made of."""

from sklearn_p2l.datasets._small_tasks import load_small_tasks
from sklearn_p2l.datasets._transfer_results import load_transfer_results
from sklearn_p2l.datasets._zoo import load_zoo
from sklearn_p2l.samples import (
    Bag,
    Context,
    build_vocabulary,
    list_images,
    read_bags,
    read_word_vectors,
    relation_labels,
    sample_target,
    subtask_labels,
    text_groups,
    tokenize,
)

__all__ = [
    "Bag",
    "Context",
    "build_vocabulary",
    "list_images",
    "load_small_tasks",
    "load_transfer_results",
    "load_zoo",
    "read_bags",
    "read_word_vectors",
    "relation_labels",
    "sample_target",
    "subtask_labels",
    "text_groups",
    "tokenize",
]
