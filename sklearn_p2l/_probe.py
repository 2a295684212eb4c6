"""A linear probe: regularised least squares on features, judged by leaving one out.

All in closed form: one decomposition serves every strength of the penalty, and the
outputs for each sample by the fit without it. So nothing is drawn at random, and a
class of one sample needs no special treatment.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, log_softmax

from sklearn_p2l._ridge import leave_one_out, left_singular

# Bounds of the logarithm of the factor that turns outputs into logits.
_LOG_FACTORS = (-6.0, 6.0)


@dataclass(frozen=True)
class Probe:
    """A linear layer: ``logits = X @ coef.T + intercept``."""

    #: (n_outputs, n_features)
    coef: np.ndarray
    #: (n_outputs,)
    intercept: np.ndarray
    #: Logits of the samples, (n_samples, n_outputs).
    fitted: np.ndarray
    #: Logits of each sample by the fit without it, (n_samples, n_outputs).
    left_out: np.ndarray


def fit_probe(X, indicator, *, exclusive=True, sample_weight=None):
    """Fit a linear probe whose logits are calibrated.

    Least squares of the indicator on the standardised features, with the penalty whose
    outputs for left-out samples have the smallest squared error. Logits are the log
    shares of the classes (odds of the labels), plus the outputs' deviations from the
    shares times a factor: the one with the smallest log loss of left-out samples.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Features; those that do not vary are not used.
    indicator : ndarray of shape (n_samples, n_outputs)
        1 where a sample has the class or label, else 0.
    exclusive : bool
        Whether a sample has exactly one class, so that probabilities sum to 1.
    sample_weight : ndarray of shape (n_samples,) or None
        Samples of weight 0 count as if they were not there, except in `left_out`.

    Returns
    -------
    probe : Probe
    """
    X = np.asarray(X, dtype=np.float64)
    Y = np.asarray(indicator, dtype=np.float64)
    if sample_weight is not None and not np.all(sample_weight):
        there = np.asarray(sample_weight) > 0
        probe = fit_probe(
            X[there],
            Y[there],
            exclusive=exclusive,
            sample_weight=np.asarray(sample_weight)[there],
        )
        fitted = X @ probe.coef.T + probe.intercept
        left_out = fitted.copy()
        left_out[there] = probe.left_out
        return Probe(probe.coef, probe.intercept, fitted, left_out)
    weight = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight)
    weight = weight / weight.sum()
    mean = weight @ X
    scale = np.sqrt(weight @ (X - mean) ** 2)
    scale = np.where(scale > 1e-6 * np.abs(X).max(initial=0), scale, np.inf)
    shares = weight @ Y
    Z, R = (X - mean) / scale, Y - shares
    root = np.sqrt(weight)[:, None]
    U, S = left_singular(root * Z)
    energy = max(np.sum(S**2) / min(X.shape), np.finfo(float).tiny)
    penalty, missed = leave_one_out(U, S, R, weight, unit=energy)
    left_out = R - missed
    # Shares of a class or label that is everywhere or nowhere have no logarithm.
    n = len(X)
    shares_ = (shares * n + 0.5) / (n + 0.5 * (Y.shape[1] if exclusive else 2))
    prior = np.log(shares_) - (0 if exclusive else np.log1p(-shares_))

    # As Platt's, which keeps the factor finite where all samples are told apart.
    softened = (n * Y + shares) / (n + 1)

    def log_loss(log_factor):
        logits = prior + np.exp(log_factor) * left_out
        return _log_loss(logits, softened, weight, exclusive)

    best = minimize_scalar(log_loss, bounds=_LOG_FACTORS, method="bounded")
    factor = np.exp(best.x)
    projected = U.T @ (root * R)  # (rank, n_outputs)
    dual = U @ (projected / (S**2 + penalty)[:, None])  # (n_samples, n_outputs)
    coef = factor * (dual.T @ (root * Z)) / scale
    intercept = prior - coef @ mean
    fitted = X @ coef.T + intercept
    return Probe(coef, intercept, fitted, prior + factor * left_out)


def _log_loss(logits, indicator, weight, exclusive):
    if exclusive:
        losses = -(indicator * log_softmax(logits, axis=1)).sum(axis=1)
    else:
        losses = -(
            indicator * log_expit(logits) + (1 - indicator) * log_expit(-logits)
        ).sum(axis=1)
    return weight @ losses
