"""Task: samples with their labels, in every form they come in."""

import copy
import pickle
from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
from conftest import real_file
from numpy.testing import assert_array_equal
from PIL import Image
from scipy.sparse import csr_array, csr_matrix

from sklearn_p2l import Task
from sklearn_p2l.datasets import Bag, Context
from sklearn_p2l.samples import image_batches
from sklearn_p2l.task import as_judged, as_labelled, as_task, as_tasks, dataset_of

LABELS = ["cat", "dog", "cat", "dog"]


@pytest.fixture
def X(rng):
    return rng.integers(0, 256, size=(4, 8, 8, 3), dtype=np.uint8)


def read(dataset):
    return [image for batch in image_batches(dataset, 3) for image in batch]


class Labelled:
    """A map-style torch Dataset, with whatever attributes."""

    def __init__(self, items, **attributes):
        self.items, self.n_read = items, 0
        vars(self).update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        self.n_read += 1
        return self.items[i]


class Columns:
    """What Datasets of Hugging Face offer; reading an image is counted."""

    def __init__(self, features=None, **columns):
        self.features, self.columns, self.n_read = features, columns, 0

    @property
    def column_names(self):
        return list(self.columns)

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key):
        if isinstance(key, str):
            return self.columns[key]
        self.n_read += 1
        return {name: values[key] for name, values in self.columns.items()}

    def __iter__(self):
        return (self[i] for i in range(len(self)))


@pytest.fixture
def folder(tmp_path):
    for part, names in [("train", "aabb"), ("test", "ab")]:
        for i, name in enumerate(names):
            (tmp_path / part / name).mkdir(parents=True, exist_ok=True)
            image = Image.new("RGB", (8, 8), (60 * i, 0, 0))
            image.save(tmp_path / part / name / f"{i}.png")
    return tmp_path


# -- what a task is -------------------------------------------------------------------


def test_what_belongs_together(X):
    task = Task(X, LABELS)
    assert task.X is X and task.y == LABELS
    assert task.groups is task.X_test is task.y_test is None
    assert len(task) == 4 and repr(task) == "Task(4 samples, 2 classes)"
    task = Task(X, LABELS, [0, 0, 1, 1], X_test=X[:2], y_test=LABELS[:2])
    assert task.groups == [0, 0, 1, 1]
    assert repr(task) == "Task(4 samples, 2 classes, 2 test samples)"
    indicator = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1]])
    task = Task(X, indicator, X_test=X[:1], y_test=indicator[:1])
    assert repr(task) == "Task(4 samples, 3 labels, 1 test samples)"
    assert len(Task(X, [[1], [0], [0], [1]])) == 4


def test_labels_of_any_type(X):
    pd = pytest.importorskip("pandas")
    for y in (
        [0, 1, 0, 1],
        (True, False, True, True),
        np.array([0.0, 1.0, 2.0, 0.0]),
        np.array(LABELS, dtype=object),
        pd.Series(LABELS, index=[4, 5, 6, 7]),
        pd.Series(LABELS, dtype="category"),
        pd.DataFrame({"a": [0, 1, 0, 1], "b": [0, 0, 0, 1]}),
    ):
        assert Task(X, y).y is y
    indicator = np.eye(4, dtype=int)
    for sparse in (csr_array(indicator), csr_matrix(indicator)):
        task = Task(X, sparse, X_test=X, y_test=sparse)
        assert_array_equal(task.y, indicator)
        assert_array_equal(task.y_test, indicator)


