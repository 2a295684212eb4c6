"""Promises to who runs this unattended: found by attack, mended, and kept so."""

import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score, make_scorer

from sklearn_p2l import (
    DatasetEmbedder,
    EvidenceSelector,
    NetworkClassifier,
    Source,
    SourceCatalog,
    SourceSelector,
    Task,
    networks,
)
from sklearn_p2l.__main__ import main
from sklearn_p2l._files import (
    atomic_write,
    forget_unfinished,
    remembered,
    short_name,
)
from sklearn_p2l._workers import _own_folder
from sklearn_p2l.datasets import read_bags, read_word_vectors
from sklearn_p2l.divergence import METRICS, pairwise_divergence
from sklearn_p2l.ground_truth import measure_improvement
from sklearn_p2l.ground_truth._protocol import describe
from sklearn_p2l.ground_truth._records import file_name
from sklearn_p2l.samples import content_key
from sklearn_p2l.selection import _opened

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


# -- what a scorer does, not what it is called ---------------------------------------


def by_closure(beta):
    def scorer(estimator, X, y):
        return beta * estimator.score(X, y)

    return scorer


def by_default(beta):
    def scorer(estimator, X, y, weight=beta):
        return weight * estimator.score(X, y)

    return scorer


class Slotted:
    __slots__ = ("beta",)

    def __init__(self, beta):
        self.beta = beta

    def __call__(self, estimator, X, y):
        return self.beta * estimator.score(X, y)

    def method(self, estimator, X, y):
        return self(estimator, X, y)


def by_method(beta):
    return Slotted(beta).method


def by_metric(beta):
    return make_scorer(f1_score, average="macro", pos_label=beta)


@pytest.mark.parametrize(
    "make",
    [by_closure, by_default, Slotted, by_method, by_metric, partial(partial, max)],
)
def test_scorers_that_do_another_thing_are_others(make):
    one, same, other = (json.dumps(describe(make(b))) for b in (1.0, 1.0, 2.0))
    assert one == same != other


def test_a_scorer_that_knows_itself_is_described():
    def again(n):
        return n and again(n - 1)

    assert "itself" in json.dumps(describe(again))


def test_what_cannot_be_told_is_refused():
    with open(os.devnull) as file, pytest.raises(ValueError, match="cannot be told"):
        describe(file)


@pytest.fixture
def measured(zoo, dark_and_light, tmp_path):
    """How improvements of one source are measured, in a folder."""
    X, y = dark_and_light
    task = Task(X[:30], y[:30], X_test=X[30:], y_test=y[30:])
    classifier = NetworkClassifier(image_size=16, epochs=1)

    def measure(folder="measured", targets=None, **settings):
        return measure_improvement(
            {"tones": task} if targets is None else targets,
            zoo[["digits_0_to_4"]],
            classifier,
            folder=tmp_path / folder,
            verbose=0,
            **settings,
        )

    measure.task = task
    return measure


def test_another_scorers_numbers_are_not_taken(measured):
    measured(scoring=by_closure(1.0))
    with pytest.raises(ValueError, match="one protocol.*scoring"):
        measured(scoring=by_closure(2.0))


# -- records -------------------------------------------------------------------------

WRONG = {
    "{}": "protocol",
    '{"performance": NaN}': "performance nan",
    "null performance": "performance None",
    "another target": "target 'other'",
    "another source": "source 'other'",
    "another seed": "seed 7",
    "text": "performance 'good'",
    "error 3": "error 3",
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_record_that_is_another_is_refused(measured, kind, tmp_path):
    expected = measured().improvements
    path = tmp_path / "measured" / file_name("tones", "digits_0_to_4", 0)
    record = json.loads(path.read_text())
    changes = {
        "null performance": {"performance": None},
        "another target": {"target": "other"},
        "another source": {"source": "other"},
        "another seed": {"seed": 7},
        "text": {"performance": "good"},
        "error 3": {"error": 3},
        '{"performance": NaN}': {"performance": float("nan")},
    }
    changed = record | changes[kind] if kind in changes else {}
    path.write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=f"{path.name} must be .*{WRONG[kind]}"):
        measured()
    path.unlink()  # the remedy
    assert measured().improvements.equals(expected)


