"""An ndarray that remembers where it came from."""

import numpy as np


class TracedArray(np.ndarray):
    """A plain ndarray with one more attribute, `origin`.

    Vectors of different reference networks have the same look, and so have scores of
    differently ordered sources; mixing them up would give a wrong ranking without any
    error. So vectors carry the fingerprint of their reference network (a str, which
    parts of the array keep), and scores the names of their columns (a tuple, which
    parts do not keep: they may be other columns). Pickles keep both.

    Examples
    --------
    >>> from sklearn_p2l._arrays import TracedArray
    >>> TracedArray([[1.0, 2.0]], origin="vgg16")[:, 1:].origin
    'vgg16'
    """

    def __new__(cls, array, origin=None):
        traced = np.asarray(array).view(cls)
        traced.origin = origin
        return traced

    def __array_finalize__(self, obj):
        origin = getattr(obj, "origin", None)
        self.origin = origin if isinstance(origin, str) else None

    def __array_wrap__(self, array, context=None, return_scalar=False):
        # Computed values (sums, means, ...) are no longer what was traced.
        array = np.asarray(array)
        return array[()] if return_scalar or array.ndim == 0 else array

    def __reduce__(self):
        return type(self), (np.asarray(self), self.origin)
