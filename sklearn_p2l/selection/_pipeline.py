"""What comes before a ranker: a pipeline that embeds datasets, or a search over one."""

import warnings

from sklearn.base import clone

from sklearn_p2l._alignment import last_step
from sklearn_p2l.divergence import NON_NEGATIVE
from sklearn_p2l.exceptions import SignedFeaturesWarning


def ranker_and_vectors(estimator, X):
    """The ranker within a search or a pipeline, and X as it reaches the ranker."""
    estimator = getattr(estimator, "best_estimator_", estimator)
    if not hasattr(estimator, "named_steps"):
        return estimator, X
    if len(estimator) > 1:
        X = estimator[:-1].transform(X)
    return ranker_and_vectors(estimator[-1], X)


def check_signs(estimator, X):
    """Refuse a metric that cannot compare an embedder's features, before embedding.

    Parameters
    ----------
    estimator : estimator
        Looked at if it is a pipeline of an embedder and a ranker, fitted or not, or a
        search over one that was fitted.
    X : sequence of datasets
        On which an embedder that is not fitted opens its network.
    """
    estimator = getattr(estimator, "best_estimator_", estimator)
    metric = getattr(last_step(estimator), "metric", None)
    if metric not in NON_NEGATIVE or len(getattr(estimator, "steps", ())) != 2:
        return
    embedder = estimator[0]
    if not hasattr(embedder, "backbone"):
        return
    if not hasattr(embedder, "signed_"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SignedFeaturesWarning)  # it is refused here
            embedder = clone(embedder).fit(X)
    if embedder.signed_:
        raise ValueError(
            f"the features of {embedder.fingerprint_.split(':')[0]!r}, layer "
            f"{embedder.layer_!r}, have a sign, which metric={metric!r} cannot "
            "compare; pass metric='cityblock', 'euclidean' or 'cosine', or summarise a "
            "layer that follows a ReLU."
        )