@pytest.mark.parametrize(
    "name", ["漢字" * 17, "a\udcff", "x" * 300, "../../up", "a\nb\0c"]
)
def test_targets_of_any_name_are_measured(measured, name):
    for _ in range(2):
        table = measured(targets={name: measured.task}).improvements
        assert list(table.index) == [name] and table.notna().all(axis=None)


def test_short_names_fit_a_file_system():
    for name in ("漢" * 100, "a" * 100, "é\udcff/.."):
        short = short_name(name, 40)
        assert len(short.encode()) <= 40 and not set(short) & set("/.\0")


# -- the same is the same ------------------------------------------------------------


def test_equal_weights_make_equal_files(tmp_path, rng):
    arrays = {"b": rng.random((2, 3), np.float32), "a": np.arange(3)}
    metadata = {name: name for name in ("image_size", "architecture", "classes", "x")}
    for number in range(8):
        networks.write_checkpoint(tmp_path / f"{number}", arrays, metadata)
    assert len({(tmp_path / f"{n}").read_bytes() for n in range(8)}) == 1
    state, kept = networks.weights.read_checkpoint(
        (tmp_path / "0").rename(tmp_path / "0.safetensors")
    )
    assert kept == metadata
    for key, value in arrays.items():
        np.testing.assert_array_equal(state[key].numpy(), value)


def test_equal_images_have_equal_keys(rng):
    images = rng.integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    strided = np.repeat(images, 2, axis=2)[:, :, ::2]
    for other in (np.asfortranarray(images), strided):
        np.testing.assert_array_equal(other, images)
        assert content_key(other) == content_key(images)
        assert content_key(list(other)) == content_key(list(images))


# -- files ---------------------------------------------------------------------------


def a_catalog(number, n=20):
    vectors = np.random.default_rng(number).random((n, 8)).astype(np.float32)
    names = [f"s{i}" for i in range(n)]
    return SourceCatalog.from_arrays(vectors, sizes=np.arange(1, n + 1), names=names)


def save_and_load(folder, number):
    catalog = a_catalog(number)
    catalog.save(folder)
    return SourceCatalog.load(folder)


def test_saves_and_loads_at_once_lose_nothing(tmp_path):
    known = [a_catalog(number) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(save_and_load, tmp_path, i % 4) for i in range(120)]
        for job in jobs:
            assert job.result() in known
    assert SourceCatalog.load(tmp_path) in known


def test_saving_again_repairs_what_was_damaged(tmp_path, zoo):
    folder = tmp_path / "zoo"
    zoo.save(folder, copy_checkpoints=True)
    expected = SourceCatalog.load(folder)
    whole = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    for path, content in whole.items():
        if path.suffix in (".npy", ".safetensors"):
            damaged = bytes(len(content)) if path.suffix == ".npy" else content[:-7]
            path.write_bytes(damaged)
    zoo.save(folder, copy_checkpoints=True)
    assert SourceCatalog.load(folder) == expected
    assert {p: p.read_bytes() for p in whole} == whole


def test_names_of_sources_may_be_anything(tmp_path, zoo):
    names = ["漢" * 90, "a\udcff", "../up"]
    checkpoint = zoo[0].checkpoint
    catalog = SourceCatalog([Source(n, checkpoint=checkpoint) for n in names])
    catalog.save(tmp_path / "zoo", copy_checkpoints=True)
    assert SourceCatalog.load(tmp_path / "zoo").names == tuple(names)


