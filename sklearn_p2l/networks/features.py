"""From a stream of samples to a stream of features."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from sklearn_p2l.networks.base import Network
from sklearn_p2l.networks.devices import autocast
from sklearn_p2l.networks.turns import passes


def extract_features(
    network: Network, batches: Iterable, *, precision: str, device: torch.device
) -> Iterator[np.ndarray]:
    """Yield the float32 features (n, num_features) of each preprocessed batch."""
    network = network.to(device).eval()
    for batch in batches:
        # In inference_mode, autocast would cast weights for each part of a batch anew.
        with passes.passing(), torch.no_grad(), autocast(precision, device):
            features = network.forward_features(batch.to(device)).float().cpu().numpy()
        yield features
