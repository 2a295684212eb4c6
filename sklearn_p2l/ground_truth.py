"""Ground truth: how much transfer gains, measured by fine-tuning every source."""

import os
import warnings
from pathlib import Path

import joblib
import numpy as np
from joblib import effective_n_jobs
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import (
    GroupShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    train_test_split,
)
from sklearn.utils import Bunch, _safe_indexing, check_consistent_length

from sklearn_p2l._frames import import_pandas
from sklearn_p2l._jobs import complete, file_name, read_record
from sklearn_p2l._protocol import (
    check_folder,
    content_of,
    describe,
    describe_tuner,
    hash_file,
)
from sklearn_p2l.catalog import SourceCatalog
from sklearn_p2l.datasets._images import is_sequence

__all__ = ["measure_improvement", "split_quarters", "train_sources"]

# Image files of targets whose pixels take more than this are read by each training.
_BYTES_READ_ONCE = 2 * 2**30


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
        where it is not split already. Groups are dealt out in equal folds, so their
        share is about 1/2, 1/3, 1/4, ...

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
            I(t, s), mean over the seeds that succeeded; NaN where there is none.
        performances : DataFrame of shape (n_targets, n_sources)
            P(M(t, s)), likewise.
        baseline : Series of length n_targets
            P(M(t, ∅)), likewise.
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
    tasks = _check_tasks(targets, "targets", lengths=(2, 3, 4))
    seeds = _check_seeds(seeds)
    _check_checkpoints(sources)
    _check_scoring(tuner, scoring)
    folder = _check_is_folder(folder)
    tuner = clone(tuner).set_params(
        backbone=_backbone(tuner, sources), image_size=_image_size(tuner, sources)
    )
    protocol = describe_tuner(tuner) | {
        "test_size": describe(test_size),
        "scoring": describe(scoring),
        "n_steps": describe(n_steps),
    }
    checkpoints = {None: None} | {s.name: hash_file(s.checkpoint) for s in sources}
    contents = {name: content_of(task) for name, task in tasks.items()}
    jobs, expected = [], {}
    for seed in seeds:
        for target, task in tasks.items():
            # Also finds out now, not in hours, that a target cannot be split.
            train, _ = _split(task, test_size, seed, f"target {target!r}")
            for source in (None, *sources.names):
                path = folder / file_name(target, source, seed)
                expected[path] = {
                    "target": target,
                    "source": source,
                    "seed": seed,
                    "data": contents[target],
                    "split": None if train is None else joblib.hash(train),
                    "checkpoint": checkpoints[source],
                }
                arguments = dict(
                    task=task,
                    source=None if source is None else sources[[source]],
                    tuner=tuner,
                    seed=seed,
                    test_size=test_size,
                    scoring=scoring,
                    n_steps=n_steps,
                    known=expected[path] | {"protocol": protocol},
                )
                jobs.append((path, _measure_cell, arguments))
    check_folder(folder, protocol, expected)
    if dry_run:
        what = (
            f"{len(tasks)} targets × ({len(sources)} sources + no transfer) × "
            f"{len(seeds)} seed{'s' * (len(seeds) != 1)}"
        )
        _print_estimate(jobs, what, n_jobs)
    else:
        if retry_failures:
            _forget(path for path in expected if _failed(path))
        pending = [job for job in jobs if read_record(job[0]) is None]
        _read_files_once(
            {id(job[2]["task"]): job[2]["task"] for job in pending}.values(),
            {source.architecture or tuner.backbone for source in sources},
            tuner,
        )
        complete(
            jobs,
            n_jobs=n_jobs,
            verbose=verbose,
            description="measuring improvements",
        )
        check_folder(folder, protocol, expected)  # what other processes did meanwhile
    records = [record for path in expected if (record := read_record(path))]
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
        Where the weights (safetensors) and the records (JSON) are kept, and in the
        end the catalog, for ``SourceCatalog.load(folder)``. Created if needed.

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
    tasks = _check_tasks(sources, "sources", lengths=(2, 4))
    _check_scoring(tuner, scoring)
    folder = _check_is_folder(folder)
    protocol = describe_tuner(tuner) | {
        "random_state": describe(random_state),
        "scoring": describe(scoring),
        "n_steps": describe(n_steps),
    }
    jobs, expected = [], {}
    for name, task in tasks.items():
        path = folder / file_name(name)
        expected[path] = {"source": name, "data": content_of(task)}
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
    check_folder(folder, protocol, expected)
    datasets = [task.X for task in tasks.values()]
    vectors = embedder.fit(datasets).transform(datasets)
    _forget(
        path
        for path in expected
        if _failed(path) or not path.with_suffix(".safetensors").exists()
    )
    complete(jobs, n_jobs=n_jobs, verbose=verbose, description="training sources")
    records = [read_record(path) for path, *_ in jobs]
    failed = {r["source"]: r["error"] for r in records if r["error"]}
    if failed:
        raise RuntimeError(
            f"{len(failed)} of {len(records)} sources could not be trained, the others "
            f"are kept in {folder}: {failed}. Mend or leave them out, and call again."
        )
    catalog = SourceCatalog.from_arrays(
        vectors,
        sizes=[record["size"] for record in records],
        names=list(tasks),
        checkpoints=[arguments["checkpoint"] for *_, arguments in jobs],
        architectures=[record["architecture"] for record in records],
        n_classes=[record["n_classes"] for record in records],
        metadata=[{"validation_score": r["performance"]} for r in records],
    )
    catalog.save(folder)
    return catalog


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


