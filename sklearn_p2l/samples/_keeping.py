"""What images became, kept in a folder while several trainings read the same files."""

import hashlib
import os
import shutil
import uuid
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

import numpy as np

# Where the thread that asks for images keeps them; None nowhere.
_folder = ContextVar("folder", default=None)
# Where less is free on the disk, nothing is added.
_LEAST_FREE = 4 * 2**30


@contextmanager
def keeping_images(folder):
    """Inside, each image file is decoded and resized once for each way to do that.

    `folder` may be shared with other processes; None keeps nothing.
    """
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def keeper():
    """Return a function that makes an image of a file, or takes what was kept of it.

    Its arguments: the path, what decides about the result beside the file (None keeps
    nothing), and a function that makes it, a uint8 array.
    """
    folder = _folder.get()
    has_room = folder is not None and shutil.disk_usage(folder).free > _LEAST_FREE

    def kept(path, rule, make):
        if folder is None or rule is None or not isinstance(path, (str, os.PathLike)):
            return make()
        try:
            status = os.stat(path)
        except OSError:
            return make()
        path = os.path.abspath(os.fsdecode(path))
        key = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0{rule!r}"
        name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        file = Path(folder) / f"{name}.npy"
        with suppress(OSError, ValueError, EOFError):
            return np.load(file)
        image = make()
        if has_room and isinstance(image, np.ndarray):  # and not why there is none
            unfinished = file.with_name(f"{uuid.uuid4().hex}.npy")
            try:
                np.save(unfinished, image)
                os.replace(unfinished, file)
            except OSError:  # a full disk, or the folder is gone
                with suppress(OSError):
                    unfinished.unlink(missing_ok=True)
        return image

    return kept
