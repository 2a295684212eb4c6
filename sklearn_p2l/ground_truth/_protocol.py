"""Under which settings, and on which data, something was measured."""

import json
import os
from functools import partial
from types import BuiltinFunctionType, FunctionType

import joblib
import numpy as np

from sklearn_p2l._files import hash_file
from sklearn_p2l.ground_truth._records import read_record
from sklearn_p2l.samples import content_key

# What a protocol does not consist of: which cell it is, and where it is computed.
_NOT_PROTOCOL = ("random_state", "device", "verbose", "checkpoint_folder")


def content_of(task):
    """Hash of a task's data; None where its samples have no cheap one."""
    parts = [task.X] if task.X_test is None else [task.X, task.X_test]
    keys = [content_key(part) for part in parts]
    if None in keys:
        return None
    labels = [np.asarray(v).tolist() for v in (task.y, task.groups, task.y_test)]
    return joblib.hash((keys, labels))


def describe_estimator(estimator):
    """The settings of a training, as JSON can hold them."""
    settings = estimator.get_params(deep=False)
    described = {k: describe(v) for k, v in settings.items() if k not in _NOT_PROTOCOL}
    for name in ("backbone", "weights"):  # a file is what it holds
        value = settings.get(name)
        if isinstance(value, (str, os.PathLike)) and os.path.isfile(value):
            described[name] = hash_file(value)[:32]
    return described


def describe(value):
    """A setting as JSON can hold it, the same in every process."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, partial):
        return describe([value.func, *value.args, value.keywords])
    if isinstance(value, (FunctionType, BuiltinFunctionType, type)):
        name = f"{value.__module__}.{value.__qualname__}"
        if "<" in name:  # its name does not tell what it does
            code = value.__code__
            name += f" {joblib.hash((code.co_code, code.co_names, _plain(code)))}"
        return name
    if callable(value):
        return {"type": type(value).__qualname__} | describe(
            getattr(value, "__dict__", {})
        )
    if isinstance(value, dict):
        return {str(k): describe(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _plain(code):
    return [repr(v) for v in code.co_consts if not hasattr(v, "co_code")]


def check_folder(folder, protocol, expected):
    """Refuse records of another protocol, or of other data under a known name."""
    protocol = json.loads(json.dumps(protocol))
    for path in sorted(folder.glob("*.json")):
        record = read_record(path)
        if record is None or "protocol" not in record:
            continue
        name = " ← ".join(str(record[k]) for k in ("target", "source") if k in record)
        differing = {
            key: (record["protocol"].get(key), protocol.get(key))
            for key in {*protocol, *record["protocol"]}
            if record["protocol"].get(key) != protocol.get(key)
        }
        if differing:
            told = "; ".join(
                f"{key} was {old!r}, is {new!r}"
                for key, (old, new) in sorted(differing.items())
            )
            raise ValueError(
                f"{folder} must hold records of one protocol, got another for {name}: "
                f"{told}. Pass another folder, or the old settings."
            )
        wanted = record if record.get("error") else expected.get(path, record)
        for key in ("data", "split", "checkpoint"):
            if record.get(key) != wanted.get(key):
                raise ValueError(
                    f"{folder} must hold records of the same data, but the {key} of "
                    f"{name} is another than what was measured; pass another folder, "
                    "or another name."
                )
