"""Layers of networks that are not traced: by name, and what passes through them."""

import difflib
import threading
from collections.abc import Callable

import torch
from torch import nn


def name_of(layer: nn.Module, model: nn.Module) -> str:
    """The name under which a model holds a layer."""
    return next(name for name, module in model.named_modules() if module is layer)


def check_head(head: nn.Module, architecture: str) -> None:
    """Refuse a last layer that no other can take the place of."""
    if not isinstance(head, (nn.Linear, nn.Conv2d)):
        raise ValueError(
            f"the network {architecture} must end in one linear or convolutional "
            f"layer, got {type(head).__name__}; pass features computed elsewhere as "
            "2-D arrays, or another network."
        )


def check_layer(layer: str | None, model: nn.Module, architecture: str) -> None:
    """Refuse a layer that is no module of a model; None is not looked for."""
    names = [name for name, _ in model.named_modules() if name]
    if layer is not None and layer not in names:
        close = difflib.get_close_matches(layer, names, n=5, cutoff=0.3)
        raise ValueError(
            f"layer must be a module of {architecture}, got {layer!r}; close names are "
            f"{close or names[-5:]}, and named_modules() lists all."
        )


def passing(
    model: nn.Module, name: str, run: Callable, *, out: bool = True
) -> torch.Tensor:
    """What comes out of a layer, or goes into it, while `run` passes the model."""
    caught: list[torch.Tensor] = []
    thread = threading.get_ident()

    def keep(module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        if threading.get_ident() == thread:  # others may use the model meanwhile
            caught.append(output if out else args[0])

    hook = model.get_submodule(name).register_forward_hook(keep)
    try:
        run()
    finally:
        hook.remove()
    return caught[0]
