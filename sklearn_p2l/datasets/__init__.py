"""What a dataset is, and small real ones for examples and tests."""

from sklearn_p2l.datasets._bags import Bag, Context, bag_batches, is_bags, read_bags
from sklearn_p2l.datasets._content import content_key
from sklearn_p2l.datasets._images import (
    IMAGE_EXTENSIONS,
    image_batches,
    is_features,
    list_images,
)
from sklearn_p2l.datasets._relations import (
    relation_labels,
    sample_target,
    subtask_labels,
    text_groups,
)
from sklearn_p2l.datasets._sampling import random_part
from sklearn_p2l.datasets._small_tasks import load_small_tasks
from sklearn_p2l.datasets._transfer_results import load_transfer_results
from sklearn_p2l.datasets._words import build_vocabulary, read_word_vectors, tokenize

__all__ = [
    "IMAGE_EXTENSIONS",
    "Bag",
    "Context",
    "bag_batches",
    "build_vocabulary",
    "content_key",
    "image_batches",
    "is_bags",
    "is_features",
    "list_images",
    "load_small_tasks",
    "load_transfer_results",
    "random_part",
    "read_bags",
    "read_word_vectors",
    "relation_labels",
    "sample_target",
    "subtask_labels",
    "text_groups",
    "tokenize",
]
