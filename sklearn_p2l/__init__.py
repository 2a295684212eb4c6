"""Predict which pre-trained source to fine-tune for a small dataset, then do it.

Importing this package does not import torch: networks are loaded when an
embedder or a classifier first needs one, and ranking sources never needs any.
"""

from sklearn_p2l._version import __version__
from sklearn_p2l.catalog import Source, SourceCatalog
from sklearn_p2l.embedding import DatasetEmbedder
from sklearn_p2l.selection import EvidenceSelector, SourceSelector
from sklearn_p2l.task import Task
from sklearn_p2l.tuning import FineTuner, NetworkClassifier

__all__ = [
    "DatasetEmbedder",
    "EvidenceSelector",
    "FineTuner",
    "NetworkClassifier",
    "Source",
    "SourceCatalog",
    "SourceSelector",
    "Task",
    "__version__",
]
