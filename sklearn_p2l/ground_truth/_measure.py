"""The improvement that each source brings to each target, measured by fine-tuning."""

import joblib
from sklearn.base import clone

from sklearn_p2l._compat import import_pandas, load_networks
from sklearn_p2l._files import hash_file
from sklearn_p2l.catalog import SourceCatalog, has_weights, is_published
from sklearn_p2l.ground_truth._cells import (
    check_n_steps,
    check_scoring_of,
    measure_cell,
)
from sklearn_p2l.ground_truth._estimate import print_estimate
from sklearn_p2l.ground_truth._protocol import (
    check_folder,
    content_of,
    describe,
    describe_estimator,
)
from sklearn_p2l.ground_truth._records import (
    complete,
    file_name,
    folder_for,
    forget,
    has_failed,
    read_record,
)
from sklearn_p2l.ground_truth._splits import split_task
from sklearn_p2l.ground_truth._tables import tables_of, warn_of_failures
from sklearn_p2l.task import as_tasks


def measure_improvement(
    targets,
    sources,
    estimator,
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
    targets : mapping of str to Task
        The targets by name: a task without a test part is split by `test_size`, so that
        no group is on both sides where it has groups. Tuples ``(X, y)``,
        ``(X, y, groups)`` and ``(X, y, X_test, y_test)`` stand for tasks.

    sources : SourceCatalog
        The sources with their checkpoints, files or published names;
        :func:`train_sources` makes one.

    estimator : NetworkClassifier
        The protocol's settings: epochs, learning rates and so on. Not fitted. As it is
        it gives M(t, ∅); for M(t, s) its `backbone` and `weights` are set to those of
        the source. `random_state` is set for each cell.

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
        Performance P: a scorer, as in scikit-learn; None is the estimator's `score`
        (accuracy; average precision for multilabel targets).

    n_steps : int, default=None
        Train all for about this many steps (batches) instead of the estimator's
        `epochs`, as the paper does.

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
            All records, one row per cell; `source` is None for random weights, and
            `converged` is False where training learned no more than always giving the
            shares of the classes. Such cells count as they are.
        n_not_converged : int
            Number of these.

    Raises
    ------
    ValueError
        Before any training, if the folder holds another protocol or other data, a
        source lacks its checkpoint, or a target cannot be split.

    Warns
    -----
    FailedCellsWarning
        If cells failed, with their names and reasons.
    ConvergenceWarning
        If trainings learned nothing, with their names.

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
    >>> from sklearn_p2l import DatasetEmbedder, NetworkClassifier
    >>> from sklearn_p2l.datasets import load_small_tasks
    >>> from sklearn_p2l.ground_truth import measure_improvement, train_sources
    >>> tasks, folder = load_small_tasks(), tempfile.mkdtemp()
    >>> classifier = NetworkClassifier("small_resnet", image_size=16, epochs=1)
    >>> zoo = train_sources(
    ...     {"low": tasks.sources["digits_0_to_4"]},
    ...     classifier,
    ...     embedder=DatasetEmbedder("small_resnet", weights=None, random_state=0),
    ...     folder=f"{folder}/zoo",
    ...     verbose=0,
    ... )
    >>> measured = measure_improvement(
    ...     {"all": tasks.training_targets["digits"]},
    ...     zoo,
    ...     classifier,
    ...     folder=f"{folder}/measured",
    ...     verbose=0,
    ... )
    >>> measured.improvements.shape
    (1, 1)
    """
    pd = import_pandas()
    tasks = as_tasks(targets, "targets")
    seeds = _check_seeds(seeds)
    _check_checkpoints(sources)
    check_scoring_of(estimator, scoring)
    check_n_steps(n_steps)
    folder = folder_for(folder)
    _check_architectures(estimator, sources)
    estimator = clone(estimator).set_params(image_size=_image_size(estimator, sources))
    settings = {"test_size": test_size, "scoring": scoring, "n_steps": n_steps}
    protocol = describe_estimator(estimator) | describe(settings)
    cells = _cells(tasks, sources, seeds, test_size)
    jobs = [
        (
            folder / file_name(cell["target"], cell["source"], cell["seed"]),
            measure_cell,
            settings
            | {
                "task": tasks[cell["target"]],
                "source": None if cell["source"] is None else sources[cell["source"]],
                "estimator": estimator,
                "known": cell | {"protocol": protocol},
            },
        )
        for cell in cells
    ]
    expected = {path: cell for (path, *_), cell in zip(jobs, cells)}
    check_folder(folder, protocol, expected)
    if dry_run:
        what = (
            f"{len(tasks)} targets × ({len(sources)} sources + no transfer) × "
            f"{len(seeds)} seed{'s' * (len(seeds) != 1)}"
        )
        print_estimate(jobs, what, n_jobs)
    else:
        if retry_failures:
            forget(path for path in expected if has_failed(path))
        complete(
            jobs, n_jobs=n_jobs, verbose=verbose, description="measuring improvements"
        )
        check_folder(folder, protocol, expected)  # what other processes did meanwhile
    records = [record for path in expected if (record := read_record(path))]
    if not dry_run:
        warn_of_failures(records)
    return tables_of(pd, records, list(tasks), list(sources.names))


def _cells(tasks, sources, seeds, test_size):
    """What is to be measured, and on which data: one dict per cell."""
    checkpoints = {None: None} | {s.name: _checkpoint_key(s) for s in sources}
    contents = {name: content_of(task) for name, task in tasks.items()}
    cells = []
    for seed in seeds:
        for target, task in tasks.items():
            # Also finds out now, not in hours, that a target cannot be split.
            train, _ = split_task(task, test_size, seed, f"target {target!r}")
            for source in (None, *sources.names):
                cells.append(
                    {
                        "target": target,
                        "source": source,
                        "seed": seed,
                        "data": contents[target],
                        "split": None if train is None else joblib.hash(train),
                        "checkpoint": checkpoints[source],
                    }
                )
    return cells


def _checkpoint_key(source):
    if is_published(source.checkpoint):
        return f"{source.architecture}:{source.checkpoint}"
    return hash_file(source.checkpoint)[:32]


def _check_seeds(seeds):
    wanted = "seeds must be a sequence of different integers"
    if not hasattr(seeds, "__iter__"):
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
        if not has_weights(source):
            raise ValueError(
                f"source {source.name!r} must have a checkpoint to start from, got "
                f"{source.checkpoint}; train_sources trains sources that have none."
            )


def _check_architectures(estimator, sources):
    """Refuse a M(t, ∅) of another architecture than the only one of the sources."""
    shared = {source.architecture for source in sources}
    backbone = estimator.backbone
    if len(shared) == 1 and isinstance(backbone, str) and not {None, backbone} & shared:
        (architecture,) = shared
        raise ValueError(
            "estimator must have the architecture of the sources as its backbone, so "
            f"that M(t, s) and M(t, ∅) compare, got {backbone!r} and sources of "
            f"{architecture!r}; pass NetworkClassifier({architecture!r}, ...)."
        )


def _image_size(estimator, sources):
    """The side of all images: the estimator's, or the one that all sources share.

    Without it, M(t, ∅) would see the images at the network's usual size, and M(t, s)
    at that of the checkpoint.
    """
    if estimator.image_size is not None:
        return estimator.image_size
    read = load_networks().checkpoint_metadata
    files = [s.checkpoint for s in sources if not is_published(s.checkpoint)]
    sizes = {read(file).get("image_size") for file in files}
    if len(sizes) > 1 or not all(s is None or s.isdecimal() for s in sizes):
        raise ValueError(
            "estimator must have an image_size where the sources were not trained at "
            f"one that is known, got None and {sorted(map(str, sizes))}."
        )
    size = sizes.pop() if sizes else None
    return int(size) if size else None
