"""Datasets as vectors: one summary each, from one reference network."""

from sklearn_p2l._provenance import Vectors
from sklearn_p2l.embedding._embedder import DatasetEmbedder

__all__ = ["DatasetEmbedder", "Vectors"]
