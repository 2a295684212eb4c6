"""Signals of a pass through a source's own network: how well its features tell.

Networks are opened one at a time in each process, and built once for sources of one
architecture. Images of a target are read once for all sources that prepare them alike.
Features of one source and target are computed once, and serve all scores; scores are
remembered for as long as the process lives, so that folds of a cross-validation do not
compute them again.
"""

import os
import uuid
import warnings
from collections import OrderedDict
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path

import joblib
import numpy as np
from joblib import Parallel, delayed
from scipy.special import softmax

from sklearn_p2l._compat import load_networks, progress_bar
from sklearn_p2l._files import hash_file, remembered
from sklearn_p2l._workers import (
    as_worker,
    one_blas_thread,
    replacing_workers,
    this_process,
)
from sklearn_p2l.exceptions import SkippedSourcesWarning
from sklearn_p2l.samples import content_key, take
from sklearn_p2l.transferability import leep_score, score_features

# What each score is made of: the features of a source's network, or the probabilities
# that its own last layer gives.
SCORES = {
    "logme": "features",
    "probe": "features",
    "knn": "features",
    "h_score": "features",
    "leep": "probabilities",
}
# Of larger targets so many samples, drawn at random, say as much.
MOST_SAMPLES = 2000
# Scores that are remembered, the last ones used.
_N_KEPT = 2**17
_kept = OrderedDict()
# Images of targets as they are once read, for as long as one call opens sources: those
# that prepare images alike need them read only once. At most so many bytes.
_pixels = {}
_MOST_BYTES = 2**28
# The network that was last used in such a call, and what it was built of: it takes the
# weights of the next source where that is built alike.
_networks = {}


def score_sources(
    sources, tasks, names, wanted, *, image_size, memory, device, n_jobs, verbose
):
    """Score the features of sources on tasks.

    Parameters
    ----------
    sources : list of Source
        With checkpoints.
    tasks : list of Task
        Whose labels are to be told apart.
    names : list of str
        Some of `SCORES`.
    wanted : ndarray of shape (n_tasks, n_sources)
        Which pairs are to be scored.
    image_size, memory, device, n_jobs, verbose
        As in EvidenceSelector.

    Returns
    -------
    scores : dict of str to ndarray of shape (n_tasks, n_sources)
        NaN where not wanted, and where a network could not be opened or used.

    Raises
    ------
    OSError, ValueError
        What the first network raised, if none could be used for a task.

    Warns
    -----
    SkippedSourcesWarning
        If some could not be, with their names and reasons.
    """
    scores = {name: np.full(wanted.shape, np.nan) for name in names}
    parts = [_part_of(task) for task in tasks]
    contents = [content_key(X) for X, _ in parts]
    jobs, failures = [], {}
    for j, source in enumerate(sources):
        settings = _start_of(source), image_size
        todo = []
        for i in np.flatnonzero(wanted[:, j]):
            X, y = parts[i]
            key = settings, contents[i], joblib.hash(np.asarray(y))
            known = None if contents[i] is None else _recall(key, names)
            if known is None:
                todo.append((i, key, X, y))
                continue
            for name, value in known.items():
                scores[name][i, j] = value
        if todo:
            jobs.append((j, source, todo))
    if not jobs:
        return scores
    parallel = Parallel(n_jobs=n_jobs, return_as="generator")
    n_workers = min(parallel.n_jobs, len(jobs))
    run = partial(
        _score_one,
        names=names,
        image_size=image_size,
        memory=memory,
        device=device,
        n_workers=n_workers,
        parent=this_process(),
        call=uuid.uuid4().hex,
    )
    bar = progress_bar(total=len(jobs), desc="opening sources", disable=not verbose)
    with bar, replacing_workers(), one_blas_thread(), _forgetting():
        results = parallel(delayed(run)(source, todo) for _, source, todo in jobs)
        for (j, _, todo), rows in zip(jobs, results):
            for (i, key, *_), row in zip(todo, rows):
                if isinstance(row, Exception):
                    failures[i, j] = row
                    continue
                for name, value in row.items():
                    scores[name][i, j] = value
                    if key[1] is not None:
                        _remember((key, name), value)
            bar.update()
    _tell_of_failures(failures, scores[names[0]], sources)
    return scores


@contextmanager
def _forgetting():
    """Let go of images and of the network in the end, however it comes."""
    try:
        yield
    finally:
        _pixels.clear()
        _networks.clear()


def _tell_of_failures(failures, values, sources):
    """Warn of sources that could not be used; raise where that is all of them."""
    reasons = {}
    for (i, j), error in failures.items():
        if np.isnan(values[i]).all():  # more likely it is the target
            raise error
        reasons.setdefault(sources[j].name, str(error))
    if reasons:
        warnings.warn(
            f"{len(reasons)} of {len(sources)} sources could not be used, and are no "
            f"candidates: {'; '.join(list(reasons.values())[:5])}",
            SkippedSourcesWarning,
            stacklevel=2,
        )