def test_samples_of_any_form(X, folder):
    pd = pytest.importorskip("pandas")
    paths = [str(path) for path in sorted(folder.glob("train/*/*.png"))]
    assert Task(folder / "train", LABELS).X == paths
    assert_array_equal(Task(pd.DataFrame({"path": paths}), LABELS).X, paths)
    assert_array_equal(Task(pd.Series(paths), LABELS).X, paths)
    dataset = Labelled([(x, 0) for x in X])
    assert Task(dataset, LABELS).X is dataset and not dataset.n_read
    bags = [Bag("a", "b", [Context("Paris lies", (0, 5), (6, 10))])] * 4
    assert Task(bags, LABELS).X is bags
    assert Task(np.ones((4, 2)), LABELS).X.shape == (4, 2)
    with pytest.raises(ValueError, match="X must have a length"):
        Task(iter(X), LABELS)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"y": None}, "y must hold the labels.*pass a dataset without labels"),
        ({"y": "abab"}, "got one str"),
        ({"y": LABELS[:3]}, "got 3 labels for 4 samples"),
        ({"y": [0, 1, None, None]}, "NaN or None for 2, the first of them sample 2"),
        ({"y": [0, 1, np.nan, 1]}, "a label for every sample, got NaN or None"),
        ({"y": np.array(["a", None, "b", "b"], object)}, "got NaN or None"),
        ({"y": [[0, 1], [1, np.nan], [0, 0], [1, 1]]}, "got NaN or None"),
        ({"y": [0, 0, 0, 0]}, "at least two classes, got one: 0"),
        ({"y": np.array(["a", 1, "b", 2], object)}, "labels of one type"),
        ({"groups": [0, 1]}, "group of each sample.* got 2 for 4"),
        ({"X_test": np.zeros((2, 8, 8))}, "must be given together"),
        ({"y_test": LABELS}, "must be given together"),
        ({"X_test": np.zeros((2, 8, 8)), "y_test": LABELS}, "got 4 labels for 2"),
        ({"X_test": np.zeros((1, 8, 8)), "y_test": [None]}, "got NaN or None"),
        (
            {"X_test": np.zeros((2, 8, 8)), "y_test": ["cat", "cow"]},
            r"no class that is not in the training part, got \['cow'\]",
        ),
        (
            {"y": np.eye(4), "X_test": np.zeros((2, 8, 8)), "y_test": np.eye(2)},
            r"columns of y, got labels of shape \(2, 2\) and \(4, 4\)",
        ),
        (
            {"y": np.eye(4), "X_test": np.zeros((2, 8, 8)), "y_test": [0, 1]},
            "y_test must have the columns of y",
        ),
    ],
)
def test_what_is_no_task(X, arguments, message):
    with pytest.raises(ValueError, match=message):
        Task(**{"X": X, "y": LABELS} | arguments)


def test_missing_labels_of_pandas(X):
    pd = pytest.importorskip("pandas")
    for y in (pd.Series([0, 1, pd.NA, 1], dtype="Int64"), pd.Series([*"aba", None])):
        with pytest.raises(ValueError, match="got NaN or None"):
            Task(X, y)


def test_a_class_may_lack_in_the_test_part(X):
    assert Task(X, LABELS, X_test=X[:1], y_test=["dog"]).y_test == ["dog"]


def test_tasks_do_not_change(X):
    task = Task(X, LABELS)
    for name in ("X", "y", "groups", "X_test", "y_test", "other"):
        with pytest.raises(FrozenInstanceError):
            setattr(task, name, None)
    with pytest.raises(FrozenInstanceError):
        del task.y


def test_tasks_are_values_by_identity(X):
    """Arrays have no truth value, so two tasks are the same where they are one."""
    task = Task(X, LABELS)
    assert task == task and task != Task(X, LABELS) and len({task, task}) == 1
    for twin in (pickle.loads(pickle.dumps(task)), copy.deepcopy(task)):
        assert_array_equal(twin.X, X)
        assert joblib.hash(twin) == joblib.hash(task)
    listed = np.asarray([task, task], dtype=object)
    assert listed.shape == (2,) and listed[0] is task


# -- folders --------------------------------------------------------------------------


def test_folders(folder):
    task = Task.from_folder(folder / "train", test=str(folder / "test"))
    assert task.y.tolist() == ["a", "a", "b", "b"] and task.y_test.tolist() == [*"ab"]
    assert [len(read(part)) for part in (task.X, task.X_test)] == [4, 2]
    assert read(task.X)[3][0, 0, 0] == 180
    assert Task.from_folder(folder / "train").X_test is None
    with pytest.raises(ValueError, match="parts of a split.*from_folder"):
        Task.from_folder(folder)
    with pytest.raises(ValueError, match="in the subfolder of its class, got 2"):
        Task.from_folder(folder / "train" / "a")
    with pytest.raises(ValueError, match="got nothing there"):
        Task.from_folder(folder / "absent")
    (folder / "test" / "b").rename(folder / "test" / "c")
    with pytest.raises(ValueError, match=r"training part, got \['c'\]"):
        Task.from_folder(folder / "train", test=folder / "test")
    for path in (folder / "train" / "b").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="at least two classes, got one: a"):
        Task.from_folder(folder / "train")


# -- Datasets of torch ----------------------------------------------------------------


def test_labels_are_taken_from_targets(X):
    import torch

    items = [(x, label, "more") for x, label in zip(X, LABELS)]
    for attributes in (
        {"targets": LABELS},
        {"labels": np.array(LABELS)},
        {"targets": None, "labels": LABELS},
    ):
        dataset = Labelled(items, **attributes)
        task = Task.from_dataset(dataset)
        assert task.y.tolist() == LABELS and task.X is dataset
        assert dataset.n_read == 0
        assert_array_equal(read(task.X), X)
    task = Task.from_dataset(Labelled(items, targets=torch.tensor([3, 1, 3, 1])))
    assert task.y.tolist() == [3, 1, 3, 1] and task.y.dtype.kind == "i"
    vectors = torch.eye(4, dtype=torch.int64)
    assert_array_equal(Task.from_dataset(Labelled(items, targets=vectors)).y, np.eye(4))


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"targets": ["of", "another", "length"]},
        {"targets": [9, 9, 8, 8], "target_transform": {9: "cat"}.get},
    ],
)
def test_labels_are_else_read_item_by_item(X, attributes):
    dataset = Labelled(list(zip(X, LABELS)), **attributes)
    assert Task.from_dataset(dataset).y.tolist() == LABELS
    assert dataset.n_read >= 4


