"""Ground truth: how much transfer really gains, measured by fine-tuning every source.

Every training is one job with one small JSON file as its record. A job that has a
record is done; so a run that was killed goes on where it stopped, and several
processes can share the work in one folder.
"""

import hashlib
import json
import os
import re
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
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import (
    StratifiedGroupKFold,
    StratifiedKFold,
    train_test_split,
)
from sklearn.utils import Bunch, _safe_indexing, check_consistent_length
from tqdm import tqdm

from sklearn_p2l._frames import import_pandas
from sklearn_p2l._version import __version__
from sklearn_p2l.catalog import SourceCatalog, atomic_write
from sklearn_p2l.datasets import content_key

try:
    import fcntl
except ImportError:  # Windows: two processes may then repeat one another's work
    fcntl = None

__all__ = ["measure_improvement", "split_quarters", "train_sources"]

# What a protocol does not consist of: which cell it is, and where it is computed.
_NOT_PROTOCOL = ("selector", "sources", "source", "random_state", "device", "verbose")
# Seconds between looks at cells that another process works on.
_PATIENCE = 1.0
# PyTorch's tracing of networks is not safe where threads share a process.
_one_training_at_a_time = threading.Lock()
# The file that holds this worker process's claim on a GPU, open as long as it lives.
_gpu_claim = None


