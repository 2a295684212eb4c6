"""Predict which pre-trained source to fine-tune for a small dataset, then do it.

Importing this package does not import torch: networks are loaded when an
embedder or a tuner first needs one, and ranking sources never needs any.
"""

from sklearn_p2l._embedder import DatasetEmbedder
from sklearn_p2l._finetuner import FineTuner
from sklearn_p2l._selector import SourceSelector
from sklearn_p2l._version import __version__
from sklearn_p2l.catalog import Source, SourceCatalog

__all__ = [
    "DatasetEmbedder",
    "FineTuner",
    "Source",
    "SourceCatalog",
    "SourceSelector",
    "__version__",
]
