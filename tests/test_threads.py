"""Threads of one process: the same results as alone, and nothing left behind."""

import pickle
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from threadpoolctl import threadpool_info

from sklearn_p2l import DatasetEmbedder, NetworkClassifier, networks
from sklearn_p2l._workers import one_blas_thread
from sklearn_p2l.networks.turns import Passes, Turns


@pytest.fixture(autouse=True)
def often():
    """Threads change as often as they can, so that what can go wrong does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_unpickled_classifier_predicts_in_threads(dark_and_light):
    X, y = dark_and_light
    trained = NetworkClassifier(image_size=16, epochs=1, random_state=0).fit(X, y)
    expected, content = trained.predict_proba(X), pickle.dumps(trained)
    for _ in range(5):
        served = pickle.loads(content)
        with ThreadPoolExecutor(6) as pool:
            results = list(pool.map(served.predict_proba, [X] * 6))
        for result in results:
            assert_array_equal(result, expected)
    torch.nn.Linear(2, 2)(torch.zeros(1, 2))  # nobody else's network is harmed


@pytest.mark.slow
def test_who_opens_and_who_predicts_do_not_meet(dark_and_light):
    """Tracing replaces how all networks of the process are called."""
    X, _ = dark_and_light
    network = networks.open_network("small_resnet", weights=None, image_size=16)
    batch, stop = network.preprocess(X), threading.Event()
    with torch.inference_mode():
        expected = network(batch)

    def predict():
        while not stop.is_set():
            with torch.inference_mode():
                assert torch.equal(network(batch), expected)

    def open_another(seed):
        name = ("small_resnet", "resnet18")[seed % 2]
        return networks.open_network(name, weights=None, image_size=32, seed=seed)

    with ThreadPoolExecutor(5) as pool:
        predicting = [pool.submit(predict) for _ in range(2)]
        opened = list(pool.map(open_another, range(6)))
        stop.set()
        for one in predicting:
            one.result()
    for seed, one in enumerate(opened):
        alone = open_another(seed)
        assert one.features_hash() == alone.features_hash()


def test_the_same_seed_gives_the_same_weights_in_threads():
    def fit(_):
        embedder = DatasetEmbedder("small_resnet", weights=None, random_state=0)
        return embedder.fit([np.zeros((1, 8, 8), np.uint8)]).fingerprint_

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(fit, range(12)))) == 1


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_trainings_in_threads_are_those_of_one(dark_and_light):
    """With somebody opening networks between their epochs."""
    X, y = dark_and_light

    def train(seed):
        classifier = NetworkClassifier(image_size=16, epochs=4, random_state=seed)
        return classifier.fit(X, y).predict_proba(X)

    def open_some(_):
        for seed in range(4):
            networks.open_network("small_resnet", weights=None, seed=seed)

    alone = [train(seed) for seed in range(3)]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        opening = pool.submit(open_some, None)
        together = list(pool.map(train, range(3)))
        opening.result()
    assert_array_equal(together, alone)
    assert torch.equal(torch.get_rng_state(), before)


def test_many_pass_at_a_time_and_a_tracing_is_alone():
    passes, inside, log = Passes(), threading.Barrier(2, timeout=10), []

    def a_pass():
        with passes.passing():
            inside.wait()  # both are
            time.sleep(0.05)
            log.append("pass")

    def a_tracing():
        with passes.tracing():
            log.append("begin")
            with passes.passing(), passes.tracing():  # as often as it likes
                time.sleep(0.02)
            log.append("end")

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(a_pass), pool.submit(a_pass)]
        time.sleep(0.02)
        jobs += [pool.submit(a_tracing), pool.submit(a_tracing)]
        for job in jobs:
            job.result(timeout=10)
    assert log == ["pass", "pass", "begin", "end", "begin", "end"]


def test_passes_that_find_something_to_trace_do_not_wait_for_each_other():
    passes, inside, done = Passes(), threading.Barrier(3, timeout=10), []

    def a_pass(number):
        with passes.passing():
            inside.wait()
            with passes.tracing():
                done.append(number)

    with ThreadPoolExecutor(3) as pool:
        for job in [pool.submit(a_pass, i) for i in range(3)]:
            job.result(timeout=10)
    assert sorted(done) == [0, 1, 2]


def test_who_gives_way_lets_others_in():
    turns, log = Turns(), []

    def short():
        with turns:
            log.append("short")

    with turns:
        turns.give_way()  # nobody waits
        thread = threading.Thread(target=short)
        thread.start()
        while not turns._n_waiting:
            time.sleep(0.001)
        log.append("long")
        turns.give_way()
        thread.join(timeout=10)
        log.append("long again")
    assert log == ["long", "short", "long again"]


def test_two_that_limit_blas_leave_it_as_it_was():
    def threads():
        return {p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"}

    before = threads()
    first, second = one_blas_thread(), one_blas_thread()
    first.__enter__()
    second.__enter__()
    assert threads() == {1}
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert threads() == before
    with one_blas_thread():
        assert threads() == {1}
    assert threads() == before
