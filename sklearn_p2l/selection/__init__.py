"""Rankers of sources: P2L's selector, and the baselines it is judged by."""

from sklearn_p2l.selection._baselines import (
    ConstantRanking,
    FixedSource,
    LargestSource,
    NearestSource,
    NoTransfer,
    RandomSource,
)
from sklearn_p2l.selection._explain import explain
from sklearn_p2l.selection._selector import SourceSelector

__all__ = [
    "ConstantRanking",
    "FixedSource",
    "LargestSource",
    "NearestSource",
    "NoTransfer",
    "RandomSource",
    "SourceSelector",
    "explain",
]
