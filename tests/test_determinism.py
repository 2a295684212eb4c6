"""The same seed gives the same result, and nothing global is other than before."""

import contextlib
import os
import pickle
import random
import signal
import threading
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from sklearn_p2l import (
    DatasetEmbedder,
    EvidenceSelector,
    FineTuner,
    NetworkClassifier,
    Task,
)
from sklearn_p2l.ground_truth import measure_improvement
from sklearn_p2l.selection import _opened

IMAGE_SIZE = 12


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 255, (24, 16, 16, 3), dtype=np.uint8)
    y = np.arange(24) % 2
    X[y == 1] //= 2
    return Task(X, y, X_test=X[:8], y_test=y[:8])


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    """Scores of networks that were opened before are not remembered."""
    monkeypatch.setattr(_opened, "_kept", type(_opened._kept)())


def classifier(**settings):
    return NetworkClassifier(
        "small_resnet", image_size=IMAGE_SIZE, epochs=2, random_state=0, **settings
    )


def embed(zoo, task, folder):
    embedder = DatasetEmbedder("small_resnet", weights=None, random_state=0)
    return embedder.set_params(image_size=16).fit_transform([task.X, task.X[::2]])


def open_sources(zoo, task, folder, **settings):
    selector = EvidenceSelector(zoo, image_size=IMAGE_SIZE, **settings)
    return selector.fit([task]).decision_function([task])


def fit(zoo, task, folder):
    return classifier().fit(task).predict_proba(task.X)


def fit_in_a_folder(zoo, task, folder):
    tuned = classifier(checkpoint_folder=folder / "states").fit(task)
    return tuned.predict_proba(task.X)


def measure(zoo, task, folder, n_jobs=None):
    measured = measure_improvement(
        {"task": task}, zoo, classifier(), folder=folder / "measured", n_jobs=n_jobs
    )
    return measured.records["performance"].to_numpy()


def try_sources(zoo, task, folder, n_jobs=None):
    selector = EvidenceSelector(zoo, image_size=IMAGE_SIZE).fit([task])
    tuner = FineTuner(selector, zoo, classifier(), n_candidates=2, cv=2, n_jobs=n_jobs)
    return tuner.fit(task).predict_proba(task.X)


def global_state():
    numpys = np.random.get_state(legacy=False)  # noqa: NPY002
    return {
        "torch's random state": torch.get_rng_state().tolist(),
        "numpy's random state": (numpys["state"]["key"].tolist(), numpys["has_gauss"]),
        "Python's random state": random.getstate(),
        "threads of torch": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "gradients": torch.is_grad_enabled(),
        "type of numbers": torch.get_default_dtype(),
        "algorithms": (
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.backends.mkldnn.enabled,
            torch.get_float32_matmul_precision(),
        ),
        "calls of modules": torch.nn.Module.__call__,
        "filters of warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "handlers": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
        "folder": os.getcwd(),
        "threads": {t.name for t in threading.enumerate() if not t.daemon},
    }


@pytest.mark.parametrize("misfortune", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("work", [embed, open_sources, fit, fit_in_a_folder, measure])
def test_nothing_global_is_other_than_before(
    work, misfortune, zoo, task, tmp_path, monkeypatch
):
    """Nor after an error, or Ctrl-C, in the midst of a network's pass."""
    happened = []
    if misfortune is not None:
        forward = torch.nn.Conv2d.forward

        def unlucky(module, x):
            happened.append(1)
            if len(happened) == 20:
                raise misfortune("in the midst")
            return forward(module, x)

        monkeypatch.setattr(torch.nn.Conv2d, "forward", unlucky)
    before = global_state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(RuntimeError, KeyboardInterrupt):
            work(zoo, task, tmp_path)
    after = global_state()
    for what, value in before.items():
        assert after[what] == value, what
    assert misfortune is None or len(happened) >= 20


@pytest.mark.parametrize("work", [embed, open_sources, fit, fit_in_a_folder, measure])
def test_the_same_whatever_was_drawn_before(work, zoo, task, tmp_path):
    first = work(zoo, task, tmp_path / "first")
    torch.manual_seed(1)
    np.random.seed(2)  # noqa: NPY002
    random.seed(3)
    _opened._kept.clear()
    assert_array_equal(work(zoo, task, tmp_path / "second"), first)


@pytest.mark.slow
def test_the_same_from_memory_in_parallel_and_after_pickling(zoo, task, tmp_path):
    expected = open_sources(zoo, task, None)
    for settings in ({"memory": tmp_path}, {"memory": tmp_path}, {"n_jobs": 2}):
        _opened._kept.clear()
        assert_array_equal(open_sources(zoo, task, None, **settings), expected)
    selector = EvidenceSelector(zoo, image_size=IMAGE_SIZE).fit([task])
    _opened._kept.clear()
    unpickled = pickle.loads(pickle.dumps(selector))
    assert_array_equal(unpickled.decision_function([task]), expected)


def test_trials_are_the_same_one_by_one_and_in_parallel(zoo, task, tmp_path):
    expected = try_sources(zoo, task, None)
    assert_array_equal(try_sources(zoo, task, None, n_jobs=2), expected)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_caller_that_casts_changes_nothing(task, precision):
    """autocast would go on with weights as they were when it cast them first."""
    settings = dict(precision=precision, early_stopping=True, validation_fraction=0.25)
    expected = classifier(**settings).fit(task.X, task.y)
    with torch.autocast("cpu", torch.bfloat16):
        got = classifier(**settings).fit(task.X, task.y)
        assert_array_equal(got.predict_proba(task.X), expected.predict_proba(task.X))
    for name, value in expected.weights_.items():
        assert_array_equal(got.weights_[name], value)
