"""The last layer: in front of scaled features, started as a probe, or left as one."""

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

# So many samples tell the size of features well enough.
_SAMPLES_FOR_SCALE = 1024


class StandardisedInput(nn.Module):
    """A layer behind the standardisation of its input."""

    def __init__(
        self, layer: nn.Linear | nn.Conv2d, mean: torch.Tensor, scale: torch.Tensor
    ):
        super().__init__()
        self.layer = layer
        self.register_buffer("mean", mean)  # (num_features,)
        self.register_buffer("scale", scale)  # ()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.mean.view(1, -1, *[1] * (x.ndim - 2))
        return self.layer((x - mean) / self.scale)


@contextmanager
def standardised_features(
    network: Network,
    inputs: Any,
    kept: torch.Tensor,
    pretrained: bool,
    device: torch.device,
) -> Iterator[None]:
    """Train with features whose mean square is 1; the network then takes its own again.

    How large features are is an accident of how a network was built and trained: it
    should not decide how far one step at a given learning rate moves the logits. Those
    of random weights are besides nearly the same for all samples: there the mean is
    taken off first, so that the differences are of size 1. What is subtracted and what
    is divided by is measured once, and in the end becomes part of the last layer, which
    computes the same without it.
    """
    layer = network.model.get_submodule(network.head)
    mean, scale = _mean_and_scale(network, inputs, kept, pretrained, device)
    size = (scale**2 + mean.square().mean()).sqrt()
    can_be_centred = layer.bias is not None and layer.weight[0, 0].numel() == 1
    if pretrained or not can_be_centred or scale <= 1e-6 * size:
        mean, scale = torch.zeros_like(mean), size
    if not (scale > 0 and scale.isfinite()):
        mean, scale = torch.zeros_like(mean), torch.ones_like(scale)
    wrapped = StandardisedInput(layer, mean, scale)
    network.replace_head(wrapped)
    _shift(layer, mean)  # a layer that has learned something goes on from there
    with torch.no_grad():
        layer.weight.mul_(scale)
    try:
        yield
    finally:
        with torch.no_grad():
            layer.weight.div_(wrapped.scale)
        _shift(layer, -wrapped.mean)
        network.replace_head(layer)


@torch.no_grad()
def _shift(layer: nn.Linear | nn.Conv2d, mean: torch.Tensor) -> None:
    """Make a layer compute for ``x - mean`` what it computed for x."""
    if mean.any():
        layer.bias.add_(layer.weight.flatten(1) @ mean)


@torch.no_grad()
def _mean_and_scale(
    network: Network,
    inputs: Any,
    kept: torch.Tensor,
    pretrained: bool,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of the last layer's inputs, and their root mean square around it.

    Where the network has random weights, inputs that are maps are averaged over
    positions first, and nothing is dropped out: it is samples that should differ.
    """
    seen = []

    def add(module: nn.Module, args: tuple[torch.Tensor]) -> None:
        x = args[0].float()
        x = x.flatten(2).transpose(1, 2) if x.ndim > 2 else x.unsqueeze(1)
        if not pretrained:
            x = x.mean(dim=1, keepdim=True)
        seen.append((x.sum(dim=(0, 1)), x.square().sum(), x.shape[0] * x.shape[1]))

    order = kept[torch.randperm(len(kept))[:_SAMPLES_FOR_SCALE]]
    hook = network.model.get_submodule(network.head).register_forward_pre_hook(add)
    network.train(not pretrained)
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    try:
        for indices in order.tensor_split(max(1, len(order) // 32)):
            network(inputs[indices].to(device))
    finally:
        hook.remove()
    sums, squares, counts = zip(*seen)
    n = sum(counts)
    mean = sum(sums) / n
    spread = sum(squares) / (n * len(mean)) - mean.square().mean()
    return mean, spread.clamp_min(0).sqrt()


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
        expected, features = network(batch), network.forward_features(batch)
        weight = layer.weight.flatten(1)
        got = nn.functional.linear(features, weight, layer.bias)
        largest = expected.abs().max()
        return torch.allclose(got, expected, rtol=0, atol=float(1e-3 * largest))
    except RuntimeError:  # the layer takes another shape
        return False
    finally:
        for parameter, value in zip(layer.parameters(), kept):
            parameter.copy_(value)
