"""What a dataset is, and small real ones for examples and tests."""

from sklearn_p2l.datasets._images import (
    IMAGE_EXTENSIONS,
    content_key,
    image_batches,
    is_features,
    list_images,
)
from sklearn_p2l.datasets._small_tasks import load_small_tasks

__all__ = [
    "IMAGE_EXTENSIONS",
    "content_key",
    "image_batches",
    "is_features",
    "list_images",
    "load_small_tasks",
]