def measure_improvement(
    targets,
    sources,
    tuner,
    *,
    folder,
    seeds=(0,),
    test_size=0.2,
    scoring=None,
    n_steps=None,
    retry_failures=False,
    dry_run=False,
    n_jobs=None,
    verbose=1,
):
    """Measure the improvement that each source brings to each target, by fine-tuning.

    Trains M(t, s) for every target t and source s, and M(t, ∅) from random weights,
    all under one protocol, and returns equation 1 of the paper,
    ``I(t, s) = P(M(t, s)) - P(M(t, ∅))``: what SourceSelector learns k from.

    Interrupted or killed at any moment and called again, it repeats only the
    trainings that were under way. Several processes, on machines that share the
    folder, may work on it at the same time. Targets, sources and seeds may be added
    later; another protocol, or other data under a known name, is refused.

    Parameters
    ----------
    targets : mapping of str to tuple
        The targets by name: ``(X, y)``, split by `test_size`; ``(X, y, groups)``, split
        so that no group is on both sides; or ``(X, y, X_test, y_test)``, split
        already. X and y are what FineTuner takes.

    sources : SourceCatalog
        The sources with their checkpoints; :func:`train_sources` makes one.

    tuner : FineTuner
        The protocol's settings: epochs, learning rates and so on. Not fitted; its
        `source`, `sources`, `selector` and `random_state` are set for each cell. It
        needs a `backbone` for random weights, unless all sources share theirs.

    folder : str or path-like
        Where records are kept: one JSON file per cell (target, source, seed), with its
        performance or the reason of its failure, split, seed, metric, seconds and
        versions. Created if needed.

    seeds : sequence of int, default=(0,)
        Each cell is measured once for each seed. It decides the split, initial
        weights and order of the samples, the same for all sources of a target.

    test_size : float, default=0.2
        Share of a target that is kept for testing, over the classes in proportion,
        where it is not split already.

    scoring : str or callable, default=None
        Performance P: a scorer, as in scikit-learn; None is the tuner's `score`
        (accuracy; average precision for multilabel targets).

    n_steps : int, default=None
        Train all for about this many steps (batches) instead of the tuner's `epochs`,
        as the paper does, so that small targets are not stopped too early.

    retry_failures : bool, default=False
        Measure again the cells that failed before.

    dry_run : bool, default=False
        Train nothing: print the number of cells and an estimate of the time, and
        return what has been measured so far. Where nothing has, the estimate rests on
        a few epochs of training per architecture.

    n_jobs : int, default=None
        Trainings at a time, see Notes.

    verbose : int, default=1
        0 shows no progress bar.

    Returns
    -------
    measured : Bunch
        improvements : DataFrame of shape (n_targets, n_sources)
            I(t, s), mean over seeds; NaN where a cell failed or is not measured.
        performances : DataFrame of shape (n_targets, n_sources)
            P(M(t, s)), mean over seeds.
        baseline : Series of length n_targets
            P(M(t, ∅)), mean over seeds.
        spread : DataFrame of shape (n_targets, n_sources)
            Standard deviation of I(t, s) over seeds; NaN for fewer than two.
        records : DataFrame
            All records, one row per cell; `source` is None for random weights.

    Raises
    ------
    ValueError
        Before any training, if the folder holds another protocol or other data, a
        source lacks its checkpoint, or a target cannot be split.

    Warns
    -----
    UserWarning
        If cells failed, with their names and reasons.

    Notes
    -----
    The work goes through joblib: processes of this machine by default, and any other
    backend inside ``joblib.parallel_config(backend="dask")`` and the like; threads of
    one process take turns. Each of several workers gets its share of the cores of its
    machine, and, where that has several GPUs, one of them (CUDA_VISIBLE_DEVICES is set
    before CUDA starts), its own as long as there are not more workers than GPUs.
    Workers whose environment names one GPU keep that one.

    References
    ----------
    Bhattacharjee et al., "P2L: Predicting Transfer Learning for Images and Semantic
    Relations", equation 1 and section 4.1.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn_p2l import DatasetEmbedder, FineTuner
    >>> from sklearn_p2l.datasets import load_small_tasks
    >>> from sklearn_p2l.ground_truth import measure_improvement, train_sources
    >>> tasks, folder = load_small_tasks(), tempfile.mkdtemp()
    >>> source = tasks.sources["digits_0_to_4"]
    >>> target = tasks.training_targets["digits"]
    >>> tuner = FineTuner(backbone="small_resnet", image_size=16, epochs=1)
    >>> zoo = train_sources(
    ...     {"low": (source.images, source.labels)},
    ...     tuner,
    ...     embedder=DatasetEmbedder("small_resnet", weights=None, random_state=0),
    ...     folder=f"{folder}/zoo",
    ...     verbose=0,
    ... )
    >>> measured = measure_improvement(
    ...     {"all": (target.images, target.labels)},
    ...     zoo,
    ...     tuner,
    ...     folder=f"{folder}/measured",
    ...     verbose=0,
    ... )
    >>> measured.improvements.shape
    (1, 1)
    """
    pd = import_pandas()
    tasks = _check_tasks(targets, "targets")
    seeds = _check_seeds(seeds)
    _check_checkpoints(sources)
    folder = Path(folder)
    protocol = _describe_tuner(tuner) | {
        "test_size": test_size,
        "scoring": _describe(scoring),
        "n_steps": n_steps,
    }
    checkpoints = {None: None} | {s.name: _hash_file(s.checkpoint) for s in sources}
    contents = {name: _content_of(task) for name, task in tasks.items()}
    cells, expected = [], {}
    for seed in seeds:
        for target, task in tasks.items():
            # Also finds out now, not in hours, that a target cannot be split.
            train, _ = _split(task, test_size, seed, f"target {target!r}")
            split = joblib.hash(train) if train is not None else None
            for source in (None, *sources.names):
                cell = {"target": target, "source": source, "seed": seed}
                path = folder / _file_name(target, source or "∅", seed)
                cells.append((path, cell, task))
                expected[path] = cell | {
                    "data": contents[target],
                    "split": split,
                    "checkpoint": checkpoints[source],
                }
    if retry_failures:
        _forget_failures(expected)
    _check_folder(folder, protocol, expected)
    jobs = [
        (
            path,
            _measure_cell,
            dict(
                task=task,
                source=None if cell["source"] is None else sources[[cell["source"]]],
                tuner=tuner,
                seed=cell["seed"],
                test_size=test_size,
                scoring=scoring,
                n_steps=n_steps,
                known=expected[path] | {"protocol": protocol},
                backbone=_backbone(tuner, sources),
            ),
        )
        for path, cell, task in cells
    ]
    if dry_run:
        _print_estimate(
            jobs,
            f"{len(tasks)} targets × ({len(sources)} sources + "
            f"no transfer) × {len(seeds)} seeds",
            n_jobs,
        )
    else:
        _complete(jobs, n_jobs, verbose, "measuring improvements")
        _check_folder(folder, protocol, expected)  # what other processes did meanwhile
    records = [record for path, *_ in cells if (record := _read_record(path))]
    if not dry_run:
        _warn_of_failures(records)
    return _summarize(pd, records, list(tasks), list(sources.names))


