"""Image networks that are looked into: last layers, and faster graphs of features.

All of it rests on torch.fx, through torchvision's extraction of features.
"""

import difflib
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.feature_extraction import (
    create_feature_extractor,
    get_graph_node_names,
)

from sklearn_p2l.networks.base import Family, Published, Settings
from sklearn_p2l.networks.images import ImageNetwork, size_of
from sklearn_p2l.networks.preprocessing import Preprocessing
from sklearn_p2l.networks.turns import passes
from sklearn_p2l.networks.weights import hash_weights


class TracedNetwork(ImageNetwork):
    """An image classifier whose layers are found by tracing it.

    Parameters
    ----------
    layer : str or None
        A node of its graph; None is the one that feeds the last layer.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        architecture: str,
        preprocessing: Preprocessing,
        layer: str | None = None,
    ):
        head, penultimate = last_layers(model, architecture)
        super().__init__(
            model,
            architecture=architecture,
            preprocessing=preprocessing,
            head=head,
            layer=layer or penultimate,
            is_penultimate=layer is None,
        )

    @property
    def _extractor(self) -> nn.Module:
        return self._made_once(
            "_extractor",
            lambda: extractor_of(self.model, self.layer, self.architecture),
        )

    @property
    def _fast_extractor(self) -> nn.Module:
        # Weights made in inference mode could not be moved to another device.
        with torch.inference_mode(False), torch.no_grad():
            folded = self._made_once(
                "_folded", lambda: fold_batch_norm(self._extractor.eval())
            )
            return folded.renewed()

    def _made_once(self, name: str, make: Callable[[], Any]) -> Any:
        """As a cached_property, without its lock.

        Before Python 3.12 all networks share that: a pass would wait for it, which a
        tracing, which has it, waits for.
        """
        found = vars(self).get(name)
        return vars(self).setdefault(name, make()) if found is None else found

    def _apply(self, fn: Callable, recurse: bool = True) -> "TracedNetwork":
        """What extractors hold of their own goes where the network goes."""
        if "_extractor" in vars(self):
            self._extractor._apply(fn)
        if "_folded" in vars(self):
            self._folded.module._apply(fn)
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> "TracedNetwork":
        if mode and "_folded" in vars(self):
            self._folded.stale = True  # what was made of the weights no longer holds
        return super().train(mode)

    def responses(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._fast_extractor(pixels)[self.layer]

    def check(self) -> None:
        _ = self._extractor  # a wrong layer is told as one
        super().check()

    def features_hash(self) -> str:
        return hash_weights(self._extractor)


class TracedFamily(Family):
    """A family of such networks, each with a preprocessing of its own."""

    @abstractmethod
    def model(
        self, name: str, published: Published | None
    ) -> tuple[nn.Module, Preprocessing]:
        """Build a model with random weights, and say how images become its input.

        `published`: the weights that it will get, where they are published ones.
        """

    def build(self, name: str, settings: Settings) -> TracedNetwork:
        model, preprocessing = self.model(name, settings.published)
        network = trace(model, name, preprocessing, settings)
        network.metadata["architecture"] = name
        return network


def trace(
    model: nn.Module,
    architecture: str,
    preprocessing: Preprocessing,
    settings: Settings,
) -> TracedNetwork:
    """Make a network of an image classifier, for images of the size that is asked for.

    That is the one in the settings, else the one that it was trained with, else the
    usual one.
    """
    return TracedNetwork(
        model,
        architecture=architecture,
        preprocessing=preprocessing.at(size_of(settings)),
        layer=settings.layer,
    )


def last_layers(model: nn.Module, architecture: str) -> tuple[str, str]:
    """Find the head, the last layer with weights, and the node that feeds it."""
    try:
        with passes.tracing():
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


def extractor_of(model: nn.Module, layer: str, architecture: str) -> fx.GraphModule:
    """Cut a model off behind a node; it returns a dict of the node's responses."""
    try:
        with passes.tracing():
            return create_feature_extractor(
                model.eval(), [layer], suppress_diff_warning=True
            )
    except ValueError as error:
        with passes.tracing():
            nodes = get_graph_node_names(model, suppress_diff_warning=True)[1]
        close = difflib.get_close_matches(layer, nodes, n=5, cutoff=0.3)
        raise ValueError(
            f"layer must be a node of {architecture}, got {layer!r}; "
            f"close names are {close or nodes[-5:]}, and torchvision's "
            "get_graph_node_names lists all."
        ) from error


class _SequentialTracer(fx.Tracer):
    """Traces into sequences of layers, such as torchvision's convolution blocks."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not isinstance(m, nn.Sequential)


@dataclass
class _Folded:
    """An extractor, some of whose layers are folded of layers of another one.

    `layers`: what folds them, by their names. They are folded anew when the weights
    that they are made of have changed; all other layers are shared.
    """

    module: fx.GraphModule
    layers: dict[str, Callable[[], nn.Module]]
    stale: bool = True

    def renewed(self) -> fx.GraphModule:
        if self.stale:
            for name, fold in self.layers.items():
                self.module.set_submodule(name, fold())
            self.stale = False
        return self.module


def fold_batch_norm(extractor: fx.GraphModule) -> _Folded:
    """Fold batch normalisation into the convolutions before it, for evaluation.

    The module is `extractor` itself where there is nothing to fold, or it cannot be
    traced another time.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in extractor.modules()):
        return _Folded(extractor, {})
    try:
        with passes.tracing():
            graph = _SequentialTracer().trace(extractor)
    except Exception:  # tracing runs the model's own code
        return _Folded(extractor, {})
    folded = fx.GraphModule(extractor, graph)
    modules = dict(folded.named_modules())
    layers = {}
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
        pair = modules[before.target], modules[node.target]
        layers[before.target] = partial(fuse_conv_bn_eval, *pair)
        node.replace_all_uses_with(before)
        graph.erase_node(node)
    folded.recompile()
    return _Folded(folded.eval(), layers)
