"""Vectors remember their network as long as their columns are what they were."""

import copy
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, resample

from sklearn_p2l import Source, SourceCatalog, SourceSelector
from sklearn_p2l._compat import _safe_indexing
from sklearn_p2l._provenance import fingerprint_of
from sklearn_p2l.embedding import Vectors

ARRAY = np.arange(12.0).reshape(4, 3)


@pytest.fixture
def vectors():
    return Vectors(ARRAY, "net:1")


@pytest.mark.parametrize(
    "choose",
    [
        lambda v: v[1:],
        lambda v: v[[2, 0]],
        lambda v: v[np.array([True, False, True, False])],
        lambda v: v[1:, :],
        lambda v: v[[0, 1], ...],
        lambda v: v[2],
        lambda v: v[::-1],  # rows, not columns
        lambda v: v.copy(),
        copy.copy,
        copy.deepcopy,
        lambda v: pickle.loads(pickle.dumps(v)),
        lambda v: _safe_indexing(v, [0, 3]),
        lambda v: train_test_split(v, random_state=0)[0],
        lambda v: resample(v, random_state=0),
        lambda v: np.vstack([v, v[:2]]),
        lambda v: np.concatenate([v, v]),
        lambda v: next(iter(v)),
    ],
)
def test_what_leaves_columns_alone_keeps_the_fingerprint(vectors, choose):
    part = choose(vectors)
    assert isinstance(part, Vectors) and part.fingerprint == "net:1"
    plain = choose(ARRAY)
    assert part.shape == np.shape(plain)
    assert_array_equal(part, plain)


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v[:, ::-1],
        lambda v: v[:, :2],
        lambda v: v[:, 0],
        lambda v: v[0, 1],
        lambda v: v[v[:, 0] > 2, 1:],
        lambda v: v[np.asarray(v) > 2],
        lambda v: v[...],
        lambda v: np.sort(v),
        lambda v: np.transpose(v),
        lambda v: np.zeros_like(v),
        lambda v: v + 1,
        lambda v: 2 * v,
        lambda v: v @ np.eye(3),
        lambda v: np.exp(v),
        lambda v: np.sum(v, axis=0),
        lambda v: np.hstack([v, v]),
        lambda v: np.concatenate([v, v], axis=1),
        lambda v: np.vstack([v, ARRAY]),
        lambda v: np.vstack([v, Vectors(ARRAY, "net:2")]),
        lambda v: np.asarray(v),
        lambda v: check_array(v),
    ],
)
def test_all_else_is_a_plain_array_that_has_lost_it(vectors, change):
    result = change(vectors)
    assert fingerprint_of(result) is None and not isinstance(result, Vectors)
    assert_array_equal(result, change(ARRAY))


def test_reversed_columns_are_not_ranked_as_if_they_were_the_network_s(vectors):
    """Only the width can be checked, and a catalog says what it knows."""
    zoo = SourceCatalog.from_arrays(vectors, sizes=[1, 2, 3, 4], names=list("abcd"))
    assert zoo.fingerprint == "net:1"
    selector = SourceSelector(zoo, k=-1.0).fit(vectors[1:])
    with pytest.raises(ValueError, match="'net:1', got 'net:2'"):
        selector.predict(Vectors(ARRAY[1:], "net:2"))
    reversed_zoo = SourceCatalog.from_arrays(
        vectors[:, ::-1], sizes=[1, 2, 3, 4], names=list("abcd")
    )
    assert reversed_zoo.fingerprint is None


def test_a_row_makes_a_source_of_its_network(vectors):
    assert Source("a", size=3, embedding=vectors[1]).fingerprint == "net:1"


def test_frames_carry_it_in_all_their_columns_or_not_at_all():
    names = [f"net:1#{j}" for j in range(3)]
    frame = pd.DataFrame(ARRAY, columns=names)
    assert fingerprint_of(frame) == fingerprint_of(frame[:2]) == "net:1"
    assert fingerprint_of(frame[[names[0], names[2]]]) is None
    assert fingerprint_of(frame.set_axis(list("abc"), axis=1)) is None
    with pytest.raises(ValueError, match="must be in order"):
        fingerprint_of(frame[names[::-1]])
    frame.columns = [*names[:2], "net:2#2"]
    with pytest.raises(ValueError, match="must come from one reference network"):
        fingerprint_of(frame)


def test_arrays_without_a_network(vectors):
    assert fingerprint_of(ARRAY) is None
    assert joblib.hash(vectors) == joblib.hash(Vectors(ARRAY, "net:1"))
    assert joblib.hash(vectors) != joblib.hash(Vectors(ARRAY, "net:2"))
    assert pd.DataFrame(vectors).shape == (4, 3)
    assert np.array(vectors, dtype=np.float32).dtype == np.float32
    changed = np.array(vectors, copy=True)
    changed[0, 0] = 99
    assert np.asarray(vectors)[0, 0] == 0


def test_class_means_follow_their_rows():
    means = [np.full((2, 3), i, dtype=float) if i != 1 else None for i in range(4)]
    vectors = Vectors(ARRAY, "net:1", means)

    def first(part):
        own = part.class_means
        return [None if m is None else m[0, 0] for m in own]

    assert first(vectors[[3, 1, 0]]) == [3, None, 0]
    assert first(vectors[::-1]) == [3, 2, None, 0]
    assert first(vectors[np.array([True, False, True, False])]) == [0, 2]
    assert first(_safe_indexing(vectors, [2, 0])) == [2, 0]
    assert first(pickle.loads(pickle.dumps(vectors))) == [0, None, 2, 3]
    assert first(vectors.copy()) == [0, None, 2, 3]
    assert (vectors[2].class_means == 2).all() and vectors[1].class_means is None
    assert vectors[:, ::-1].__class__ is np.ndarray
    unlabelled = Vectors(ARRAY, "net:1")
    assert unlabelled.class_means is None and unlabelled[1:].class_means is None
    stacked = np.concatenate([vectors[:1], unlabelled[:1], vectors[3:]])
    assert first(stacked) == [0, None, 3]
    with pytest.raises(ValueError, match=r"one entry per dataset \(4\), got 1"):
        Vectors(ARRAY, "net:1", means[:1])
    with pytest.raises(ValueError, match=r"as wide as the summaries, 3, got \[2\]"):
        Vectors(ARRAY, "net:1", [None, None, None, np.ones((2, 2))])