def train_sources(
    sources,
    tuner,
    *,
    embedder,
    folder,
    random_state=0,
    scoring=None,
    n_steps=None,
    n_jobs=None,
    verbose=1,
):
    """Train a network from random weights on each source, and make a catalog of them.

    Interrupted and called again, it goes on where it stopped, as
    :func:`measure_improvement` does.

    Parameters
    ----------
    sources : mapping of str to tuple
        The sources by name: ``(X, y)``, or ``(X, y, X_validation, y_validation)``.

    tuner : FineTuner
        Settings of the training; not fitted. Its `source` is set to None.

    embedder : DatasetEmbedder
        The reference network that describes the sources.

    folder : str or path-like
        Where the weights (safetensors) and the records (JSON) are kept. Created if
        needed.

    random_state : int, default=0
        Seed of every training.

    scoring : str or callable, default=None
        Scorer for the validation part; None is the tuner's `score`.

    n_steps : int, default=None
        Train all for about this many steps instead of the tuner's `epochs`, so that
        small sources learn as long as large ones.

    n_jobs : int, default=None
        Trainings at a time.

    verbose : int, default=1
        0 shows no progress bar.

    Returns
    -------
    catalog : SourceCatalog
        The sources in the given order, with checkpoints; their metadata holds the
        "validation_score", None without a validation part.

    Raises
    ------
    RuntimeError
        At the end, if a source could not be trained. The others are kept: call again.

    See Also
    --------
    split_quarters : The paper's partitions of a domain.

    Examples
    --------
    See :func:`measure_improvement`.
    """
    tasks = _check_tasks(sources, "sources")
    folder = Path(folder).absolute()
    protocol = _describe_tuner(tuner) | {
        "random_state": random_state,
        "scoring": _describe(scoring),
        "n_steps": n_steps,
    }
    jobs, expected = [], {}
    for name, task in tasks.items():
        path = folder / _file_name(name)
        expected[path] = {"source": name, "data": _content_of(task)}
        arguments = dict(
            name=name,
            task=task,
            tuner=tuner,
            checkpoint=path.with_suffix(".safetensors"),
            random_state=random_state,
            scoring=scoring,
            n_steps=n_steps,
            known=expected[path] | {"protocol": protocol},
        )
        jobs.append((path, _train_source, arguments))
    _forget_failures(expected)
    _check_folder(folder, protocol, expected)
    vectors = embedder.fit_transform([task.X for task in tasks.values()])
    _complete(jobs, n_jobs, verbose, "training sources")
    records = [_read_record(path) for path, *_ in jobs]
    failed = {r["source"]: r["error"] for r in records if r["error"]}
    if failed:
        raise RuntimeError(
            f"{len(failed)} of {len(records)} sources could not be trained, the others "
            f"are kept in {folder}: {failed}. Mend or leave them out, and call again."
        )
    return SourceCatalog.from_arrays(
        vectors,
        sizes=[record["size"] for record in records],
        names=list(tasks),
        checkpoints=[arguments["checkpoint"] for *_, arguments in jobs],
        architectures=[record["architecture"] for record in records],
        n_classes=[record["n_classes"] for record in records],
        metadata=[{"validation_score": r["performance"]} for r in records],
    )


def split_quarters(y, *, groups=None, target_share=0.1, random_state=None):
    """Split one domain as the paper does, into a source and a target (section 4.1).

    Of four equal parts the first trains the source, the second validates it, a tenth
    of the third is the target, and the fourth validates the target.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Class labels; every part gets its share of each class.

    groups : array-like of shape (n_samples,), default=None
        Samples of one group all fall into the same part.

    target_share : float, default=0.1
        Share of the third part that becomes the target.

    random_state : int, RandomState instance or None, default=None
        Decides who falls where.

    Returns
    -------
    parts : Bunch
        Indices `source`, `source_validation`, `target` and `target_validation`, each
        an ndarray in ascending order.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_p2l.ground_truth import split_quarters
    >>> parts = split_quarters(np.repeat([0, 1], 200), random_state=0)
    >>> {name: len(part) for name, part in parts.items()}
    {'source': 100, 'source_validation': 100, 'target': 10, 'target_validation': 100}
    """
    y = np.asarray(y)
    folds = StratifiedKFold if groups is None else StratifiedGroupKFold
    folds = folds(4, shuffle=True, random_state=random_state)
    quarters = [part for _, part in folds.split(np.zeros(len(y)), y, groups)]
    target, _ = train_test_split(
        quarters[2],
        train_size=target_share,
        stratify=y[quarters[2]],
        random_state=random_state,
    )
    return Bunch(
        source=quarters[0],
        source_validation=quarters[1],
        target=np.sort(target),
        target_validation=quarters[3],
    )


# -- the two kinds of jobs --------------------------------------------------------


