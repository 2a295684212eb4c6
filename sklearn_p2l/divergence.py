"""Divergences D(t, s) between dataset summaries (paper, section 3.1).

Rows are L1-normalised first, so a summary may be given at any scale. Lower is nearer; a
vector is at 0 from itself. To add a divergence, write a function of target vectors
``T`` and source vectors ``S`` that returns the ``(n_targets, n_sources)`` matrix, and
name it in `_FUNCTIONS`.
"""

from concurrent.futures import ThreadPoolExecutor
from numbers import Real

import numpy as np
from joblib import cpu_count
from scipy.spatial.distance import cdist
from scipy.special import xlog1py, xlogy
from sklearn.metrics.pairwise import additive_chi2_kernel
from sklearn.utils import check_array, gen_batches

from sklearn_p2l._compat import Interval, StrOptions, validate_params
from sklearn_p2l._workers import one_blas_thread

__all__ = ["METRICS", "pairwise_divergence"]

EPSILON = 1e-12
# Sources are compared in blocks of at most this many values, which stay in the caches.
_BLOCK_VALUES = 2**19


def _kl(T, S, epsilon):
    # In place, and in the precision of S: single logarithms are several times faster,
    # and a source stored in single precision has no more digits.
    T = np.maximum(T, epsilon)
    T /= T.sum(axis=1, keepdims=True)
    entropy = xlogy(T, T).sum(axis=1)[:, np.newaxis]
    if 0 < epsilon < np.finfo(S.dtype).tiny:  # single precision cannot hold it
        S = S.astype(np.float64)
    log_S = np.maximum(S, S.dtype.type(epsilon), out=S)
    log_total = np.log(log_S.sum(axis=1).astype(np.float64))  # of the smoothed rows
    if epsilon == 0 and not S.all():
        # Without smoothing: 0 log 0 = 0, and t log(t / 0) = inf, as scipy's rel_entr.
        unseen = T @ (S == 0).T.astype(float) > 0
        log_S[S == 0] = 1.0
        D = entropy - T @ np.log(log_S).T.astype(np.float64) + log_total
        return np.where(unseen, np.inf, D)
    np.log(log_S, out=log_S)
    return entropy - T @ log_S.T.astype(np.float64) + log_total


def _js(T, S):
    # With x = (t - s) / (t + s), each feature adds (t + s) / 4 times
    # (1 + x) log(1 + x) + (1 - x) log(1 - x). Unlike the difference of entropies or of
    # logarithms, this loses no digits where t and s are nearly equal.
    D = np.empty((len(T), len(S)))
    for row, t in zip(D, T):
        total = t + S
        x = np.divide(t - S, total, out=np.zeros_like(total), where=total > 0)
        row[:] = (total * (xlog1py(1 + x, x) + xlog1py(1 - x, -x))).sum(axis=1)
    return np.sqrt(np.maximum(D / 4, 0))


def _chi2(T, S):
    return -additive_chi2_kernel(T, S)


def _hellinger(T, S):
    return cdist(np.sqrt(T), np.sqrt(S), "euclidean") / np.sqrt(2)


def _cdist(metric):
    return lambda T, S: cdist(T, S, metric)


_FUNCTIONS = {
    "kl": _kl,
    "js": _js,
    "chi2": _chi2,
    "euclidean": _cdist("euclidean"),
    "cityblock": _cdist("cityblock"),
    "hellinger": _hellinger,
    "cosine": _cdist("cosine"),
}
# Divergences of distributions: undefined for vectors with negative components.
NON_NEGATIVE = {"kl", "js", "chi2", "hellinger"}
# Norms of the difference: defined for a vector of zeros, too.
_NORMS = {"euclidean", "cityblock"}

METRICS = tuple(sorted(_FUNCTIONS))


