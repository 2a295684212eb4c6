"""Looking into image networks: their last layers, and faster graphs of their features.

All of it rests on torch.fx, through torchvision's extraction of features.
"""

import difflib
from collections import Counter

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.feature_extraction import (
    create_feature_extractor,
    get_graph_node_names,
)


def last_layers(model: nn.Module, architecture: str) -> tuple[str, str]:
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


def extractor_of(model: nn.Module, layer: str, architecture: str) -> fx.GraphModule:
    """Cut a model off behind a node; it returns a dict of the node's responses."""
    try:
        return create_feature_extractor(
            model.eval(), [layer], suppress_diff_warning=True
        )
    except ValueError as error:
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


def fold_batch_norm(extractor: fx.GraphModule) -> fx.GraphModule:
    """Fold batch normalisation into the convolutions before it, for evaluation.

    Returns a module that shares all other layers with `extractor`, or `extractor`
    itself where it cannot be traced another time.
    """
    try:
        graph = _SequentialTracer().trace(extractor)
    except Exception:  # tracing runs the model's own code
        return extractor
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


def pool(responses: torch.Tensor) -> torch.Tensor:
    """Average maps over positions, and tokens over the sequence: (n, num_features)."""
    responses = responses.float()
    if responses.ndim == 4:
        responses = responses.mean(dim=(2, 3))
    elif responses.ndim == 3:
        responses = responses.mean(dim=1)
    return responses.flatten(start_dim=1)
