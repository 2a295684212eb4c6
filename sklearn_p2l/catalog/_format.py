"""The folder that holds a catalog: catalog.json, one npy of vectors, checkpoints.

catalog.json is an object with

- "format", "version": what it is; a reader looks at the version before all else;
- "fingerprint": str, of the reference network; may be absent;
- "embeddings": the npy file with one row per source, NaN where its vector is unknown;
  absent where all are;
- "class_means": the npy file with the class means of all sources that have any, one
  below the other; absent where none has;
- "sources": a list of objects with "name" and, where known, "size", "architecture",
  "n_classes", "n_class_means" (how many rows of that file are the source's),
  "columns" (numbers by name, null where unknown), "metadata" and "checkpoint": the path
  of a file inside the folder, {"external": absolute path} or {"published":
  name}.

A reader defaults what is absent, and keeps keys that it does not know. No path leads
out of the folder, through links neither, but those that say they are external. Nothing
is ever unpickled.
"""

import hashlib
import json
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from sklearn_p2l._files import (
    atomic_write,
    forget_unfinished,
    hash_file,
    one_at_a_time,
    short_name,
)
from sklearn_p2l.catalog._source import (
    check_columns,
    check_details,
    check_fingerprint,
    check_name,
    check_size,
    is_published_name,
)

_FORMAT = "sklearn_p2l.SourceCatalog"
_VERSION = 2
_FILE = "catalog.json"
# The two arrays in a folder, in files of their own.
_ARRAYS = ("embeddings", "class_means")
# Larger summary files are memory-mapped when a catalog is loaded.
_MEMORY_MAP_BYTES = 64 * 2**20

_TOP_KEYS = ("format", "version", "fingerprint", *_ARRAYS, "sources")
_KEYS = (
    "name",
    "size",
    "checkpoint",
    "architecture",
    "n_classes",
    "n_class_means",
    "columns",
    "metadata",
)


def names_to_copy(records, copy_checkpoints):
    """Return the names of the sources whose files are copied into the folder."""
    files = {
        record["name"]
        for record in records
        if record["checkpoint"] and not is_published_name(record["checkpoint"])
    }
    if isinstance(copy_checkpoints, (bool, np.bool_)):
        return files if copy_checkpoints else set()
    if isinstance(copy_checkpoints, str) or not np.iterable(copy_checkpoints):
        raise ValueError(
            "copy_checkpoints must be True, False or a sequence of names, got "
            f"{copy_checkpoints!r}."
        )
    names = set(copy_checkpoints)
    if names - files:
        raise ValueError(
            "copy_checkpoints must name sources that have a file, got "
            f"{sorted(map(str, names - files))}; these have: {sorted(files)}."
        )
    return names


def write_catalog(
    folder, records, embeddings, class_means, *, fingerprint, unknown, copied
):
    """Write a catalog, so that the folder is complete at every moment.

    `records` are dicts of what is kept of each source, with checkpoints as absolute
    paths or published names; those of the names in `copied` are copied in.
    `embeddings` is None where all vectors are unknown; `class_means` holds an array or
    None for each source.
    """
    for record in records:
        if record["name"] in copied and not os.path.isfile(record["checkpoint"]):
            raise FileNotFoundError(
                f"the checkpoint of source {record['name']!r} is not there: "
                f"{record['checkpoint']}; pass copy_checkpoints=False to save the "
                "catalog without it."
            )
    folder.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder):
        forget_unfinished(folder)
        _write(folder, records, embeddings, class_means, fingerprint, unknown, copied)


def _write(folder, records, embeddings, class_means, fingerprint, unknown, copied):
    stored = [_stored(record, folder, copied) for record in records]
    for record, means in zip(stored, class_means):
        if means is not None:
            record["n_class_means"] = len(means)
    content = unknown | {"format": _FORMAT, "version": _VERSION}
    if fingerprint is not None:
        content["fingerprint"] = fingerprint
    if embeddings is not None:
        content["embeddings"] = _write_array(folder, "embeddings", embeddings)
    known = [means for means in class_means if means is not None]
    if known:
        content["class_means"] = _write_array(folder, "class_means", np.vstack(known))
    content["sources"] = stored
    text = json.dumps(content, indent=1, allow_nan=False)
    replaced = _arrays_in(folder)
    with atomic_write(folder / _FILE) as file:
        file.write(text.encode("ascii"))
    for name in replaced - {content.get(key) for key in _ARRAYS}:
        (folder / name).unlink(missing_ok=True)


def read_catalog(folder):
    """Return the content of a folder, checked, as SourceCatalog._make takes it.

    A save may come in between what is read: then it is read again.
    """
    while True:
        before = _state_of(folder)
        try:
            return _read(folder)
        except ValueError:
            if _state_of(folder) == before:
                raise


