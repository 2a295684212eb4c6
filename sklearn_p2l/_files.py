"""Files: written whole or not at all, known by what they hold, kept for reuse."""

import hashlib
import os
import re
import time
import uuid
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

from sklearn.utils.validation import check_memory

try:
    import fcntl
except ImportError:  # Windows: two processes may then repeat one another's work
    fcntl = None

# What atomic_write calls a file that is not finished; an old one nobody will finish.
_UNFINISHED = re.compile(r"\..+-[0-9a-f]{32}")
_SECONDS_TO_FINISH = 24 * 3600


@contextmanager
def atomic_write(path):
    """Open a binary file that replaces `path` only when it was written in full."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with open(unfinished, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # before the name is: a power cut comes in between
        os.replace(unfinished, path)
    except BaseException as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk's
            error.filename = str(path)
        raise


def forget_unfinished(folder):
    """Delete what writers that were killed have left in a folder, a day ago or more."""
    for path in Path(folder).glob(".*-*"):
        try:
            age = time.time() - path.stat().st_mtime
            if _UNFINISHED.fullmatch(path.name) and age > _SECONDS_TO_FINISH:
                path.unlink()
        except OSError:  # another process was faster
            pass


@contextmanager
def one_at_a_time(folder):
    """Wait until no other process is inside for this folder, which is there."""
    if fcntl is None:
        yield
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # no locks on this file system
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def lock_now(file):
    """Lock an open file; False if another process has done so."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system: work may be done twice
        return True
    return True


def short_name(name, n_bytes):
    """Letters, digits and underscores of a name that fit into so many bytes."""
    safe = re.sub(r"\W", "_", name).encode("utf-8", "replace")
    return safe[:n_bytes].decode("utf-8", "ignore")


def hash_file(path):
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def remembered(memory, key, compute):
    """Return what a folder or joblib.Memory holds under a key, or compute it.

    Where it cannot be kept, as on a full disk, it is computed all the same, with a
    warning: nobody waits twice.
    """
    if isinstance(memory, os.PathLike):
        memory = os.fspath(memory)
    began, computed = [], []

    def once():
        began.append(True)
        computed.append(compute())
        return computed[0]

    try:
        return check_memory(memory).cache(_call, ignore=["compute"])(key, compute=once)
    except OSError as error:
        if began and not computed:  # nothing is wrong with the memory
            raise
        warnings.warn(
            f"memory={memory!r} keeps nothing ({error}), so this is computed again "
            "each time: give a folder that can be written to.",
            stacklevel=2,
        )
    return computed[0] if computed else compute()


def _call(key, compute):
    """Compute something; what joblib.Memory caches by `key`."""
    return compute()
