"""Kills, full disks, damaged records and crowds: is anything lost that was finished?

    python benchmarks/reliability/faults.py --kills 50

Each workload is killed (SIGKILL) at random moments, called again, and compared with a
run that nobody stopped: files that were finished before the kill must be untouched,
and the result the same to the last bit. Then other misfortunes. About twenty minutes
on two cores, on Linux. Writes results/faults.csv.
"""

import argparse
import hashlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # children are forks of this process

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
from sklearn_p2l import DatasetEmbedder, NetworkClassifier, SourceCatalog, Task
from sklearn_p2l.datasets import load_small_tasks, load_zoo
from sklearn_p2l.ground_truth import measure_improvement

RESULTS = Path(__file__).parent / "results"
# What an error must say where nothing can be written.
WHY = ("File too large", "No space left", "Permission denied")
FORK = multiprocessing.get_context("fork")


def task_of(name, n=40):
    task = load_small_tasks().held_out_targets[name]
    return Task(
        task.X[:n], task.y[:n], X_test=task.X_test[:60], y_test=task.y_test[:60]
    )


def measure(folder, n_jobs=None):
    """A small matrix; its table."""
    measured = measure_improvement(
        {name: task_of(name) for name in ("digits_5_to_9", "china_zooms")},
        load_zoo().sources[["photos", "shapes"]],
        NetworkClassifier("small_resnet", image_size=24, epochs=2),
        folder=folder / "measured",
        seeds=(0, 1),
        n_jobs=n_jobs,
        verbose=0,
    )
    columns = ["target", "source", "seed", "performance", "train_loss"]
    return measured.records[columns].to_csv().encode()


def save(folder):
    """A catalog with copied checkpoints, saved over another; its sources."""
    sources = load_zoo().sources
    sources[:3].save(folder / "catalog", copy_checkpoints=True)
    sources.save(folder / "catalog", copy_checkpoints=True)
    return content_of_catalog(folder)


def content_of_catalog(folder):
    loaded = SourceCatalog.load(folder / "catalog")
    content = hashlib.sha256(repr(loaded.names).encode())
    content.update(np.asarray(loaded.embeddings).tobytes())
    for source in loaded:
        content.update(Path(source.checkpoint).read_bytes())
    return content.digest()


def embed(folder):
    """Vectors of several datasets, kept in a folder."""
    images = next(iter(load_small_tasks().sources.values())).X
    datasets = [images[i::8] for i in range(8)]
    embedder = DatasetEmbedder(
        load_zoo().embedder.backbone, image_size=48, memory=folder / "vectors"
    )
    return np.asarray(embedder.fit_transform(datasets)).tobytes()


def train(folder):
    """A training that goes on where it was stopped; its weights."""
    task = task_of("digits_5_to_9", 60)
    classifier = NetworkClassifier(
        "small_resnet",
        image_size=24,
        epochs=12,
        random_state=0,
        checkpoint_folder=folder / "states",
    ).fit(task)
    return b"".join(value.tobytes() for value in classifier.weights_.values())


WORK = {"measure_improvement": measure, "save": save, "embed": embed, "fit": train}


@contextmanager
def full_disk(folder):
    """No file may grow beyond a few bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@contextmanager
def read_only_folder(folder):
    """Nobody may write; who may everything becomes nobody meanwhile."""
    is_root = os.geteuid() == 0
    folder.chmod(0o555)
    if is_root:
        os.seteuid(65534)
    yield
    if is_root:
        os.seteuid(0)
    folder.chmod(0o755)


def in_a_child(work, folder, meanwhile=nullcontext):
    """Start a workload in a fork; what it gives stands in a file at its end."""

    def run():
        os.setsid()
        warnings.simplefilter("ignore")
        error = None
        with meanwhile(folder):
            try:
                outcome = work(folder)
            except Exception as raised:
                error = f"{type(raised).__name__}: {raised}"
        if error is None:
            (folder / "outcome").write_bytes(outcome)
        else:
            (folder / "error").write_text(error)
        os._exit(0)

    child = FORK.Process(target=run)
    child.start()
    return child


def finished_files(folder):
    """Files that were finished, neither locks nor parts: their bytes and times."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name[0] != "." and path.suffix != ".lock"
    }


def undisturbed(work):
    """What a workload gives if nobody stops it, and how long it takes."""
    with tempfile.TemporaryDirectory() as place:
        start = time.perf_counter()
        in_a_child(work, Path(place)).join()
        seconds = time.perf_counter() - start
        return Path(place, "outcome").read_bytes(), seconds


def is_another(folder, work, expected):
    """Call a workload once more, undisturbed: does it give anything else?"""
    for file in ("outcome", "error"):
        (folder / file).unlink(missing_ok=True)
    in_a_child(work, folder).join()
    outcome = folder / "outcome"
    return not outcome.exists() or outcome.read_bytes() != expected