def _state_of(folder):
    """What changes when catalog.json is replaced."""
    try:
        status = os.stat(folder / _FILE)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read(folder):
    content = _read_json(folder)
    file = folder / _FILE
    sources = content.get("sources")
    if not isinstance(sources, list) or not sources:
        raise ValueError(
            f"{file} must have a list of 'sources', at least one, got {sources!r:.80}."
        )
    with _naming(file):
        fingerprint = check_fingerprint(content.get("fingerprint"))
    records = [
        _read_record(folder, number, record)
        for number, record in enumerate(sources, start=1)
    ]
    columns = [record.pop("columns") for record in records]
    counts = [record.pop("n_class_means") for record in records]
    embeddings = _read_array(
        folder, "embeddings", content.get("embeddings"), len(sources)
    )
    return {
        "names": [record.pop("name") for record in records],
        "sizes": [record.pop("size") for record in records],
        "embeddings": embeddings,
        "class_means": _read_class_means(folder, content.get("class_means"), counts),
        "details": records,
        "columns": {
            key: [known.get(key) for known in columns]
            for key in dict.fromkeys(key for known in columns for key in known)
        },
        "fingerprint": fingerprint,
        "unknown": {k: v for k, v in content.items() if k not in _TOP_KEYS},
    }


def _read_json(folder):
    """Return catalog.json, if it is one of this version."""
    file = folder / _FILE
    wrong = f"{folder} must be a folder written by SourceCatalog.save, got one"
    try:
        content = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        if not folder.exists():
            raise ValueError(
                f"{folder} must be a folder written by SourceCatalog.save, but nothing "
                "is there; is the path right?"
            ) from None
        raise ValueError(f"{wrong} without {_FILE}; is the path right?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{wrong} whose {_FILE} cannot be read ({error}); copy the folder again."
        ) from error
    version = content.get("version") if isinstance(content, dict) else None
    is_number = isinstance(version, (int, float)) and not isinstance(version, bool)
    if is_number and version > _VERSION:
        raise ValueError(
            f"{file} has format version {version}, this release reads version "
            f"{_VERSION}; upgrade sklearn-p2l."
        )
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{wrong} whose {_FILE} is not a catalog.")
    if version == 1 and is_number:
        raise ValueError(
            f"{file} has format version 1, which no release wrote; make the catalog "
            "again, with SourceCatalog.from_arrays, and save it."
        )
    if version != _VERSION or not is_number:
        raise ValueError(
            f"{wrong} whose {_FILE} has no version {_VERSION}, but {version!r}."
        )
    return content


def _read_record(folder, number, record):
    """Return what is kept of one source."""
    file = folder / _FILE
    if not isinstance(record, dict) or record.get("name") is None:
        raise ValueError(
            f"{file} must have objects with a 'name' as its sources, got "
            f"{record!r:.80} as source number {number}."
        )
    with _naming(file, f"source number {number}: "):
        name = check_name(record["name"])
    with _naming(file):
        return {
            "name": name,
            "size": check_size(record.get("size"), f"size of source {name!r}"),
            "columns": check_columns(name, record.get("columns")),
            "n_class_means": _check_count(name, record.get("n_class_means", 0)),
            **check_details(
                name,
                checkpoint=_read_checkpoint(folder, name, record.get("checkpoint")),
                architecture=record.get("architecture"),
                n_classes=record.get("n_classes"),
                metadata=record.get("metadata"),
            ),
            "unknown": {k: v for k, v in record.items() if k not in _KEYS},
        }


