"""ground_truth: what is measured, that nothing is lost, and that nothing is mixed."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.sparse import csr_matrix
from sklearn import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import balanced_accuracy_score, fbeta_score, make_scorer
from sklearn.model_selection import train_test_split

from sklearn_p2l import (
    DatasetEmbedder,
    NetworkClassifier,
    Source,
    SourceCatalog,
    Task,
    _workers,
)
from sklearn_p2l.exceptions import FailedCellsWarning
from sklearn_p2l.ground_truth import (
    _estimate,
    _records,
    measure_improvement,
    split_quarters,
    train_sources,
)
from sklearn_p2l.ground_truth._protocol import describe
from sklearn_p2l.ground_truth._splits import split_task
from sklearn_p2l.ground_truth._tables import tables_of

pytest.importorskip("pandas")


def stripes(n, angle, seed):
    """Noisy stripes of two widths: a task that can be learned, and its labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    along = np.arange(8) + rng.integers(8, size=(n, 1))
    wave = np.where(along // (1 + y[:, None]) % 2, 170, 90)
    X = np.repeat(wave[:, :, None] if angle else wave[:, None, :], 8, axis=3 - 1)
    X = np.broadcast_to(X if angle else wave[:, None, :], (n, 8, 8))
    noise = rng.integers(-60, 60, size=(n, 8, 8))
    return (X + noise).astype(np.uint8), np.array(["thin", "wide"])[y]


# Most tests train for a moment, which often teaches nothing.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*always giving the shares:sklearn.exceptions.ConvergenceWarning"
)

CLASSIFIER = NetworkClassifier(
    "small_resnet", image_size=8, epochs=2, batch_size=8, learning_rate=0.05
)
EMBEDDER = DatasetEmbedder("small_resnet", weights=None, image_size=8, random_state=0)
ACROSS, DOWN = stripes(30, 0, 2), stripes(40, 1, 4)
TARGETS = {
    "across": Task(*ACROSS, None, *stripes(40, 0, 3)),
    "down": DOWN,  # a tuple stands for a task
}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    sources = {"s0": stripes(40, 0, 0), "s1": (*stripes(24, 1, 1), *stripes(20, 1, 5))}
    folder = tmp_path_factory.mktemp("zoo")
    return train_sources(
        sources, CLASSIFIER, embedder=EMBEDDER, folder=folder, verbose=0
    )