def test_torch_datasets(X):
    import torch
    from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset

    tensors = torch.from_numpy(np.moveaxis(X, -1, 1).copy())
    dataset = TensorDataset(tensors, torch.tensor([0, 1, 0, 1]))
    for form in (dataset, Subset(ConcatDataset([dataset] * 2), range(4))):
        task = Task.from_dataset(form)
        assert task.y.tolist() == [0, 1, 0, 1]
        assert_array_equal(read(task.X), X)

    class Stream(IterableDataset):
        def __iter__(self):
            return zip(X, LABELS)

    for wrong in (Stream(), list(zip(X, LABELS)), X):
        with pytest.raises(ValueError, match="must be a map-style Dataset"):
            Task.from_dataset(wrong)
    for items in (list(X), [(x,) for x in X], [{"x": x} for x in X]):
        with pytest.raises(ValueError, match=r"must be \(image, label, ...\)"):
            Task.from_dataset(Labelled(items))
    with pytest.raises(ValueError, match="label must be None.*got 'kind'"):
        Task.from_dataset(dataset, label="kind")


# -- Datasets of Hugging Face ---------------------------------------------------------


@pytest.mark.parametrize("name", ["label", "labels", "fine_label", "class"])
def test_columns_of_labels(X, name):
    dataset = Columns(**{name: [3, 1, 3, 1], "image": list(X)})
    task = Task.from_dataset(dataset)
    assert task.y.tolist() == [3, 1, 3, 1] and task.X is dataset
    assert dataset.n_read == 0
    assert_array_equal(read(task.X), X)


def test_names_of_class_labels(X):
    import torch

    features = {"label": SimpleNamespace(names=["cat", "dog"]), "image": object()}
    for values in ([0, 1, 0, 1], np.array([0, 1, 0, 1]), torch.tensor([0, 1, 0, 1])):
        dataset = Columns(features, label=values, image=list(X))
        assert Task.from_dataset(dataset).y.tolist() == LABELS
    for missing in (-1, None):  # names[-1] would be a dog
        dataset = Columns(features, label=[0, 1, 0, missing], image=list(X))
        with pytest.raises(ValueError, match="got NaN or None"):
            Task.from_dataset(dataset)


def test_other_columns_are_named(X):
    dataset = Columns(image=list(X), kind=LABELS, label=[0, 0, 1, 1])
    assert Task.from_dataset(dataset).y.tolist() == [0, 0, 1, 1]
    assert Task.from_dataset(dataset, label="kind").y.tolist() == LABELS
    with pytest.raises(ValueError, match=r"one of \['sort'\], got .*'kind'"):
        Task.from_dataset(dataset, label="sort")
    dataset = Columns(image=list(X), kind=LABELS)
    with pytest.raises(ValueError, match=r"'fine_label'.* pass label='<its name>'"):
        Task.from_dataset(dataset)


def test_several_splits_are_no_dataset(X):
    splits = {"train": Columns(image=list(X), label=LABELS)}
    with pytest.raises(ValueError, match=r"got several, \['train'\].*dataset\['train"):
        Task.from_dataset(splits)


@pytest.mark.parametrize("form", ["torch", "columns"])
def test_classifiers_and_embedders_take_datasets_with_labels(form, dark_and_light):
    from sklearn_p2l import DatasetEmbedder, NetworkClassifier

    X, y = dark_and_light
    columns = Columns(image=list(X), label=list(y))
    dataset = Labelled(list(zip(X, y))) if form == "torch" else columns
    classifier = NetworkClassifier(image_size=16, epochs=2, random_state=0)
    expected = classifier.fit(X, y).predict_proba(X)
    for given in (dataset, Task.from_dataset(dataset)):
        assert_array_equal(classifier.fit(given).predict_proba(dataset), expected)
    embedder = DatasetEmbedder("small_resnet", weights=None, image_size=16)
    vectors = embedder.fit_transform([X, dataset, Task.from_dataset(dataset)])
    assert_array_equal(np.asarray(vectors), np.asarray(vectors)[[0, 0, 0]])


# -- tuples, mappings, and what else stands for a task --------------------------------