@contextmanager
def _naming(file, what=""):
    """Put the name of a file in front of what is found wrong with it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{file}: {what}{error}") from error


def _read_checkpoint(folder, name, checkpoint):
    """Return a checkpoint as a source keeps it: absolute path or published name."""
    what = f"checkpoint of source {name!r}"
    if checkpoint is None:
        return None
    if isinstance(checkpoint, str):
        return os.path.abspath(_inside(folder, checkpoint, what))
    kind, value = None, None
    if isinstance(checkpoint, dict) and len(checkpoint) == 1:
        ((kind, value),) = checkpoint.items()
    if isinstance(value, str):
        if kind == "external" and _is_absolute(value):
            return value
        if kind == "published" and is_published_name(value):
            return value
    raise ValueError(
        f"{what} must be a path inside the folder, {{'external': an absolute path}} or "
        f"{{'published': a name}}, got {checkpoint!r}."
    )


def _is_absolute(path):
    """Tell whether a path is absolute, on any system."""
    return PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute()


def _inside(folder, path, what):
    """Return the place of a file inside `folder`, if `path` is one."""
    parts = path.replace("\\", "/").split("/") if isinstance(path, str) else [".."]
    if ".." in parts or _is_absolute(path) or not _stays_in(folder / path, folder):
        raise ValueError(
            f"{what} must be a file inside {folder}, got {path!r}, which leads out of "
            "it; copy the file into the folder, or mark a checkpoint that is meant to "
            "be elsewhere: {'external': absolute path}."
        )
    return folder / path


def _stays_in(path, folder):
    """Tell whether a path is inside a folder, when all links are followed."""
    try:
        path, folder = path.resolve(), folder.resolve()
    except (OSError, RuntimeError, ValueError):  # a circle of links, a NUL
        return False
    is_circle = path.is_symlink()  # which Python 3.13 leaves as it is
    return path != folder and path.is_relative_to(folder) and not is_circle


def _check_count(name, count):
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ValueError(
            f"n_class_means of source {name!r} must be an int from 0, got {count!r}."
        )
    return count


def _read_class_means(folder, name, counts):
    """Return the class means of each source, None where it has none."""
    if not any(counts):
        return [None] * len(counts)
    if name is None:
        raise ValueError(
            f"{folder / _FILE} must name the file of 'class_means', of which it says "
            "how many there are; save the catalog again."
        )
    stacked = _read_array(folder, "class_means", name, sum(counts))
    if not stacked.shape[1] or not np.isfinite(stacked).all():
        raise ValueError(
            f"{folder / name} must hold finite numbers, got none, or NaN or infinity; "
            "save the catalog again."
        )
    if stacked.dtype != np.float32:
        stacked = stacked.astype(np.float32)
    stacked.flags.writeable = False
    ends = np.cumsum(counts)
    return [
        stacked[end - count : end] if count else None
        for end, count in zip(ends, counts)
    ]


def _read_array(folder, key, name, n_rows):
    """Return an array of so many rows, mapped into memory where it is large."""
    if name is None:
        return np.empty((n_rows, 0))
    with _naming(folder / _FILE):
        file = _inside(folder, name, key)
    if not file.is_file():
        raise ValueError(
            f"{folder / _FILE} names {name!r}, which is not there; copy the whole "
            "folder, or save the catalog again."
        )
    try:
        if file.stat().st_size > _MEMORY_MAP_BYTES:
            array = np.lib.format.open_memmap(file, mode="r")
        else:
            with open(file, "rb") as opened:
                array = np.lib.format.read_array(opened, allow_pickle=False)
    except Exception as error:  # whatever a damaged header leads to
        raise ValueError(
            f"{file} must be a npy file, got one that cannot be read ({error}); copy "
            "the folder again, or save the catalog again."
        ) from error
    if array.ndim != 2 or array.dtype.kind != "f" or len(array) != n_rows:
        raise ValueError(
            f"{file} must hold floats, {n_rows} rows, got {array.dtype} of shape "
            f"{array.shape}; save the catalog again."
        )
    return array


def _write_array(folder, key, array):
    """Write an array that is not there yet, and return the name of its file."""
    array = np.ascontiguousarray(array)
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(array)
    name = f"{key}-{digest.hexdigest()[:16]}.npy"
    try:
        there = _read_array(folder, key, name, len(array))
    except ValueError:
        there = None
    if there is None or not np.array_equal(there, array, equal_nan=True):
        with atomic_write(folder / name) as file:
            np.save(file, array)
    return name


def _arrays_in(folder):
    """Return the names of the arrays that a folder's catalog has."""
    try:
        content = json.loads((folder / _FILE).read_bytes())
        names = {key: content.get(key) for key in _ARRAYS}
        return {
            name
            for key, name in names.items()
            if re.fullmatch(rf"{key}-[0-9a-f]{{16}}\.npy", name or "")
        }
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return set()


def _stored(record, folder, copied):
    """Return a source's record as it is written: what is known of it."""
    checkpoint, name = record["checkpoint"], record["name"]
    if checkpoint is not None:
        path = Path(checkpoint)
        if is_published_name(checkpoint):
            checkpoint = {"published": checkpoint}
        elif _stays_in(path, folder):
            checkpoint = path.resolve().relative_to(folder.resolve()).as_posix()
        elif name in copied:
            checkpoint = _copy_in(path.resolve(), folder, name)
        else:
            checkpoint = {"external": checkpoint}
    known = record | {"checkpoint": checkpoint}
    unknown = known.pop("unknown")
    return unknown | {k: v for k, v in known.items() if v is not None and v != {}}


def _copy_in(checkpoint, folder, name):
    """Copy a checkpoint into `folder` and return its path there.

    Its name holds a hash of its content, so nothing that is there is overwritten.
    """
    digest = hash_file(checkpoint)
    file_name = f"{short_name(name, 80)}-{digest[:16]}{checkpoint.suffix}"
    stored = folder / "checkpoints" / file_name
    if not _stays_in(stored.parent, folder):
        raise ValueError(
            f"{stored.parent} must be a folder inside {folder}, got a link that leads "
            "out of it; remove it."
        )
    same = stored.is_file() and _stays_in(stored, folder)
    if not same or hash_file(stored) != digest:
        stored.parent.mkdir(exist_ok=True)
        with open(checkpoint, "rb") as source, atomic_write(stored) as target:
            shutil.copyfileobj(source, target)
    return stored.relative_to(folder).as_posix()