def _measure_cell(*, task, source, tuner, seed, test_size, scoring, n_steps, known):
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
        random_state=seed,
        verbose=0,
    )
    _fit(tuner, X, y, n_steps)
    return known | {
        "performance": _performance(tuner, scoring, X_test, y_test),
        "n_train": len(y),
        "n_test": len(y_test),
        **_training_record(tuner),
    }


def _read_files_once(tasks, architectures, tuner):
    """Replace the image files of tasks by their pixels, which all cells share.

    They are resized as the networks will want them but not yet cropped, so that this
    changes pixels by no more than rounding does. Workers map one file of each array
    into their memory. Targets that would take too much of it are read by each cell.
    """
    from sklearn_p2l import networks

    tasks = [task for task in tasks if _are_files(task.X)]
    if not tasks:
        return
    opened = [
        networks.open_network(backbone, weights=None, image_size=tuner.image_size)
        for backbone in architectures | {tuner.backbone}
    ]
    if len({repr(network.preprocessing) for network in opened}) > 1:
        return
    if opened[0].takes != "images":
        return
    side = opened[0].preprocessing.resize_size
    left = _BYTES_READ_ONCE
    for task in tasks:
        parts = [part for part in ("X", "X_test") if _are_files(task[part])]
        n_bytes = sum(len(task[part]) for part in parts) * side * side * 3
        if n_bytes > left:
            continue
        left -= n_bytes
        try:
            pixels = {part: opened[0].read_uncropped(task[part]) for part in parts}
        except ValueError:  # each cell will record what is wrong with its images
            continue
        task.update(pixels)


def _are_files(X):
    X = X.to_numpy() if hasattr(X, "to_numpy") else X
    return is_sequence(X) and len(X) and isinstance(X[0], (str, os.PathLike))


def _train_source(
    *, name, task, tuner, checkpoint, random_state, scoring, n_steps, known
):
    """Train a source from random weights, write its weights, return its record."""
    tuner = clone(tuner).set_params(
        selector=None, sources=None, source=None, random_state=random_state, verbose=0
    )
    _fit(tuner, task.X, task.y, n_steps)
    source = tuner.to_source(name, embedding=[1.0], checkpoint=checkpoint)
    performance = None
    if task.X_test is not None:
        performance = _performance(tuner, scoring, task.X_test, task.y_test)
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


def _performance(tuner, scoring, X, y):
    performance = float(check_scoring(tuner, scoring)(tuner, X, y))
    if not np.isfinite(performance):
        raise ValueError(f"the performance must be finite, got {performance}.")
    return performance


def _training_record(tuner):
    from sklearn_p2l import networks

    return {
        "epochs": len(tuner.history_),
        "train_loss": tuner.history_[-1]["train_loss"],
        "device": str(networks.choose_device(tuner.device)),
    }


# -- checks before anything is trained --------------------------------------------


def _check_is_folder(folder):
    folder = Path(folder).absolute()  # workers may be elsewhere
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder must be a folder, got the file {folder}.")
    return folder


def _check_scoring(tuner, scoring):
    if not (scoring is None or isinstance(scoring, str) or callable(scoring)):
        raise ValueError(
            "scoring must be the name of one scorer, a scorer or None, got "
            f"{scoring!r}."
        )
    check_scoring(tuner, scoring)


