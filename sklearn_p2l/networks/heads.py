"""The last layer: in front of scaled features, started as a probe, or left as one."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from sklearn_p2l._probe import Probe, fit_probe
from sklearn_p2l.networks.base import Network
from sklearn_p2l.networks.features import extract_features
from sklearn_p2l.networks.loss import Loss
from sklearn_p2l.networks.recipe import Recipe
from sklearn_p2l.networks.turns import passes

# So many samples tell the size of features well enough.
_SAMPLES_FOR_SCALE = 1024


class ScaledInput(nn.Module):
    """A layer behind the division of its input by a number."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, scale: torch.Tensor):
        super().__init__()
        self.layer = layer
        self.register_buffer("scale", scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x / self.scale)


@contextmanager
def scaled_features(
    network: Network, inputs: Any, kept: torch.Tensor, train: bool, device: torch.device
) -> Iterator[None]:
    """Train with features whose mean square is 1; the network then takes its own again.

    How large features are is an accident of how a network was built and trained: it
    should not decide how far one step at a given learning rate moves the logits. The
    number by which they are divided is measured once, `train` tells in which mode, and
    in the end becomes part of the last layer, which computes the same without it.
    """
    layer = network.model.get_submodule(network.head)
    scale = _root_mean_square(network, inputs, kept, train, device)
    wrapped = ScaledInput(layer, scale)
    network.replace_head(wrapped)
    with torch.no_grad():  # a layer that has learned something goes on from there
        layer.weight.mul_(scale)
    try:
        yield
    finally:
        with torch.no_grad():
            layer.weight.div_(wrapped.scale)
        network.replace_head(layer)


@torch.no_grad()
def _root_mean_square(
    network: Network, inputs: Any, kept: torch.Tensor, train: bool, device: torch.device
) -> torch.Tensor:
    total, count = 0.0, 0

    def add(module: nn.Module, args: tuple[torch.Tensor]) -> None:
        nonlocal total, count
        total += args[0].float().square().sum().item()
        count += args[0].numel()

    order = kept[torch.randperm(len(kept))[:_SAMPLES_FOR_SCALE]]
    hook = network.model.get_submodule(network.head).register_forward_pre_hook(add)
    network.train(train)
    try:
        for indices in order.tensor_split(max(1, len(order) // 32)):
            network(inputs[indices].to(device))
    finally:
        hook.remove()
    scale = math.sqrt(total / max(count, 1))
    if not (scale > 0 and math.isfinite(scale)):
        scale = 1.0
    return torch.tensor(scale, device=device)


def is_linear(network: Network, inputs: Any, loss: Loss, recipe: Recipe) -> bool:
    """Tell whether the logits are the last layer's outputs for the features, + bias."""
    some = inputs[torch.arange(min(len(inputs), recipe.batch_size))].to(loss.device)
    network.eval()
    return _gives_logits(network.model.get_submodule(network.head), network, some)


def start_as_probe(
    network: Network, inputs: Any, loss: Loss, recipe: Recipe, kept: torch.Tensor
) -> Probe:
    """Give the last layer the weights of a linear probe on the features."""
    layer = network.model.get_submodule(network.head)
    batches = (inputs[part] for part in kept.split(recipe.batch_size))
    precision, device = recipe.precision, loss.device
    parts = extract_features(network, batches, precision=precision, device=device)
    features = np.concatenate(list(parts))
    if not np.isfinite(features).all():
        raise ValueError(
            "features must be finite for a linear probe, got NaN or infinity from "
            f"{network.architecture}; pass precision='float32', or check the weights."
        )
    targets = loss.targets[kept].numpy()
    if not loss.multilabel:
        targets = np.eye(len(layer.weight))[targets]
    probe = fit_probe(
        features,
        targets,
        exclusive=not loss.multilabel,
        sample_weight=None if loss.weight is None else loss.weight[kept].numpy(),
    )
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(probe.coef).view(layer.weight.shape))
        layer.bias.copy_(torch.from_numpy(probe.intercept))
    return probe


@torch.no_grad()
def _gives_logits(layer: nn.Module, network: Network, batch: Any) -> bool:
    """Try whether a layer turns features into a network's logits, with random weights.

    The fresh layer may hold zeros, which any layer after it would pass on.
    """
    if layer.bias is None or layer.weight[0, 0].numel() != 1:
        return False
    kept = [parameter.clone() for parameter in layer.parameters()]
    try:
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
        expected = network(batch)
        with passes.passing():
            features = network.forward_features(batch)
        weight = layer.weight.flatten(1)
        got = nn.functional.linear(features, weight, layer.bias)
        largest = expected.abs().max()
        return torch.allclose(got, expected, rtol=0, atol=float(1e-3 * largest))
    except RuntimeError:  # the layer takes another shape
        return False
    finally:
        for parameter, value in zip(layer.parameters(), kept):
            parameter.copy_(value)