def test_what_killed_writers_left_goes_after_a_day(tmp_path):
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "a") as file:
        file.write(b"half")
        raise RuntimeError
    old, new = (tmp_path / f".a.json-{digit * 32}" for digit in "ab")
    for path in (old, new, tmp_path / ".other-file"):
        path.write_bytes(b"half")
    two_days_ago = time.time() - 2 * 24 * 3600
    for path in (old, tmp_path / ".other-file"):
        os.utime(path, (two_days_ago, two_days_ago))
    forget_unfinished(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {new.name, ".other-file"}


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no users on this system")
def test_a_link_in_the_place_of_the_gpu_locks_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert _own_folder().is_dir() and _own_folder().stat().st_mode & 0o777 == 0o700
    place = _own_folder()
    place.rmdir()
    (tmp_path / "victim").mkdir(mode=0o755)
    place.symlink_to(tmp_path / "victim")
    assert _own_folder() is None
    place.unlink()
    place.mkdir()
    place.chmod(0o777)  # anybody could have put a link into it
    assert _own_folder() is None


# -- what strangers write ------------------------------------------------------------


def test_a_checkpoint_names_no_file_to_read(tmp_path):
    """What it said would be in an error message, and in a record."""
    secret = tmp_path / "secret.txt"
    secret.write_text("password 1 2 3")
    pcnn = json.loads(networks.PCNN(["a", "b"]).describe())
    file = tmp_path / "a.safetensors"
    hostile = {
        "word_vectors": str(secret),
        "num_classes": 10**12,
        "word_size": 10**9,
        "n_filters": "many",
        "dropout": 10**30,
        "vocabulary": {"a": 1},
        "kernel_size": True,
    }
    for key, value in hostile.items():
        metadata = {"architecture": "pcnn", "pcnn": json.dumps(pcnn | {key: value})}
        networks.write_checkpoint(file, {"a": np.zeros(1, np.float32)}, metadata)
        with pytest.raises(
            ValueError, match="must be what PCNN.describe wrote"
        ) as told:
            networks.open_network(file, weights=None)
        assert "password" not in str(told.value)
    for text in ("{", "[]", "null", '{"a": ' * 5000):
        networks.write_checkpoint(
            file, {"a": np.zeros(1, np.float32)}, {"architecture": "pcnn", "pcnn": text}
        )
        with pytest.raises(ValueError, match="must be what PCNN.describe wrote"):
            networks.open_network(file, weights=None)


@pytest.mark.parametrize("size", ["abc", "-3", "1e3", "9" * 30, "٣"])
def test_a_checkpoint_with_another_image_size_is_refused(tmp_path, zoo, size):
    network = networks.open_network("small_resnet", weights=None)
    metadata = {"architecture": "small_resnet", "image_size": size}
    file = tmp_path / "a.safetensors"
    networks.write_checkpoint(file, networks.get_weights(network.model), metadata)
    if size == "٣":  # three, in Arabic
        assert networks.open_network(file, weights=None).image_size == 3
        return
    with pytest.raises(ValueError, match="number of pixels up to 10,000, got"):
        networks.open_network(file, weights=None)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda state: dict(enumerate(state.values())), "tensors by their names"),
        (lambda state: list(state.values()), "tensors by their names"),
        (lambda state: {"a": {"b": state}}, "tensors by their names"),
        (
            lambda state: {k: v.to("meta") for k, v in state.items()},
            "tensors with their values",
        ),
    ],
)
def test_a_checkpoint_of_other_things_is_refused(tmp_path, zoo, make, message):
    torch = pytest.importorskip("torch")
    network = networks.open_network("small_resnet", weights=None)
    torch.save(make(network.model.state_dict()), tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=message):
        networks.open_network("small_resnet", weights=str(tmp_path / "odd.pt"))


def test_names_of_strangers_do_nothing_to_a_terminal(tmp_path, capsys, zoo):
    name = "a\x1b[2Jb\x07\udcff"
    SourceCatalog([Source(name, size=3, metadata={"\x1b": "\x1b"})]).save(tmp_path)
    for command in (["list"], ["show", name], ["show", "\x1b[2J"]):
        main(["catalog", command[0], str(tmp_path), *command[1:]])
        told = capsys.readouterr()
        assert all(c.isprintable() or c == "\n" for c in told.out + told.err)


