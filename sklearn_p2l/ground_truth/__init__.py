"""Ground truth: how much transfer gains, measured by fine-tuning every source."""

from sklearn_p2l.ground_truth._measure import measure_improvement
from sklearn_p2l.ground_truth._sources import train_sources
from sklearn_p2l.ground_truth._splits import split_quarters

__all__ = ["measure_improvement", "split_quarters", "train_sources"]
