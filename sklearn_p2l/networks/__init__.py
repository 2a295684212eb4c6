"""The one place where torch is imported: networks, features, training, weights."""

from sklearn_p2l.networks.devices import at_most_threads, choose_device, gpus
from sklearn_p2l.networks.features import extract_features
from sklearn_p2l.networks.opening import is_file_name, open_network
from sklearn_p2l.networks.relations import PCNN
from sklearn_p2l.networks.training import predict_logits, train
from sklearn_p2l.networks.weights import (
    checkpoint_image_size,
    get_weights,
    set_weights,
    write_checkpoint,
)

__all__ = [
    "PCNN",
    "at_most_threads",
    "checkpoint_image_size",
    "choose_device",
    "extract_features",
    "get_weights",
    "gpus",
    "is_file_name",
    "open_network",
    "predict_logits",
    "set_weights",
    "train",
    "write_checkpoint",
]
