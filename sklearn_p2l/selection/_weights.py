"""Weights of signals, learned from measured improvements and shrunk to equal ones.

All is in units of z-scores over the sources of one target, of signals and of
improvements alike, so that every target says as much per source that was measured.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import lsq_linear

from sklearn_p2l.selection._ranker import zscore

# Strengths of the pull towards equal weights that are tried, relative to the number of
# measured improvements; inf are equal weights.
STRENGTHS = (*np.logspace(-2, 2, 9), np.inf)

# Draws of improvements that the chance of being best is counted in.
_N_DRAWS = 10_000


@dataclass(frozen=True)
class Weights:
    """What was learned about some signals."""

    #: (n_signals,)
    values: np.ndarray
    #: Of `STRENGTHS`, the one in use.
    strength: float
    #: Mean squared error of left-out targets for each of `STRENGTHS`.
    left_out_errors: np.ndarray
    #: Standard deviation of improvements around what left-out targets were given.
    noise: float
    #: (n_signals, n_signals), of the weights.
    covariance: np.ndarray
    #: How many targets all of this was learned from.
    n_targets: int

    def draw(self, signals):
        """Draw z-scored improvements of the sources of one target.

        How large the noise is, is known the worse, the fewer targets it was learned
        from: its square is drawn from its posterior, a scaled inverse chi-squared.

        Parameters
        ----------
        signals : ndarray of shape (n_signals, n_sources)
            z-scores.

        Returns
        -------
        draws : ndarray of shape (n_draws, n_sources)
            The same for the same input.
        """
        rng, shape = np.random.default_rng(0), (_N_DRAWS, signals.shape[1])
        degrees = max(1, self.n_targets - 1)
        scale = np.sqrt(degrees / rng.chisquare(degrees, (_N_DRAWS, 1)))
        off = rng.multivariate_normal(
            np.zeros(len(self.values)), self.covariance, _N_DRAWS, method="cholesky"
        )
        noise = rng.normal(scale=self.noise, size=shape)
        return self.values @ signals + scale * (off @ signals + noise)


def learn_weights(signals, improvements, free):
    """Fit improvements by signals: ridge, pulled to equal weights of at least 0.

    Parameters
    ----------
    signals : ndarray of shape (n_signals, n_targets, n_sources)
        z-scores per target.
    improvements : ndarray of shape (n_targets, n_sources)
        NaN where not measured.
    free : ndarray of bool of shape (n_signals,)
        Signals of which it is not known which sign is good; they are pulled to 0.

    Returns
    -------
    weights : Weights
        The strength is the one with the smallest squared error of left-out targets; of
        equal ones, the largest.
    """
    rows = ~np.isnan(improvements)
    for known, row in zip(rows, improvements):
        known &= known.any() and np.ptp(row[known]) > 0
    informative = np.flatnonzero(rows.any(axis=1))
    y = zscore(improvements)
    own = _products(signals, y, rows)
    of_all = [part.sum(axis=0) for part in own]
    # What all others but one say is what all say less what it says.
    others = [whole - part for whole, part in zip(of_all, own)]
    errors, left_out = [], []
    for strength in STRENGTHS:
        predicted = np.full(y.shape, np.nan)
        for i in informative:
            w = _fit(*(part[i] for part in others), free, strength)
            predicted[i] = np.tensordot(w, signals[:, i], 1)
        left_out.append(predicted)
        squares = ((y - predicted) ** 2)[rows]
        errors.append(np.round(squares.mean(), 9) if len(squares) else 0.0)
    best = len(errors) - 1 - int(np.argmin(errors[::-1]))
    values = _fit(*of_all, free, STRENGTHS[best])
    residual = (y - left_out[best])[rows]
    noise = float(np.sqrt(np.mean(residual**2))) if len(residual) else 1.0
    noise = max(noise, 1e-6)  # nobody is surer than that
    gram, _, count = of_all
    pull = min(STRENGTHS[best], 1e6) * max(1, count)
    covariance = noise**2 * np.linalg.inv(gram + pull * np.eye(len(values)))
    errors = np.array(errors)
    n = len(informative)
    return Weights(values, STRENGTHS[best], errors, noise, covariance, n)


def shares_of_best(draws):
    """In how many of the draws (n_draws, n_sources) each source is the best.

    Never is one of which all draws are -inf.
    """
    shares = np.bincount(draws.argmax(axis=1), minlength=draws.shape[1]) / len(draws)
    return np.where(np.isneginf(draws[0]), 0.0, shares)


def levels_of(improvements):
    """Mean and standard deviation of the improvements of each target.

    Of the targets that several sources were measured on; where these are equal, the
    mean standard deviation of the others stands for theirs.

    Parameters
    ----------
    improvements : ndarray of shape (n_targets, n_sources)
        NaN where not measured.

    Returns
    -------
    levels : ndarray of shape (n_levels, 2)
        One row per target with at least two measured sources.
    """
    rows = [row[~np.isnan(row)] for row in improvements]
    rows = [row for row in rows if len(row) > 1]
    levels = np.array([(row.mean(), row.std()) for row in rows]).reshape(-1, 2)
    flat = levels[:, 1] <= 1e-9 * np.maximum(1.0, np.abs(levels[:, 0]))
    levels[flat, 1] = 1e-9 if flat.all() else levels[~flat, 1].mean()
    return levels


def equal_weights(free):
    """1 for each signal whose sign is known, and 0 for the others."""
    return np.where(free, 0.0, 1.0)


def _products(signals, y, rows):
    """Of each target, all that least squares by its improvements y[rows] need.

    Returns the products of the signals with one another (n_targets, n_signals,
    n_signals) and with the improvements (n_targets, n_signals), and how many there are.
    """
    A = np.where(rows, signals, 0.0).transpose(1, 0, 2)  # (targets, signals, sources)
    b = np.where(rows, y, 0.0)
    return A @ A.transpose(0, 2, 1), (A @ b[:, :, np.newaxis])[..., 0], rows.sum(axis=1)


def _fit(gram, side, count, free, strength):
    """Weights by so many improvements, of which these are the products."""
    equal = equal_weights(free)
    # At least a trace of the equal weights: to rank by, where nothing correlates.
    centre = max(equal @ side / max(equal @ gram @ equal, 1e-12), 1e-3) * equal
    if np.isinf(strength) or not count:
        return centre
    pull = strength * count
    root = np.linalg.cholesky(gram + pull * np.eye(len(equal)))
    low = np.where(free, -np.inf, 0.0)
    target = np.linalg.solve(root, side + pull * centre)
    return lsq_linear(root.T, target, bounds=(low, np.inf)).x


def prior_of(z, known, weights):
    """Mean z-scored improvement of each source, shrunk by how often it was measured.

    Parameters
    ----------
    z, known : ndarray of shape (n_training, n_sources)
        Improvements, z-scored over the sources of a target, and which were measured.
    weights : ndarray of shape (n_targets, n_training)
        How much each training target counts for each target, from 0 to 1.

    Returns
    -------
    prior : ndarray of shape (n_targets, n_sources)
        0, the mean, for a source that was never measured.
    """
    return weights @ np.where(known, z, 0.0) / (weights @ known + 1)
