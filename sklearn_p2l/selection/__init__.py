"""Rankers of sources: P2L's selector, one by more evidence, and baselines."""

from sklearn_p2l.selection._baselines import (
    ConstantRanking,
    FixedSource,
    LargestSource,
    NearestSource,
    NoTransfer,
    RandomSource,
)
from sklearn_p2l.selection._evidence import EvidenceSelector
from sklearn_p2l.selection._explain import explain
from sklearn_p2l.selection._selector import SourceSelector

__all__ = [
    "ConstantRanking",
    "EvidenceSelector",
    "FixedSource",
    "LargestSource",
    "NearestSource",
    "NoTransfer",
    "RandomSource",
    "SourceSelector",
    "explain",
]
