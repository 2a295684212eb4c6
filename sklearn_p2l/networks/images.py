"""Image classifiers: any torchvision network, a small one, or a user's own."""

import difflib
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import (
    create_feature_extractor,
    get_graph_node_names,
)
from torchvision.models.resnet import BasicBlock
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from sklearn_p2l.networks.devices import seeded
from sklearn_p2l.networks.weights import hash_weights, load_weights, read_checkpoint

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """How images become the input of a network: resize, centre crop, normalise."""

    resize_size: int = 256
    crop_size: int = 224
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = _IMAGENET_MEAN
    std: tuple[float, ...] = _IMAGENET_STD

    def at(self, image_size: int | None) -> "Preprocessing":
        """Return the same preprocessing for images of another size."""
        if image_size is None:
            return self
        resize_size = round(self.resize_size * image_size / self.crop_size)
        return replace(self, resize_size=resize_size, crop_size=image_size)


class ImageNetwork(nn.Module):
    """An image classifier with the small contract that every network here keeps.

    ``preprocess(images)`` turns samples into a uint8 batch; calling the network gives
    logits, ``forward_features`` the responses of the penultimate (or a named) layer,
    ``reset_classifier(num_classes)`` a fresh last layer. The normalisation of pixels
    is part of the network, so batches stay small until they reach the device.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        architecture: str,
        preprocessing: Preprocessing,
        layer: str | None = None,
    ):
        super().__init__()
        self.model = model
        self.architecture = architecture
        self.preprocessing = preprocessing
        self.head, penultimate = _last_layers(model, architecture)
        self.layer = layer or penultimate
        self._is_penultimate = layer is None
        mean = torch.tensor(preprocessing.mean).view(1, 3, 1, 1)
        std = torch.tensor(preprocessing.std).view(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def preprocess(self, images: np.ndarray | Sequence[np.ndarray]) -> torch.Tensor:
        """Resize and crop uint8 images (H, W, 3) into a uint8 batch (n, 3, S, S)."""
        if isinstance(images, np.ndarray) or len({i.shape for i in images}) == 1:
            return self._resize(
                np.stack(images) if isinstance(images, list) else images
            )
        return torch.cat([self._resize(image[np.newaxis]) for image in images])

    def _resize(self, images: np.ndarray) -> torch.Tensor:
        images = np.require(images, requirements="CW")
        batch = torch.from_numpy(images).permute(0, 3, 1, 2)
        height, width = batch.shape[2:]
        side = 2 * min(height, width)
        if max(height, width) > 2 * side:
            # Of such a strip only the middle remains: do not enlarge the rest.
            batch = F.center_crop(batch, [min(height, side), min(width, side)])
        rule = self.preprocessing
        if min(batch.shape[2:]) != rule.resize_size:
            batch = F.resize(
                batch,
                [rule.resize_size],
                interpolation=InterpolationMode(rule.interpolation),
                antialias=True,
            )
        return F.center_crop(batch, [rule.crop_size]).contiguous()

    def _normalize(self, batch: torch.Tensor) -> torch.Tensor:
        return (batch.float() / 255 - self.mean) / self.std

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        # (n, 3, S, S) uint8 -> (n, num_classes)
        return self.model(self._normalize(batch))

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

    def forward_features(self, batch: torch.Tensor) -> torch.Tensor:
        # (n, 3, S, S) uint8 -> (n, num_features); maps are averaged over positions
        extractor = self._extractor.to(batch.device)
        return _pool(extractor(self._normalize(batch))[self.layer])

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

    def features_hash(self) -> str:
        """Hash the weights that the features depend on (not those of the head)."""
        return hash_weights(self._extractor)

    def reset_classifier(
        self, num_classes: int, *, zero: bool = False, seed: int = 0
    ) -> None:
        """Replace the last layer by a fresh one for `num_classes` classes.

        A random one sends gradients into the layers before it that have nothing to do
        with the task, and the more the larger their features are. `zero` starts it at
        0, so that trained layers are left alone until it has learned something.
        """
        parent, _, name = self.head.rpartition(".")
        old = self.model.get_submodule(self.head)
        bias = old.bias is not None
        with seeded(seed):
            if isinstance(old, nn.Linear):
                new = nn.Linear(old.in_features, num_classes, bias=bias)
            else:
                new = nn.Conv2d(
                    old.in_channels, num_classes, old.kernel_size, old.stride, bias=bias
                )
        if zero:
            for parameter in new.parameters():
                nn.init.zeros_(parameter)
        container = self.model.get_submodule(parent)
        setattr(container, name, new.to(old.weight.device))
        # SqueezeNet rectifies its logits, which a fresh layer may not survive.
        for after, module in list(container.named_children()):
            if name.isdigit() and after.isdigit() and int(after) > int(name):
                if isinstance(module, nn.ReLU):
                    setattr(container, after, nn.Identity())

    def classifier_parameters(self) -> list[nn.Parameter]:
        return list(self.model.get_submodule(self.head).parameters())

    def body_parameters(self) -> list[nn.Parameter]:
        classifier = {id(p) for p in self.classifier_parameters()}
        return [p for p in self.model.parameters() if id(p) not in classifier]


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


def open_network(
    backbone: str | os.PathLike | Callable[[], nn.Module],
    *,
    weights: str | os.PathLike | None,
    layer: str | None = None,
    image_size: int | None = None,
    seed: int = 0,
) -> ImageNetwork:
    """Build a network and give it its weights; global random state stays as it was.

    `weights`: a name that torchvision knows ("DEFAULT", "IMAGENET1K_V1"), a file, or
    None for random weights by `seed`. A factory's own weights count as "DEFAULT".
    """
    state, metadata, origin = None, {}, ""
    if isinstance(backbone, os.PathLike) or is_file_name(backbone):
        path, weights = backbone, None
        state, metadata = read_checkpoint(path)
        if "architecture" not in metadata:
            raise ValueError(
                f"backbone given as a file must name its architecture in its metadata, "
                f"{path} does not; pass backbone='<architecture>', weights='{path}'."
            )
        backbone, origin = metadata["architecture"], os.fspath(path)
    with seeded(seed):
        model, preprocessing = _build(backbone)
    known = _known_weights(backbone, weights)
    if known is not None:
        preprocessing = _preprocessing_of(known)
        if hasattr(model, "transform_input"):  # as torchvision does with its weights
            model.transform_input = True
        state, origin = _download(known), str(known)
    elif weights is not None and weights != "DEFAULT":
        state, metadata = read_checkpoint(weights)
        origin = os.fspath(weights)
    image_size = image_size or int(metadata.get("image_size") or 0) or None
    network = ImageNetwork(
        model,
        architecture=architecture_name(backbone),
        preprocessing=preprocessing.at(image_size),
        layer=layer,
    )
    if state is not None:
        load_weights(model, state, head=network.head, origin=origin)
    network.check()
    return network.eval()


def architecture_name(backbone: str | Callable) -> str:
    """Name a network; "factory" functions by where they are defined."""
    if isinstance(backbone, str):
        return backbone
    function = backbone.func if isinstance(backbone, functools.partial) else backbone
    return f"{function.__module__}.{getattr(function, '__qualname__', 'factory')}"


def is_file_name(backbone) -> bool:
    """Tell whether a backbone is given as a checkpoint file, by its ending."""
    return isinstance(backbone, str) and backbone.endswith(
        (".safetensors", ".pt", ".pth")
    )


def _build(backbone: str | Callable[[], nn.Module]) -> tuple[nn.Module, Preprocessing]:
    if backbone == "small_resnet":
        return SmallResNet(), _SMALL
    if isinstance(backbone, nn.Module):
        raise TypeError(
            "backbone must be a name, a file or a function that returns a module, got "
            f"a {type(backbone).__name__} itself, which every clone would copy; pass "
            "the function that builds it."
        )
    if callable(backbone):
        model = backbone()
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"a backbone factory must return a torch nn.Module, got "
                f"{type(model).__name__}."
            )
        return model, Preprocessing()
    names = torchvision.models.list_models(module=torchvision.models)
    if backbone not in names:
        close = difflib.get_close_matches(backbone, [*names, "small_resnet"], n=3)
        raise ValueError(
            f"backbone must be 'small_resnet', the name of a torchvision classification"
            f" network, a checkpoint file or a factory, got {backbone!r}"
            + (f"; did you mean {' or '.join(close)}?" if close else ".")
        )
    kwargs = {}
    if backbone in ("googlenet", "inception_v3"):
        kwargs = {"aux_logits": False, "init_weights": True}
    default = torchvision.models.get_model_weights(backbone).DEFAULT
    model = torchvision.models.get_model(backbone, weights=None, **kwargs)
    return model, _preprocessing_of(default)


def _known_weights(backbone, weights):
    """Return torchvision's weights of that name, or None for files and None."""
    if not isinstance(weights, str) or callable(backbone):
        return None
    if backbone == "small_resnet":
        if weights == "DEFAULT":
            raise ValueError(
                "weights must be a file or None (random) for 'small_resnet', which has "
                "no published weights, got 'DEFAULT'."
            )
        return None
    known = torchvision.models.get_model_weights(backbone)
    if weights in known.__members__:
        return known[weights]
    if not os.path.exists(weights) and os.sep not in weights and "." not in weights:
        raise ValueError(
            f"weights must be one of {list(known.__members__)} for {backbone!r}, a "
            f"file or None, got {weights!r}."
        )
    return None


def _download(known) -> dict[str, torch.Tensor]:
    try:
        return known.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except OSError as error:
        raise OSError(
            f"the weights {known} could not be downloaded from {known.url} ({error}); "
            "download that file elsewhere and pass weights='<its path>'."
        ) from error


def _preprocessing_of(weights) -> Preprocessing:
    preset = weights.transforms()
    return Preprocessing(
        preset.resize_size[0],
        preset.crop_size[0],
        preset.interpolation.value,
        tuple(preset.mean),
        tuple(preset.std),
    )


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