def _part_of(task):
    """Samples and labels of a task, or of a random part of it."""
    y, n = np.asarray(task.y), len(task)
    if n <= MOST_SAMPLES:
        return task.X, y
    rows = np.sort(np.random.RandomState(0).permutation(n)[:MOST_SAMPLES])
    return take(task.X, rows), y[rows]


def _start_of(source):
    """What decides about the features of a source: its architecture and weights."""
    checkpoint = source.checkpoint
    if os.path.isfile(checkpoint):
        status = os.stat(checkpoint)
        checkpoint = _hash(checkpoint, status.st_size, status.st_mtime_ns)
    return source.architecture, checkpoint


@lru_cache(maxsize=10_000)
def _hash(path, size, time_of_change):
    """Hash a file, once as long as it stays the same."""
    return hash_file(path)


def _recall(key, names):
    """Scores by name if all of them are remembered."""
    if any((key, name) not in _kept for name in names):
        return None
    for name in names:
        _kept.move_to_end((key, name))
    return {name: _kept[key, name] for name in names}


def _remember(key, value):
    _kept[key] = value
    if len(_kept) > _N_KEPT:
        _kept.popitem(last=False)


def _score_one(
    source, todo, *, names, image_size, memory, device, n_workers, parent, call
):
    """Scores of one source, a dict or an error for each task.

    Its network is opened if need be.
    """
    kinds = {SCORES[name] for name in names}
    opened = []  # what `_open` returns, when it is needed

    def compute(kind, X, content):
        networks = load_networks()
        if not opened:
            opened[:] = _open(source, image_size, "probabilities" in kinds, call)
        network = opened[1]
        batches = _read(network, X, content, call)
        where = dict(precision="auto", device=networks.choose_device(device))
        if kind == "features":
            parts = networks.extract_features(network, batches, **where)
            return np.concatenate(list(parts))
        return softmax(networks.predict_logits(network, batches, **where), axis=1)

    rows = []
    with as_worker(n_workers, parent, device):
        for _, (settings, content, _), X, y in todo:
            try:
                outputs = {}
                for kind in sorted(kinds):
                    make = partial(compute, kind, X, content)
                    if content is None:
                        outputs[kind] = make()
                    else:
                        key = content, settings, kind
                        outputs[kind] = remembered(memory, key, make)
                rows.append(_scores(outputs, y, names))
            except (OSError, ValueError, ImportError, RuntimeError) as error:
                kind = OSError if isinstance(error, OSError) else ValueError
                rows.append(kind(f"source {source.name!r}: {error}"))
                if not opened:  # nor will it open for the others
                    rows += rows[-1:] * (len(todo) - len(rows))
                    break
    if opened and "probabilities" not in kinds:
        _networks.clear()  # what another call has left in this worker
        built_of, network = opened
        if built_of is not None:
            _networks[call] = built_of, network.to("cpu")
    return rows


def _read(network, X, content, call):
    """Yield batches of samples, which a network that reads alike has read before."""
    rule = getattr(network.preprocessing, "pixels", None)
    if content is None or rule is None:  # one for text has none
        yield from network.read(X, 32)
        return
    key = content, rule
    of_call = _pixels.get(call, {})
    if key in of_call:
        yield from of_call[key]
        return
    room = _MOST_BYTES - sum(b.nbytes for bs in of_call.values() for b in bs)
    batches = []
    for batch in network.read(X, 32):
        room -= batch.nbytes
        if room >= 0:
            batches.append(batch)
        yield batch
    if room >= 0:
        if call not in _pixels:  # what another call has left in this worker
            _pixels.clear()
        _pixels.setdefault(call, {})[key] = batches


def _scores(outputs, y, names):
    """Scores by name, of what a network gives by kind."""
    scores = {}
    of_features = [name for name in names if SCORES[name] == "features"]
    if of_features:
        scores |= score_features(outputs["features"], y, of_features)
    if "leep" in names:
        scores["leep"] = leep_score(outputs["probabilities"], y)
    return scores


def _open(source, image_size, with_head, call):
    """Open the network of a source, or give the one used last its weights.

    Returns what it is built of, and the network.
    """
    networks = load_networks()
    built_of, last = _networks.pop(call, (None, None))
    if last is not None and built_of == _built_of(source, last):
        return built_of, networks.exchange_weights(last, source.checkpoint)
    del last  # one at a time
    backbone, weights = source.architecture, source.checkpoint
    if backbone is None:  # the file itself names it
        backbone, weights = weights, None
    network = networks.open_network(
        backbone, weights=weights, image_size=image_size, with_head=with_head
    )
    return _built_of(source, network), network


def _built_of(source, network):
    """What a network is built of beside weights, for a source; None if not known."""
    if Path(source.checkpoint).suffix != ".safetensors":
        return None
    said = load_networks().checkpoint_metadata(source.checkpoint)
    return source.architecture, {key: said.get(key) for key in network.metadata}
