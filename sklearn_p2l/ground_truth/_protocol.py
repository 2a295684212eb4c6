"""Under which settings, and on which data, something was measured."""

import json
import math
import os
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

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
    """A setting as JSON can hold it, the same in every process.

    What it does is part of it: of a function its defaults and what it has closed over,
    of a method its owner, of an object its state.

    Raises
    ------
    ValueError
        If there is no telling what it does.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, partial):
        return describe([value.func, *value.args, value.keywords])
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, FunctionType):
        return _describe_function(value)
    if isinstance(value, MethodType):
        return {"method": value.__name__, "of": describe(value.__self__)}
    if isinstance(value, BuiltinFunctionType):
        name, owner = f"{value.__module__}.{value.__qualname__}", value.__self__
        has_owner = owner is not None and not isinstance(owner, ModuleType)
        return {"method": name, "of": describe(owner)} if has_owner else name
    if isinstance(value, np.ufunc):
        return f"numpy.{value.__name__}"
    if isinstance(value, dict):
        return {str(k): describe(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, map(describe, value)))
    if isinstance(value, np.ndarray):
        return joblib.hash(np.ascontiguousarray(value))
    return _describe_object(value)


def _describe_function(function):
    name = f"{function.__module__}.{function.__qualname__}"
    if "<" in name:  # its name does not tell what it does
        code = function.__code__
        name += f" {joblib.hash((code.co_code, code.co_names, _plain(code)))}"
    known = {
        "defaults": function.__defaults__,
        "keywords": function.__kwdefaults__,
        "closure": [_content_of(c, function) for c in function.__closure__ or ()],
    }
    known = {key: describe(v) for key, v in known.items() if v}
    return {"function": name} | known if known else name


def _content_of(cell, function):
    try:
        content = cell.cell_contents
    except ValueError:  # it is still empty
        return None
    return "itself" if content is function else content


def _describe_object(value):
    """Type and state of an object, as pickling would keep them."""
    described = {"type": type(value).__qualname__}
    try:
        _, arguments, *state = value.__reduce_ex__(2)
        rest = [v for v in arguments if v is not type(value)]
        rest += [v for v in state if v is not None]
        if len(rest) == 1 and isinstance(rest[0], dict):
            return described | describe(rest[0])
        return described | ({"state": describe(rest)} if rest else {})
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"a protocol must tell how it was measured, but what {value!r} does cannot "
            f"be told ({type(error).__name__}: {error}); pass a function of a module, "
            "or an object whose attributes say it."
        ) from error


def _plain(code):
    return [repr(v) for v in code.co_consts if not hasattr(v, "co_code")]


def _check_record(path, record, cell):
    """Refuse a record that says something else than its name does."""
    wrong = [
        f"{key} {record.get(key)!r} in place of {cell[key]!r}"
        for key in ("target", "source", "seed")
        if key in cell and record.get(key) != cell[key]
    ]
    value, error = record.get("performance"), record.get("error")
    if not isinstance(record.get("protocol"), dict):
        wrong.append("no protocol")
    if not isinstance(error, (str, type(None))):
        wrong.append(f"error {error!r}")
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if error is None and not (is_number and math.isfinite(value)):
        if value is not None or "target" in cell:  # a source may be untested
            wrong.append(f"performance {value!r}")
    if wrong:
        raise ValueError(
            f"{path} must be the record that its name says, got {', '.join(wrong)}; "
            "delete that file, and it is measured again."
        )


def check_folder(folder, protocol, expected):
    """Refuse records of another protocol, or of other data under a known name."""
    protocol = json.loads(json.dumps(protocol))
    for path in sorted(folder.glob("*.json")):
        record = read_record(path)
        if record is not None and path in expected:
            _check_record(path, record, expected[path])
        if record is None or not isinstance(record.get("protocol"), dict):
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