@pytest.fixture(scope="module")
def measured(zoo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    result = measure_improvement(
        TARGETS, zoo, CLASSIFIER, folder=folder, seeds=(0, 1), verbose=0
    )
    return folder, result


def by_hand(zoo, target, source, seed):
    """P(M(t, s)) without the function under test."""
    if target == "across":
        (X, y), (X_test, y_test) = ACROSS, stripes(40, 0, 3)
    else:
        X, X_test, y, y_test = train_test_split(
            *DOWN, test_size=0.2, stratify=DOWN[1], random_state=seed
        )
    classifier = NetworkClassifier(
        weights=None if source is None else zoo[source].checkpoint,
        image_size=8,
        epochs=2,
        batch_size=8,
        learning_rate=0.05,
        random_state=seed,
    )
    return classifier.fit(X, y).score(X_test, y_test)


def test_matrix_is_that_of_fine_tuning_by_hand(zoo, measured):
    _, result = measured
    gains = np.empty((2, 2, 2))
    for i, target in enumerate(TARGETS):
        without = [by_hand(zoo, target, None, seed) for seed in (0, 1)]
        assert result.baseline[target] == pytest.approx(np.mean(without))
        for j, source in enumerate(zoo.names):
            scores = [by_hand(zoo, target, source, seed) for seed in (0, 1)]
            assert result.performances.loc[target, source] == pytest.approx(
                np.mean(scores)
            )
            gains[i, j] = np.subtract(scores, without)
    assert list(result.improvements.index) == list(TARGETS)
    assert list(result.improvements.columns) == list(zoo.names)
    np.testing.assert_allclose(result.improvements, gains.mean(axis=2))
    np.testing.assert_allclose(result.spread, gains.std(axis=2, ddof=1))
    assert gains.std() > 0


def test_records_say_how_they_were_made(measured):
    folder, result = measured
    assert len(result.records) == len(list(folder.glob("*.json"))) == 12
    one = json.loads(next(folder.glob("down--s1--1--*.json")).read_text())
    assert (one["target"], one["source"], one["seed"]) == ("down", "s1", 1)
    assert (one["n_train"], one["n_test"], one["epochs"]) == (32, 8, 2)
    assert one["error"] is None and one["seconds"] > 0 and one["split"]
    assert one["protocol"]["learning_rate"] == 0.05
    assert one["protocol"]["test_size"] == 0.2
    assert one["versions"]["torch"] == torch.__version__
    assert not list(folder.glob("*.lock"))


def states(folder):
    return {p.name: p.stat().st_mtime_ns for p in Path(folder).glob("*.json")}


def test_only_what_is_missing_is_measured(zoo, measured, tmp_path):
    folder, result = measured
    before = states(folder)
    lost = next(folder.glob("across--s0--0--*.json"))
    lost.unlink()
    again = measure_improvement(
        TARGETS, zoo, CLASSIFIER, folder=folder, seeds=(0, 1), verbose=0
    )
    after = states(folder)
    assert {name for name in after if after[name] != before[name]} == {lost.name}
    np.testing.assert_array_equal(again.improvements, result.improvements)
    fewer = measure_improvement(
        {"down": TARGETS["down"]}, zoo[["s1"]], CLASSIFIER, folder=folder, verbose=0
    )
    assert states(folder) == after and fewer.improvements.shape == (1, 1)
    assert np.isnan(fewer.spread.loc["down", "s1"])


def test_dry_run_trains_nothing(zoo, measured, tmp_path, capsys):
    folder, _ = measured
    before = states(folder)
    arguments = dict(folder=folder, seeds=(0, 1, 2), dry_run=True)
    so_far = measure_improvement(TARGETS, zoo, CLASSIFIER, **arguments)
    printed = capsys.readouterr().out
    assert "2 targets × (2 sources + no transfer) × 3 seeds: 18 cells" in printed
    assert "12 measured, 6 to do; about" in printed
    assert states(folder) == before and not so_far.improvements.isna().any(axis=None)
    arguments |= {"folder": tmp_path / "new"}
    nothing = measure_improvement(TARGETS, zoo, CLASSIFIER, **arguments)
    assert "18 to do" in capsys.readouterr().out
    assert nothing.improvements.isna().all(axis=None)
    assert nothing.improvements.shape == (2, 2)


@pytest.mark.parametrize(
    "change, n_steps, passes",
    [({}, None, 2), ({"epochs": 7}, None, 7), ({"epochs": 7}, 20, 5), ("probe", 20, 1)],
)
def test_estimate_counts_the_passes(
    zoo, tmp_path, capsys, monkeypatch, change, n_steps, passes
):
    """At a second a sample; from random weights, two seconds, and no probe."""

    multiplier = 1.0
    if change == "probe":
        multiplier, change = 0, {"body_learning_rate_multiplier": 0}

    def time_training(arguments):
        return (2.0, 1.0) if arguments["source"] is None else (1.0, multiplier)

    monkeypatch.setattr(_estimate, "_time_training", time_training)
    classifier = NetworkClassifier(**{**CLASSIFIER.get_params(), **change})
    measure_improvement(
        {"down": TARGETS["down"]},
        zoo,
        classifier,
        folder=tmp_path,
        n_steps=n_steps,
        dry_run=True,
    )
    from_random = 5 if passes == 1 else passes  # which no probe starts from
    minutes = 32 * (2 * passes + 2 * from_random) / 60  # the rest is tested on
    assert f"about {minutes:.1f} minutes" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, told",
    [
        ({"epochs": 3}, "epochs was 2, is 3"),
        ({"learning_rate": 0.1}, "learning_rate was 0.05, is 0.1"),
    ],
)
def test_another_protocol_is_refused(zoo, measured, change, told):
    folder, _ = measured
    other = NetworkClassifier(**{**CLASSIFIER.get_params(), **change})
    with pytest.raises(ValueError, match=told):
        measure_improvement(TARGETS, zoo, other, folder=folder, verbose=0)
    # also for targets that the folder does not hold yet
    with pytest.raises(ValueError, match=told):
        measure_improvement({"n": TARGETS["down"]}, zoo, other, folder=folder)
    with pytest.raises(ValueError, match="test_size was 0.2, is 0.5"):
        measure_improvement(TARGETS, zoo, CLASSIFIER, folder=folder, test_size=0.5)
    with pytest.raises(ValueError, match="scoring was None, is 'f1_macro'"):
        measure_improvement(TARGETS, zoo, CLASSIFIER, folder=folder, scoring="f1_macro")


