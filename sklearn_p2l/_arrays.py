"""An ndarray that remembers where it came from."""

import numpy as np


class TracedArray(np.ndarray):
    """A plain ndarray with one more attribute, `origin`.

    Vectors of different reference networks have the same look, and so have scores of
    differently ordered sources; mixing them up would give a wrong ranking without any
    error. So vectors carry the fingerprint of their reference network, and scores the
    names of their columns, through slicing, copying, pickling and pipelines.

    Examples
    --------
    >>> from sklearn_p2l._arrays import traced
    >>> traced([[1.0, 2.0]], origin="vgg16")[:, 1:].origin
    'vgg16'
    """

    origin = None

    def __array_finalize__(self, obj):
        self.origin = getattr(obj, "origin", None)

    def __array_wrap__(self, array, context=None, return_scalar=False):
        # Computed values (sums, means, ...) are no longer what was traced.
        array = np.asarray(array)
        return array[()] if return_scalar or array.ndim == 0 else array

    def __reduce__(self):
        return traced, (np.asarray(self), self.origin)


def traced(array, origin):
    """Return `array` as an ndarray that carries `origin`."""
    array = np.asarray(array).view(TracedArray)
    array.origin = origin
    return array