@validate_params(
    {
        "T": ["array-like"],
        "S": ["array-like", None],
        "metric": [StrOptions(set(METRICS))],
        "epsilon": [Interval(Real, 0, 1, closed="left")],
    },
    prefer_skip_nested_validation=True,
)
def pairwise_divergence(T, S=None, *, metric="kl", epsilon=EPSILON):
    r"""Compute the divergence of every target from every source.

    Parameters
    ----------
    T : array-like of shape (n_targets, n_features)
        Summary vectors of the targets, at any positive scale.

    S : array-like of shape (n_sources, n_features), default=None
        Summary vectors of the sources; None means `T`. They are read in blocks, by
        one thread per CPU, so a memory-mapped array of any length needs little memory.

    metric : str, default="kl"
        The divergence of L1-normalised t and s, one of `METRICS`. "kl", "js", "chi2"
        and "hellinger" need vectors without negative components.

        - "kl": Kullback-Leibler, :math:`\sum_i t_i \log(t_i / s_i)`, in nats: how
          badly the source accounts for the target;
        - "js": Jensen-Shannon distance, the square root of the mean of KL(t, m) and
          KL(s, m) with :math:`m = (t + s) / 2`; a metric, at most
          :math:`\sqrt{\log 2}`;
        - "chi2": :math:`\sum_i (t_i - s_i)^2 / (t_i + s_i)`, with 0/0 = 0; from 0 to 2;
        - "hellinger": :math:`\|\sqrt t - \sqrt s\|_2 / \sqrt 2`; from 0 to 1;
        - "euclidean", "cityblock": :math:`\|t - s\|_2` and :math:`\|t - s\|_1`;
        - "cosine": :math:`1 - t \cdot s / (\|t\|_2 \|s\|_2)`.

    epsilon : float, default=1e-12
        Only for "kl": after normalisation, components below `epsilon` are raised to
        it and the row is normalised again, which keeps D finite where a feature that
        the target shows is absent from a source (paper, section 3.2). A larger value
        weighs such absences less; with wide vectors this can change ranks. 0 switches
        smoothing off, and D may then be infinite.

    Returns
    -------
    D : ndarray of shape (n_targets, n_sources)
        Divergences; lower is nearer.

    Raises
    ------
    ValueError
        If a vector holds NaN; if it is all zero, unless the metric is "euclidean" or
        "cityblock"; if it holds negative components and the metric is for
        distributions; or if the widths of `T` and `S` differ.

    References
    ----------
    Bhattacharjee et al., "P2L: Predicting Transfer Learning for Images and Semantic
    Relations", sections 3.1 and 3.2.

    Examples
    --------
    >>> from sklearn_p2l.divergence import pairwise_divergence
    >>> T = [[0.5, 0.5, 0.0]]
    >>> S = [[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]]
    >>> pairwise_divergence(T, S, metric="cityblock")
    array([[0., 1.]])
    """
    T = _check_vectors(T, "T (targets)", metric)
    # Sources may be memory-mapped: they are checked block by block.
    S = T if S is None else check_array(S, ensure_all_finite=False, dtype="numeric")
    if T.shape[1] != S.shape[1]:
        raise ValueError(
            "T and S must have the same number of features, got "
            f"{T.shape[1]} and {S.shape[1]}; embed targets and sources with one "
            "reference network."
        )
    kwargs = {"epsilon": epsilon} if metric == "kl" else {}
    dtype = [np.float64, np.float32] if metric == "kl" else np.float64
    D = np.empty((T.shape[0], S.shape[0]))

    def compare(block):
        part = _check_vectors(S[block], "S (sources)", metric, block.start, dtype=dtype)
        D[:, block] = _FUNCTIONS[metric](T, part, **kwargs)

    blocks = list(gen_batches(S.shape[0], max(1, _BLOCK_VALUES // S.shape[1])))
    if len(blocks) == 1:
        compare(blocks[0])
    else:
        with one_blas_thread(), ThreadPoolExecutor(cpu_count()) as pool:
            list(pool.map(compare, blocks))  # raises what a block raised
    # Every divergence here is non-negative; round-off may fall short of that.
    return np.maximum(D, 0.0, out=D)


def _check_vectors(X, name, metric, first_row=0, *, dtype=np.float64):
    """Return vectors at L1 norm 1 (or all zero), after checking their values."""
    X = check_array(X, dtype=dtype, input_name=name)
    signed = X.min() < 0
    if metric in NON_NEGATIVE and signed:
        row = first_row + int(np.argmax((X < 0).any(axis=1)))
        raise ValueError(
            f"Negative values in data: {name} must be non-negative for "
            f"metric={metric!r}, got a negative component in row {row}; take features "
            "after a ReLU (another layer), or pass metric='cityblock', 'euclidean' or "
            "'cosine'."
        )
    norms = (np.abs(X) if signed else X).sum(axis=1, keepdims=True)
    empty = norms[:, 0] == 0
    if empty.any():
        if metric not in _NORMS:
            raise ValueError(
                f"{name} must not hold all-zero vectors, got one in row "
                f"{first_row + int(np.argmax(empty))}; a summary without any response "
                "cannot be compared: check the images and the layer."
            )
        norms[empty] = 1.0
    return X / norms
