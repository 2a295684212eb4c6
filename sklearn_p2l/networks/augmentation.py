"""Random changes to training images, of whole batches at a time.

torchvision's transforms make one draw for all images of a batch, or are called for each
image alone, which keeps a GPU waiting. These draw for each image, on the CPU, so that
one seed means the same on every device.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

# Brightness, contrast and saturation are multiplied by up to this more or less than 1.
_CONTRASTS = 0.3
# Least share of an image's area that is seen, and the most unequal sides of that part.
_LEAST_AREA, _RATIO = 0.5, 4 / 3


def crop(batch: torch.Tensor) -> torch.Tensor:
    """Enlarge a part of each image, of half its area at least, to the whole."""
    n = len(batch)
    area = _LEAST_AREA + (1 - _LEAST_AREA) * torch.rand(n)
    ratio = torch.exp(math.log(_RATIO) * (2 * torch.rand(n) - 1))
    sides = torch.stack([area * ratio, area / ratio]).sqrt().clamp(max=1)
    # Where the middle of the part is: the image reaches from -1 to 1.
    middle = (1 - sides) * (2 * torch.rand(2, n) - 1)
    return enlarge(batch, sides, middle)


def enlarge(
    batch: torch.Tensor, sides: torch.Tensor, middle: torch.Tensor
) -> torch.Tensor:
    """Enlarge the part of each image with these sides around the middle.

    Both have the shape (2, n): across and down; an image reaches from -1 to 1.
    """
    boxes = torch.zeros(len(batch), 2, 3)
    boxes[:, 0, 0], boxes[:, 1, 1] = sides
    boxes[:, 0, 2], boxes[:, 1, 2] = middle
    grid = F.affine_grid(boxes.to(batch.device), batch.shape, align_corners=False)
    edge = 1 - 1 / batch.shape[-1]  # the middle of the last pixel
    grid = grid.clamp(-edge, edge)
    return _rounded(F.grid_sample(batch.float(), grid, align_corners=False))


def shift(batch: torch.Tensor) -> torch.Tensor:
    """Shift each image by up to an eighth of its side; edges are repeated."""
    n, side = len(batch), batch.shape[-1]
    most = max(1, side // 8)
    by = torch.randint(-most, most + 1, (2, n, 1))
    places = (torch.arange(side) + by).clamp(0, side - 1).to(batch.device)
    images = torch.arange(n, device=batch.device)[:, None, None]
    moved = batch.permute(0, 2, 3, 1)[images, places[0, :, :, None], places[1, :, None]]
    return moved.permute(0, 3, 1, 2)


def flip(batch: torch.Tensor) -> torch.Tensor:
    """Mirror about every second image left and right."""
    mirrored = (torch.rand(len(batch), 1, 1, 1) < 0.5).to(batch.device)
    return torch.where(mirrored, batch.flip(-1), batch)


def color(batch: torch.Tensor) -> torch.Tensor:
    """Change brightness, contrast and saturation of each image."""
    factors = 1 + _CONTRASTS * (2 * torch.rand(3, len(batch), 1, 1, 1) - 1)
    return recolor(batch, *factors.to(batch.device))


def recolor(
    batch: torch.Tensor,
    brightness: torch.Tensor,
    contrast: torch.Tensor,
    saturation: torch.Tensor,
) -> torch.Tensor:
    """Multiply the brightness, contrast and saturation of images, one after the other.

    Each factor has the shape (n, 1, 1, 1).
    """
    pixels = batch.float().mul_(brightness).clamp_(0, 255)
    mean = _grey(pixels).mean(dim=(2, 3), keepdim=True)
    pixels.mul_(contrast).add_((1 - contrast) * mean).clamp_(0, 255)
    grey = _grey(pixels).mul_(1 - saturation)
    return _rounded(pixels.mul_(saturation).add_(grey))


def _grey(pixels: torch.Tensor) -> torch.Tensor:
    red, green, blue = pixels.split(1, dim=1)
    return (0.299 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def _rounded(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.round_().clamp_(0, 255).to(torch.uint8)


# By name, and in this order where there are several.
CHANGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "crop": crop,
    "shift": shift,
    "flip": flip,
    "color": color,
}


def augment(batch: Any, names: tuple[str, ...]) -> Any:
    """Change each image of a uint8 batch (n, 3, S, S) in its own way."""
    if names and not isinstance(batch, torch.Tensor):
        raise ValueError(f"augment must be None for text, got {list(names)}.")
    for name in CHANGES:
        if name in names:
            batch = CHANGES[name](batch)
    return batch
