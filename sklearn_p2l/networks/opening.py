"""From a backbone and its weights, in all the ways they are given, to a network."""

import functools
import os
from collections.abc import Callable, Sequence

from torch import nn

from sklearn_p2l.datasets import Bag, build_vocabulary
from sklearn_p2l.networks.base import Network
from sklearn_p2l.networks.devices import seeded
from sklearn_p2l.networks.images import (
    ImageNetwork,
    Preprocessing,
    build_classifier,
    download,
    known_weights,
    preprocessing_of,
)
from sklearn_p2l.networks.relations import PCNN, RelationNetwork
from sklearn_p2l.networks.weights import load_weights, read_checkpoint


def open_network(
    backbone: str | os.PathLike | Callable[[], nn.Module],
    *,
    weights: str | os.PathLike | None,
    layer: str | None = None,
    image_size: int | None = None,
    seed: int = 0,
    metadata: dict[str, str] | None = None,
    bags: Sequence[Bag] = (),
) -> Network:
    """Build a network and give it its weights; global random state stays as it was.

    `weights`: a name that torchvision knows ("DEFAULT", "IMAGENET1K_V1"), a file, or
    None for random weights by `seed`. A factory's own weights count as "DEFAULT".
    `metadata`: how a network without a file is built again. `bags`: text that a new
    "pcnn" takes its vocabulary from.
    """
    state, metadata, origin = None, metadata or {}, ""
    if isinstance(backbone, os.PathLike) or is_file_name(backbone):
        path, weights = backbone, None
        state, metadata = read_checkpoint(path)
        if "architecture" not in metadata:
            raise ValueError(
                f"backbone given as a file must name its architecture in its metadata, "
                f"{path} does not; pass backbone='<architecture>', weights='{path}'."
            )
        backbone, origin = metadata["architecture"], os.fspath(path)
    known = known_weights(backbone, weights)
    if known is None and weights is not None and weights != "DEFAULT":
        state, metadata = read_checkpoint(weights)
        origin = os.fspath(weights)
    with seeded(seed):
        model, preprocessing = _build(backbone, metadata, bags)
    if known is not None:
        preprocessing = preprocessing_of(known)
        if hasattr(model, "transform_input"):  # as torchvision does with its weights
            model.transform_input = True
        state, origin = download(known), str(known)
    if isinstance(model, PCNN):
        if image_size is not None:
            raise ValueError(
                f"image_size must be None for a network of text, got {image_size}."
            )
        network = RelationNetwork(model, layer=layer)
    else:
        image_size = image_size or int(metadata.get("image_size") or 0) or None
        network = ImageNetwork(
            model,
            architecture=architecture_name(backbone),
            preprocessing=preprocessing.at(image_size),
            layer=layer,
        )
        if isinstance(backbone, str):  # a factory's name builds nothing elsewhere
            network.metadata["architecture"] = backbone
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


def _build(
    backbone: str | Callable[[], nn.Module],
    metadata: dict[str, str],
    bags: Sequence[Bag],
) -> tuple[nn.Module, Preprocessing]:
    if isinstance(backbone, nn.Module):
        raise TypeError(
            "backbone must be a name, a file or a function that returns a module, got "
            f"a {type(backbone).__name__} itself, which every clone would copy; pass "
            "the function that builds it."
        )
    if isinstance(backbone, str) and backbone != "pcnn":
        return build_classifier(backbone)
    model = PCNN() if backbone == "pcnn" else backbone()
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"a backbone factory must return a torch nn.Module, got "
            f"{type(model).__name__}."
        )
    if isinstance(model, PCNN) and "pcnn" in metadata:
        model = PCNN.from_metadata(metadata)
    elif isinstance(model, PCNN) and len(bags) and not model.vocabulary:
        model.set_vocabulary(build_vocabulary(bags))
    return model, Preprocessing()
