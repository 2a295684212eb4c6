"""Sources, trained one after another, and made into a catalog."""

from sklearn_p2l.catalog import SourceCatalog
from sklearn_p2l.ground_truth._cells import (
    check_n_steps,
    check_scoring_of,
    train_source,
)
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
from sklearn_p2l.task import as_tasks


def train_sources(
    sources,
    estimator,
    *,
    embedder,
    folder,
    random_state=0,
    scoring=None,
    n_steps=None,
    n_jobs=None,
    verbose=1,
):
    """Train a network on each source, and make a catalog of them.

    Interrupted and called again, it goes on where it stopped, as
    :func:`measure_improvement` does.

    Parameters
    ----------
    sources : mapping of str to Task
        The sources by name; a test part validates them. Tuples ``(X, y)`` and
        ``(X, y, X_test, y_test)`` stand for tasks.

    estimator : NetworkClassifier
        Settings of the training; not fitted. Mostly it starts from random weights.

    embedder : DatasetEmbedder
        The reference network that describes the sources.

    folder : str or path-like
        Where the weights (safetensors) and the records (JSON) are kept, and in the
        end the catalog, for ``SourceCatalog.load(folder)``. Created if needed.

    random_state : int, default=0
        Seed of every training.

    scoring : str or callable, default=None
        Scorer for the test part; None is the estimator's `score`.

    n_steps : int, default=None
        Train all for about this many steps instead of the estimator's `epochs`, so that
        small sources learn as long as large ones.

    n_jobs : int, default=None
        Trainings at a time.

    verbose : int, default=1
        0 shows no progress bar.

    Returns
    -------
    catalog : SourceCatalog
        The sources in the given order, with checkpoints; their column "score" holds the
        performance on the test part, NaN where there is none.

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
    tasks = as_tasks(sources, "sources")
    check_scoring_of(estimator, scoring)
    check_n_steps(n_steps)
    folder = folder_for(folder)
    settings = {"random_state": random_state, "scoring": scoring, "n_steps": n_steps}
    protocol = describe_estimator(estimator) | describe(settings)
    jobs, expected = [], {}
    for name, task in tasks.items():
        path = folder / file_name(name)
        expected[path] = {"source": name, "data": content_of(task)}
        arguments = settings | {
            "name": name,
            "task": task,
            "estimator": estimator,
            "checkpoint": path.with_suffix(".safetensors"),
            "known": expected[path] | {"protocol": protocol},
        }
        jobs.append((path, train_source, arguments))
    check_folder(folder, protocol, expected)
    vectors = embedder.fit(list(tasks.values())).transform(list(tasks.values()))
    forget(
        path
        for path in expected
        if has_failed(path) or not path.with_suffix(".safetensors").exists()
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
        columns={"score": [record["performance"] for record in records]},
    )
    catalog.save(folder)
    return catalog
