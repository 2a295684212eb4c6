"""Random changes to training images, by torchvision's transforms."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torchvision.transforms import v2

# What each name stands for, at a side in pixels; in this order where there are several.
CHANGES: dict[str, Callable[[int], v2.Transform]] = {
    "crop": lambda size: v2.RandomResizedCrop(size, scale=(0.5, 1.0), antialias=True),
    "shift": lambda size: v2.RandomCrop(
        size, padding=max(1, size // 8), padding_mode="edge"
    ),
    "flip": lambda size: v2.RandomHorizontalFlip(),
    "color": lambda size: v2.ColorJitter(0.3, 0.3, 0.3),
}


def augment(batch: Any, names: tuple[str, ...]) -> Any:
    """Change each image of a uint8 batch (n, 3, S, S) in its own way."""
    if not names:
        return batch
    if not isinstance(batch, torch.Tensor):
        raise ValueError(f"augment must be None for text, got {list(names)}.")
    change = _change(names, batch.shape[-1])
    # One draw serves all images that are changed together.
    return torch.stack([change(image) for image in batch])


@functools.lru_cache
def _change(names: tuple[str, ...], size: int) -> v2.Transform:
    return v2.Compose([CHANGES[name](size) for name in CHANGES if name in names])