def test_tuples_stand_for_tasks(X):
    task = Task(X, LABELS)
    assert as_task(task) is task
    assert as_task((X, LABELS)).X is X
    assert as_task([X, LABELS, [0, 0, 1, 1]]).groups == [0, 0, 1, 1]
    task = as_task((X, LABELS, X[:1], LABELS[:1]))
    assert task.groups is None and task.y_test == ["cat"]


@pytest.mark.parametrize(
    "wrong, message",
    [
        ([0], "my task must be a Task, .* got list of length 1"),
        ((0,) * 5, r"must be a Task, \(X, y\), .* got tuple of length 5"),
        (np.zeros((4, 8, 8)), "my task must be .* got ndarray"),
        ((np.zeros((4, 8, 8)), [0, 1]), "my task: .*labels for"),
        ((np.zeros((4, 8, 8)), 7), "my task: .*got one, "),
        ((np.zeros((4, 8, 8)), [1, 1, 1, 1]), "my task: y must have at least two"),
        ((np.zeros((4, 8, 8)), LABELS, None, LABELS), "my task: .*given together"),
    ],
)
def test_what_stands_for_no_task(wrong, message):
    with pytest.raises(ValueError, match=message):
        as_task(wrong, "my task")


def test_mappings_of_tasks(X):
    task = Task(X, LABELS)
    tasks = as_tasks({"one": task, "two": (X, LABELS)}, "targets")
    assert list(tasks) == ["one", "two"] and tasks["one"] is task
    assert isinstance(tasks["two"], Task)
    for wrong in ({}, [task], None):
        with pytest.raises(ValueError, match="targets must be a non-empty mapping"):
            as_tasks(wrong, "targets")
    for name in ("", 3, None):
        with pytest.raises(ValueError, match="names of targets must be non-empty str"):
            as_tasks({name: task}, "targets")
    with pytest.raises(ValueError, match=r"targets\['two'\]: .*3 labels for 4"):
        as_tasks({"one": task, "two": (X, LABELS[:3])}, "targets")


def test_samples_and_labels_together_or_apart(X, folder):
    task = Task(X, LABELS)
    for given, y in [(X, LABELS), (task, None), (task, LABELS)]:
        samples, labels, _ = as_labelled(given, y)
        assert samples is X and labels is LABELS
    samples, labels, _ = as_labelled(folder / "train", None)
    assert len(samples) == 4 and labels.tolist() == [*"aabb"]
    assert as_labelled(folder / "train", LABELS)[1] is LABELS
    dataset = Labelled(list(zip(X, LABELS)))
    assert as_labelled(dataset, None)[0] is dataset
    assert as_labelled(dataset, None)[1].tolist() == LABELS
    with pytest.raises(ValueError, match="parts of a split"):
        as_labelled(str(folder), None)
    with pytest.raises(ValueError, match="got None.*no test part.*test_size="):
        as_labelled(task.X_test, task.y_test)
    for unlabelled in (X, list(X), "bags.tsv"):
        with pytest.raises(ValueError, match="requires y .*pass labels, a Task, a fol"):
            as_labelled(unlabelled, None)


def test_a_task_is_judged_by_its_test_part(X):
    other = Task(X, LABELS, X_test=X[:2], y_test=["cat", "dog"])
    assert [len(part) for part in as_judged(other, None)] == [2, 2]
    assert as_judged(other, LABELS)[0] is X
    assert as_judged(Task(X, LABELS), None) == (X, LABELS)


def test_a_part_of_a_folder_is_kept_to_test_on(folder, tmp_path):
    own = tmp_path / "own"
    for name in "ab":
        (own / name).mkdir(parents=True)
        for i in range(4):
            (own / name / f"{i}.png").touch()
    task = Task.from_folder(own, test_size=0.25, random_state=0)
    assert sorted(task.y) == [*"aaabbb"] and sorted(task.y_test) == [*"ab"]
    assert not set(task.X) & set(task.X_test) and len({*task.X, *task.X_test}) == 8
    again = Task.from_folder(own, test_size=2, random_state=0)
    assert again.X_test == task.X_test
    with pytest.raises(ValueError, match="test_size must leave.*got 0.9: With n_s"):
        Task.from_folder(own, test_size=0.9)
    with pytest.raises(ValueError, match="test or test_size must be None"):
        Task.from_folder(own, test=folder / "test", test_size=0.5)


def test_the_samples_of_a_task_are_its_dataset(X):
    assert dataset_of(Task(X, LABELS)) is X and dataset_of(X) is X
    assert dataset_of("folder") == "folder"


@pytest.mark.slow
def test_real_folder():
    task = Task.from_folder(real_file("data", "folders", "clothing"))
    assert len(task) == 504 and len(set(task.y)) > 1
    assert all(f"/{name}/" in path for path, name in zip(task.X, task.y))
