"""Image classifiers: any torchvision network, a small one, or a user's own."""

import difflib
import functools
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.feature_extraction import (
    create_feature_extractor,
    get_graph_node_names,
)
from torchvision.models.resnet import BasicBlock

from sklearn_p2l.datasets import image_batches
from sklearn_p2l.networks.base import Network
from sklearn_p2l.networks.weights import hash_weights

# Larger inputs are kept in a temporary file rather than in memory.
_IN_MEMORY_BYTES = 2 * 2**30

# On a CPU, this many pixels per thread pass through the network together: with more,
# its maps leave the caches, and the system clears memory for them again and again.
_PIXELS_PER_THREAD = 2 * 224**2

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """How images become the input of a network: resize, centre crop, normalise.

    Raise `revision` with every change by which the same image becomes another input:
    it is part of the fingerprint, so that vectors from before are refused and caches of
    them not used.
    """

    resize_size: int = 256
    crop_size: int = 224
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = _IMAGENET_MEAN
    std: tuple[float, ...] = _IMAGENET_STD
    revision: int = 2

    def at(self, image_size: int | None) -> "Preprocessing":
        """Return the same preprocessing for images of another size."""
        if image_size is None:
            return self
        resize_size = round(self.resize_size * image_size / self.crop_size)
        return replace(self, resize_size=resize_size, crop_size=image_size)

    def __call__(
        self, image: np.ndarray, box: tuple[float, ...] | None = None
    ) -> np.ndarray:
        """Resize and crop a uint8 image (H, W, 3) to (crop_size, crop_size, 3).

        As Pillow resizes a whole image, except that only the crop is computed. `box`
        is the part of the array that the image fills, all of it by default.
        """
        return self._cut(image, box, self.crop_size, 0)

    def uncropped(self, image: np.ndarray, box: tuple[float, ...]) -> np.ndarray:
        """Resize to (resize_size, resize_size, 3), of which a call cuts the same."""
        margin = round((self.resize_size - self.crop_size) / 2)
        return self._cut(image, box, self.resize_size, margin)

    def _cut(self, image, box, side, margin):
        """Cut a square that begins `margin` pixels before the crop."""
        height, width = image.shape[:2]
        left, upper, right, lower = box or (0, 0, width, height)
        width, height = right - left, lower - upper
        if height == width == side == self.resize_size:
            return image
        short = min(width, height)
        size = [int(self.resize_size * length / short) for length in (width, height)]
        x, y = (round((length - self.crop_size) / 2) - margin for length in size)
        across, down = width / size[0], height / size[1]
        cut = (
            left + x * across,
            upper + y * down,
            left + (x + side) * across,
            upper + (y + side) * down,
        )
        method = Image.Resampling[self.interpolation.upper()]
        return np.asarray(Image.fromarray(image).resize((side, side), method, cut))


