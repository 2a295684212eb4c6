"""Long work as jobs, each with one small JSON file as its record.

A job that has a record is done. So work that was killed goes on where it stopped, and
several processes can share it in one folder.
"""

import hashlib
import json
import os
import re
import signal
import socket
import tempfile
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import joblib
import numpy as np
import scipy
import sklearn
from joblib import Parallel, delayed, effective_n_jobs
from tqdm import tqdm

from sklearn_p2l._version import __version__
from sklearn_p2l.catalog import atomic_write

try:
    import fcntl
except ImportError:  # Windows: two processes may then repeat one another's work
    fcntl = None

# Seconds between looks at jobs that another process works on.
_PATIENCE = 1.0
# PyTorch's tracing of networks is not safe where threads share a process.
_one_training_at_a_time = threading.Lock()
# Whether this worker process was interrupted, perhaps in the middle of a trace that
# has patched PyTorch; joblib would give it the next job all the same.
_interrupted = False
# The file that holds this worker process's claim on a GPU, open as long as it lives.
_gpu_claim = None


def complete(jobs, *, n_jobs, verbose, description):
    """Run the jobs that have no record yet, several at a time, through joblib.

    Parameters
    ----------
    jobs : list of (Path, callable, dict)
        Path of the record, and a function that returns it, with its arguments; among
        these `tuner`, and `known`, what the record of a failure holds.
    n_jobs : int or None
        As in joblib.
    verbose : int
        0 shows no progress bar.
    description : str
        Title of the progress bar.
    """
    for folder in {path.parent for path, *_ in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
    pending = [job for job in jobs if read_record(job[0]) is None]
    settings = dict(n_workers=effective_n_jobs(n_jobs), parent=this_process())
    with (
        replacing_workers(),
        tqdm(
            total=len(jobs),
            initial=len(jobs) - len(pending),
            desc=description,
            unit=" trainings",
            smoothing=0,  # the remaining time by the mean, as trainings differ
            disable=not verbose,
        ) as progress,
    ):
        while pending:
            run = Parallel(n_jobs=n_jobs, return_as="generator_unordered")
            any_done = False
            for done in run(delayed(run_job)(*job, **settings) for job in pending):
                any_done |= done
                progress.update(done)
            pending = [job for job in pending if read_record(job[0]) is None]
            progress.update(len(jobs) - len(pending) - progress.n)
            if pending and not any_done:  # another process is at work on them
                time.sleep(_PATIENCE)


def run_job(path, function, arguments, *, n_workers, parent):
    """Run one job and write its record; False if another process is at it."""
    global _interrupted
    is_worker = this_process() != parent
    if is_worker and _interrupted:
        raise KeyboardInterrupt
    with _one_training_at_a_time, claim(path.with_suffix(".lock")) as claimed:
        if not claimed:
            return False
        if read_record(path) is not None:
            return True
        start = time.perf_counter()
        with as_worker(n_workers, parent, arguments["tuner"].device):
            try:
                with no_interrupt_lost():
                    try:
                        record = function(**arguments) | {"error": None}
                    except Exception as error:  # the others go on, whatever it is
                        record = arguments["known"] | {
                            "performance": None,
                            "error": f"{type(error).__name__}: {error}",
                        }
            except KeyboardInterrupt:
                _interrupted = is_worker
                raise
        record["seconds"] = time.perf_counter() - start
        record["versions"] = _versions()
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
        with atomic_write(path) as file:
            file.write(text.encode())
        return True


@contextmanager
def no_interrupt_lost():
    """Raise KeyboardInterrupt at the end where one came and something swallowed it.

    Compiled code that reads tensors makes other errors of it, for instance.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() != threading.main_thread():
        yield
        return
    caught = []

    def note(*args):
        caught.append(args)
        handler(*args)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if caught:
        raise KeyboardInterrupt


@contextmanager
def replacing_workers():
    """Let joblib replace a worker that has grown, without a word.

    One does that was there before and has now imported torch; nothing is lost by it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs")
        yield


@contextmanager
def as_worker(n_workers, parent, device):
    """Compute with this process's share of the CPUs, and on a GPU of its own.

    Only in a worker process: one that is not its own `parent`.
    """
    from sklearn_p2l import networks

    n_threads = None
    if this_process() != parent:
        bind_to_gpu(device)
        n_threads = max(1, joblib.cpu_count() // n_workers)
    with networks.at_most_threads(n_threads):
        yield


def read_record(path):
    """Return the record of a job, None where there is none yet."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def file_name(*parts):
    """Make a readable and unique file name out of names of any kind."""
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]
    names = ["no_transfer" if part is None else str(part) for part in parts]
    readable = "--".join(re.sub(r"\W", "_", name)[:40] for name in names)
    return f"{readable}--{digest}.json"


@contextmanager
def claim(path):
    """Tell whether this process alone may do what the file stands for, inside.

    The system itself frees the claims of a process that was killed.
    """
    if fcntl is None:
        yield True
        return
    with open(path, "w") as file:
        claimed = _lock(file)
        try:
            yield claimed
        finally:
            if claimed:
                path.unlink(missing_ok=True)


def _lock(file):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system: work may be done twice
        return True
    return True


def bind_to_gpu(device):
    """Give this worker process one GPU, its own if there is a free one."""
    global _gpu_claim
    from sklearn_p2l import networks

    if _gpu_claim is not None or device not in ("auto", "cuda") or fcntl is None:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else list(map(str, networks.gpus()))
    if len(gpus) < 2:
        return
    chosen = gpus[os.getpid() % len(gpus)]
    for gpu in gpus:
        name = re.sub(r"\W", "_", f"sklearn-p2l-{os.getuid()}-gpu-{gpu}")
        file = open(Path(tempfile.gettempdir()) / f"{name}.lock", "w")
        if _lock(file):
            _gpu_claim, chosen = file, gpu
            break
        file.close()
    os.environ["CUDA_VISIBLE_DEVICES"] = chosen


def this_process():
    return socket.gethostname(), os.getpid()


def _versions():
    import torch

    packages = {"numpy": np, "scipy": scipy, "sklearn": sklearn, "torch": torch}
    return {"sklearn_p2l": __version__} | {
        name: module.__version__ for name, module in packages.items()
    }