# -- nothing is ranked silently ------------------------------------------------------


def test_a_target_without_candidates_is_refused():
    vectors = np.array([[0.25, 0.75], [0.5, 0.5]])
    selector = SourceSelector(vectors[:1], sizes=[10], k=-1.0, exclude_self=True)
    selector.fit(vectors)
    for rank in (selector.predict, partial(selector.predict_top, n_top=1)):
        with pytest.raises(ValueError, match="got none for the one in row 0"):
            rank(vectors)
        assert rank(vectors[1:]).tolist() == [[0]]


def test_tiny_distances_still_rank():
    D = np.array([[3e-13, 1e-13, 2e-13]])
    selector = SourceSelector(metric="precomputed", sizes=[5, 5, 5], k=-1.0).fit(D)
    assert selector.predict(D).tolist() == [[1, 2, 0]]


# -- what is unusual, and what cannot be ---------------------------------------------


@pytest.mark.parametrize("n_steps", [0, -1, 2.5, True, "10"])
def test_a_number_of_steps_is_one(measured, n_steps):
    with pytest.raises(ValueError, match="n_steps must be a number of steps from 1"):
        measured(n_steps=n_steps)


def test_no_time_is_no_class():
    X = np.zeros((4, 2, 2), np.uint8)
    y = np.array(["2026-01-01", "NaT", "2026-01-02", "NaT"], dtype="datetime64[D]")
    with pytest.raises(ValueError, match="label"):
        Task(X, y)


def test_words_with_blanks_have_vectors(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("the 0.1 0.2\n. . . 0.3 0.4\nat name@x.com 0.5 0.6\n")
    words, vectors = read_word_vectors(path)
    assert words == ["the", ". . .", "at name@x.com"]
    np.testing.assert_allclose(vectors[1:], [[0.3, 0.4], [0.5, 0.6]])


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="needs /dev/fd")
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_bags_of_a_pipe_are_all_read(pack):
    lines = [f"A{i}\tB{i}\t\t\t[0,2)\t[3,5)\t>in\tAB CD\t" for i in range(300)]
    reading, writing = os.pipe()
    with open(writing, "wb") as file:  # as much as a pipe holds
        file.write(pack("\n".join(lines).encode()))
    try:
        assert len(list(read_bags(f"/dev/fd/{reading}"))) == 300
    finally:
        os.close(reading)


def test_dollars_in_names_are_no_formulas():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from sklearn_p2l.plotting import RankingDisplay

    names = ["$\\frac{1}$", "$x_", "a$$"]
    catalog = SourceCatalog.from_arrays(
        [[0.2, 0.8], [0.4, 0.6], [0.5, 0.5]], sizes=[3, 20, 100], names=names
    )
    selector = SourceSelector(catalog, k=-1.0).fit([[0.3, 0.7]])
    display = RankingDisplay.from_estimator(selector, [[0.3, 0.7]])
    display.figure_.draw_without_rendering()
    assert {
        t.get_text().replace("\\$", "$") for t in display.ax_.get_yticklabels()
    } == (set(names))


LINES = ['{"a": ' * 90_000, '{"name": "a", "embedding": [1e999]}']


@pytest.mark.parametrize("line", LINES, ids=["deep", "infinite"])
def test_lines_that_embed_did_not_print_are_refused(tmp_path, capsys, line):
    a_catalog(0).save(tmp_path / "zoo")
    (tmp_path / "vectors.jsonl").write_text(line)
    assert main(["rank", str(tmp_path / "vectors.jsonl"), str(tmp_path / "zoo")]) == 2
    assert "line 1" in capsys.readouterr().err


def test_a_closed_stdin_is_told(tmp_path, capsys, monkeypatch):
    a_catalog(0).save(tmp_path / "zoo")
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["rank", "-", str(tmp_path / "zoo")]) == 2
    assert "stdin is closed" in capsys.readouterr().err


