"""Scores of how well features tell labels apart, before anything is trained on them.

Each is a function of features (n_samples, n_features), such as a source's network
computes of a target's samples, and of labels: higher is better. They are meant to rank
sources of one target. None is computed on what it was fitted on: each is a marginal
likelihood, or leaves samples out, or shrinks, so noise does not look like signal where
there are more features than samples. `score_features` computes several of the same
features at once, which are decomposed only once then.
"""

from dataclasses import dataclass
from functools import cached_property
from numbers import Integral

import numpy as np
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.multiclass import type_of_target

from sklearn_p2l._compat import Interval, StrOptions, validate_params
from sklearn_p2l._ridge import leave_one_out, left_singular

__all__ = [
    "h_score",
    "knn_score",
    "leep_score",
    "logme_score",
    "probe_score",
    "score_features",
]

# Bounds of the ratio of the two precisions of LogME, relative to the mean square of
# the singular values. A perfect fit would have none.
_LOG_RATIOS = np.linspace(-8, 8, 65) * np.log(10)
_GOLDEN = (np.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class _Samples:
    """Features with labels, decomposed when that is first needed."""

    #: (n_samples, n_features), of which the largest is 1.
    features: np.ndarray
    #: As it was given.
    y: np.ndarray
    #: (n_samples, n_outputs), of 0 and 1.
    indicator: np.ndarray

    @cached_property
    def decomposed(self):
        """Left singular vectors and singular values of the centred features."""
        centred = self.features - self.features.mean(axis=0)
        U, S = left_singular(centred)
        # More than the round-off of features of size 1.
        there = S > 1e-12 * np.sqrt(self.features.size)
        return U[:, there], S[there]

    @property
    def outputs(self):
        """The centred indicator, of the labels that vary."""
        Y = self.indicator[:, _vary(self.indicator)]
        return Y - Y.mean(axis=0)


@validate_params(
    {"features": ["array-like"], "y": ["array-like"], "scores": ["array-like"]},
    prefer_skip_nested_validation=True,
)
def score_features(features, y, scores=("logme", "probe", "knn")):
    """Compute several scores of the same features, which are decomposed once.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features at any scale.

    y : array-like of shape (n_samples,) or (n_samples, n_labels)
        Class labels, or a multilabel indicator, for all but "h_score".

    scores : sequence of {"logme", "probe", "knn", "h_score"}, \
            default=("logme", "probe", "knn")
        Which: `logme_score`, `probe_score`, `knn_score`, `h_score`.

    Returns
    -------
    values : dict of str to float
        The scores by name, as their functions give them.

    Raises
    ------
    ValueError
        If a score is not known, or for what its function refuses.

    Examples
    --------
    >>> from sklearn_p2l.transferability import score_features
    >>> features = [[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [1.1, 0.1]]
    >>> values = score_features(features, ["a", "a", "b", "b"])
    >>> {name: round(value, 2) for name, value in values.items()}
    {'logme': 0.74, 'probe': 1.0, 'knn': 0.33}
    """
    unknown = [name for name in scores if name not in _OF_FEATURES]
    if unknown:
        raise ValueError(f"scores must be some of {[*_OF_FEATURES]}, got {unknown}.")
    labelled = _checked(features, y)
    return {name: _OF_FEATURES[name](labelled) for name in scores}


@validate_params(
    {"features": ["array-like"], "y": ["array-like"]},
    prefer_skip_nested_validation=True,
)
def logme_score(features, y):
    r"""Compute LogME, the evidence for a Bayesian linear model of the labels.

    For each class, its indicator :math:`y` is modelled as :math:`F w + b` plus noise,
    with :math:`w \sim N(0, I/\alpha)` and noise of variance :math:`1/\beta`. The score
    is the log evidence at its maximum over both precisions, per sample, in the mean
    over classes:

    .. math:: \frac{1}{n} \max_{\alpha, \beta} \log N(y \mid 0, F F^T / \alpha
              + I / \beta)

    with :math:`F` and :math:`y` centred, and so :math:`n` one less than there are
    samples.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features at any scale.

    y : array-like of shape (n_samples,) or (n_samples, n_labels)
        Class labels, or a multilabel indicator; of labels that all or no samples have,
        nothing can be said, and they are skipped.

    Returns
    -------
    score : float
        Higher is better; may be positive or negative.

    Raises
    ------
    ValueError
        If there are fewer than two samples or two classes, or a feature is not finite.

    Notes
    -----
    The maximum over :math:`\beta` is known for each ratio of the precisions, and that
    over the ratio is searched on a line, so it is found. The original code iterates to
    a fixed point and lacks a term for n < d, where noise then scores above signal; and
    it has no intercept.

    References
    ----------
    You et al., "LogME: Practical Assessment of Pre-trained Models for Transfer
    Learning", ICML 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_p2l.transferability import logme_score
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 3
    >>> noise = rng.normal(size=(60, 100))
    >>> signal = noise + 2 * np.eye(3, 100)[y]
    >>> logme_score(signal, y) > logme_score(noise, y)
    True
    """
    return _logme(_checked(features, y))


def _logme(labelled):
    (U, S), Y = labelled.decomposed, labelled.outputs
    n = len(Y) - 1
    total = (Y**2).sum(axis=0)
    energy = (U.T @ Y) ** 2  # (rank, n_outputs)
    outside = np.maximum(total - energy.sum(axis=0), 0)
    unit = np.log(np.mean(S**2)) if len(S) else 0.0

    def evidence(log_ratios, per_label=True):
        """Of ratios alpha / beta, one for each label; the best beta is n / misfit.

        Without `per_label` each ratio is that of all labels: (n_ratios, n_outputs).
        """
        ratios = np.exp(unit + log_ratios)[:, None]
        missed = ratios / (S**2 + ratios)  # (n_ratios, rank)
        volume = np.log1p(S**2 / ratios).sum(axis=1)
        if per_label:
            misfit = outside + (missed.T * energy).sum(axis=0)
        else:
            misfit, volume = outside + missed @ energy, volume[:, None]
        misfit = np.maximum(misfit, 1e-10 * total)
        return -(n * np.log(2 * np.pi * np.e * misfit / n) + volume) / 2

    values = evidence(_LOG_RATIOS, per_label=False)
    best = np.clip(values.argmax(axis=0), 1, len(_LOG_RATIOS) - 2)
    low, high = _LOG_RATIOS[best - 1], _LOG_RATIOS[best + 1]
    for _ in range(20):  # golden sections, of all labels at once
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        keep_left = evidence(left) > evidence(right)
        low, high = np.where(keep_left, low, left), np.where(keep_left, right, high)
    peak = np.maximum(values.max(axis=0), evidence((low + high) / 2))
    return float(np.mean(peak) / n)


@validate_params(
    {
        "features": ["array-like"],
        "y": ["array-like"],
        "measure": [StrOptions({"r2", "accuracy"})],
    },
    prefer_skip_nested_validation=True,
)
def probe_score(features, y, *, measure="r2"):
    """Compute how well a linear probe predicts samples that it has not seen.

    The probe is ridge regression of the indicator of the classes; each sample is
    predicted by the fit without it, in closed form, and the penalty is that with the
    smallest squared error of such predictions.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features at any scale.

    y : array-like of shape (n_samples,) or (n_samples, n_labels)
        Class labels, or a multilabel indicator.

    measure : {"r2", "accuracy"}, default="r2"
        "r2": the share of the variance of the indicator that is predicted, in the mean
        over classes or labels. It is finer than the accuracy of a few samples, and
        ranks better. "accuracy": the share of samples whose class has the largest
        output; for an indicator, the mean average precision of its labels.

    Returns
    -------
    score : float
        At most 1; about 0 where nothing can be predicted.

    Raises
    ------
    ValueError
        If there are fewer than two samples or two classes, or a feature is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_p2l.transferability import probe_score
    >>> y = np.array([0, 0, 0, 1, 1, 1])
    >>> F = np.array([[0.0], [0.1], [0.2], [1.0], [1.1], [1.2]])
    >>> round(probe_score(F, y), 2), probe_score(F, y, measure="accuracy")
    (0.96, 1.0)
    """
    return _probe(_checked(features, y), measure)


def _probe(labelled, measure="r2"):
    (U, S), Y = labelled.decomposed, labelled.outputs
    weight = np.full(len(Y), 1 / len(Y))
    energy = np.mean(S**2) if len(S) else 1.0
    _, missed = leave_one_out(U, S, Y, weight, unit=energy)
    # Also the indicator's share for each sample is that of the others.
    total = Y * len(Y) / (len(Y) - 1)
    if measure == "r2":
        shares = 1 - np.sum(missed**2, axis=0) / np.sum(total**2, axis=0)
        return float(np.mean(shares))
    varying = labelled.indicator[:, _vary(labelled.indicator)]
    outputs = varying - missed
    if labelled.y.ndim == 2:
        return float(average_precision_score(varying, outputs))
    return float(np.mean(varying[np.arange(len(Y)), outputs.argmax(axis=1)]))


@validate_params(
    {
        "features": ["array-like"],
        "y": ["array-like"],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
    },
    prefer_skip_nested_validation=True,
)
def knn_score(features, y, *, n_neighbors=5):
    """Compute how many of the nearest samples have the same class.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features at any scale.

    y : array-like of shape (n_samples,) or (n_samples, n_labels)
        Class labels, or a multilabel indicator.

    n_neighbors : int, default=5
        How many of the nearest, by cosine, at most all others.

    Returns
    -------
    score : float
        Share of the neighbours with the label of their sample, in the mean over
        samples; for an indicator, the mean average precision of its labels, predicted
        by those of the neighbours. From 0 to 1.

    Raises
    ------
    ValueError
        If there are fewer than two samples or two classes, or a feature is not finite.

    Examples
    --------
    >>> from sklearn_p2l.transferability import knn_score
    >>> features = [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]
    >>> knn_score(features, ["a", "a", "b", "b"], n_neighbors=1)
    1.0
    """
    return _knn(_checked(features, y), n_neighbors)


def _knn(labelled, n_neighbors=5):
    features, y, indicator = labelled.features, labelled.y, labelled.indicator
    n_neighbors = min(n_neighbors, len(y) - 1)
    neighbors = NearestNeighbors(n_neighbors=n_neighbors, metric="cosine")
    shares = indicator[neighbors.fit(features).kneighbors(return_distance=False)]
    shares = shares.mean(axis=1)
    if y.ndim == 2:
        varying = _vary(indicator)
        return float(average_precision_score(indicator[:, varying], shares[:, varying]))
    return float((shares * indicator).sum(axis=1).mean())


@validate_params(
    {"features": ["array-like"], "y": ["array-like"]},
    prefer_skip_nested_validation=True,
)
def h_score(features, y):
    r"""Compute the H-score, the spread of class means over that of all features.

    .. math:: \mathrm{tr}(\Sigma_a^{-1} (1 - a) \mathrm{cov}(E[F \mid y]))

    with the covariance :math:`\Sigma_a` shrunk by Ledoit and Wolf's :math:`a`. Without
    it, the score of noise is at its maximum where n <= d.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        Features at any scale.

    y : array-like of shape (n_samples,)
        Class labels.

    Returns
    -------
    score : float
        From 0 to the number of classes less one.

    Raises
    ------
    ValueError
        If there are fewer than two samples or two classes, a feature is not finite, or
        `y` is an indicator of several labels.

    References
    ----------
    Ibrahim et al., "Newer is not always better: Rethinking transferability metrics,
    their peculiarities, stability and performance", ECML 2022.

    Examples
    --------
    >>> from sklearn_p2l.transferability import h_score
    >>> round(h_score([[0.0], [0.1], [1.0], [1.1]], [0, 0, 1, 1]), 2)
    0.99
    """
    return _h_score(_checked(features, y))


def _h_score(labelled):
    _check_one_class_each(labelled.y, "h_score")
    features, indicator = labelled.features, labelled.indicator
    U, S = labelled.decomposed
    if not len(S):
        return 0.0
    n, d = features.shape
    shrinkage = ledoit_wolf_shrinkage(features)
    eigenvalues = S**2 / n
    shrunk = (1 - shrinkage) * eigenvalues + shrinkage * eigenvalues.sum() / d
    counts = indicator.sum(axis=0)
    means = (indicator.T @ U) * S / counts[:, None]  # (n_classes, rank)
    between = (counts / n) @ means**2
    return float((1 - shrinkage) * (between / shrunk).sum())


# To add a score of features, name a function of `_Samples` here.
_OF_FEATURES = {"logme": _logme, "probe": _probe, "knn": _knn, "h_score": _h_score}


@validate_params(
    {"probabilities": ["array-like"], "y": ["array-like"]},
    prefer_skip_nested_validation=True,
)
def leep_score(probabilities, y):
    r"""Compute LEEP, the log-likelihood of labels given a source's own classes.

    .. math:: \frac{1}{n} \sum_i \log \sum_z \hat P(y_i \mid z) \theta(x_i)_z

    where :math:`\hat P(y \mid z)` are the shares of the target's classes in the mass of
    each source class :math:`z`.

    Parameters
    ----------
    probabilities : array-like of shape (n_samples, n_source_classes)
        What the source's network gives, with its own last layer; rows sum to 1.
        Scores of sources with different numbers of classes favour the larger.

    y : array-like of shape (n_samples,)
        Class labels.

    Returns
    -------
    score : float
        At most 0.

    Raises
    ------
    ValueError
        If rows are no probabilities, there are fewer than two classes, or `y` is an
        indicator of several labels.

    References
    ----------
    Nguyen et al., "LEEP: A New Measure to Evaluate Transferability of Learned
    Representations", ICML 2020.

    Examples
    --------
    >>> from sklearn_p2l.transferability import leep_score
    >>> leep_score([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], ["a", "a", "b"])
    0.0
    """
    theta, y, indicator = _labelled(probabilities, y, name="probabilities")
    _check_one_class_each(y, "leep_score")
    if theta.min() < 0 or not np.allclose(theta.sum(axis=1), 1, atol=1e-3):
        raise ValueError(
            "probabilities must be at least 0 and sum to 1 in every row; pass the "
            "softmax of logits."
        )
    theta = theta / theta.sum(axis=1, keepdims=True)
    joint = indicator.T @ theta  # (n_classes, n_source_classes)
    mass = joint.sum(axis=0)
    conditional = np.divide(joint, mass, out=np.zeros_like(joint), where=mass > 0)
    likelihood = ((theta @ conditional.T) * indicator).sum(axis=1)
    # At least the sample's own mass is in it, so it is above 0.
    return float(np.minimum(np.log(likelihood), 0).mean())


def _checked(features, y):
    """Features, so scaled that no square overflows or vanishes, with labels."""
    features, y, indicator = _labelled(features, y, name="features")
    largest = max(features.max(), -features.min()) or 1.0
    return _Samples(features / largest, y, indicator)


def _labelled(X, y, *, name):
    """X (n, d) and labels as arrays, and the indicator (n, n_outputs)."""
    X = check_array(X, dtype=np.float64, input_name=name, ensure_min_samples=2)
    y = np.asarray(y)
    check_consistent_length(X, y)
    if y.ndim == 2 and type_of_target(y) != "multilabel-indicator":
        raise ValueError(
            "y must hold one class per sample, or an indicator of 0 and 1, got shape "
            f"{y.shape}."
        )
    if y.ndim == 1:
        classes, index = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y must have at least two classes, got {classes}.")
        return X, y, np.eye(len(classes))[index]
    indicator = y.astype(np.float64)
    if not _vary(indicator).any():
        raise ValueError("y must have a label that some samples have and others not.")
    return X, y, indicator


def _check_one_class_each(y, name):
    if y.ndim == 2:
        raise ValueError(
            f"y must hold one class per sample for {name}, got an indicator of several "
            "labels; use logme_score."
        )


def _vary(indicator):
    return indicator.min(axis=0) < indicator.max(axis=0)
