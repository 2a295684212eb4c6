import copy
import pickle

import numpy as np
from numpy.testing import assert_array_equal

from sklearn_p2l._arrays import TracedArray


def test_fingerprints_are_kept_by_parts_and_copies():
    vectors = TracedArray(np.arange(6.0).reshape(2, 3), "net:1")
    for part in (vectors[0], vectors[:, 1:], vectors.T, vectors.copy()):
        assert part.origin == "net:1"
    for other in (pickle.loads(pickle.dumps(vectors)), copy.deepcopy(vectors)):
        assert other.origin == "net:1"
        assert_array_equal(other, vectors)


def test_names_of_columns_are_kept_by_copies_alone():
    scores = TracedArray(np.ones((2, 3)), ("a", "b", "c"))
    assert pickle.loads(pickle.dumps(scores)).origin == ("a", "b", "c")
    for part in (scores[:, ::-1], scores.T, scores[0]):
        assert part.origin is None


def test_results_are_plain():
    vectors = TracedArray(np.ones((2, 3)), "net:1")
    for result in (
        vectors + 1,
        vectors * vectors,
        np.exp(vectors),
        vectors.sum(axis=0),
    ):
        assert type(result) is np.ndarray
    assert vectors.sum() == 6 and not isinstance(vectors.sum(), np.ndarray)
    assert type(np.asarray(vectors)) is np.ndarray
