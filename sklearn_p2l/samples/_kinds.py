"""The kinds of samples there are, and which one a dataset holds."""

import os
from collections.abc import Sized

from sklearn.utils import check_random_state

from sklearn_p2l.samples._bags import BAGS
from sklearn_p2l.samples._features import FEATURES
from sklearn_p2l.samples._images import IMAGES, list_images

# In the order in which they are asked; images are what nobody else recognises.
MODALITIES = (FEATURES, BAGS, IMAGES)


def modality_of(dataset):
    """Return the kind of samples that a dataset holds, one of `MODALITIES`."""
    return next(m for m in MODALITIES if m.recognises(dataset))


def as_samples(X):
    """Return samples as a sequence, whether X is one of them, a folder or a file."""
    return modality_of(X).as_samples(X)


def content_key(dataset):
    """Return a hash of a dataset's content, or None where it has no cheap one.

    Files are known by path, size and time of change, arrays and relation bags by their
    values. Torch Datasets are not hashed: equal ones need not have equal hashes.
    """
    return modality_of(dataset).content_key(dataset)


def random_part(dataset, n_samples, random_state, *, on_error="raise"):
    """Draw samples of a dataset at random, without replacement.

    What is not drawn is not read, except from a stream (an iterable Dataset, a file of
    bags), which is read to its end while `n_samples` of it are kept.

    Parameters
    ----------
    dataset : dataset
        In any form. Ready features are always taken whole.

    n_samples : int or None
        How many to draw, if there are more; None for all in random order, where
        streams are left as they are.

    random_state : int or RandomState instance
        Decides what is drawn, and the order.

    on_error : {"raise", "skip"}, default="raise"
        What to do with a malformed line of a file of bags.

    Returns
    -------
    part : dataset
        A list, a Dataset, or the stream as it is.

    n_total : int or None
        Number of samples of the whole dataset; None for a stream.
    """
    rng = check_random_state(random_state)
    return modality_of(dataset).random_part(dataset, n_samples, rng, on_error)


def name_of(dataset):
    """What to call a dataset in a progress bar: its folder or file, or nothing."""
    if isinstance(dataset, (str, os.PathLike)):
        return os.path.basename(os.path.abspath(dataset))
    return ""


def length_of(dataset):
    """Number of samples, or None where that is not known without reading them."""
    if isinstance(dataset, (str, os.PathLike)):
        return None if BAGS.recognises(dataset) else len(list_images(dataset))
    return len(dataset) if isinstance(dataset, Sized) else None
