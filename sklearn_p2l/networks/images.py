"""Networks that classify images, whatever family they come from."""

import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from sklearn_p2l.networks.base import Network, Settings
from sklearn_p2l.networks.preprocessing import Preprocessing
from sklearn_p2l.networks.weights import hash_weights
from sklearn_p2l.samples import IMAGES, image_batches

# What a checkpoint may say about the size of its images.
_LARGEST_SIDE = 10_000

# Larger inputs are kept in a temporary file rather than in memory.
_IN_MEMORY_BYTES = 2 * 2**30

# On a CPU, this many pixels per thread pass through the network together: with more,
# its maps leave the caches, and the system clears memory for them again and again.
# In half precision maps are half as large.
_PIXELS_PER_THREAD = 2 * 224**2
_HALF_PIXELS_PER_THREAD = 4 * 224**2


class ImageNetwork(Network):
    """An image classifier.

    ``preprocess(images)`` turns samples into a uint8 batch. The normalisation of pixels
    is part of the network, so batches stay small until they reach the device.

    Parameters
    ----------
    head : str
        Name of the last layer with weights within `model`.

    layer : str
        What the features are the responses of.

    is_penultimate : bool
        Whether these are what the last layer is fed with.
    """

    takes = IMAGES.name

    def __init__(
        self,
        model: nn.Module,
        *,
        architecture: str,
        preprocessing: Preprocessing,
        head: str,
        layer: str,
        is_penultimate: bool,
    ):
        super().__init__(model, architecture=architecture, head=head)
        self.preprocessing = preprocessing
        self.image_size = preprocessing.crop_size
        self.metadata = {"image_size": str(self.image_size)}
        self.layer = layer
        self._is_penultimate = is_penultimate
        # Of a row of pixels: to take three values at a time is many times slower.
        mean, std = (
            torch.tensor(values).repeat(self.image_size)
            for values in (preprocessing.mean, preprocessing.std)
        )
        self.register_buffer("_row_mean", mean, persistent=False)
        self.register_buffer("_row_std", std, persistent=False)
        self.to(memory_format=torch.channels_last)

    def preprocess(self, samples: Iterable[np.ndarray]) -> torch.Tensor:
        """Resize and crop uint8 images (H, W, 3) into a uint8 batch (n, 3, S, S)."""
        return _stack([self.preprocessing(image) for image in samples])

    def read(
        self,
        dataset: Any,
        batch_size: int,
        *,
        on_error: str = "raise",
        skipped: list[str] | None = None,
        ahead: bool = False,
    ) -> Iterator[torch.Tensor]:
        rule = self.preprocessing
        batches = image_batches(
            dataset,
            batch_size,
            on_error=on_error,
            skipped=skipped,
            transform=rule,
            # Twice the size that is needed leaves the filter of the resize its say.
            min_side=2 * rule.short_side,
            ahead=ahead,
        )
        return map(_stack, batches)

    def prepare(self, batches: Iterable[torch.Tensor], n_samples: int) -> torch.Tensor:
        """Collect batches in one uint8 tensor (n_samples, 3, S, S)."""
        shape = (n_samples, 3, self.image_size, self.image_size)
        if np.prod(shape) > _IN_MEMORY_BYTES:
            with tempfile.TemporaryFile() as file:  # the mapping outlives its file
                inputs = np.memmap(file, np.uint8, "w+", shape=shape)
        else:
            inputs = np.empty(shape, np.uint8)
        done = 0
        for batch in batches:
            if done + len(batch) <= n_samples:
                inputs[done : done + len(batch)] = batch.numpy()
            done += len(batch)
        if done != n_samples:
            raise ValueError(
                f"X must yield as many samples as its length says, {n_samples}, got "
                f"{done}."
            )
        return torch.from_numpy(inputs)

    def _normalize(self, batch: torch.Tensor) -> torch.Tensor:
        n, _, height, width = batch.shape
        rows = batch.permute(0, 2, 3, 1).reshape(n, height, 3 * width)
        rows = rows.to(torch.float32, copy=True).div_(255)
        rows.sub_(self._row_mean).div_(self._row_std)
        return rows.view(n, height, width, 3).permute(0, 3, 1, 2)

    @staticmethod
    def logits_of(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
        """Pass normalised images (n, 3, S, S) through a module: (n, num_classes)."""
        return model(pixels)

    @abstractmethod
    def responses(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute the responses of `layer` to normalised images, in evaluation."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        # (n, 3, S, S) uint8 -> (n, num_classes)
        if self.training:
            return self.logits_of(self.model, self._normalize(batch))
        return self._in_parts(lambda part: self.logits_of(self.model, part), batch)

    def _in_parts(self, function: Callable, batch: torch.Tensor) -> torch.Tensor:
        """Apply a function to a normalised batch; on a CPU, to a few images at once."""
        n = len(batch)
        if batch.device.type == "cpu":
            half = torch.is_autocast_enabled("cpu")
            pixels = _HALF_PIXELS_PER_THREAD if half else _PIXELS_PER_THREAD
            n = max(1, torch.get_num_threads() * pixels // self.image_size**2)
        parts = [function(self._normalize(part)) for part in batch.split(n)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def forward_features(self, batch: torch.Tensor) -> torch.Tensor:
        # (n, 3, S, S) uint8 -> (n, num_features); maps are averaged over positions
        return self._in_parts(lambda part: pool(self.responses(part)), batch)

    @torch.no_grad()
    def check(self) -> None:
        """Try the network on one image; learn width and sign of its features.

        Raises
        ------
        ValueError
            If it cannot take images of this size, or if its features are not what
            feeds the head, and should be.
        """
        responses, fed = self._try_random_image()
        features = pool(responses)
        atol = 1e-4 * float(fed.abs().max().nan_to_num())
        if self._is_penultimate and not (
            features.shape == fed.shape
            and torch.allclose(features, fed, rtol=1e-3, atol=atol, equal_nan=True)
        ):
            raise ValueError(
                f"layer must be given for {self.architecture}, whose last layer takes "
                "its input from somewhere else than the node before it."
            )
        self.num_features = features.shape[1]
        # An average may hide a sign that the average of another image shows.
        self.signed = bool((responses < 0).any())

    def _try_random_image(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the responses of `layer`, and what the head is fed with."""
        size = self.preprocessing.crop_size
        generator = torch.Generator().manual_seed(0)
        shape = (1, 3, size, size)
        batch = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        head_input = []
        hook = self.model.get_submodule(self.head).register_forward_pre_hook(
            lambda module, args: head_input.append(pool(args[0]))
        )
        self.eval()
        try:
            self(batch)
            return self.responses(self._normalize(batch)), head_input[0]
        except Exception as error:  # each network fails in its own way
            raise ValueError(
                f"image_size must suit {self.architecture}, got {size}, at which "
                f"float32 images of 3 channels raise {type(error).__name__}: {error}"
            ) from error
        finally:
            hook.remove()

    def features_hash(self) -> str:
        """Hash the weights that the features depend on (not those of the head)."""
        return hash_weights(self.model, but=self.head)


def pool(responses: torch.Tensor) -> torch.Tensor:
    """Average maps over positions, and tokens over the sequence: (n, num_features)."""
    responses = responses.float()
    if responses.ndim == 4:
        responses = responses.mean(dim=(2, 3))
    elif responses.ndim == 3:
        responses = responses.mean(dim=1)
    return responses.flatten(start_dim=1)


def size_of(settings: Settings) -> int | None:
    """Side of images that is asked for, else trained with; None for the usual one."""
    told = settings.metadata.get("image_size") or "0"
    if not (told.isdecimal() and int(told) <= _LARGEST_SIDE):
        raise ValueError(
            "image_size in the metadata of a checkpoint must be a number of pixels up "
            f"to {_LARGEST_SIDE:,}, got {told!r:.40}; write the checkpoint again."
        )
    return settings.image_size or int(told) or None


def _stack(images: Sequence[np.ndarray]) -> torch.Tensor:
    # n of (S, S, 3) -> (n, 3, S, S), in channels_last order as they are
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
