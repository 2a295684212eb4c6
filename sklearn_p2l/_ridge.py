"""Ridge regression in closed form: one decomposition serves every penalty."""

import numpy as np

# Penalties that are tried.
_PENALTIES = np.logspace(-4, 4, 25)


def left_singular(X):
    """Left singular vectors and singular values of a matrix, without the right ones.

    They are eigenvectors of the smaller of ``X @ X.T`` and ``X.T @ X``, which takes a
    quarter of the time of a singular value decomposition. Values below about 1e-6 of
    the largest are round-off then, and left out; float32 features have no more digits.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        In float64, finite.

    Returns
    -------
    U : ndarray of shape (n_samples, rank)
    S : ndarray of shape (rank,)
        Ascending.
    """
    wide = len(X) <= X.shape[1]
    gram = X @ X.T if wide else X.T @ X
    # SciPy brings threads of its own, which those of NumPy's product would hold up.
    squares, vectors = np.linalg.eigh(gram)
    there = squares > max(X.shape) * np.finfo(float).eps * squares[-1]
    vectors, S = vectors[:, there], np.sqrt(squares[there])
    return (vectors if wide else X @ vectors / S), S


def leave_one_out(U, S, outputs, weight, *, unit):
    """Find the penalty whose predictions of left-out samples have least squared error.

    Parameters
    ----------
    U, S : ndarray of shape (n_samples, rank) and (rank,)
        Decomposed features, centred; each sample times the root of its weight, unless
        all weights are equal.
    outputs : ndarray of shape (n_samples, n_outputs)
        Centred.
    weight : ndarray of shape (n_samples,)
        Of the samples; sums to 1.
    unit : float
        What penalties are multiples of.

    Returns
    -------
    penalty : float
    missed : ndarray of shape (n_samples, n_outputs)
        What each sample's outputs differ by from their prediction without it.
    """
    penalties = unit * _PENALTIES
    root = np.sqrt(weight)[:, None]
    projected = U.T @ (root * outputs)  # (rank, n_outputs)
    kept = S**2 / (S**2 + penalties[:, None])  # (n_penalties, rank)
    leverage = weight[:, None] + U**2 @ kept.T  # (n_samples, n_penalties)
    left = np.maximum(1 - leverage, 1e-9)

    def missed(i):
        fitted = U @ (kept[i][:, None] * projected) / root
        return (outputs - fitted) / left[:, i, None]

    errors = [weight @ (missed(i) ** 2).sum(axis=1) for i in range(len(penalties))]
    best = int(np.argmin(errors))
    return penalties[best], missed(best)
