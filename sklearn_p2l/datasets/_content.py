"""The identity of a dataset: what it holds, whatever it is called."""

import os

import joblib
import numpy as np
from PIL import Image

from sklearn_p2l.datasets._bags import is_bags
from sklearn_p2l.datasets._images import ImageError, expand, is_sequence, read_image


def content_key(dataset):
    """Return a hash of a dataset's content, or None where it has no cheap one.

    Files are known by path, size and time of change, arrays and relation bags by their
    values. Torch Datasets are not hashed: equal ones need not have equal hashes.
    """
    if is_bags(dataset):
        if not isinstance(dataset, (str, os.PathLike)):
            return joblib.hash([repr(bag) for bag in dataset])
        dataset = [dataset]
    dataset = expand(dataset)
    if isinstance(dataset, np.ndarray) and dataset.dtype.kind in "uif":
        return joblib.hash(np.asarray(dataset))
    if not is_sequence(dataset):
        return None
    parts = []
    for image in dataset:
        if isinstance(image, (str, os.PathLike)) and os.path.exists(image):
            status = os.stat(image)
            parts.append((os.path.abspath(image), status.st_size, status.st_mtime_ns))
        elif isinstance(image, np.ndarray):
            parts.append(joblib.hash(np.asarray(image)))
        elif isinstance(image, Image.Image):
            try:  # as the network will see it
                parts.append(joblib.hash(read_image(image, "image")[0]))
            except ImageError:
                return None
        else:
            return None
    return joblib.hash(parts)
