"""Processes that share long work: their CPUs, their GPUs, and interrupts."""

import os
import re
import signal
import socket
import stat
import tempfile
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import joblib
from threadpoolctl import threadpool_limits

from sklearn_p2l._compat import load_networks
from sklearn_p2l._files import fcntl, lock_now

# The file that holds this worker process's claim on a GPU, open as long as it lives.
_gpu_claim = None
# Held by who has set BLAS's number of threads.
_blas = threading.Lock()
# The thread that ends this worker process when its parent is gone.
_watcher = None


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
        warnings.filterwarnings(
            "ignore",
            category=UserWarning,
            module=r"joblib\.externals\.loky\.process_executor",
        )
        yield


@contextmanager
def one_blas_thread():
    """Compute with one thread of BLAS inside.

    The others would spin for a while after each product, beside whatever comes next.
    Of two that are inside at the same time, the second would put back what the first
    one set: it leaves that alone.
    """
    if not _blas.acquire(blocking=False):
        yield
        return
    try:
        with threadpool_limits(1, "blas"):
            yield
    finally:
        _blas.release()


@contextmanager
def as_worker(n_workers, parent, device):
    """Compute with this process's share of the CPUs, and on a GPU of its own.

    Only in a worker process: one that is not its own `parent`.
    """
    networks, n_threads = load_networks(), None
    if this_process() != parent:
        _end_with_the_parent()
        bind_to_gpu(device)
        n_threads = max(1, joblib.cpu_count() // n_workers)
    with networks.at_most_threads(n_threads):
        yield


def _end_with_the_parent():
    """Watch, from now on, whether the process that started this worker is there.

    One that was killed cannot end its workers, which would wait for work for ever.
    """
    global _watcher
    if _watcher is None:
        _watcher = threading.Thread(target=_watch, args=(os.getppid(),), daemon=True)
        _watcher.start()


def _watch(parent):
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


@contextmanager
def claim(path):
    """Tell whether this process alone may do what the file stands for, inside.

    The system itself frees the claims of a process that was killed.
    """
    if fcntl is None:
        yield True
        return
    with open(path, "w") as file:
        claimed = lock_now(file)
        try:
            yield claimed
        finally:
            if claimed:
                path.unlink(missing_ok=True)


def bind_to_gpu(device):
    """Give this worker process one GPU, its own if there is a free one."""
    global _gpu_claim
    if _gpu_claim is not None or str(device) not in ("auto", "cuda") or fcntl is None:
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else list(map(str, load_networks().gpus()))
    if len(gpus) < 2:
        return
    chosen = gpus[os.getpid() % len(gpus)]
    folder = _own_folder()
    for gpu in gpus if folder else ():
        name = re.sub(r"\W", "_", f"gpu-{gpu}")
        file = open(folder / f"{name}.lock", "w")
        if lock_now(file):
            _gpu_claim, chosen = file, gpu
            break
        file.close()
    os.environ["CUDA_VISIBLE_DEVICES"] = chosen


def _own_folder():
    """A temporary folder that is this user's alone; None if there cannot be one.

    Its name can be foretold, so that processes meet in it: what others have put there
    in its place, or a link, is not used.
    """
    folder = Path(tempfile.gettempdir()) / f"sklearn-p2l-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None
    mine = status.st_uid == os.getuid() and not status.st_mode & 0o077
    return folder if mine and stat.S_ISDIR(status.st_mode) else None


def this_process():
    return socket.gethostname(), os.getpid()