def test_other_data_under_a_known_name_is_refused(zoo, measured, tmp_path):
    folder, _ = measured
    X, y = TARGETS["down"]
    with pytest.raises(ValueError, match="the data of down .* is another"):
        measure_improvement({"down": (255 - X, y)}, zoo, CLASSIFIER, folder=folder)
    with pytest.raises(ValueError, match="the data of down .* is another"):
        measure_improvement({"down": (X, y[::-1])}, zoo, CLASSIFIER, folder=folder)
    swapped = SourceCatalog.from_arrays(
        zoo.embeddings,
        sizes=zoo.sizes,
        names=zoo.names,
        checkpoints=[zoo[1].checkpoint, zoo[0].checkpoint],
        architectures="small_resnet",
    )
    with pytest.raises(ValueError, match="the checkpoint of across .* is another"):
        measure_improvement(TARGETS, swapped, CLASSIFIER, folder=folder)


def test_a_failing_cell_is_nan_and_the_run_goes_on(zoo, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no weights")
    sources = SourceCatalog.from_arrays(
        zoo.embeddings,
        sizes=zoo.sizes,
        names=["broken", "whole"],
        checkpoints=[broken, zoo[1].checkpoint],
        architectures="small_resnet",
    )
    arguments = dict(folder=tmp_path / "measured", verbose=0)
    with pytest.warns(FailedCellsWarning, match="1 of 3 cells failed.*down ← broken"):
        result = measure_improvement(
            {"down": TARGETS["down"]}, sources, CLASSIFIER, **arguments
        )
    assert np.isnan(result.improvements.loc["down", "broken"])
    assert np.isfinite(result.improvements.loc["down", "whole"])
    error = result.records.set_index("source").loc["broken", "error"]
    assert "must be a safetensors file" in error
    arguments["retry_failures"] = True
    before = states(tmp_path / "measured")
    measure_improvement(
        {"down": TARGETS["down"]}, sources, CLASSIFIER, dry_run=True, **arguments
    )
    assert states(tmp_path / "measured") == before
    broken.write_bytes(Path(zoo[0].checkpoint).read_bytes())
    result = measure_improvement(
        {"down": TARGETS["down"]}, sources, CLASSIFIER, **arguments
    )
    assert np.isfinite(result.improvements).all(axis=None)


def test_an_interrupted_training_is_no_result(zoo, tmp_path, interrupt_in_epoch):
    interrupt_in_epoch(2)
    with pytest.raises(KeyboardInterrupt):
        measure_improvement(TARGETS, zoo, CLASSIFIER, folder=tmp_path, verbose=0)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_worker_takes_no_further_job(tmp_path, monkeypatch):
    """Interrupted while it traces a network, PyTorch may be left patched."""

    def interrupted(estimator, known):
        raise KeyboardInterrupt

    settings = dict(n_workers=2, parent=("another", 0))
    arguments = dict(estimator=CLASSIFIER, known={})
    monkeypatch.setattr(_records, "_interrupted", False)
    for function in (interrupted, dict):
        with pytest.raises(KeyboardInterrupt):
            _records.run_job(tmp_path / "a.json", function, arguments, **settings)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_that_becomes_an_error_is_no_result(tmp_path):
    def swallowed(estimator, known):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("a broken file") from None

    settings = dict(n_workers=1, parent=_workers.this_process())
    arguments = dict(estimator=CLASSIFIER, known={})
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # or ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            _records.run_job(tmp_path / "a.json", swallowed, arguments, **settings)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert not list(tmp_path.iterdir())


def test_scoring_and_steps(zoo, tmp_path):
    (X, y), (X_test, y_test) = ACROSS, stripes(40, 0, 3)
    keep = np.r_[np.flatnonzero(y_test == "thin"), np.flatnonzero(y_test == "wide")[:3]]
    target = {"t": (X, y, X_test[keep], y_test[keep])}
    result = measure_improvement(
        target,
        zoo[["s0"]],
        CLASSIFIER,
        folder=tmp_path,
        scoring="balanced_accuracy",
        n_steps=12,
        verbose=0,
    )
    assert set(result.records["epochs"]) == {3}  # of 4 steps each
    tuner = NetworkClassifier(**{**CLASSIFIER.get_params(), "epochs": 3})
    tuner.set_params(weights=zoo["s0"].checkpoint, random_state=0).fit(X, y)
    expected = balanced_accuracy_score(y_test[keep], tuner.predict(X_test[keep]))
    assert result.performances.loc["t", "s0"] == pytest.approx(expected)


def test_groups_stay_together():
    y = np.tile([0, 1], 50)
    groups = np.repeat(np.arange(20), 5)
    task = Task(np.zeros((100, 8, 8), np.uint8), y, groups)
    train, test = split_task(task, 0.25, 0, "t")
    assert not set(groups[train]) & set(groups[test])
    assert sorted([*train, *test]) == list(range(100)) and 15 <= len(test) <= 35
    other, _ = split_task(task, 0.25, 1, "t")
    assert not np.array_equal(train, other)


SCRIPT = """
    import sys, time
    sys.path.insert(0, {tests!r})
    from test_ground_truth import *
    fit = NetworkClassifier.fit

    def slow_fit(self, X, y=None):
        with open({log!r}, "a") as file:
            file.write("start\\n")
        time.sleep(0.3)
        return fit(self, X, y)

    NetworkClassifier.fit = slow_fit
    zoo = SourceCatalog.load({zoo!r})
    settings = dict(folder={folder!r}, seeds=(0, 1), verbose=0)
    measure_improvement(TARGETS, zoo, CLASSIFIER, **settings)
"""


def start(zoo, tmp_path):
    zoo.save(tmp_path / "zoo", copy_checkpoints=False)
    script = textwrap.dedent(SCRIPT).format(
        tests=str(Path(__file__).parent),
        log=str(tmp_path / "log"),
        zoo=str(tmp_path / "zoo"),
        folder=str(tmp_path / "cells"),
    )
    return subprocess.Popen([sys.executable, "-c", script])


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_and_started_again_it_goes_on(zoo, measured, tmp_path):
    process = start(zoo, tmp_path)
    try:
        wait_for(lambda: len(states(tmp_path / "cells")) >= 4, process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = states(tmp_path / "cells")
    assert 4 <= len(done) < 12
    result = measure_improvement(
        TARGETS, zoo, CLASSIFIER, folder=tmp_path / "cells", seeds=(0, 1), verbose=0
    )
    after = states(tmp_path / "cells")
    assert {name: after[name] for name in done} == done and len(after) == 12
    np.testing.assert_array_equal(result.improvements, measured[1].improvements)


@pytest.mark.slow
def test_two_processes_share_a_folder(zoo, measured, tmp_path):
    processes = [start(zoo, tmp_path) for _ in range(2)]
    for process in processes:
        assert process.wait(timeout=300) == 0
    trained = (tmp_path / "log").read_text().splitlines()
    assert len(trained) == len(states(tmp_path / "cells")) == 12
    result = measure_improvement(
        TARGETS, zoo, CLASSIFIER, folder=tmp_path / "cells", seeds=(0, 1), verbose=0
    )
    np.testing.assert_array_equal(result.improvements, measured[1].improvements)


def test_a_cell_of_a_dead_process_is_free(zoo, measured, tmp_path):
    """Lock files that are left over do not stop anyone; those that are held do."""
    path = tmp_path / "cell.lock"
    path.touch()
    with _workers.claim(path) as first:
        with _workers.claim(path) as second:
            assert first and not second
    assert not path.exists()


@pytest.mark.parametrize("backend", ["loky", "threading"])
@pytest.mark.slow
def test_parallel_results_are_the_same(zoo, measured, tmp_path, backend):
    with joblib.parallel_config(backend=backend):
        result = measure_improvement(
            TARGETS, zoo, CLASSIFIER, folder=tmp_path, seeds=(0, 1), n_jobs=2, verbose=1
        )
    # Sums in another number of threads may differ in the last digit.
    np.testing.assert_allclose(
        result.performances, measured[1].performances, atol=0.051
    )
    assert set(states(tmp_path)) == set(states(measured[0]))


@pytest.mark.slow
def test_dask_cluster_of_two_processes(zoo, measured, tmp_path, dask_cluster):
    result = measure_improvement(
        TARGETS, zoo, CLASSIFIER, folder=tmp_path, seeds=(0, 1), n_jobs=-1, verbose=0
    )
    assert len(dask_cluster.scheduler_info()["workers"]) == 2
    np.testing.assert_allclose(
        result.performances, measured[1].performances, atol=0.051
    )
    assert set(states(tmp_path)) == set(states(measured[0]))


def test_each_worker_gets_its_share_of_the_threads(tmp_path, monkeypatch):
    def job(estimator, known):
        return known | {"threads": torch.get_num_threads()}

    def threads(name, **settings):
        _records.run_job(tmp_path / name, job, arguments, **settings)
        return json.loads((tmp_path / name).read_text())["threads"]

    before, here = torch.get_num_threads(), _workers.this_process()
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    arguments = dict(estimator=CLASSIFIER, known={})
    assert threads("worker.json", n_workers=2, parent=("another", 0)) == 1
    assert torch.get_num_threads() == before
    # alone, or where threads of one process take turns
    assert threads("here.json", n_workers=2, parent=here) == before


def test_workers_have_a_gpu_of_their_own(tmp_path):
    """As far as it can be seen without one: which GPU each process leaves visible."""
    script = """if True:
        import os, sys
        from sklearn_p2l import _workers
        _workers.bind_to_gpu("auto")
        print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
        sys.stdin.read()
    """
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "3,5",
        "TMPDIR": str(tmp_path),
    }
    workers = []
    try:
        for _ in range(2):
            workers.append(
                subprocess.Popen(
                    [sys.executable, "-c", script],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        visible = {worker.stdout.readline().strip() for worker in workers}
    finally:
        for worker in workers:
            worker.communicate()
    assert visible == {"3", "5"}


def test_quarters_of_a_domain():
    y = np.tile([0, 1, 1, 1], 200)
    parts = split_quarters(y, target_share=0.1, random_state=0)
    members = np.concatenate(list(parts.values()))
    assert len(set(members)) == len(members)
    assert [len(p) for p in parts.values()] == [200, 200, 20, 200]
    for part in parts.values():
        assert y[part].mean() == pytest.approx(0.75)
    groups = np.repeat(np.arange(80), 10)
    parts = split_quarters(y, groups=groups, random_state=0)
    owners = [set(groups[part]) for part in parts.values()]
    assert sum(map(len, owners)) == len(set.union(*owners))


def test_trained_sources_make_a_catalog(zoo, tmp_path):
    assert zoo.names == ("s0", "s1") and zoo.sizes.tolist() == [40, 24]
    s1 = clone(CLASSIFIER).set_params(random_state=0).fit(*stripes(24, 1, 1))
    expected = [np.nan, s1.score(*stripes(20, 1, 5))]  # s0 has no test part
    np.testing.assert_array_equal(zoo.column("score"), expected)
    assert zoo[0].architecture == "small_resnet" and zoo[0].n_classes == 2
    X, y = stripes(40, 0, 0)
    vectors = EMBEDDER.fit_transform([X])
    np.testing.assert_array_equal(zoo.embeddings[0], vectors[0])
    assert zoo.fingerprint == EMBEDDER.fingerprint_
    assert SourceCatalog.load(Path(zoo[0].checkpoint).parent) == zoo
    tuner = NetworkClassifier(**{**CLASSIFIER.get_params(), "random_state": 0})
    tuner.fit(X, y)
    same = NetworkClassifier(
        weights=zoo["s0"].checkpoint, body_learning_rate_multiplier=0, epochs=1
    )
    same.fit(X, y)
    np.testing.assert_array_equal(
        same.weights_["body.0.weight"], tuner.weights_["body.0.weight"]
    )


def test_a_source_that_fails_loses_no_other(tmp_path, monkeypatch):
    sources = {"good": stripes(20, 0, 0), "bad": stripes(22, 0, 0)}
    arguments = dict(embedder=EMBEDDER, folder=tmp_path, verbose=0)
    fit = NetworkClassifier.fit

    def fit_or_fail(self, task):
        if len(task) == 22:
            raise RuntimeError("out of memory")
        return fit(self, task)

    with monkeypatch.context() as patch:
        patch.setattr(NetworkClassifier, "fit", fit_or_fail)
        with pytest.raises(RuntimeError, match="1 of 2 sources .*'bad'.*out of memory"):
            train_sources(sources, CLASSIFIER, **arguments)
    before = next(tmp_path.glob("good*.safetensors")).stat().st_mtime_ns
    catalog = train_sources(sources, CLASSIFIER, **arguments)
    assert catalog.names == ("good", "bad")
    assert Path(catalog[0].checkpoint).stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="epochs was 2, is 5"):
        train_sources(
            {"good": sources["good"]},
            NetworkClassifier(**{**CLASSIFIER.get_params(), "epochs": 5}),
            **arguments,
        )


def test_wrong_input_is_told_before_any_training(zoo, tmp_path):
    X, y = TARGETS["down"]
    bare = SourceCatalog.from_arrays([[1.0, 2.0]], sizes=[3], names=["bare"])
    cases = [
        ((TARGETS, bare, CLASSIFIER), "'bare' must have a checkpoint"),
        ((TARGETS, list(zoo), CLASSIFIER), "sources must be a SourceCatalog"),
        (([X], zoo, CLASSIFIER), "targets must be a non-empty mapping"),
        (({"t": X}, zoo, CLASSIFIER), r"targets\['t'\] must be a Task, \(X, y\)"),
        (({"t": (X, y[:-1])}, zoo, CLASSIFIER), r"targets\['t'\].*39 labels for 40"),
        (
            ({"t": ("folder", y)}, zoo, CLASSIFIER),
            r"targets\['t'\].*nothing there: folder",
        ),
        (({"t": (X, ["a", *["b"] * 39])}, zoo, CLASSIFIER), "'t' cannot be split"),
        (({"t": (X, ["a"] * 40)}, zoo, CLASSIFIER), "two classes, got one: a"),
        (
            ({"t": (X, y, X, ["new"] * 40)}, zoo, CLASSIFIER),
            r"not in the training part, got \['new'\]",
        ),
    ]
    for (targets, sources, tuner), told in cases:
        with pytest.raises(ValueError, match=told):
            measure_improvement(targets, sources, tuner, folder=tmp_path / "no")
    for scoring, told in [("acuracy", "acuracy"), (["f1"], "name of one scorer")]:
        with pytest.raises(ValueError, match=told):
            measure_improvement(
                TARGETS, zoo, CLASSIFIER, folder=tmp_path / "no", scoring=scoring
            )
    with pytest.raises(ValueError, match=r"sources\['s'\] must be a Task.*length 5"):
        sources = {"s": (X, y, y, y, y)}
        train_sources(sources, CLASSIFIER, embedder=EMBEDDER, folder=tmp_path / "no")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="folder must be a folder, got the file"):
        measure_improvement(TARGETS, zoo, CLASSIFIER, folder=tmp_path / "file")
    with pytest.raises(ValueError, match=r"got 2; pass range\(2\)"):
        measure_improvement(TARGETS, zoo, CLASSIFIER, folder=tmp_path / "no", seeds=2)
    with pytest.raises(ValueError, match="seeds must be a sequence of different"):
        measure_improvement(
            TARGETS, zoo, CLASSIFIER, folder=tmp_path / "no", seeds=(0, 0)
        )
    assert not (tmp_path / "no").exists()


def test_scorers_are_told_apart(zoo, tmp_path):
    target, source = {"down": TARGETS["down"]}, zoo[["s0"]]
    arguments = dict(folder=tmp_path, verbose=0)
    result = measure_improvement(
        target, source, CLASSIFIER, scoring=make_scorer(lambda a, b: 0.25), **arguments
    )
    assert result.performances.loc["down", "s0"] == 0.25
    for other in [
        make_scorer(lambda a, b: 0.75),
        make_scorer(balanced_accuracy_score),
        make_scorer(fbeta_score, beta=2, pos_label="thin"),
        "balanced_accuracy",
    ]:
        with pytest.raises(ValueError, match="scoring was"):
            measure_improvement(target, source, CLASSIFIER, scoring=other, **arguments)
    described = [
        describe(make_scorer(fbeta_score, beta=beta, pos_label="thin"))
        for beta in (1, 1, 2)
    ]
    assert described[0] == described[1] != described[2]
    assert describe(partial(max, 1)) != describe(partial(max, 2))


def test_a_performance_that_is_no_number_is_a_failure(zoo, tmp_path):
    with pytest.warns(
        FailedCellsWarning, match="2 of 2 cells failed.*must be finite, got nan"
    ):
        result = measure_improvement(
            {"down": TARGETS["down"]},
            zoo[["s0"]],
            CLASSIFIER,
            folder=tmp_path,
            scoring=make_scorer(lambda a, b: np.nan),
            verbose=0,
        )
    assert result.improvements.isna().all(axis=None)


def test_equal_means_are_equal():
    """0.80, 0.95, 0.75 and 0.90, 0.80, 0.80 have the same mean but for round-off."""
    scores = {
        None: [0.85, 0.95, 0.60],
        "s0": [0.80, 0.95, 0.75],
        "s1": [0.90, 0.80, 0.80],
    }
    records = [
        {"target": "t", "source": s, "seed": i, "performance": p, "error": None}
        for s, performances in scores.items()
        for i, p in enumerate(performances)
    ]
    pd = pytest.importorskip("pandas")
    result = tables_of(pd, records, ["t"], ["s0", "s1"])
    assert result.improvements.loc["t", "s0"] == result.improvements.loc["t", "s1"]


def test_random_weights_share_the_size_of_the_sources(zoo, tmp_path):
    """The checkpoints were trained at 8 pixels; so is M(t, ∅), though not told to."""
    classifier = clone(CLASSIFIER).set_params(image_size=None)
    target = {"across": TARGETS["across"]}
    result = measure_improvement(target, zoo, classifier, folder=tmp_path, verbose=0)
    assert result.records["protocol"][0]["image_size"] == 8
    assert result.baseline["across"] == by_hand(zoo, "across", None, 0)


def test_random_weights_of_another_architecture_than_all_sources(zoo, tmp_path):
    other = SourceCatalog.from_arrays(
        zoo.embeddings,
        sizes=zoo.sizes,
        names=["t0", "t1"],
        checkpoints=[source.checkpoint for source in zoo],
        architectures="resnet18",
    )
    message = r"got 'small_resnet' and sources of 'resnet18'; pass NetworkClassifier"
    with pytest.raises(ValueError, match=message):
        measure_improvement(TARGETS, other, CLASSIFIER, folder=tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_published_names_are_told_apart(tmp_path):
    """They are opened when a cell is measured; here none can be downloaded."""
    records = []
    for name in ("IMAGENET1K_V1", "IMAGENET1K_V2"):
        zoo = SourceCatalog(
            [Source("imagenet", architecture="small_resnet", checkpoint=name)]
        )
        target = {"across": TARGETS["across"]}
        with pytest.warns(FailedCellsWarning, match="1 of 2 cells failed.*imagenet"):
            result = measure_improvement(
                target, zoo, CLASSIFIER, folder=tmp_path / name, verbose=0
            )
        records.append(result.records.set_index("source")["checkpoint"]["imagenet"])
    assert records == ["small_resnet:IMAGENET1K_V1", "small_resnet:IMAGENET1K_V2"]


def test_a_start_from_a_file_is_part_of_the_protocol(zoo, tmp_path):
    """By what it holds, not by its name."""
    start = tmp_path / "start.safetensors"
    start.write_bytes(Path(zoo[0].checkpoint).read_bytes())
    classifier = clone(CLASSIFIER).set_params(weights=start)
    target, source = {"across": TARGETS["across"]}, zoo[["s1"]]
    arguments = dict(folder=tmp_path / "out", verbose=0)
    measure_improvement(target, source, classifier, **arguments)
    start.write_bytes(Path(zoo[1].checkpoint).read_bytes())
    with pytest.raises(ValueError, match="weights was"):
        measure_improvement(target, source, classifier, **arguments)


def test_without_locks_work_goes_on(zoo, tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr(_workers.fcntl, "flock", no_locks)
    result = measure_improvement(
        {"down": TARGETS["down"]}, zoo[["s0"]], CLASSIFIER, folder=tmp_path, verbose=0
    )
    assert np.isfinite(result.improvements).all(axis=None)


def test_a_lost_checkpoint_is_made_again(tmp_path):
    sources = {"good": stripes(20, 0, 0)}
    arguments = dict(embedder=EMBEDDER, folder=tmp_path, verbose=0)
    first = train_sources(sources, CLASSIFIER, **arguments)
    Path(first[0].checkpoint).unlink()
    second = train_sources(sources, CLASSIFIER, **arguments)
    assert Path(second[0].checkpoint).exists() and second == first


def test_multilabel_targets(zoo, tmp_path):
    X, y = TARGETS["down"]
    indicator = np.column_stack([y == "thin", np.arange(40) % 3 == 0]).astype(int)
    groups = np.arange(40) // 2
    result = measure_improvement(
        {
            "dense": (X, indicator),
            "sparse": (X, csr_matrix(indicator)),
            "grouped": (X, indicator, groups),
        },
        zoo,
        CLASSIFIER,
        folder=tmp_path,
        verbose=0,
    )
    performances = result.performances
    assert performances.loc["dense"].equals(performances.loc["sparse"])
    assert np.isfinite(performances).all(axis=None)


def test_files_are_targets(zoo, tmp_path):
    """Split by their number, or given in parts; also as a Series of any index."""
    X, y = stripes(40, 1, 4)
    rng = np.random.default_rng(0)
    paths = []
    for i, image in enumerate(X):
        rows, columns = rng.integers(8, 30, 2)
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(image).resize((columns, rows)).save(paths[-1])
    series = pd.Series(paths, index=range(100, 140))
    targets = {
        "split": (series, y),
        "given": (series[:30], y[:30], series[30:], y[30:]),
    }
    settings = dict(folder=tmp_path / "out", seeds=(1,), verbose=0)
    result = measure_improvement(targets, zoo, CLASSIFIER, **settings)
    classifier = clone(CLASSIFIER).set_params(
        weights=zoo["s1"].checkpoint, random_state=1
    )
    expected = classifier.fit(paths[:30], y[:30]).score(paths[30:], y[30:])
    assert result.performances.loc["given", "s1"] == expected
    train, test = train_test_split(
        np.arange(40), test_size=0.2, stratify=y, random_state=1
    )
    classifier.fit([paths[i] for i in train], y[train])
    expected = classifier.score([paths[i] for i in test], y[test])
    assert result.performances.loc["split", "s1"] == expected


def test_torch_datasets_are_targets(zoo, tmp_path):
    X, y = stripes(40, 1, 4)

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return 10

        def __getitem__(self, i):
            return X[30 + i][: 8 + i % 3]  # of different sizes

    class Pairs(Images):
        def __len__(self):
            return 40

        def __getitem__(self, i):
            return X[i], y[i]

    targets = {
        "given": (X[:30], y[:30], Images(), y[30:]),
        "pairs": Task.from_dataset(Pairs()),
        "arrays": (X, y),
    }
    result = measure_improvement(targets, zoo, CLASSIFIER, folder=tmp_path, verbose=0)
    assert np.isfinite(result.improvements).all(axis=None)
    performances = result.performances
    assert performances.loc["pairs"].equals(performances.loc["arrays"])


def test_files_that_cannot_be_read_fail_their_cells_alone(zoo, tmp_path):
    X, y = stripes(40, 1, 4)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    targets = {"good": (X, y), "bad": ([str(broken)] * 40, y)}
    with pytest.warns(FailedCellsWarning, match="3 of 6 cells.*must be readable"):
        result = measure_improvement(
            targets, zoo, CLASSIFIER, folder=tmp_path / "out", verbose=0
        )
    assert result.improvements.loc["good"].notna().all()
    assert result.improvements.loc["bad"].isna().all()


@pytest.mark.slow
def test_trainings_that_learned_nothing_are_counted(zoo, tmp_path):
    X, y = stripes(40, 0, 0)
    black = Task(np.zeros_like(X), y)
    classifier = NetworkClassifier(image_size=8, epochs=20, batch_size=8)
    targets = {"black": black, "down": DOWN}
    message = r"3 of 6 trainings learned no more.*black ← no transfer \(seed 0\)"
    with pytest.warns(ConvergenceWarning, match=message):
        result = measure_improvement(
            targets, zoo, classifier, folder=tmp_path, verbose=0
        )
    assert result.n_not_converged == 3
    converged = result.records.set_index("target")["converged"]
    assert not converged["black"].any() and converged["down"].all()
    assert result.performances.notna().all(axis=None)  # they count as they are


def test_groups_of_a_target_reach_its_validation(zoo, tmp_path):
    """Groups that are all in training leave nothing for a validation by groups."""
    X, y = stripes(40, 0, 0)
    given = Task(X, y, groups=y, X_test=X, y_test=y)  # each class is one group
    classifier = NetworkClassifier(
        image_size=8, epochs=2, batch_size=8, early_stopping=True
    )
    with pytest.warns(UserWarning, match="No sample can be spared"):
        result = measure_improvement(
            {"t": given}, zoo[["s0"]], classifier, folder=tmp_path, verbose=0
        )
    assert result.performances.notna().all(axis=None)