# -- processes -----------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
@pytest.mark.slow
def test_workers_end_when_their_parent_was_killed(tmp_path):
    script = textwrap.dedent(
        """
        import os, sys, time
        from joblib import Parallel, delayed
        from sklearn_p2l._workers import as_worker, this_process

        def work(parent, path):
            with as_worker(2, parent, "cpu"):
                open(path, "w").write(str(os.getpid()))
                time.sleep(60)

        if __name__ == "__main__":
            folder, parent = sys.argv[1], this_process()
            jobs = [delayed(work)(parent, f"{folder}/{i}") for i in range(2)]
            Parallel(n_jobs=2)(jobs)
        """
    )
    (tmp_path / "work.py").write_text(script)
    folder = tmp_path / "pids"
    folder.mkdir()
    parent = subprocess.Popen([sys.executable, tmp_path / "work.py", folder])
    deadline = time.time() + 60
    while time.time() < deadline:
        pids = [p.read_text() for p in folder.iterdir()]
        if len(pids) == 2 and all(pids):
            break
        time.sleep(0.1)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while time.time() < deadline and any(Path("/proc", pid).exists() for pid in pids):
        time.sleep(0.1)
    assert len(pids) == 2 and not any(Path("/proc", pid).exists() for pid in pids)


# -- where nothing can be written ----------------------------------------------------


class FullDisk:
    """The interface of joblib.Memory, before or after what it calls has computed."""

    def __init__(self, after):
        self.after = after

    def cache(self, function, **kwargs):
        def called(*args, **kwargs):
            if self.after:
                function(*args, **kwargs)
            raise OSError(28, "No space left on device")

        return called


@pytest.mark.parametrize("after", [False, True])
def test_a_memory_that_keeps_nothing_loses_nothing(zoo, rng, after):
    """Vectors and scores are those without a memory; no source is skipped for it."""
    X = rng.integers(0, 255, (12, 16, 16, 3), dtype=np.uint8)
    task, full = Task(X, np.arange(12) % 2), FullDisk(after)
    embedder = DatasetEmbedder("small_resnet", weights=None, image_size=16)
    embedder.set_params(random_state=0)
    expected = embedder.fit_transform([X])
    with pytest.warns(UserWarning, match="No space left on device.*give a folder"):
        got = embedder.set_params(memory=full).fit_transform([X])
    np.testing.assert_array_equal(got, expected)
    _opened._kept.clear()
    selector = EvidenceSelector(zoo, signals=["knn"], image_size=16, memory=full)
    with pytest.warns(UserWarning, match="keeps nothing") as caught:
        E = selector.fit([task]).decision_function([task])
    assert all(w.category is UserWarning for w in caught)
    selector.set_params(memory=None).fit([task])
    np.testing.assert_array_equal(E, selector.decision_function([task]))


def test_what_fails_in_computing_is_no_fault_of_the_memory(tmp_path):
    def compute():
        raise FileNotFoundError("an image")

    with pytest.raises(FileNotFoundError, match="an image"):
        remembered(tmp_path, "key", compute)


def test_errors_of_a_full_disk_name_the_file(tmp_path):
    with pytest.raises(OSError, match=r"No space.*'.*table\.json'") as raised:
        with atomic_write(tmp_path / "table.json"):
            raise OSError(28, "No space left on device")
    assert raised.value.errno == 28 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("scale", [1e-300, 1e200])
@pytest.mark.parametrize("metric", sorted(METRICS))
def test_units_whose_squares_are_no_numbers(metric, scale):
    X = np.array([[1.0, 2.0, 4.0], [3.0, 1.0, 1.0]])
    expected = pairwise_divergence(X, X[::-1], metric=metric)
    got = pairwise_divergence(X * scale, X[::-1], metric=metric)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-15)


def test_files_are_as_the_users_umask_says(tmp_path, zoo):
    before = os.umask(0o027)
    try:
        zoo.save(tmp_path / "zoo", copy_checkpoints=True)
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "zoo").rglob("*") if path.is_file()]
    assert len(files) > 2
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}
