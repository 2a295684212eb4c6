"""The contracts: of a network, and of a family of networks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from sklearn_p2l.networks.devices import seeded
from sklearn_p2l.networks.preprocessing import Preprocessing
from sklearn_p2l.networks.turns import passes

_NORMALISING = (
    nn.modules.batchnorm._NormBase,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
)


class Network(nn.Module, ABC):
    """A classifier whose last layer can be replaced.

    Called on a batch, it gives logits (n, num_classes). A batch is what `preprocess`
    returns; it has ``len`` and ``to(device)``.

    Parameters
    ----------
    model : Module
        The torch module, which holds all weights.

    architecture : str
        Name, for messages and fingerprints.

    head : str
        Name of the last layer with weights within `model`, linear or convolutional.
    """

    #: Name of the modality of its samples, "images" or "bags".
    takes: str
    #: All that is needed beside the weights to build it again.
    metadata: dict[str, str]
    #: How samples become its input; printed into fingerprints.
    preprocessing: Any
    #: Side of its images in pixels, None where it takes no images.
    image_size: int | None
    #: What its features are the responses of.
    layer: str
    #: Width of its features.
    num_features: int
    #: Whether its features may be negative.
    signed: bool

    def __init__(self, model: nn.Module, *, architecture: str, head: str):
        super().__init__()
        self.model = model
        self.architecture = architecture
        self.head = head

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        with passes.passing():
            return super().__call__(*args, **kwargs)

    @property
    def normalises(self) -> bool:
        """Whether it has layers that normalise what passes through them."""
        return any(isinstance(module, _NORMALISING) for module in self.modules())

    @abstractmethod
    def preprocess(self, samples: Iterable) -> Any:
        """Turn samples into a batch, on the CPU."""

    @abstractmethod
    def read(
        self,
        dataset: Any,
        batch_size: int,
        *,
        on_error: str = "raise",
        skipped: list[str] | None = None,
        ahead: bool = False,
    ) -> Iterator:
        """Read a dataset in preprocessed batches.

        `on_error`: "raise" or "skip", which adds the messages of samples that cannot be
        used to `skipped`. `ahead`: whether the next batch may be read while the caller
        works on one.
        """

    @abstractmethod
    def prepare(self, batches: Iterable, n_samples: int) -> Any:
        """Collect batches in one, whose ``[indices]`` is a batch of these samples."""

    @abstractmethod
    def forward(self, batch: Any) -> torch.Tensor:
        """Compute the logits (n, num_classes) of a batch."""

    @abstractmethod
    def forward_features(self, batch: Any) -> torch.Tensor:
        """Compute the responses (n, num_features) of `layer`."""

    @abstractmethod
    def features_hash(self) -> str:
        """Hash the weights that the features depend on (not those of the head)."""

    @abstractmethod
    def check(self) -> None:
        """Learn `num_features` and `signed`, or say why it cannot be used."""

    def reset_classifier(
        self,
        num_classes: int,
        *,
        zero: bool = False,
        bias_init: np.ndarray | None = None,
        seed: int = 0,
    ) -> None:
        """Replace the last layer by a fresh one for `num_classes` classes.

        A random one sends gradients into the layers before it that have nothing to do
        with the task, and the more the larger their features are. `zero` starts it at
        0, so that trained layers are left alone until it has learned something; so
        does `bias_init`, where it holds the log odds of rare labels.

        SqueezeNet rectifies its logits, which a fresh layer may not survive: such a
        rectifier is taken away. The network then computes something else than the one
        of the same name elsewhere, so its weights get another name, too, such as
        "classifier.1.unrectified.weight" for "classifier.1.weight": torchvision's own
        SqueezeNet refuses them instead of cutting their logits at 0.
        """
        old = self.model.get_submodule(self.head)
        with seeded(seed):
            new = _fresh_layer(old, num_classes)
        if zero:
            for parameter in new.parameters():
                nn.init.zeros_(parameter)
        if new.bias is not None and bias_init is not None:
            with torch.no_grad():
                new.bias.copy_(torch.from_numpy(bias_init))
        new = new.to(old.weight.device)
        parent, _, name = self.head.rpartition(".")
        rectified = _remove_rectifiers(self.model.get_submodule(parent), behind=name)
        self.replace_head(Unrectified(new) if rectified else new)
        if rectified:
            self.head += ".unrectified"

    def replace_head(self, layer: nn.Module) -> None:
        """Put another layer in the place of the last one."""
        parent, _, name = self.head.rpartition(".")
        setattr(self.model.get_submodule(parent), name, layer)

    def classifier_parameters(self) -> list[nn.Parameter]:
        return list(self.model.get_submodule(self.head).parameters())

    def body_parameters(self) -> list[nn.Parameter]:
        classifier = {id(p) for p in self.classifier_parameters()}
        return [p for p in self.model.parameters() if id(p) not in classifier]


class Unrectified(nn.Module):
    """A last layer behind which a rectifier was taken away; it names its weights so."""

    def __init__(self, layer: nn.Linear | nn.Conv2d):
        super().__init__()
        self.unrectified = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.unrectified(x)


def _fresh_layer(old: nn.Linear | nn.Conv2d, num_classes: int) -> nn.Module:
    bias = old.bias is not None
    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features, num_classes, bias=bias)
    return nn.Conv2d(
        old.in_channels,
        num_classes,
        old.kernel_size,
        old.stride,
        old.padding,
        old.dilation,
        bias=bias,
        padding_mode=old.padding_mode,
    )


def _remove_rectifiers(container: nn.Module, *, behind: str) -> bool:
    """Take rectifiers away from a sequence behind one of its layers, if there are."""
    removed = False
    for name, module in list(container.named_children()):
        if name.isdigit() and behind.isdigit() and int(name) > int(behind):
            if isinstance(module, nn.ReLU):
                setattr(container, name, nn.Identity())
                removed = True
    return removed


@dataclass(frozen=True)
class Published:
    """Weights that are known by a name."""

    #: What messages call them.
    name: str
    #: The file that they are downloaded from.
    url: str = ""
    #: Returns their state dict; None where the network is built with them.
    fetch: Callable[[], dict[str, torch.Tensor]] | None = None
    #: How images become the input that they were trained on.
    preprocessing: Preprocessing | None = None
    #: What is said of them; None where it is not.
    n_parameters: int | None = None
    n_classes: int | None = None
    #: Top-1 on ImageNet-1k, of 1.
    accuracy: float | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Settings:
    """What a network is built with, beside its name."""

    #: The weights that it will get, where they are published ones.
    published: Published | None = None
    #: What its features are the responses of; None for the input of its last layer.
    layer: str | None = None
    #: Side of its images; None for the usual one.
    image_size: int | None = None
    #: `metadata` of a network that is built again.
    metadata: Mapping[str, str] = field(default_factory=dict)
    #: What a network of text with random weights may take its vocabulary from.
    samples: Any = ()


class Family(ABC):
    """Networks that are named, built and published in one way.

    A family lives in a file of its own, and has one entry in `opening.FAMILIES`.
    """

    #: What its names look like, as a message lists it.
    form: str

    @abstractmethod
    def names(self) -> Sequence[str]:
        """Names of its networks, among which the one that was meant is looked for."""

    def knows(self, name: str) -> bool:
        """Tell whether there is a network of this name."""
        return name in self.names()

    def published(self, name: str) -> Mapping[str, Published]:
        """Weights that are published for a network, by their names."""
        return {}

    @abstractmethod
    def build(self, name: str, settings: Settings) -> Network:
        """Build a network with random weights, drawn from torch's global state."""
