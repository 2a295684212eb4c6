"""From a start to a classifier: trained by itself, or chosen by a ranker first."""

from sklearn_p2l.tuning._classifier import NetworkClassifier
from sklearn_p2l.tuning._finetuner import FineTuner
from sklearn_p2l.tuning._finetuner import start_from as start_from

__all__ = ["FineTuner", "NetworkClassifier"]
