"""A user's own networks, given as the function that builds them."""

import functools
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from sklearn_p2l.networks.base import Family, Network, Published, Settings
from sklearn_p2l.networks.pcnn import PCNN, wrap_pcnn
from sklearn_p2l.networks.preprocessing import Preprocessing
from sklearn_p2l.networks.timm import is_timm, wrap_timm
from sklearn_p2l.networks.tracing import trace


class FactoryFamily(Family):
    """The "name" is a function without arguments that returns a torch module.

    The weights with which it returns the module count as published ones, "DEFAULT". Its
    own name builds nothing elsewhere, so no metadata holds it.
    """

    form = "a factory"

    def names(self) -> Sequence[str]:
        return []

    def published(self, name: Callable[[], nn.Module]) -> Mapping[str, Published]:
        return {"DEFAULT": Published(_name_of(name))}

    def build(self, name: Callable[[], nn.Module], settings: Settings) -> Network:
        if isinstance(name, nn.Module):
            raise TypeError(
                "backbone must be a name, a file or a function that returns a module, "
                f"got a {type(name).__name__} itself, which every clone would copy; "
                "pass the function that builds it."
            )
        model = name()
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"a backbone factory must return a torch nn.Module, got "
                f"{type(model).__name__}."
            )
        if isinstance(model, PCNN):
            return wrap_pcnn(model, settings)
        if is_timm(model):
            return wrap_timm(model, _name_of(name), settings)
        if type(model).__module__.startswith("transformers."):
            raise ValueError(
                "a backbone factory must not return a network of transformers, whose "
                "images are prepared by a processor that it does not hold, got "
                f"{type(model).__name__}; save both into one folder by save_pretrained "
                "and pass backbone='hf/<folder>'."
            )
        return trace(model, _name_of(name), Preprocessing(), settings)


def _name_of(factory: Callable) -> str:
    """Name a function by where it is defined."""
    function = factory.func if isinstance(factory, functools.partial) else factory
    return f"{function.__module__}.{getattr(function, '__qualname__', 'factory')}"
