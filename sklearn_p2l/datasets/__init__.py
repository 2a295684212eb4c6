"""What a dataset is, and small real ones for examples and tests."""

from sklearn_p2l.datasets._content import content_key
from sklearn_p2l.datasets._images import (
    IMAGE_EXTENSIONS,
    image_batches,
    is_features,
    list_images,
)
from sklearn_p2l.datasets._relations import (
    Bag,
    Context,
    bag_batches,
    build_vocabulary,
    is_bags,
    read_bags,
    read_word_vectors,
    relation_labels,
    sample_target,
    subtask_labels,
    text_groups,
    tokenize,
)
from sklearn_p2l.datasets._small_tasks import load_small_tasks

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
    "read_bags",
    "read_word_vectors",
    "relation_labels",
    "sample_target",
    "subtask_labels",
    "text_groups",
    "tokenize",
]
