"""A trained network as one torch module: from raw pixels to probabilities."""

import copy

import PIL
import torch
from torch import nn

from sklearn_p2l.networks.base import Network
from sklearn_p2l.networks.images import ImageNetwork
from sklearn_p2l.networks.preprocessing import Preprocessing

# Pillow computes weights in double precision and rounds them to so many bits.
_BITS = 22


def export_module(network: Network, *, exclusive: bool) -> nn.Module:
    """Return a module that turns raw pixels into probabilities.

    `exclusive`: whether they sum to 1 (softmax), or are each for itself (sigmoid).
    """
    if not isinstance(network, ImageNetwork):
        raise ValueError(
            "to_module needs a network of images, whose input is a tensor of pixels, "
            f"got {network.architecture}."
        )
    return PixelsToProbabilities(network, exclusive).eval()


class PixelsToProbabilities(nn.Module):
    """Resizes as Pillow does, crops, normalises, passes the network, normalises."""

    def __init__(self, network: ImageNetwork, exclusive: bool):
        super().__init__()
        self.preprocessing = network.preprocessing
        self.model = copy.deepcopy(network.model).cpu()
        self.logits_of = network.logits_of
        self.exclusive = exclusive
        rule = self.preprocessing
        self.register_buffer("mean", torch.tensor(rule.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(rule.std).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # (n, 3, H, W) uint8 -> (n, n_outputs)
        pixels = resize_and_crop(images, self.preprocessing)
        pixels = (pixels / 255 - self.mean) / self.std
        logits = self.logits_of(self.model, pixels).flatten(1)
        return logits.softmax(dim=1) if self.exclusive else logits.sigmoid()


def resize_and_crop(images: torch.Tensor, rule: Preprocessing) -> torch.Tensor:
    """Preprocess uint8 images (n, 3, H, W) of one size: float32, 0..255, whole numbers.

    The same numbers, bit by bit, as :class:`Preprocessing` has Pillow compute: each
    side is multiplied by a matrix of rounded weights, and the results are rounded.
    """
    height, width = images.shape[-2:]
    down, across = (
        resize_matrix(length, start, end, rule.crop_size, rule.interpolation)
        for length, (start, end) in zip((height, width), rule.cut(width, height))
    )
    down, across = down.to(images.device), across.to(images.device)
    pixels = images.double()
    if _down_first(height, width, rule.crop_size):
        pixels = _rounded(_rounded(down @ pixels) @ across.T)
    else:
        pixels = _rounded(down @ _rounded(pixels @ across.T))
    return pixels.float()


def _rounded(sums: torch.Tensor) -> torch.Tensor:
    return torch.floor(sums / 2**_BITS + 0.5).clamp(0, 255)


def _down_first(height: int, width: int, size: int) -> bool:
    """Tell which way Pillow resizes first; since version 13 that is not always along.

    Between the two it rounds, so that the order is seen in the last bit.
    """
    tall = height > size and height + size > 2 * width
    return tall and int(PIL.__version__.partition(".")[0]) >= 13


def resize_matrix(
    length: int, start: float, end: float, size: int, interpolation: str
) -> torch.Tensor:
    """Weights (size, length) that resize what lies between two points to `size` pixels.

    Whole numbers, 2**22 times the weights.
    """
    # Pillow takes the points in single precision.
    first, last = torch.tensor([start, end], dtype=torch.float32)
    step = (last - first).double()  # (the difference, too)
    scale = step / size
    filter_scale = scale.clamp(min=1.0)
    support = {"bilinear": 1.0, "bicubic": 2.0}[interpolation] * filter_scale
    centers = first.double() + (torch.arange(size).double() + 0.5) * scale
    low = (centers - support + 0.5).trunc().clamp(min=0)
    high = (centers + support + 0.5).trunc().clamp(max=length)
    columns = torch.arange(length).double()
    weights = _filter((columns - centers[:, None] + 0.5) / filter_scale, interpolation)
    inside = (columns >= low[:, None]) & (columns < high[:, None])
    weights = torch.where(inside, weights, torch.zeros_like(weights))
    weights = weights / weights.sum(dim=1, keepdim=True) * 2**_BITS
    return torch.where(weights < 0, (weights - 0.5).trunc(), (weights + 0.5).trunc())


def _filter(x: torch.Tensor, interpolation: str) -> torch.Tensor:
    x = x.abs()
    if interpolation == "bilinear":
        return (1 - x).clamp(min=0)
    a = -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
