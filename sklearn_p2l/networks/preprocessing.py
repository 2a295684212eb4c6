"""How images become the input of a network."""

from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Resize, cut the centre, normalise.

    An image is resized until its shorter side is `resize_size`, or squeezed into that
    shape where it is a pair (height, width); and of that the centre of `crop_size` by
    `crop_size` pixels is cut. What lies outside is not seen: of the longer side all
    that makes it longer, and of both sides the margin by which `resize_size` exceeds
    `crop_size`. Most of torchvision's networks take 224 pixels out of 256, and
    :meth:`at` keeps that ratio at every other size, so that the outer 6 % at each edge
    of a square image are never seen. Where the two are equal, as for "small_resnet",
    nothing of a square image is lost.

    Raise `revision` with every change by which the same image becomes another input:
    it is part of the fingerprint, so that vectors from before are refused and caches of
    them not used.
    """

    resize_size: int | tuple[int, int] = 256
    crop_size: int = 224
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = _IMAGENET_MEAN
    std: tuple[float, ...] = _IMAGENET_STD
    revision: int = 2
    #: Whether half a pixel of a margin goes to the lower right, not to an even number.
    floors: bool = field(default=False, repr=False)

    def at(self, image_size: int | None) -> "Preprocessing":
        """Return the same preprocessing for images of another size."""
        if image_size is None:
            return self
        ratio = image_size / self.crop_size
        if isinstance(self.resize_size, tuple):
            resize_size = tuple(round(side * ratio) for side in self.resize_size)
        else:
            resize_size = round(self.resize_size * ratio)
        return replace(self, resize_size=resize_size, crop_size=image_size)

    @property
    def pixels(self) -> tuple:
        """All that decides about the pixels: what normalises them does not."""
        size = (self.resize_size, self.crop_size)
        return *size, self.interpolation, self.floors, self.revision

    @property
    def short_side(self) -> int:
        """The shorter side of a resized image."""
        size = self.resize_size
        return min(size) if isinstance(size, tuple) else size

    def __call__(
        self, image: np.ndarray | Image.Image, box: tuple[float, ...] | None = None
    ) -> np.ndarray:
        """Resize and crop a uint8 image (H, W, 3), or one of Pillow's, in RGB.

        To (crop_size, crop_size, 3), as Pillow resizes a whole image, except that only
        the crop is computed. `box` is the part of it that the picture fills, all of it
        by default.
        """
        side = self.crop_size
        in_memory = isinstance(image, np.ndarray)
        width, height = image.shape[1::-1] if in_memory else image.size
        left, upper, right, lower = box or (0, 0, width, height)
        width, height = right - left, lower - upper
        if height == width == side and self.resize_size in (side, (side, side)):
            return np.asarray(image)
        (top, bottom), (first, last) = self.cut(width, height)
        cut = (left + first, upper + top, left + last, upper + bottom)
        method = Image.Resampling[self.interpolation.upper()]
        image = Image.fromarray(image) if in_memory else image
        return np.asarray(image.resize((side, side), method, cut))

    def cut(
        self, width: float, height: float
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        """Where the crop begins and ends in an image, downwards and across."""
        side, short = self.crop_size, min(width, height)
        parts = []
        for axis, length in enumerate((height, width)):
            if isinstance(self.resize_size, tuple):
                resized = self.resize_size[axis]
            else:
                resized = int(self.resize_size * length / short)
            margin, scale = resized - side, length / resized
            first = margin // 2 if self.floors else round(margin / 2)
            parts.append((first * scale, (first + side) * scale))
        return tuple(parts)
