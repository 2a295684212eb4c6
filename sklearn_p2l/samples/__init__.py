"""What a dataset is: images, bags of text or ready features, in every form they have.

Nothing here imports torch. What users need of it is public in `sklearn_p2l.datasets`.
"""

from sklearn_p2l.samples._bags import BAGS, Bag, Context, bag_batches, read_bags
from sklearn_p2l.samples._features import FEATURES
from sklearn_p2l.samples._images import (
    IMAGE_EXTENSIONS,
    IMAGES,
    are_parts,
    class_folders,
    image_batches,
    list_images,
)
from sklearn_p2l.samples._keeping import keeping_images
from sklearn_p2l.samples._kinds import (
    MODALITIES,
    as_samples,
    content_key,
    length_of,
    modality_of,
    name_of,
    random_part,
)
from sklearn_p2l.samples._relations import (
    relation_labels,
    sample_target,
    subtask_labels,
    text_groups,
)
from sklearn_p2l.samples._sampling import is_map_style, is_sequence, random_rows, take
from sklearn_p2l.samples._words import build_vocabulary, read_word_vectors, tokenize

__all__ = [
    "BAGS",
    "FEATURES",
    "IMAGES",
    "IMAGE_EXTENSIONS",
    "MODALITIES",
    "Bag",
    "Context",
    "are_parts",
    "as_samples",
    "bag_batches",
    "build_vocabulary",
    "class_folders",
    "content_key",
    "image_batches",
    "is_map_style",
    "is_sequence",
    "keeping_images",
    "length_of",
    "list_images",
    "modality_of",
    "name_of",
    "random_part",
    "random_rows",
    "read_bags",
    "read_word_vectors",
    "relation_labels",
    "sample_target",
    "subtask_labels",
    "take",
    "text_groups",
    "tokenize",
]
