"""FineTuner chooses the start, and hands everything else to its estimator."""

import joblib
import numpy as np
import pytest
from conftest import real_file
from numpy.testing import assert_array_equal
from sklearn import clone, config_context
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError, UnsetMetadataPassedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from sklearn_p2l import (
    DatasetEmbedder,
    FineTuner,
    NetworkClassifier,
    Source,
    SourceCatalog,
    SourceSelector,
    Task,
)
from sklearn_p2l.datasets import load_small_tasks
from sklearn_p2l.selection import NoTransfer

# Most tests train for a moment, which often teaches nothing.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Training .* always giving the shares:sklearn.exceptions.ConvergenceWarning"
)

CLASSIFIER = NetworkClassifier(image_size=16, epochs=2, random_state=0)


def make_embedder():
    return DatasetEmbedder("small_resnet", weights=None, image_size=16, random_state=0)


@pytest.fixture(scope="module")
def digits():
    return load_small_tasks().held_out_targets["digits_5_to_9"]


class Spy(BaseEstimator):
    """A ranker that keeps what it was shown."""

    def __init__(self, names):
        self.names = names

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def predict(self, X):
        self.seen_ = X
        return np.array([self.names])


class Mean(ClassifierMixin, BaseEstimator):
    """An estimator of another kind, which asks for weights."""

    def __init__(self, backbone=None, weights=None):
        self.backbone = backbone
        self.weights = weights

    def fit(self, X, y, sample_weight=None):
        self.classes_ = np.unique(y)
        self.sample_weight_ = sample_weight
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])

    def score(self, X, y, sample_weight=None):
        return None if sample_weight is None else float(np.sum(sample_weight))


def test_the_selector_chooses(zoo, digits):
    X, y = digits.X, digits.y
    pipe = make_pipeline(make_embedder(), SourceSelector(zoo, k=-5.0))
    # an unfitted selector with a number for k needs no training targets
    tuner = FineTuner(pipe, zoo, CLASSIFIER).fit(X, y)
    assert tuner.source_ == "digits_0_to_4"
    assert_array_equal(tuner.ranking_, zoo.names)
    assert not hasattr(pipe[-1], "k_") and hasattr(tuner.selector_[-1], "k_")
    by_hand = clone(CLASSIFIER).set_params(weights=zoo["digits_0_to_4"].checkpoint)
    expected = by_hand.fit(X, y).predict_proba(X)
    assert_array_equal(tuner.predict_proba(X), expected)
    assert_array_equal(tuner.classes_, by_hand.classes_)
    assert_array_equal(tuner.predict(X), by_hand.predict(X))
    assert_array_equal(tuner.decision_function(X), by_hand.decision_function(X))
    assert tuner.score(digits.X_test, digits.y_test) == by_hand.score(
        digits.X_test, digits.y_test
    )
    fitted = clone(pipe).fit([X])
    frozen = FineTuner(FrozenEstimator(fitted), zoo, CLASSIFIER).fit(digits)
    assert_array_equal(frozen.predict_proba(X), expected)
    unlearned = make_pipeline(make_embedder(), SourceSelector(zoo))
    with pytest.raises(ValueError, match="requires y to be passed.*FrozenEstimator"):
        FineTuner(unlearned, zoo, CLASSIFIER).fit(X, y)


def test_the_selector_sees_samples_and_labels(zoo, digits):
    spy = Spy(["flower_edges", "digits_0_to_4"]).fit(None)
    tuner = FineTuner(spy, zoo, CLASSIFIER).fit(digits.X, digits.y)
    (task,) = spy.seen_
    assert isinstance(task, Task)
    assert_array_equal(task.X, digits.X)
    assert_array_equal(task.y, digits.y)
    assert tuner.source_ == "flower_edges" and tuner.selector_ is spy


def test_one_source_needs_no_selector(zoo, digits):
    spy = Spy(list(zoo.names)).fit(None)
    tuner = FineTuner(spy, zoo, CLASSIFIER).fit(digits)
    assert tuner.selector_ is spy
    tuner.set_params(selector=None, sources=zoo[["flower_edges"]]).fit(digits)
    assert tuner.source_ == "flower_edges"
    assert tuner.selector_ is None and tuner.ranking_ is None  # nothing stays of it
    with pytest.raises(ValueError, match=r"among several.*sources\[\[name\]\]"):
        FineTuner(sources=zoo, estimator=CLASSIFIER).fit(digits)


def test_no_transfer_trains_the_estimator_as_it_is(zoo, digits):
    selector = make_pipeline(make_embedder(), NoTransfer(zoo))
    tuner = FineTuner(selector, zoo, CLASSIFIER).fit(digits)
    assert tuner.source_ is None and tuner.ranking_[0] is None
    expected = clone(CLASSIFIER).fit(digits).predict_proba(digits.X)
    assert_array_equal(tuner.predict_proba(digits.X), expected)


def test_published_checkpoints_are_passed_on_as_names(digits):
    source = Source(
        "imagenet",
        size=1_281_167,
        architecture="squeezenet1_1",
        checkpoint="IMAGENET1K_V1",
    )
    tuner = FineTuner(sources=SourceCatalog([source]), estimator=Mean()).fit(digits)
    assert tuner.estimator_.backbone == "squeezenet1_1"
    assert tuner.estimator_.weights == "IMAGENET1K_V1"


