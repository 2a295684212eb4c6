"""Trials of the first few of a ranking: who wins, what is kept, what is told."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from joblib import parallel_config
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn import clone
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import (
    GroupKFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_val_score,
)

from sklearn_p2l import (
    FineTuner,
    NetworkClassifier,
    Source,
    SourceCatalog,
    Task,
)
from sklearn_p2l.datasets import load_small_tasks
from sklearn_p2l.samples import _images, keeping_images
from sklearn_p2l.samples._keeping import keeper
from sklearn_p2l.tuning import _finetuner
from sklearn_p2l.tuning._trials import Trial, table_of, trial_splits


class Known(ClassifierMixin, BaseEstimator):
    """Is right about a share of the samples that its start decides."""

    shares = {"a": 0.6, "b": 0.9, "c": 0.9, "none": 0.7}
    confidence = {"a": 0.9, "b": 0.6, "c": 0.8, "none": 0.9}

    def __init__(self, backbone=None, weights="none"):
        self.backbone = backbone
        self.weights = weights

    def fit(self, X, y, sample_weight=None, groups=None):
        if self.weights == "broken":
            raise ValueError("these weights cannot be read")
        if self.weights == "interrupted":
            raise KeyboardInterrupt
        self.classes_ = np.unique(y)
        self.n_, self.groups_, self.weight_ = len(y), groups, sample_weight
        return self

    def predict_proba(self, X):
        truth = np.searchsorted(self.classes_, np.asarray(X)[:, 0, 0])
        wrong = np.arange(len(X)) >= round(self.shares[self.weights] * len(X))
        p = self.confidence[self.weights]
        proba = np.full((len(X), 2), 1 - p)
        proba[np.arange(len(X)), np.where(wrong, 1 - truth, truth)] = p
        return proba

    def predict_log_proba(self, X):
        return np.log(self.predict_proba(X))

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class Ranked(BaseEstimator):
    def __init__(self, names):
        self.names = names

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def predict(self, X):
        return np.array([self.names], dtype=object)


def catalog(*names):
    return SourceCatalog(
        [Source(n, architecture="resnet18", checkpoint=n.upper()) for n in names]
    )


def make(names, *, n_candidates=3, **settings):
    zoo = catalog("a", "b", "c", "broken", "interrupted")
    zoo = SourceCatalog(
        [Source(s.name, architecture="resnet18", checkpoint=s.name) for s in zoo]
    )
    selector = Ranked(list(names)).fit(None)
    return FineTuner(selector, zoo, Known(), n_candidates=n_candidates, **settings)


@pytest.fixture
def samples():
    y = np.arange(60) % 2
    return np.tile(y[:, None, None], (1, 4, 4)).astype(np.uint8), y


@pytest.fixture
def image_reads(monkeypatch):
    """Paths of image files, each time that one is read."""
    paths, read = [], _images._read_file

    def spied(path, min_side):
        paths.append(path)
        return read(path, min_side)

    monkeypatch.setattr(_images, "_read_file", spied)
    return paths


@pytest.fixture(scope="module")
def digits():
    return load_small_tasks().held_out_targets["digits_5_to_9"]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("most", [5000, 0])
def test_trials_share_decoded_images(
    digits, tmp_path, monkeypatch, image_reads, at_once, most
):
    """Each file is read once for each way to prepare it, in trials and at the end."""
    files = []
    for i, image in enumerate(digits.X[:24]):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(files[-1])
    y = np.asarray(digits.y)[:24]
    small, large = (
        NetworkClassifier("small_resnet", image_size=size, epochs=1, random_state=0)
        .fit(digits.X[:24], y)
        .to_source(f"s{size}", checkpoint=tmp_path / f"{size}.safetensors")
        for size in (16, 24)
    )
    zoo = SourceCatalog([small, large])
    tuner = FineTuner(
        Ranked(["s16", "s24", None]).fit(None),
        zoo,
        NetworkClassifier("small_resnet", epochs=1, random_state=0),
        n_candidates=3,
        cv=2,
        n_jobs=at_once,
    )
    image_reads.clear()
    monkeypatch.setattr(_finetuner, "_MOST_KEPT", most)
    with parallel_config("threading"):
        tuner.fit(files, y)
    # Three candidates in two folds: one half to fit, one to score and for the log loss;
    # and the winner. Sizes are 16, 24 and the usual 32.
    n_times, n_sizes = 6 * 3 // 2 + 1, 3
    if not most:
        assert len(image_reads) == n_times * len(files)
    elif at_once == 1:
        assert len(image_reads) == n_sizes * len(files)
    else:  # two may read one at the same time
        assert len(image_reads) < n_times * len(files)


@pytest.mark.parametrize("free", [2**40, 0])
def test_what_is_kept_of_images(tmp_path, monkeypatch, free):
    """By the file's whole path, whatever stands for it; and where there is room."""
    usage = lambda folder: SimpleNamespace(free=free)  # noqa: E731
    monkeypatch.setattr("shutil.disk_usage", usage)
    kept = tmp_path / "kept"
    kept.mkdir()
    values = {}
    for value, name in enumerate(["cats", "dogs"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.bmp").write_bytes(b"same size and time")
        os.utime(tmp_path / name / "1.bmp", (1, 1))
        with os.scandir(tmp_path / name) as entries:
            values[next(entries)] = np.full((2, 2, 3), value, np.uint8)
    with keeping_images(kept):
        for again in (False, True):
            for entry, image in values.items():
                made = image + again
                got = keeper()(entry, ("rule",), lambda made=made: made)
                assert_array_equal(got, image if free else made)
    assert len(list(kept.iterdir())) == (2 if free else 0)


def rows(tuner, key):
    return {row["source"]: row[key] for row in tuner.candidates_}


def test_the_best_in_validation_is_trained_on_everything(samples):
    tuner = make(["a", None, "b"]).fit(*samples)
    assert tuner.source_ == "b" and tuner.estimator_.n_ == 60
    assert rows(tuner, "score") == pytest.approx({"a": 0.6, None: 0.7, "b": 0.9})
    assert rows(tuner, "chosen") == {"a": False, None: False, "b": True}
    assert [len(s) for s in rows(tuner, "scores").values()] == [3, 3, 3]
    assert all(seconds > 0 for seconds in rows(tuner, "seconds").values())
    assert_array_equal(tuner.ranking_, ["a", None, "b"])
    only_first = make(["a", None, "b"], n_candidates=1).fit(*samples)
    assert only_first.source_ == "a" and only_first.candidates_ == []
    two = make(["a", None, "b"], n_candidates=2).fit(*samples)
    assert two.source_ is None and two.estimator_.weights == "none"


def test_ties_go_to_the_lower_log_loss_and_then_to_the_rank(samples):
    tuner = make(["b", "c"]).fit(*samples)
    assert rows(tuner, "score") == pytest.approx({"b": 0.9, "c": 0.9})
    loss = rows(tuner, "log_loss")
    assert loss["c"] == pytest.approx(-0.9 * np.log(0.8) - 0.1 * np.log(0.2))
    assert loss["c"] < loss["b"] and tuner.source_ == "c"
    trials = [Trial(i, score=0.5, log_loss=1.0) for i in (0, 1)]
    assert [r["chosen"] for r in table_of(trials, ["x", "y"], 1)] == [True, False]


def test_what_cannot_be_tried_is_passed_over(samples):
    with pytest.warns(UserWarning, match="'broken' could not be tried.*cannot be read"):
        tuner = make(["broken", "a", "b"]).fit(*samples)
    assert tuner.source_ == "b"
    assert rows(tuner, "error")["broken"] == "ValueError: these weights cannot be read"
    assert np.isnan(rows(tuner, "score")["broken"])
    with pytest.raises(ValueError, match="these weights cannot be read"):
        make(["broken"], n_candidates=1).fit(*samples)
    zoo = catalog("x", "y")
    every = FineTuner(
        sources=SourceCatalog(
            [Source(s.name, architecture="r", checkpoint="broken") for s in zoo]
        ),
        estimator=Known(),
        n_candidates=2,
    )
    with pytest.raises(ValueError, match="these weights cannot be read"):
        every.fit(*samples)


def test_interrupted_trials_keep_the_best_so_far(samples):
    tuner = make(["a", "b", "interrupted"])
    with pytest.warns(ConvergenceWarning, match="interrupted.*best so far, from 'b'"):
        tuner.fit(*samples)
    assert tuner.source_ == "b" and tuner.estimator_.n_ == 40  # on a part
    assert tuner.predict(samples[0]).shape == (60,)
    with pytest.raises(KeyboardInterrupt):  # nothing was trained yet
        make(["interrupted", "a"]).fit(*samples)


def test_scoring_cv_and_jobs(samples):
    X, y = samples
    by_loss = make(["c", "a"], scoring="neg_log_loss", cv=StratifiedKFold(4)).fit(X, y)
    assert len(by_loss.candidates_[0]["scores"]) == 4
    assert by_loss.candidates_[0]["score"] == pytest.approx(
        -by_loss.candidates_[0]["log_loss"]
    )
    parallel = make(["a", "b"], n_jobs=2).fit(X, y)
    serial = make(["a", "b"]).fit(X, y)
    assert rows(parallel, "score") == rows(serial, "score")
    assert parallel.source_ == "b"


def test_trials_that_cannot_be_judged(samples):
    X, y = samples
    tuner = make(["a", "b"], scoring=lambda estimator, X, y: np.nan)
    with pytest.raises(ValueError, match="the score must be finite, got nan"):
        tuner.fit(X, y)
    one_class = [(np.arange(0, 60, 2), np.arange(1, 60, 2)), (np.arange(40), [50, 51])]
    later = make(["a", "b"], cv=one_class[::-1]).set_params(estimator=Needs())
    with pytest.raises(ValueError, match="needs two classes"):
        later.fit(X, y)


class Needs(Known):
    def fit(self, X, y, sample_weight=None, groups=None):
        if len(np.unique(y)) < 2:
            raise ValueError("needs two classes")
        return super().fit(X, y)


def test_sparse_labels(zoo, digits):
    from scipy.sparse import csr_array

    Y = np.eye(10, dtype=int)[digits.y.astype(int)][:, 5:]
    sources = SourceCatalog([Source(s.name, checkpoint=s.checkpoint) for s in zoo])
    classifier = NetworkClassifier(image_size=16, epochs=20, random_state=0)
    tuner = FineTuner(sources=sources, estimator=classifier, n_candidates=2, cv=2)
    tuner.fit(digits.X, csr_array(Y))
    assert tuner.source_ == "digits_0_to_4"
    assert tuner.predict(digits.X_test).shape == (len(digits.X_test), 5)


def test_files_that_are_gone_and_files_as_backbones(zoo, digits, tmp_path):
    gone = SourceCatalog([Source("gone", checkpoint=tmp_path / "gone.safetensors")])
    tuner = FineTuner(sources=gone, estimator=NetworkClassifier(epochs=1))
    with pytest.raises(ValueError, match="'gone' must have a checkpoint that is there"):
        tuner.fit(digits)
    one, other = (Source(s.name, checkpoint=s.checkpoint) for s in zoo)
    classifier = NetworkClassifier(
        one.checkpoint, body_learning_rate_multiplier=0, image_size=16
    )
    by_source = FineTuner(sources=SourceCatalog([other]), estimator=classifier)
    expected = clone(classifier).set_params(backbone=other.checkpoint)
    assert_array_equal(
        by_source.fit(digits).predict_proba(digits.X),
        expected.fit(digits).predict_proba(digits.X),
    )


def test_tasks_in_the_place_of_datasets(zoo, digits):
    sources = SourceCatalog([Source(s.name, checkpoint=s.checkpoint) for s in zoo])
    classifier = NetworkClassifier(body_learning_rate_multiplier=0, image_size=16)
    tuner = FineTuner(sources=sources[:1], estimator=classifier).fit(digits)
    test = Task(digits.X_test, digits.y_test)
    assert_array_equal(tuner.predict(test), tuner.predict(digits.X_test))
    assert tuner.score(test) == tuner.score(digits.X_test, digits.y_test)
    assert tuner.estimator_.score(test) == tuner.score(test)


def test_no_selector_is_needed_to_try_all(samples):
    zoo = SourceCatalog(
        [Source(n, architecture="resnet18", checkpoint=n) for n in ("a", "c")]
    )
    tuner = FineTuner(sources=zoo, estimator=Known(), n_candidates=2).fit(*samples)
    assert tuner.source_ == "c" and tuner.ranking_ is None
    with pytest.raises(ValueError, match="try them all: n_candidates=2"):
        FineTuner(sources=zoo, estimator=Known()).fit(*samples)


def test_a_missing_checkpoint_is_found_before_anything_is_trained(samples):
    bare = SourceCatalog(
        [Source("a", checkpoint="a", architecture="resnet18"), Source("bare")]
    )
    tuner = FineTuner(Ranked(["a", "bare"]).fit(None), bare, Known(), n_candidates=2)
    with pytest.raises(ValueError, match="'bare' must have a checkpoint"):
        tuner.fit(*samples)


def test_weights_and_groups_are_split_along(samples):
    X, y = samples
    groups, weight = np.arange(60) // 2, np.arange(60.0)
    seen = []

    class Spy(Known):
        def fit(self, X, y, sample_weight=None, groups=None):
            seen.append((sample_weight, groups))
            return super().fit(X, y)

    tuner = make(["a", "b"]).set_params(estimator=Spy())
    tuner.fit(X, y, groups=groups, sample_weight=weight)
    assert len(seen) == 2 * 3 + 1
    for weights, own in seen[:-1]:
        rest = np.setdiff1d(groups, own)
        assert len(own) == len(weights) and len(rest) >= 8
        assert all(np.sum(own == group) == 2 for group in own)  # never torn apart
        assert_array_equal(weights // 2, own)
    assert_array_equal(seen[-1][0], weight)
    seen.clear()
    make(["a", "b"]).set_params(estimator=Spy()).fit(Task(X, y, groups))
    assert_array_equal(seen[-1][1], groups)


def test_splits():
    y = np.arange(300) % 3
    splits = trial_splits(y, None, None)
    expected = list(StratifiedKFold(3).split(y, y))
    for (train, test), (train_, test_) in zip(splits, expected, strict=True):
        assert_array_equal(train, train_)
        assert_array_equal(test, test_)
    ((train, test),) = trial_splits(np.arange(1000) % 3, None, None)  # one part
    assert len(test) == 200 and len(train) == 800
    groups = np.arange(300) // 10
    splits = trial_splits(y, groups, 4)
    expected = list(StratifiedGroupKFold(4).split(y, y, groups))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(splits, expected))
    Y = np.eye(3, dtype=int)[y]
    assert len(trial_splits(Y, None, 5)) == 5
    by_groups = trial_splits(Y, groups, None)
    expected = list(GroupKFold(3).split(Y, Y, groups))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(by_groups, expected))
    pairs = np.repeat(np.arange(12), 2)  # sorted, two of each
    for train, test in trial_splits(pairs, None, None):
        assert set(pairs[train]) == set(pairs[test]) == set(range(12))
    for train, _ in trial_splits(np.repeat(np.eye(3, dtype=int), 20, axis=0), None, 3):
        assert (np.repeat(np.eye(3), 20, axis=0)[train].sum(axis=0) > 5).all()
    for a, b in zip(trial_splits(y, None, np.int64(4)), trial_splits(y, None, 4)):
        assert_array_equal(a[1], b[1])
    for groups in (np.zeros(300), None):
        wrong = {"groups": groups, "cv": StratifiedKFold(3)}
        if groups is None:
            wrong = {"groups": None, "cv": StratifiedKFold(301)}
        else:
            wrong["cv"] = None
        with pytest.raises(ValueError, match="split for trials.*n_candidates=1"):
            trial_splits(y, **wrong)
    few = trial_splits(np.array(["a", "b", "a", "b", "c"]), None, None)
    assert sorted(np.concatenate([test for _, test in few])) == [0, 1, 2, 3, 4]
    assert len(trial_splits(np.array([0, 1, 2]), None, 10)) == 3  # one of each


@pytest.mark.slow
def test_a_planted_best_source_is_found(zoo, digits, tmp_path):
    """It was trained on the very task, and is ranked last."""
    classifier = NetworkClassifier(image_size=16, epochs=4, random_state=0)
    known = clone(classifier).set_params(epochs=30).fit(digits.X_test, digits.y_test)
    planted = known.to_source("planted", checkpoint=tmp_path / "planted.safetensors")
    sources = SourceCatalog([*(Source(s.name, checkpoint=s.checkpoint) for s in zoo)])
    sources = sources.append(planted)
    names = ["flower_edges", None, "planted"]
    tuner = FineTuner(Ranked(names).fit(None), sources, classifier, n_candidates=3)
    tuner.fit(digits)
    assert tuner.source_ == "planted"
    best = rows(tuner, "score")
    assert best["planted"] == max(best.values())
    by_hand = clone(classifier).set_params(weights=planted.checkpoint)
    expected = cross_val_score(by_hand, digits.X, digits.y, cv=3)
    assert rows(tuner, "scores")["planted"] == pytest.approx(expected)
    final = by_hand.fit(digits.X, digits.y).predict_proba(digits.X_test)
    assert_array_equal(tuner.predict_proba(digits.X_test), final)