def killed(name, work, expected, seconds, n_kills, rng):
    """Kill a workload at random moments; one row."""
    hit = lost = different = 0
    for _ in range(n_kills):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            child = in_a_child(work, folder)
            child.join(rng.uniform(0, seconds))
            if child.is_alive():
                hit += 1
                os.killpg(child.pid, signal.SIGKILL) if started(child) else child.kill()
                child.join()
            before = {} if name in ("save", "fit") else finished_files(folder)
            before.pop(folder / "outcome", None)
            different += is_another(folder, work, expected)
            after = finished_files(folder)
            lost += any(after.get(path) != content for path, content in before.items())
    return {
        "what": name,
        "misfortune": "killed at random moments",
        "cases": hit,
        "finished work lost or repeated": lost,
        "another result": different,
        "unclear": 0,
    }


def started(child):
    """Whether a child has its own group of processes yet."""
    try:
        return os.getpgid(child.pid) == child.pid
    except ProcessLookupError:
        return False


def row_of(name, misfortune, folder, work, expected):
    """One row: call a workload once more, undisturbed, and compare."""
    return {
        "what": name,
        "misfortune": misfortune,
        "cases": 1,
        "finished work lost or repeated": 0,
        "another result": int(is_another(folder, work, expected)),
        "unclear": 0,
    }


def unwritable(name, work, expected, how):
    """Where nothing can be written: the result, or why not; later the result."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        in_a_child(work, folder, meanwhile=how).join()
        if (folder / "outcome").exists():
            is_clear = (folder / "outcome").read_bytes() == expected
        else:
            text = (folder / "error").read_text()
            print(name, how.__name__, text[:500])
            is_clear = any(word in text for word in WHY)
        what = f"{how.__name__.replace('_', ' ')}, then not"
        row = row_of(name, what, folder, work, expected)
        return row | {"unclear": int(not is_clear)}


def damaged_records(expected):
    """Records cut short, of another schema, or from the future."""
    for how in ("cut short", "of another schema", "from the future"):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            in_a_child(measure, folder).join()
            record = sorted((folder / "measured").glob("*.json"))[0]
            if how == "cut short":
                record.write_bytes(record.read_bytes()[:40])
            elif how == "of another schema":
                record.write_text('{"performance": 1.0}')
            else:
                os.utime(record, (2**32, 2**32))
            (folder / "outcome").unlink()
            in_a_child(measure, folder).join()
            refused = (folder / "error").exists()
            if refused:  # and says which file to delete
                is_clear = record.name in (folder / "error").read_text()
                record.unlink()
            row = row_of(
                "measure_improvement", f"a record {how}", folder, measure, expected
            )
            yield row | {"unclear": int(refused and not is_clear)}


def crowd(n, expected):
    """Several processes on one folder: each cell is measured once."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        children = [in_a_child(measure, folder) for _ in range(n)]
        for child in children:
            child.join()
        row = row_of("measure_improvement", f"{n} processes", folder, measure, expected)
        return row | {"cases": n}


def worker_killed(expected):
    """One of two workers ends as the kernel ends who takes too much memory."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        child = in_a_child(partial(measure, n_jobs=2), folder)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and child.is_alive():
            if victims := children_of(child.pid):
                time.sleep(3)
                os.kill(victims[-1], signal.SIGKILL)
                break
            time.sleep(0.1)
        child.join()
        what = "a worker killed"
        return row_of("measure_improvement", what, folder, measure, expected)


def children_of(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="of each workload")
    options = parser.parse_args()
    # Once, for all forks: in a read-only folder a fork may have no right to import.
    import_module("sklearn_p2l.networks")
    load_zoo()
    load_small_tasks()
    rng = np.random.default_rng(0)
    expected, rows = {}, []
    for name, work in WORK.items():
        expected[name], seconds = undisturbed(work)
        rows.append(killed(name, work, expected[name], seconds, options.kills, rng))
    for how in (full_disk, read_only_folder):
        rows += [unwritable(name, w, expected[name], how) for name, w in WORK.items()]
    of_measure = expected["measure_improvement"]
    rows += damaged_records(of_measure)
    rows += [crowd(n, of_measure) for n in (2, 4)]
    rows.append(worker_killed(of_measure))
    RESULTS.mkdir(exist_ok=True)
    frame = pd.DataFrame(rows)
    frame.to_csv(RESULTS / "faults.csv", index=False)
    print(frame.to_string(index=False))
    failed = frame.iloc[:, 3:].to_numpy().any()
    sys.exit("something was lost" if failed else 0)


if __name__ == "__main__":
    main()
