"""From a start to a classifier: trained by itself, or chosen by a ranker first."""

from sklearn_p2l.tuning._classifier import NetworkClassifier
from sklearn_p2l.tuning._finetuner import FineTuner
from sklearn_p2l.tuning._finetuner import start_from as start_from
from sklearn_p2l.tuning._progress import (
    without_convergence_warnings as without_convergence_warnings,
)
from sklearn_p2l.tuning._settings import epochs_of as epochs_of
from sklearn_p2l.tuning._settings import n_epochs as n_epochs

__all__ = ["FineTuner", "NetworkClassifier"]