class ImageNetwork(Network):
    """An image classifier.

    ``preprocess(images)`` turns samples into a uint8 batch. The normalisation of pixels
    is part of the network, so batches stay small until they reach the device.
    """

    takes = "images"

    def __init__(
        self,
        model: nn.Module,
        *,
        architecture: str,
        preprocessing: Preprocessing,
        layer: str | None = None,
    ):
        head, penultimate = _last_layers(model, architecture)
        super().__init__(model, architecture=architecture, head=head)
        self.preprocessing = preprocessing
        self.image_size = preprocessing.crop_size
        self.metadata = {"image_size": str(self.image_size)}
        self.layer = layer or penultimate
        self._is_penultimate = layer is None
        mean = torch.tensor(preprocessing.mean).view(1, 3, 1, 1)
        std = torch.tensor(preprocessing.std).view(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.to(memory_format=torch.channels_last)

    def preprocess(self, images: Iterable[np.ndarray]) -> torch.Tensor:
        """Resize and crop uint8 images (H, W, 3) into a uint8 batch (n, 3, S, S)."""
        return _stack([self.preprocessing(image) for image in images])

    def read(self, dataset, batch_size: int, **kwargs) -> Iterator[torch.Tensor]:
        # kwargs: of image_batches
        rule = self.preprocessing
        # Twice the size that is needed leaves the filter of the resize its say.
        batches = image_batches(
            dataset,
            batch_size,
            transform=rule,
            min_side=2 * rule.resize_size,
            **kwargs,
        )
        return map(_stack, batches)

    def read_uncropped(self, images: Sequence) -> np.ndarray:
        """Read images as squares (n, R, R, 3) that `read` would only have to crop."""
        rule = self.preprocessing
        batches = image_batches(
            images, 32, transform=rule.uncropped, min_side=2 * rule.resize_size
        )
        return np.concatenate([np.stack(batch) for batch in batches])

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
        batch = batch.contiguous(memory_format=torch.channels_last)
        return (batch.float() / 255 - self.mean) / self.std

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        # (n, 3, S, S) uint8 -> (n, num_classes)
        if self.training:
            return self.model(self._normalize(batch))
        return self._in_parts(self.model, batch)

    def _in_parts(self, function, batch: torch.Tensor) -> torch.Tensor:
        """Apply a function to a normalised batch; on a CPU, to a few images at once."""
        n = len(batch)
        if batch.device.type == "cpu":
            pixels = torch.get_num_threads() * _PIXELS_PER_THREAD
            n = max(1, pixels // self.image_size**2)
        parts = [function(self._normalize(part)) for part in batch.split(n)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @functools.cached_property
    def _extractor(self) -> nn.Module:
        try:
            return create_feature_extractor(
                self.model.eval(), [self.layer], suppress_diff_warning=True
            )
        except ValueError as error:
            nodes = get_graph_node_names(self.model, suppress_diff_warning=True)[1]
            close = difflib.get_close_matches(self.layer, nodes, n=5, cutoff=0.3)
            raise ValueError(
                f"layer must be a node of {self.architecture}, got {self.layer!r}; "
                f"close names are {close or nodes[-5:]}, and torchvision's "
                "get_graph_node_names lists all."
            ) from error

    @functools.cached_property
    def _fast_extractor(self) -> nn.Module:
        return _fold_batch_norm(self._extractor.eval())

    def train(self, mode: bool = True) -> "ImageNetwork":
        if mode:  # what was folded into the weights would no longer hold
            vars(self).pop("_fast_extractor", None)
        return super().train(mode)

    def forward_features(self, batch: torch.Tensor) -> torch.Tensor:
        # (n, 3, S, S) uint8 -> (n, num_features); maps are averaged over positions
        extractor = self._fast_extractor.to(batch.device)
        return self._in_parts(lambda part: _pool(extractor(part)[self.layer]), batch)

    @torch.inference_mode()
    def check(self) -> None:
        """Try the network on one image, and learn the width of its features.

        Raises
        ------
        ValueError
            If it cannot take images of this size, or if what comes before the head in
            its graph is not what feeds the head.
        """
        size = self.preprocessing.crop_size
        generator = torch.Generator().manual_seed(0)
        shape = (1, 3, size, size)
        batch = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        head_input = []
        hook = self.model.get_submodule(self.head).register_forward_pre_hook(
            lambda module, args: head_input.append(_pool(args[0]))
        )
        extractor = self.eval()._extractor
        try:
            self(batch)
            features = _pool(extractor(self._normalize(batch))[self.layer])
        except Exception as error:  # each network fails in its own way
            raise ValueError(
                f"image_size must suit {self.architecture}, got {size}, at which "
                f"float32 images of 3 channels raise {type(error).__name__}: {error}"
            ) from error
        finally:
            hook.remove()
        fed = head_input[-1]
        if self._is_penultimate and not (
            features.shape == fed.shape
            and torch.allclose(features, fed, rtol=1e-3, equal_nan=True)
        ):
            raise ValueError(
                f"layer must be given for {self.architecture}, whose last layer takes "
                "its input from somewhere else than the node before it."
            )
        self.num_features = features.shape[1]
        _ = self._fast_extractor  # here, as tracing is not safe in several threads

    def features_hash(self) -> str:
        """Hash the weights that the features depend on (not those of the head)."""
        return hash_weights(self._extractor)


class SmallResNet(nn.Module):
    """A residual network for images of about 8 to 64 pixels; 78 thousand weights."""

    def __init__(self, num_classes: int = 10, widths: Sequence[int] = (16, 32, 64)):
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        for width_in, width in zip((widths[0], *widths), widths):
            stride, shortcut = 1, None
            if width != width_in:
                stride = 2
                shortcut = nn.Sequential(
                    nn.Conv2d(width_in, width, 1, stride, bias=False),
                    nn.BatchNorm2d(width),
                )
            layers.append(BasicBlock(width_in, width, stride, shortcut))
        self.body = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.pool(self.body(x)).flatten(1))


_SMALL = Preprocessing(32, 32, "bilinear", (0.5,) * 3, (0.25,) * 3)


def build_classifier(name: str) -> tuple[nn.Module, Preprocessing]:
    """Build an image classifier with random weights, by its name."""
    if name == "small_resnet":
        return SmallResNet(), _SMALL
    _check_known(name)
    kwargs = {}
    if name in ("googlenet", "inception_v3"):
        kwargs = {"aux_logits": False, "init_weights": True}
    default = torchvision.models.get_model_weights(name).DEFAULT
    model = torchvision.models.get_model(name, weights=None, **kwargs)
    return model, preprocessing_of(default)


def _check_known(name):
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        close = difflib.get_close_matches(name, [*names, "small_resnet", "pcnn"], n=3)
        raise ValueError(
            "backbone must be 'small_resnet', 'pcnn', the name of a torchvision "
            f"classification network, a checkpoint file or a factory, got {name!r}"
            + (f"; did you mean {' or '.join(close)}?" if close else ".")
        )


def known_weights(backbone, weights):
    """Return torchvision's weights of that name, or None for files and None."""
    if not isinstance(weights, str) or callable(backbone):
        return None
    if backbone in ("small_resnet", "pcnn"):
        if weights == "DEFAULT":
            raise ValueError(
                f"weights must be a file or None (random) for {backbone!r}, which has "
                "no published weights, got 'DEFAULT'."
            )
        return None
    _check_known(backbone)
    known = torchvision.models.get_model_weights(backbone)
    if weights in known.__members__:
        return known[weights]
    if not os.path.exists(weights) and os.sep not in weights and "." not in weights:
        raise ValueError(
            f"weights must be one of {list(known.__members__)} for {backbone!r}, a "
            f"file or None, got {weights!r}."
        )
    return None


def download(known) -> dict[str, torch.Tensor]:
    try:
        return known.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except OSError as error:
        raise OSError(
            f"the weights {known} could not be downloaded from {known.url} ({error}); "
            "download that file elsewhere and pass weights='<its path>'."
        ) from error


def preprocessing_of(weights) -> Preprocessing:
    preset = weights.transforms()
    return Preprocessing(
        preset.resize_size[0],
        preset.crop_size[0],
        preset.interpolation.value,
        tuple(preset.mean),
        tuple(preset.std),
    )


def _stack(images: Sequence[np.ndarray]) -> torch.Tensor:
    # n of (S, S, 3) -> (n, 3, S, S), in channels_last order as they are
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


class _SequentialTracer(fx.Tracer):
    """Traces into sequences of layers, such as torchvision's convolution blocks."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not isinstance(m, nn.Sequential)


def _fold_batch_norm(extractor: fx.GraphModule) -> fx.GraphModule:
    """Fold batch normalisation into the convolutions before it, for evaluation.

    Returns a module that shares all other layers with `extractor`.
    """
    graph = _SequentialTracer().trace(extractor)
    folded = fx.GraphModule(extractor, graph)
    modules = dict(folded.named_modules())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in list(graph.nodes):
        before = node.args[0] if node.args else None
        if not (
            node.op == "call_module"
            and isinstance(modules[node.target], nn.BatchNorm2d)
            and modules[node.target].track_running_stats
            and isinstance(before, fx.Node)
            and before.op == "call_module"
            and type(modules[before.target]) is nn.Conv2d
            and len(before.users) == calls[before.target] == calls[node.target] == 1
        ):
            continue
        fused = fuse_conv_bn_eval(modules[before.target], modules[node.target])
        folded.set_submodule(before.target, fused)
        node.replace_all_uses_with(before)
        graph.erase_node(node)
    folded.recompile()
    return folded.eval().to(memory_format=torch.channels_last)


def _pool(features: torch.Tensor) -> torch.Tensor:
    """Average maps over positions, and tokens over the sequence: (n, num_features)."""
    features = features.float()
    if features.ndim == 4:
        features = features.mean(dim=(2, 3))
    elif features.ndim == 3:
        features = features.mean(dim=1)
    return features.flatten(start_dim=1)


def _last_layers(model: nn.Module, architecture: str) -> tuple[str, str]:
    """Find the head, the last layer with weights, and the node that feeds it."""
    try:
        nodes = get_graph_node_names(model, suppress_diff_warning=True)[1]
    except Exception as error:  # tracing runs the model's own code
        raise ValueError(
            f"the network {architecture} must be traceable by torch.fx, got "
            f"{type(error).__name__}: {error}; pass features computed elsewhere as 2-D "
            "arrays, or a network without data-dependent control flow."
        ) from error
    modules = dict(model.named_modules())
    for before, node in reversed(list(zip(nodes, nodes[1:]))):
        if isinstance(modules.get(node), (nn.Linear, nn.Conv2d)):
            return node, before
    raise ValueError(
        f"the network {architecture} must end in a linear or convolutional layer with "
        "weights, got none."
    )