def _check_tasks(tasks, what, *, lengths):
    if not hasattr(tasks, "items") or not tasks:
        raise ValueError(
            f"{what} must be a non-empty mapping of names to (X, y), got {tasks!r:.80}."
        )
    checked = {}
    for name, task in tasks.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"names of {what} must be non-empty str, got {name!r}.")
        if not isinstance(task, (tuple, list)) or len(task) not in lengths:
            groups = ", (X, y, groups)" if 3 in lengths else ""
            raise ValueError(
                f"{what}[{name!r}] must be (X, y){groups} or (X, y, X_test, y_test), "
                f"got {type(task).__name__}"
                + (f" of length {len(task)}." if hasattr(task, "__len__") else ".")
            )
        X, y, *more = task
        groups = more[0] if len(more) == 1 else None
        X_test, y_test = more if len(more) == 2 else (None, None)
        y, y_test = (v.toarray() if issparse(v) else v for v in (y, y_test))
        for samples, *labels in [(X, y, groups), (X_test, y_test)]:
            if isinstance(samples, (str, os.PathLike)):
                raise ValueError(
                    f"{what}[{name!r}] must hold samples, got one path, {samples}; "
                    "pass a list with the path of each image, in the order of y."
                )
            try:
                check_consistent_length(samples, *labels)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{what}[{name!r}]: {error}") from error
        if np.ndim(y) == 1 and len(np.unique(y)) < 2:
            raise ValueError(
                f"{what}[{name!r}] must have at least two classes, got one: {y[0]}."
            )
        if y_test is not None and np.ndim(y) == 1:
            unknown = np.setdiff1d(y_test, y)
            if len(unknown):
                raise ValueError(
                    f"{what}[{name!r}] must have no class in its test part that is not "
                    f"in its training part, got {unknown.tolist()[:5]}."
                )
        checked[name] = Bunch(X=X, y=y, groups=groups, X_test=X_test, y_test=y_test)
    return checked


def _check_seeds(seeds):
    wanted = "seeds must be a sequence of different integers"
    if isinstance(seeds, (int, np.integer)):
        raise ValueError(f"{wanted}, got {seeds}; pass range({seeds}) or ({seeds},).")
    seeds = [int(seed) for seed in seeds]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"{wanted}, got {seeds}.")
    return seeds


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
    if tuner.backbone is not None:
        return tuner.backbone
    shared = {source.architecture for source in sources}
    if len(shared) > 1 or None in shared:
        raise ValueError(
            "tuner must have a backbone for random weights where the sources differ in "
            f"architecture, got None and sources of {sorted(map(str, shared))}."
        )
    return shared.pop()


def _image_size(tuner, sources):
    """The side of all images: the tuner's, or the one that all sources share.

    Without it, M(t, ∅) would see the images at the network's usual size, and M(t, s)
    at that of the checkpoint.
    """
    from sklearn_p2l import networks

    if tuner.image_size is not None:
        return tuner.image_size
    sizes = {networks.checkpoint_image_size(source.checkpoint) for source in sources}
    if len(sizes) > 1:
        raise ValueError(
            "tuner must have an image_size where the sources were trained at several, "
            f"got None and {sorted(map(str, sizes))}."
        )
    return sizes.pop()


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
        if y.ndim > 1:
            folds = GroupShuffleSplit(1, test_size=test_size, random_state=seed)
            return next(folds.split(rows, y, task.groups))
        n_folds = max(2, round(1 / min(test_size, 1 - test_size)))
        folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
        larger, smaller = next(folds.split(rows, y, task.groups))
        return (larger, smaller) if test_size <= 0.5 else (smaller, larger)
    except ValueError as error:
        raise ValueError(f"{what} cannot be split: {error}") from error


def _failed(path):
    return bool((read_record(path) or {}).get("error"))


def _forget(paths):
    for path in paths:
        path.unlink(missing_ok=True)


# -- results ----------------------------------------------------------------------


def _print_estimate(jobs, what, n_jobs):
    """Print how many trainings there are, and how long those to do may take."""
    records = [read_record(path) for path, *_ in jobs]
    todo = [job for job, record in zip(jobs, records) if record is None]
    seconds = [r["seconds"] for r in records if r and not r["error"]]
    if seconds:
        total = np.mean(seconds) * len(todo)
    else:
        rates = {}
        total = 0.0
        for *_, arguments in todo:
            source, task = arguments["source"], arguments["task"]
            kind = None if source is None else source[0].architecture
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
        epochs=2,
        early_stopping=False,
        class_weight=None,
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
            f"{len(failed)} of {len(records)} cells failed and are left out: {listed}"
            f"{'; ...' if len(failed) > 10 else ''}. Once the cause is mended, pass "
            "retry_failures=True to measure them again.",
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
        # Equal means of several seeds stay equal in spite of round-off.
        improvements=table(cells["improvement"].mean().round(12)),
        performances=table(cells["performance"].mean().round(12)),
        baseline=without.groupby("target").mean().reindex(targets).round(12),
        spread=table(cells["improvement"].std()),
        records=frame,
    )


def _columns(records, first):
    keys = dict.fromkeys(first)
    for record in records:
        keys |= dict.fromkeys(record)
    return list(keys)
