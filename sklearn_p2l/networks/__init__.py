"""The one place where torch is imported: networks, their features, training, weights.

A backbone is looked up by what comes before the first "/" of its name: "small_resnet",
"pcnn", "timm/...", "hf/...", or a torchvision classification network, which has no
prefix. It may also be a checkpoint file that names its architecture, or a function that
returns a torch module, such as ``functools.partial(PCNN, n_filters=60)``. Each of these
families lives in a file of its own, and in one entry of a dict.
"""

from sklearn_p2l.networks.base import Network
from sklearn_p2l.networks.devices import at_most_threads, choose_device, gpus
from sklearn_p2l.networks.exporting import export_module
from sklearn_p2l.networks.features import extract_features
from sklearn_p2l.networks.loss import Loss
from sklearn_p2l.networks.opening import (
    exchange_weights,
    is_file_name,
    open_network,
    published_facts,
)
from sklearn_p2l.networks.pcnn import PCNN
from sklearn_p2l.networks.recipe import Recipe
from sklearn_p2l.networks.training import predict_logits, train
from sklearn_p2l.networks.weights import (
    checkpoint_metadata,
    get_weights,
    set_weights,
    write_checkpoint,
)

__all__ = [
    "PCNN",
    "Loss",
    "Network",
    "Recipe",
    "at_most_threads",
    "checkpoint_metadata",
    "choose_device",
    "exchange_weights",
    "export_module",
    "extract_features",
    "get_weights",
    "gpus",
    "is_file_name",
    "open_network",
    "predict_logits",
    "published_facts",
    "set_weights",
    "train",
    "write_checkpoint",
]
