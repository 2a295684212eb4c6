"""What a zoo of sources is: in memory, and on disk as plain open formats."""

from sklearn_p2l.catalog._catalog import SourceCatalog
from sklearn_p2l.catalog._source import Source
from sklearn_p2l.catalog._source import has_weights as has_weights
from sklearn_p2l.catalog._source import is_published as is_published

__all__ = ["Source", "SourceCatalog"]