def test_model_selection(zoo, digits):
    X, y = digits.X, digits.y
    pipe = make_pipeline(make_embedder(), SourceSelector(zoo, k=-5.0))
    tuner = FineTuner(pipe, zoo, CLASSIFIER)
    grid = {
        "estimator__learning_rate": [0.01, 1e-5],
        "selector__sourceselector__k": [-5.0, 5.0],
    }
    search = GridSearchCV(tuner, grid, cv=2, error_score="raise").fit(list(X), y)
    assert search.best_params_["estimator__learning_rate"] == 0.01
    expected = {-5.0: "digits_0_to_4", 5.0: "flower_edges"}
    k = search.best_params_["selector__sourceselector__k"]
    assert search.best_estimator_.source_ == expected[k]
    frozen = FineTuner(FrozenEstimator(pipe.fit([X])), zoo, CLASSIFIER)
    scores = cross_val_score(frozen, X, y, cv=2, n_jobs=2, error_score="raise")
    assert scores.shape == (2,)
    far = make_pipeline(make_embedder(), SourceSelector(zoo, k=5.0)).fit([X])
    near = FrozenEstimator(pipe)
    search = GridSearchCV(
        frozen, {"selector": [near, FrozenEstimator(far)]}, cv=2, error_score="raise"
    ).fit(X, y)
    picked = "digits_0_to_4" if search.best_index_ == 0 else "flower_edges"
    assert search.best_estimator_.source_ == picked
    unfitted = FrozenEstimator(clone(pipe))
    with pytest.raises(NotFittedError, match="fitted before it is frozen"):
        FineTuner(unfitted, zoo, CLASSIFIER).fit(X, y)


@pytest.mark.parametrize("routing", [False, True])
def test_metadata_reaches_the_estimator(zoo, digits, routing):
    weight = np.arange(len(digits), dtype=float)
    inner = Mean()
    with config_context(enable_metadata_routing=routing):
        if routing:
            inner.set_fit_request(sample_weight=True)
            inner.set_score_request(sample_weight=True)
        tuner = FineTuner(sources=zoo[["flower_edges"]], estimator=inner)
        tuner.fit(digits.X, digits.y, sample_weight=weight)
        assert_array_equal(tuner.estimator_.sample_weight_, weight)
        score = tuner.score(digits.X, digits.y, sample_weight=weight)
        assert score == weight.sum()
        if routing:
            tuner.set_params(estimator=Mean())
            with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
                tuner.fit(digits.X, digits.y, sample_weight=weight)


def test_metadata_of_the_classifier_itself(zoo, digits):
    with config_context(enable_metadata_routing=True):
        classifier = clone(CLASSIFIER).set_fit_request(sample_weight=True)
        tuner = FineTuner(sources=zoo[["flower_edges"]], estimator=classifier)
        weighted = tuner.fit(
            digits, sample_weight=(digits.y == 7).astype(float)
        ).predict(digits.X)
    assert set(weighted) == {7}


def test_persistence(zoo, digits, tmp_path):
    tuner = FineTuner(sources=zoo[["flower_edges"]], estimator=CLASSIFIER).fit(digits)
    joblib.dump(tuner, tmp_path / "tuner.joblib")
    loaded = joblib.load(tmp_path / "tuner.joblib")
    assert_array_equal(loaded.predict_proba(digits.X), tuner.predict_proba(digits.X))
    source = tuner.to_source("new", checkpoint=tmp_path / "new.safetensors")
    assert source.n_classes == 5 and source.architecture == "small_resnet"


def test_signed_features_are_refused_before_anything_is_embedded(
    zoo, digits, monkeypatch
):
    from sklearn_p2l import networks

    def never(*args, **kwargs):
        raise AssertionError("something was embedded")

    embedder = DatasetEmbedder("vit_b_16", weights=None, random_state=0)
    pipe = make_pipeline(embedder, SourceSelector(zoo, k=-1.0))
    monkeypatch.setattr(networks, "extract_features", never)
    with pytest.raises(ValueError, match="have a sign.*pass metric='cityblock'"):
        FineTuner(pipe, zoo, CLASSIFIER).fit(digits)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(sources=None), "sources must be a SourceCatalog.*NetworkClassifier"),
        (
            dict(selector=Spy(["zebra"]).fit(None)),
            "must be in the catalog, got 'zebra'",
        ),
        (
            dict(sources=SourceCatalog([Source("bare", size=1, embedding=[1.0])])),
            "source 'bare' must have a checkpoint",
        ),
    ],
)
def test_nothing_to_start_from(change, message, zoo, digits):
    tuner = FineTuner(sources=zoo, estimator=CLASSIFIER).set_params(**change)
    with pytest.raises(ValueError, match=message):
        tuner.fit(digits)
    with pytest.raises(NotFittedError):
        tuner.predict(digits.X)


def test_a_failed_refit_is_not_fitted(zoo, digits):
    tuner = FineTuner(sources=zoo[["flower_edges"]], estimator=CLASSIFIER).fit(digits)
    with pytest.raises(ValueError, match="at least two classes"):
        tuner.fit(digits.X, np.zeros(len(digits)))
    with pytest.raises(NotFittedError):
        tuner.score(digits.X, digits.y)


@pytest.mark.slow
def test_a_real_network_is_the_better_start():
    """Scanned digits from a real ImageNet network, against random weights."""
    start = real_file("models", "squeezenet1_1.safetensors")
    source = Source(
        "imagenet", size=1_281_167, checkpoint=start, architecture="squeezenet1_1"
    )
    task = load_small_tasks().training_targets["digits"]
    classifier = NetworkClassifier(
        "squeezenet1_1", image_size=64, epochs=8, learning_rate=0.002, random_state=0
    )
    tuner = FineTuner(sources=SourceCatalog([source]), estimator=classifier).fit(task)
    none = clone(classifier).fit(task)
    assert tuner.score(task.X_test, task.y_test) > 0.3 + none.score(
        task.X_test, task.y_test
    )
