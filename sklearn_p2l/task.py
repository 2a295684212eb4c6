"""A task: samples with their labels, and how the two are found together."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_consistent_length

from sklearn_p2l._compat import is_missing
from sklearn_p2l.samples import BAGS, as_samples, class_folders, is_map_style

__all__ = ["Task"]

# Where Datasets of torchvision keep their labels, and what Hugging Face calls them.
_TARGETS = ("targets", "labels")
_LABEL_COLUMNS = ("label", "labels", "fine_label", "class")


@dataclass(frozen=True, eq=False, repr=False)
class Task:
    """A dataset with its labels, and what belongs to it.

    Whatever takes a dataset takes a task in its place: the embedder looks at its
    samples, rankers that use labels at both, classifiers train on it.

    Parameters
    ----------
    X : dataset of n_samples samples
        Images or bags of text, in any form that has a length (see
        :class:`~sklearn_p2l.DatasetEmbedder`).

    y : array-like of shape (n_samples,) or (n_samples, n_labels)
        Class labels, or a multilabel indicator of 0 and 1.

    groups : array-like of shape (n_samples,), default=None
        Samples of one group are never on both sides of a split.

    X_test : dataset, default=None
        A test part that belongs to the task; None where it is yet to be split off.

    y_test : array-like, default=None
        Its labels.

    Raises
    ------
    ValueError
        If samples and labels differ in number, a label is missing, there are fewer than
        two classes, or the test part has labels that the other part has not.

    See Also
    --------
    DatasetEmbedder : Summarises tasks as vectors.
    NetworkClassifier : Trains on one.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_p2l import Task
    >>> images = np.zeros((4, 16, 16), dtype=np.uint8)
    >>> task = Task(images, ["cat", "dog", "cat", "dog"])
    >>> task
    Task(4 samples, 2 classes)
    >>> len(task)
    4
    """

    X: object
    y: object
    groups: object = None
    X_test: object = None
    y_test: object = None

    def __post_init__(self):
        if self.y is None:
            raise ValueError(
                "y must hold the labels of the samples, got None; pass a dataset "
                "without labels as it is, not as a Task."
            )
        for part in ("X", "X_test"):
            samples = getattr(self, part)
            if samples is not None:
                object.__setattr__(self, part, as_samples(samples))
        for part in ("y", "y_test"):
            if issparse(labels := getattr(self, part)):
                object.__setattr__(self, part, labels.toarray())
        if (self.X_test is None) != (self.y_test is None):
            raise ValueError(
                "X_test and y_test must be given together, got only one of them."
            )
        check_labels(self.X, self.y)
        check_consistent_length(self.y, self.groups)
        if self.y_test is not None:
            check_labels(self.X_test, self.y_test)
            shape, shape_test = np.shape(self.y), np.shape(self.y_test)
            if shape[1:] != shape_test[1:]:
                raise ValueError(
                    "y_test must have the columns of y, got labels of shape "
                    f"{shape_test} and {shape}."
                )
        if np.ndim(self.y) == 1:
            self._check_classes()

    def __len__(self):
        return len(self.y)

    def __repr__(self):
        y = np.asarray(self.y)
        n = f"{y.shape[1]} labels" if y.ndim > 1 else f"{len(np.unique(y))} classes"
        test = "" if self.y_test is None else f", {len(self.y_test)} test samples"
        return f"Task({len(self)} samples, {n}{test})"

    def _check_classes(self):
        try:
            classes = np.unique(np.asarray(self.y))
        except TypeError as error:
            raise ValueError(
                f"y must hold labels of one type, got several: {error}."
            ) from error
        if len(classes) < 2:
            raise ValueError(
                f"y must have at least two classes, got one: {classes[0]}."
            )
        if self.y_test is not None:
            unknown = np.setdiff1d(np.asarray(self.y_test), classes)
            if len(unknown):
                raise ValueError(
                    "the test part must have no class that is not in the training "
                    f"part, got {unknown.tolist()[:5]}."
                )

    @classmethod
    def from_folder(cls, folder, *, test=None):
        """Make a task of a folder with one subfolder of images for each class.

        Parameters
        ----------
        folder : str or path-like
            The folder; the names of its subfolders are the labels.

        test : str or path-like, default=None
            Another such folder, with the images to test on.

        Returns
        -------
        task : Task
            With the paths of the images as `X`.

        Raises
        ------
        ValueError
            If there is no such folder, an image lies in no subfolder, or the subfolders
            are not classes but the parts of a split ("train", "test").

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> from sklearn_p2l import Task
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("cats/1.png", "cats/2.png", "dogs/1.png"):
        ...     (folder / name).parent.mkdir(exist_ok=True)
        ...     (folder / name).touch()
        >>> Task.from_folder(folder).y
        array(['cats', 'cats', 'dogs'], dtype='<U4')
        """
        X, y = class_folders(folder)
        X_test, y_test = (None, None) if test is None else class_folders(test)
        y_test = None if y_test is None else np.array(y_test)
        return cls(X, np.array(y), X_test=X_test, y_test=y_test)

    @classmethod
    def from_dataset(cls, dataset, *, label=None):
        """Make a task of a torch or Hugging Face Dataset whose items have labels.

        Parameters
        ----------
        dataset : Dataset
            A map-style torch Dataset of (image, label, ...), or one of Hugging Face
            with a column of images and one of labels. Labels are taken from its
            `targets` or its column where it has such, and else by reading every item
            once. Of Hugging Face's ClassLabel, labels are the names.

        label : str, default=None
            Column of the labels in a Dataset of Hugging Face; None takes "label",
            "labels", "fine_label" or "class".

        Returns
        -------
        task : Task
            With the Dataset itself as `X`.

        Raises
        ------
        ValueError
            If the Dataset is a stream or several splits, or an item has no label.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn_p2l import Task
        >>> class Shapes:
        ...     targets = [0, 1, 1]
        ...     def __len__(self):
        ...         return 3
        ...     def __getitem__(self, i):
        ...         return np.full((8, 8), 80 * i, dtype=np.uint8), self.targets[i]
        >>> Task.from_dataset(Shapes()).y
        array([0, 1, 1])
        """
        if isinstance(dataset, Mapping):
            raise ValueError(
                f"dataset must be one Dataset, got several, {list(dataset)}; pass one "
                f"of them, dataset[{next(iter(dataset), 'train')!r}]."
            )
        if not is_map_style(dataset):
            raise ValueError(
                "dataset must be a map-style Dataset, with a length and items by "
                f"number, got {type(dataset).__name__}; pass lists of samples and "
                "labels."
            )
        return cls(dataset, np.asarray(_labels_of(dataset, label)))


def check_labels(X, y):
    """Check that every sample has a label."""
    if isinstance(y, str):
        raise ValueError(f"y must hold a label for every sample, got one str, {y!r}.")
    check_consistent_length(X, y)
    if hasattr(y, "__array__") or isinstance(y, (list, tuple)):
        if any(is_missing(v) for v in np.asarray(y, dtype=object).ravel()):
            raise ValueError("y must hold a label for every sample, got NaN or None.")


def _labels_of(dataset, label):
    if hasattr(dataset, "column_names"):
        wanted = [label] if label is not None else _LABEL_COLUMNS
        found = [name for name in wanted if name in dataset.column_names]
        if not found:
            raise ValueError(
                f"dataset must have a column of labels, one of {list(wanted)}, got "
                f"{list(dataset.column_names)}; pass label='<its name>'."
            )
        feature = (getattr(dataset, "features", None) or {}).get(found[0])
        values = _as_python(dataset[found[0]])
        names = getattr(feature, "names", None)
        if names is None:
            return values
        # Where labels are kept secret, as of a competition's test part, they are -1.
        return [None if v is None or v < 0 else names[v] for v in values]
    if label is not None:
        raise ValueError(
            f"label must be None for a Dataset without columns, got {label!r}."
        )
    if getattr(dataset, "target_transform", None) is None:
        for name in _TARGETS:
            values = getattr(dataset, name, None)
            if values is not None and len(values) == len(dataset):
                return _as_python(values)
    first = dataset[0]
    if not isinstance(first, (tuple, list)) or len(first) < 2:
        raise ValueError(
            "items of a dataset with labels must be (image, label, ...), got "
            f"{type(first).__name__}; pass samples and labels by themselves."
        )
    return _as_python(dataset[i][1] for i in range(len(dataset)))


def _as_python(values):
    return [v.tolist() if hasattr(v, "tolist") else v for v in values]


def as_task(task, what="the task"):
    """Return a Task, from a tuple of what it is made of.

    That is ``(X, y)``, ``(X, y, groups)`` or ``(X, y, X_test, y_test)``.
    """
    if isinstance(task, Task):
        return task
    if not isinstance(task, (tuple, list)) or len(task) not in (2, 3, 4):
        length = f" of length {len(task)}" if isinstance(task, (tuple, list)) else ""
        raise ValueError(
            f"{what} must be a Task, (X, y), (X, y, groups) or (X, y, X_test, y_test), "
            f"got {type(task).__name__}{length}."
        )
    X, y, *more = task
    groups = more[0] if len(more) == 1 else None
    X_test, y_test = more if len(more) == 2 else (None, None)
    try:
        return Task(X, y, groups, X_test=X_test, y_test=y_test)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{what}: {error}") from error


def as_tasks(tasks, what):
    """Return a mapping of names to tasks as a dict of Task."""
    if not hasattr(tasks, "items") or not tasks:
        raise ValueError(
            f"{what} must be a non-empty mapping of names to tasks, got {tasks!r:.80}."
        )
    for name in tasks:
        if not isinstance(name, str) or not name:
            raise ValueError(f"names of {what} must be non-empty str, got {name!r}.")
    return {name: as_task(task, f"{what}[{name!r}]") for name, task in tasks.items()}


def as_labelled(X, y, groups=None):
    """Return samples, labels and groups (or None), which X may hold together."""
    if isinstance(X, Task) and groups is None:
        groups = X.groups
    if y is not None:
        X = X.X if isinstance(X, Task) else X
        _check_groups(groups, y)
        return as_samples(X), y, groups
    if isinstance(X, (str, os.PathLike)) and not BAGS.recognises(X):
        X = Task.from_folder(X)
    elif not isinstance(X, Task) and is_map_style(X):
        X = Task.from_dataset(X)
    if not isinstance(X, Task):
        raise ValueError(
            "requires y to be passed, but the target y is None; pass labels, a Task, a "
            "folder with a subfolder for each class, or a Dataset of (image, label)."
        )
    _check_groups(groups, X.y)
    return X.X, X.y, groups


def _check_groups(groups, y):
    n = np.shape(y)[0]
    if groups is not None and len(groups) != n:
        raise ValueError(
            "groups must hold the group of each sample, or be None, got "
            f"{len(groups)} for {n} samples."
        )


def dataset_of(item):
    """The samples of a task, and any other dataset as it is."""
    return item.X if isinstance(item, Task) else item