def _measure_cell(
    *, task, source, tuner, seed, test_size, scoring, n_steps, known, backbone
):
    """Train M(t, s), or M(t, ∅) for source=None, and return its record."""
    train, test = _split(task, test_size, seed, "the target")
    if train is None:
        X, y, X_test, y_test = task.X, task.y, task.X_test, task.y_test
    else:
        X, y = _safe_indexing(task.X, train), _safe_indexing(task.y, train)
        X_test, y_test = _safe_indexing(task.X, test), _safe_indexing(task.y, test)
    tuner = clone(tuner).set_params(
        selector=None,
        sources=source,
        source=None if source is None else source.names[0],
        backbone=backbone,
        random_state=seed,
        verbose=0,
    )
    _fit(tuner, X, y, n_steps)
    performance = check_scoring(tuner, scoring)(tuner, X_test, y_test)
    return known | {
        "performance": float(performance),
        "n_train": len(y),
        "n_test": len(y_test),
        **_training_record(tuner),
    }


def _train_source(
    *, name, task, tuner, checkpoint, random_state, scoring, n_steps, known
):
    """Train a source from random weights, write its weights, return its record."""
    tuner = clone(tuner).set_params(
        selector=None, sources=None, source=None, random_state=random_state, verbose=0
    )
    _fit(tuner, task.X, task.y, n_steps)
    performance = None
    if task.X_test is not None:
        scorer = check_scoring(tuner, scoring)
        performance = float(scorer(tuner, task.X_test, task.y_test))
    source = tuner.to_source(name, embedding=[1.0], checkpoint=checkpoint)
    return known | {
        "performance": performance,
        "size": source.size,
        "architecture": source.architecture,
        "n_classes": source.n_classes,
        **_training_record(tuner),
    }


