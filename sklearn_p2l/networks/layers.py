"""Image networks that are not traced: their makers say what their last layer is."""

import difflib
import threading
from abc import abstractmethod

import torch
from torch import nn

from sklearn_p2l.networks.images import ImageNetwork
from sklearn_p2l.networks.preprocessing import Preprocessing


class LayeredNetwork(ImageNetwork):
    """An image classifier whose layers are modules with names.

    Parameters
    ----------
    head : Module
        The last layer with weights.

    layer : str or None
        Name of a module; None is what feeds the last layer.

    penultimate : str
        What that is called.
    """

    def __init__(
        self,
        model: nn.Module,
        head: nn.Module,
        *,
        architecture: str,
        preprocessing: Preprocessing,
        layer: str | None,
        penultimate: str,
    ):
        _check_layer(layer, model, architecture)
        _check_head(head, architecture)
        super().__init__(
            model,
            architecture=architecture,
            preprocessing=preprocessing,
            head=next(name for name, m in model.named_modules() if m is head),
            layer=layer or penultimate,
            is_penultimate=layer is None,
        )

    @abstractmethod
    def penultimate(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute what the last layer is fed with."""

    def responses(self, pixels: torch.Tensor) -> torch.Tensor:
        if self._is_penultimate:
            return self.penultimate(pixels)
        return self.passing(self.layer, pixels)

    def passing(
        self, name: str, pixels: torch.Tensor, *, out: bool = True
    ) -> torch.Tensor:
        """What comes out of a layer, or goes into it, for normalised images."""
        caught: list[torch.Tensor] = []
        thread = threading.get_ident()

        def keep(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
            if threading.get_ident() == thread:  # others may use the model meanwhile
                caught.append(output if out else args[0])

        hook = self.model.get_submodule(name).register_forward_hook(keep)
        try:
            self.logits_of(self.model, pixels)
        finally:
            hook.remove()
        return caught[0]


def _check_head(head: nn.Module, architecture: str) -> None:
    """Refuse a last layer that no other can take the place of."""
    if not isinstance(head, (nn.Linear, nn.Conv2d)):
        raise ValueError(
            f"the network {architecture} must end in one linear or convolutional "
            f"layer, got {type(head).__name__}; pass features computed elsewhere as "
            "2-D arrays, or another network."
        )


def _check_layer(layer: str | None, model: nn.Module, architecture: str) -> None:
    """Refuse a layer that is no module of a model; None is not looked for."""
    names = [name for name, _ in model.named_modules() if name]
    if layer is not None and layer not in names:
        close = difflib.get_close_matches(layer, names, n=5, cutoff=0.3)
        raise ValueError(
            f"layer must be a module of {architecture}, got {layer!r}; close names are "
            f"{close or names[-5:]}, and named_modules() lists all."
        )
