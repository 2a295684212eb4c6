"""Displays: what a ranker has learned, predicts and misses, as pictures.

They follow scikit-learn's displays: ``from_estimator`` and ``from_predictions`` compute
and draw, ``plot`` draws again, and the artists are attributes, so that any of them can
be restyled. ``from_estimator`` takes a ranker and vectors, a pipeline that ends in a
ranker and what the pipeline takes, such as datasets, or a search over either. Measured
improvements are matrices of shape (n_targets, n_sources) whose NaN cells are skipped;
columns of a DataFrame are matched to the sources by name.

matplotlib is imported when something is drawn: ``pip install "sklearn-p2l[plot]"``.
"""

from sklearn_p2l.plotting._bars import RankingDisplay, SourceSizesDisplay
from sklearn_p2l.plotting._comparison import SourceComparisonDisplay
from sklearn_p2l.plotting._curves import KCurveDisplay, PicksDisplay
from sklearn_p2l.plotting._maps import ScoreImprovementDisplay, SizeSimilarityDisplay

__all__ = [
    "KCurveDisplay",
    "PicksDisplay",
    "RankingDisplay",
    "ScoreImprovementDisplay",
    "SizeSimilarityDisplay",
    "SourceComparisonDisplay",
    "SourceSizesDisplay",
]
