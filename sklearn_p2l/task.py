"""A task: samples with their labels, and how the two are found together."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import issparse
from sklearn.model_selection import train_test_split

from sklearn_p2l._compat import is_missing
from sklearn_p2l.samples import (
    BAGS,
    as_samples,
    class_folders,
    is_map_style,
    length_of,
)

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
        _check_groups(self.groups, self.y)
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
    def from_folder(cls, folder, *, test=None, test_size=None, random_state=None):
        """Make a task of a folder with one subfolder of images for each class.

        Parameters
        ----------
        folder : str or path-like
            The folder; the names of its subfolders are the labels.

        test : str or path-like, default=None
            Another such folder, with the images to test on.

        test_size : float or int, default=None
            The share, or the number, of the images that are kept to test on, each class
            in proportion; None keeps none.

        random_state : int, RandomState instance or None, default=None
            Decides which.

        Returns
        -------
        task : Task
            With the paths of the images as `X`.

        Raises
        ------
        ValueError
            If there is no such folder, an image lies in no subfolder, the subfolders
            are not classes but the parts of a split ("train", "test"), or `test_size`
            does not leave images of each class on both sides.

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
        if test is not None and test_size is not None:
            raise ValueError(
                "test or test_size must be None: the images to test on are either "
                f"those of {test} or some of {folder}."
            )
        X, y = class_folders(folder)
        X_test = y_test = None
        if test is not None:
            X_test, y_test = class_folders(test)
        elif test_size is not None:
            X, X_test, y, y_test = _split(X, y, test_size, random_state)
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


def _split(X, y, test_size, random_state):
    try:
        return train_test_split(
            X, y, test_size=test_size, stratify=y, random_state=random_state
        )
    except ValueError as error:
        raise ValueError(
            "test_size must leave images of each class to train and to test on, got "
            f"{test_size}: {error} Take another, or name a folder of images to test on."
        ) from error


def check_labels(X, y):
    """Check that every sample has a label."""
    if isinstance(y, str):
        raise ValueError(f"y must hold a label for every sample, got one str, {y!r}.")
    if np.ndim(y) == 0:
        raise ValueError(f"y must hold a label for every sample, got one, {y!r}.")
    n, n_labels = length_of(X), np.shape(y)[0]
    if n is None:
        raise ValueError(
            f"X must have a length, as a list of samples has, got {type(X).__name__}."
        )
    if n != n_labels:
        raise ValueError(
            f"y must hold a label for every sample, got {n_labels} labels for {n} "
            "samples."
        )
    if hasattr(y, "__array__") or isinstance(y, (list, tuple)):
        labels = np.asarray(y, dtype=object).reshape(n_labels, -1)
        missing = [i for i, row in enumerate(labels) if any(map(is_missing, row))]
        if missing:
            raise ValueError(
                f"y must hold a label for every sample, got NaN or None for "
                f"{len(missing)}, the first of them sample {missing[0]}; leave these "
                "out."
            )


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


def as_judged(X, y):
    """Return samples and labels to judge by: a task's test part, where it has one."""
    if isinstance(X, Task) and y is None and X.X_test is not None:
        return X.X_test, X.y_test
    X, y, _ = as_labelled(X, y)
    return X, y


def as_labelled(X, y, groups=None):
    """Return samples, labels and groups (or None), which X may hold together."""
    if X is None:
        raise ValueError(
            "X must be samples, got None. X_test of a Task is None where it has no "
            "test part: Task.from_folder(folder, test_size=0.2) keeps some images for "
            "one, and test=... names a folder of others."
        )
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
