"""What is taken from other packages in a way that may change, or that is optional.

Private names of scikit-learn stand here and nowhere else. What only some uses need is
imported when one of them begins: torch (through `load_networks`), Pillow, tqdm, pandas
and matplotlib. So ranking needs numpy, scipy, scikit-learn and joblib alone.
"""

import importlib

from sklearn.base import _fit_context
from sklearn.utils import _safe_indexing
from sklearn.utils._metadata_requests import _routing_enabled
from sklearn.utils._missing import is_pandas_na, is_scalar_nan
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    StrOptions,
    validate_params,
)
from sklearn.utils.validation import _check_method_params, _check_sample_weight

__all__ = [
    "HasMethods",
    "Interval",
    "StrOptions",
    "_check_method_params",
    "_check_sample_weight",
    "_fit_context",
    "_routing_enabled",
    "_safe_indexing",
    "import_optional",
    "import_pandas",
    "import_pillow",
    "import_pyplot",
    "is_missing",
    "load_networks",
    "progress_bar",
    "validate_params",
]


def is_missing(label):
    """Tell whether a label is None, NaN, not a time, or pandas' NA."""
    if label is None or is_scalar_nan(label) or is_pandas_na(label):
        return True
    try:
        return bool(label != label)
    except (TypeError, ValueError):  # an array, for one
        return False


def load_networks():
    """Open the torch room, when something first needs a network."""
    try:
        from sklearn_p2l import networks
    except ImportError as error:
        raise ImportError(
            f"networks need torch, torchvision and safetensors, got {error}; pip "
            "install sklearn-p2l with its dependencies. Ranking needs none of them."
        ) from error
    return networks


def import_pillow():
    """Import Pillow's Image, or say how to get it."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("images need Pillow; pip install pillow.") from error
    return Image


def import_optional(name, *, extra, what):
    """Import a package that comes with an extra, or say how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'{what} need {name}; pip install "sklearn-p2l[{extra}]".'
        ) from error


def import_pandas():
    """Import pandas, or say how to get it."""
    return import_optional("pandas", extra="pandas", what="tables of results")


def import_pyplot():
    """Import matplotlib's pyplot, or say how to get it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "Displays need matplotlib, which is not installed; "
            'pip install "sklearn-p2l[plot]".'
        ) from error
    return plt


def progress_bar(*args, **kwargs):
    """Make a progress bar, in the form that suits a terminal or a notebook."""
    from tqdm.auto import tqdm

    return tqdm(*args, **kwargs)