def _fit(tuner, X, y, n_steps):
    if n_steps is not None:
        steps_per_epoch = -(-len(y) // tuner.batch_size)
        tuner.set_params(epochs=max(1, round(n_steps / steps_per_epoch)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            tuner.fit(X, y)
        except ConvergenceWarning as warning:
            # The tuner keeps what it had when it was interrupted; that is no result.
            raise KeyboardInterrupt(str(warning)) from None


def _training_record(tuner):
    return {
        "epochs": len(tuner.history_),
        "train_loss": tuner.history_[-1]["train_loss"],
        "device": tuner.device,
    }


# -- jobs with records ------------------------------------------------------------


def _complete(jobs, n_jobs, verbose, description):
    """Run all jobs (path of the record, function, arguments) that have no record."""
    n_workers = effective_n_jobs(n_jobs)
    n_threads = None if n_workers == 1 else max(1, joblib.cpu_count() // n_workers)
    for path, *_ in jobs:
        path.parent.mkdir(parents=True, exist_ok=True)
    pending = [job for job in jobs if _read_record(job[0]) is None]
    here = (socket.gethostname(), os.getpid())
    with tqdm(
        total=len(jobs),
        initial=len(jobs) - len(pending),
        desc=description,
        unit=" trainings",
        smoothing=0,  # the remaining time by the mean, as trainings differ
        disable=not verbose,
    ) as progress:
        while pending:
            run = Parallel(n_jobs=n_jobs, return_as="generator_unordered")
            done = False
            for finished in run(
                delayed(_run_job)(*job, n_threads=n_threads, parent=here)
                for job in pending
            ):
                done |= finished
                progress.update(finished)
            pending = [job for job in pending if _read_record(job[0]) is None]
            progress.update(len(jobs) - len(pending) - progress.n)
            if pending and not done:  # another process is at work on them
                time.sleep(_PATIENCE)


def _run_job(path, function, arguments, *, n_threads, parent):
    """Run one job and write its record; False if another process is at it."""
    from sklearn_p2l import networks

    with _one_training_at_a_time, _claim(path.with_suffix(".lock")) as claimed:
        if not claimed:
            return False
        if _read_record(path) is not None:
            return True
        if parent != (socket.gethostname(), os.getpid()):
            _bind_to_gpu(arguments["tuner"].device)
        start = time.perf_counter()
        with networks.at_most_threads(n_threads):
            try:
                record = function(**arguments) | {"error": None}
            except Exception as error:  # the run goes on, whatever it is
                record = arguments["known"] | {
                    "performance": None,
                    "error": f"{type(error).__name__}: {error}",
                }
        record["seconds"] = time.perf_counter() - start
        record["versions"] = _versions()
        with atomic_write(path) as file:
            file.write(json.dumps(record, indent=1, ensure_ascii=False).encode())
        return True


@contextmanager
def _claim(path):
    """Whether this process alone may do what the file stands for, inside the block.

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
    except OSError:
        return False
    return True


def _bind_to_gpu(device):
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


def _forget_failures(paths):
    for path in paths:
        if (_read_record(path) or {}).get("error"):
            path.unlink(missing_ok=True)


def _read_record(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _file_name(*parts):
    """A readable and unique file name for names of any kind."""
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:10]
    readable = "--".join(re.sub(r"\W", "_", str(part))[:40] for part in parts)
    return f"{readable}--{digest}.json"


def _versions():
    import torch

    packages = {"numpy": np, "scipy": scipy, "sklearn": sklearn, "torch": torch}
    return {"sklearn_p2l": __version__} | {
        name: module.__version__ for name, module in packages.items()
    }


# -- checks before anything is trained --------------------------------------------


def _check_tasks(tasks, what):
    if not hasattr(tasks, "items") or not tasks:
        raise ValueError(
            f"{what} must be a non-empty mapping of names to (X, y), got {tasks!r:.80}."
        )
    checked = {}
    for name, task in tasks.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"names of {what} must be non-empty str, got {name!r}.")
        if not isinstance(task, (tuple, list)) or len(task) not in (2, 3, 4):
            raise ValueError(
                f"{what}[{name!r}] must be (X, y), (X, y, groups) or (X, y, X_test, "
                f"y_test), got {type(task).__name__}"
                + (f" of length {len(task)}." if hasattr(task, "__len__") else ".")
            )
        X, y, *more = task
        groups = more[0] if len(more) == 1 else None
        X_test, y_test = more if len(more) == 2 else (None, None)
        for part in [(X, y, groups), (X_test, y_test)]:
            try:
                check_consistent_length(*part)
            except ValueError as error:
                raise ValueError(f"{what}[{name!r}]: {error}") from error
        checked[name] = Bunch(X=X, y=y, groups=groups, X_test=X_test, y_test=y_test)
    return checked


def _check_seeds(seeds):
    seeds = [seeds] if isinstance(seeds, (int, np.integer)) else list(seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be different integers, got {seeds}.")
    return [int(seed) for seed in seeds]


def _check_checkpoints(sources):
    if not isinstance(sources, SourceCatalog):
        raise ValueError(
            f"sources must be a SourceCatalog, got {type(sources).__name__}; "
            "train_sources makes one."
        )
    for source in sources:
        if source.checkpoint is None or not os.path.isfile(source.checkpoint):
            raise ValueError(
                f"source {source.name!r} must have a checkpoint to start from, got "
                f"{source.checkpoint}; train_sources trains sources that have none."
            )


def _backbone(tuner, sources):
    """The architecture of M(t, ∅): the tuner's, or the one that all sources share."""
    shared = {source.architecture for source in sources}
    if tuner.backbone is None and len(shared) > 1:
        raise ValueError(
            "tuner must have a backbone for random weights where the sources differ in "
            f"architecture, got None and sources of {sorted(map(str, shared))}."
        )
    return tuner.backbone if tuner.backbone is not None else shared.pop()


def _split(task, test_size, seed, what):
    """Indices of the training and test part; None where the task is split already."""
    if task.X_test is not None:
        return None, None
    if not 0 < test_size < 1:
        raise ValueError(f"test_size must be between 0 and 1, got {test_size!r}.")
    y = np.asarray(task.y)
    rows = np.arange(len(y))
    try:
        if task.groups is None:
            stratify = y if y.ndim == 1 else None
            return train_test_split(
                rows, test_size=test_size, stratify=stratify, random_state=seed
            )
        folds = StratifiedGroupKFold(
            max(2, round(1 / test_size)), shuffle=True, random_state=seed
        )
        return next(folds.split(rows, y, task.groups))
    except ValueError as error:
        raise ValueError(f"{what} cannot be split: {error}") from error


def _content_of(task):
    """Hash of a task's data; None where its samples have no cheap one."""
    parts = [task.X] if task.X_test is None else [task.X, task.X_test]
    keys = [content_key(part) for part in parts]
    if None in keys:
        return None
    labels = [np.asarray(v).tolist() for v in (task.y, task.groups, task.y_test)]
    return joblib.hash((keys, labels))


def _hash_file(path):
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()[:32]


def _describe_tuner(tuner):
    settings = tuner.get_params(deep=False)
    return {k: _describe(v) for k, v in settings.items() if k not in _NOT_PROTOCOL}


def _describe(value):
    """A setting as JSON can hold it, the same in every process."""
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    if isinstance(value, dict):
        return {str(k): _describe(v) for k, v in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def _check_folder(folder, protocol, expected):
    """Refuse records of another protocol, or of other data under a known name."""
    protocol = json.loads(json.dumps(protocol))
    for path in sorted(folder.glob("*.json")):
        record = _read_record(path)
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
        wanted = expected.get(path, record)
        for key in ("data", "split", "checkpoint"):
            if record.get(key) != wanted.get(key):
                raise ValueError(
                    f"{folder} must hold records of the same data, but the {key} of "
                    f"{name} is another than what was measured; pass another folder, "
                    "or another name."
                )


# -- results ----------------------------------------------------------------------


def _print_estimate(jobs, what, n_jobs):
    """Print how many trainings there are, and how long those to do may take."""
    records = [_read_record(path) for path, *_ in jobs]
    todo = [job for job, record in zip(jobs, records) if record is None]
    seconds = [r["seconds"] for r in records if r and not r["error"]]
    if seconds:
        total = np.mean(seconds) * len(todo)
    else:
        rates = {}
        total = 0.0
        for *_, arguments in todo:
            source, task = arguments["source"], arguments["task"]
            kind = arguments["backbone"] if source is None else source[0].architecture
            if kind not in rates:
                rates[kind] = _seconds_per_sample(arguments)
            n, batch_size = len(task.y), arguments["tuner"].batch_size
            if task.X_test is None:
                n *= 1 - arguments["test_size"]
            passes = n * arguments["tuner"].epochs
            if arguments["n_steps"] is not None:
                passes = arguments["n_steps"] * min(batch_size, n)
            total += rates[kind] * passes
    n_workers = effective_n_jobs(n_jobs)
    minutes = total / n_workers / 60
    print(
        f"{what}: {len(jobs)} cells, {len(jobs) - len(todo)} measured, {len(todo)} to "
        f"do; about {minutes:.1f} minutes with {n_workers} at a time."
    )


def _seconds_per_sample(arguments):
    """Time two epochs of training on a few samples, the second one counts."""
    source, task = arguments["source"], arguments["task"]
    tuner = clone(arguments["tuner"]).set_params(
        selector=None,
        sources=source,
        source=None if source is None else source.names[0],
        backbone=arguments["backbone"],
        epochs=2,
        early_stopping=False,
        verbose=0,
    )
    some = np.random.RandomState(0).permutation(len(task.y))[: 4 * tuner.batch_size]
    y = np.arange(len(some)) % 2  # any labels will do
    tuner.fit(_safe_indexing(task.X, some), y)
    return tuner.history_[-1]["seconds"] / len(some)


def _warn_of_failures(records):
    failed = [r for r in records if r["error"]]
    if failed:
        listed = "; ".join(
            f"{r['target']} ← {r['source'] or 'no transfer'} (seed {r['seed']}): "
            f"{r['error']}"
            for r in failed[:10]
        )
        warnings.warn(
            f"{len(failed)} of {len(records)} cells failed and are NaN: {listed}"
            f"{'; ...' if len(failed) > 10 else ''}. Pass retry_failures=True to try "
            "them again.",
            UserWarning,
            stacklevel=3,
        )


def _summarize(pd, records, targets, sources):
    columns = ["target", "source", "seed", "performance", "error", "seconds"]
    frame = pd.DataFrame(records, columns=_columns(records, columns))
    frame["source"] = (
        frame["source"].astype(object).where(frame["source"].notna(), None)
    )
    frame["performance"] = frame["performance"].astype(float)
    without = frame[frame["source"].isna()].set_index(["target", "seed"])["performance"]
    transferred = frame[frame["source"].notna()].copy()
    keys = pd.MultiIndex.from_frame(transferred[["target", "seed"]])
    transferred["improvement"] = (
        transferred["performance"].to_numpy() - without.reindex(keys).to_numpy()
    )
    cells = transferred.groupby(["target", "source"])

    def table(values):
        return values.unstack().reindex(index=targets, columns=sources)

    return Bunch(
        improvements=table(cells["improvement"].mean()),
        performances=table(cells["performance"].mean()),
        baseline=without.groupby("target").mean().reindex(targets),
        spread=table(cells["improvement"].std()),
        records=frame,
    )


def _columns(records, first):
    keys = dict.fromkeys(first)
    for record in records:
        keys |= dict.fromkeys(record)
    return list(keys)
