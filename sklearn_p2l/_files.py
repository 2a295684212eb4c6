"""Files: written whole or not at all, and known by what they hold."""

import hashlib
import os
import uuid
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path):
    """Open a binary file that replaces `path` only when it was written in full."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with open(unfinished, "xb") as file:
            yield file
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def hash_file(path):
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()
