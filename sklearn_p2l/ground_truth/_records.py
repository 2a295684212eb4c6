"""Long work as jobs, each with one small JSON file as its record.

A job that has a record is done. So work that was killed goes on where it stopped, and
several processes can share it in one folder.
"""

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import scipy
import sklearn
from joblib import Parallel, delayed, effective_n_jobs

from sklearn_p2l._compat import progress_bar
from sklearn_p2l._files import atomic_write, forget_unfinished, short_name
from sklearn_p2l._version import __version__
from sklearn_p2l._workers import (
    as_worker,
    claim,
    no_interrupt_lost,
    replacing_workers,
    this_process,
)

# Seconds between looks at jobs that another process works on.
_PATIENCE = 1.0
# Whether this worker process was interrupted, perhaps in the middle of a trace that
# has patched PyTorch; joblib would give it the next job all the same.
_interrupted = False


def complete(jobs, *, n_jobs, verbose, description):
    """Run the jobs that have no record yet, several at a time, through joblib.

    Parameters
    ----------
    jobs : list of (Path, callable, dict)
        Path of the record, and a function that returns it, with its arguments; among
        these `estimator`, and `known`, what the record of a failure holds.
    n_jobs : int or None
        As in joblib.
    verbose : int
        0 shows no progress bar.
    description : str
        Title of the progress bar.
    """
    for folder in {path.parent for path, *_ in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
        forget_unfinished(folder)
    pending = [job for job in jobs if read_record(job[0]) is None]
    settings = dict(n_workers=effective_n_jobs(n_jobs), parent=this_process())
    with (
        replacing_workers(),
        progress_bar(
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
    with claim(path.with_suffix(".lock")) as claimed:
        if not claimed:
            return False
        if read_record(path) is not None:
            return True
        start = time.perf_counter()
        with as_worker(n_workers, parent, arguments["estimator"].device):
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
        text = json.dumps(record, indent=1, allow_nan=False)
        with atomic_write(path) as file:
            file.write(text.encode("ascii"))
        return True


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
    readable = "--".join(short_name(name, 40) for name in names)
    return f"{readable}--{digest}.json"


def has_failed(path):
    return bool((read_record(path) or {}).get("error"))


def forget(paths):
    for path in paths:
        path.unlink(missing_ok=True)


def folder_for(records):
    """Check that records can be kept in a folder, which need not be there yet."""
    folder = Path(records).absolute()  # workers may be elsewhere
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder must be a folder, got the file {folder}.")
    return folder


def _versions():
    import torch

    packages = {"numpy": np, "scipy": scipy, "sklearn": sklearn, "torch": torch}
    return {"sklearn_p2l": __version__} | {
        name: module.__version__ for name, module in packages.items()
    }
