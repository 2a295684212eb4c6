"""From a backbone and its weights, in all the ways they are given, to a network."""

import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from sklearn_p2l.networks.base import Family, Network, Published, Settings
from sklearn_p2l.networks.devices import autocast, seeded
from sklearn_p2l.networks.factory import FactoryFamily
from sklearn_p2l.networks.facts import Facts, facts_of
from sklearn_p2l.networks.huggingface import HuggingFaceFamily
from sklearn_p2l.networks.pcnn import PCNNFamily
from sklearn_p2l.networks.small import SmallFamily
from sklearn_p2l.networks.timm import TimmFamily
from sklearn_p2l.networks.torchvision import TorchvisionFamily
from sklearn_p2l.networks.turns import passes
from sklearn_p2l.networks.weights import load_weights, read_checkpoint

# By what comes before the first "/" of a name; names without one of these prefixes, and
# without a "/", are those of "".
FAMILIES: dict[str, Family] = {
    "small_resnet": SmallFamily(),
    "pcnn": PCNNFamily(),
    "timm": TimmFamily(),
    "hf": HuggingFaceFamily(),
    "": TorchvisionFamily(),
}

# What is called rather than named.
_FACTORY = FactoryFamily()


def open_network(
    backbone: str | os.PathLike | Callable[[], nn.Module],
    *,
    weights: str | os.PathLike | None,
    layer: str | None = None,
    image_size: int | None = None,
    seed: int = 0,
    metadata: dict[str, str] | None = None,
    samples: Any = (),
    with_head: bool = False,
) -> Network:
    """Build a network and give it its weights; global random state stays as it was.

    `weights`: a name under which they are published ("DEFAULT", "IMAGENET1K_V1"), a
    file, or None for random weights by `seed`. A factory's own weights count as
    "DEFAULT". `metadata`: how a network without a file is built again. `samples`: what
    a network of text with random weights takes its vocabulary from. `with_head`: the
    last layer must be that of the weights, whatever its number of classes.
    """
    state, origin = None, ""
    if isinstance(backbone, os.PathLike) or is_file_name(backbone):
        origin, weights = os.fspath(backbone), None
        state, metadata = read_checkpoint(backbone)
        backbone = _architecture(metadata, origin)
    family = family_of(backbone)
    published = _find_published(family, backbone, weights)
    if published is None and weights is not None:
        origin = os.fspath(weights)
        state, metadata = read_checkpoint(weights)
    settings = Settings(published, layer, image_size, metadata or {}, samples)
    with _downloading(published), seeded(seed):
        network = family.build(backbone, settings)
    if published is not None and published.fetch is not None:
        origin = published.name
        with _downloading(published):
            state = published.fetch()
    if state is not None:
        if with_head:
            _resize_head(network, state, origin)
        load_weights(network.model, state, head=network.head, origin=origin)
    with passes.passing(), autocast("float32", torch.device("cpu")):
        network.check()
    return network.eval()


def exchange_weights(network: Network, path: str | os.PathLike) -> Network:
    """Give a network, on the CPU, the weights of another one that was built alike.

    It is as `open_network` would open it, without building, tracing and trying
    anything: but its last layer may be the former one, and so is what `signed` says.
    Where it fails, the network is of no more use.
    """
    state, _ = read_checkpoint(path)
    network.train()  # what was made of the weights for evaluation no longer holds
    origin = os.fspath(path)
    load_weights(network.model, state, head=network.head, origin=origin)
    return network.eval()


def published_facts(name: str) -> Facts:
    """What is known of a network with published weights, which are not downloaded.

    `name`: a backbone, for its usual weights, or a backbone, a dot and the name of
    others: "resnet50.IMAGENET1K_V1". timm's names are of that form already.
    """
    backbone, weights = name, "DEFAULT"
    if "/" not in name:
        backbone, _, weights = name.partition(".")
        weights = weights or "DEFAULT"
    elif os.path.isdir(folder := name.removeprefix("hf/")):
        backbone = f"hf/{os.path.abspath(folder)}"
    family = family_of(backbone)
    published = _find_published(family, backbone, weights)
    if published is None:
        raise ValueError(
            f"names must be of networks with published weights, got {name!r}."
        )
    known = family.published(backbone).items()
    own = [k for k, v in known if k != "DEFAULT" and v.name == published.name]
    return facts_of(backbone, (own or [weights])[0], published, family)


def _resize_head(network: Network, state: dict[str, torch.Tensor], origin: str) -> None:
    """Make the last layer one that its weights among those of a file fit."""
    named, head = network.head, f"{network.head}."
    own = {k: v for k, v in state.items() if k.startswith(head)}

    def fits() -> bool:
        wanted = network.model.state_dict()
        shapes = {k: v.shape for k, v in wanted.items() if k.startswith(head)}
        return shapes == {k: v.shape for k, v in own.items()}

    if own and not fits() and all(v.ndim for v in own.values()):
        network.reset_classifier(len(next(iter(own.values()))))
        head = f"{network.head}."
    if not fits():
        raise ValueError(
            f"the weights from {origin} must have their own last layer, {named!r} of "
            f"{network.architecture}, in its usual form, got {sorted(own)}."
        )


def family_of(backbone: str | Callable[[], nn.Module]) -> Family:
    """Find the family of a network, or say which there are."""
    if not isinstance(backbone, str):
        return _FACTORY
    prefix, slash, _ = backbone.partition("/")
    family = FAMILIES.get(prefix, None if slash else FAMILIES[""])
    if family is not None and family.knows(backbone):
        return family
    forms = ", ".join(family.form for family in FAMILIES.values())
    names = [name for family in FAMILIES.values() for name in family.names()]
    close = difflib.get_close_matches(backbone, names, n=3)
    raise ValueError(
        f"backbone must be {forms}, a checkpoint file or {_FACTORY.form}, got "
        f"{backbone!r}" + (f"; did you mean {' or '.join(close)}?" if close else ".")
    )


def is_file_name(backbone: Any) -> bool:
    """Tell whether a backbone is given as a checkpoint file, by its ending."""
    return isinstance(backbone, str) and backbone.endswith(
        (".safetensors", ".pt", ".pth")
    )


def _architecture(metadata: dict[str, str], path: str) -> str:
    if "architecture" not in metadata:
        raise ValueError(
            f"backbone given as a file must name its architecture in its metadata, "
            f"{path} does not; pass backbone='<architecture>', weights='{path}'."
        )
    return metadata["architecture"]


def _find_published(
    family: Family,
    backbone: str | Callable[[], nn.Module],
    weights: str | os.PathLike | None,
) -> Published | None:
    """Return the published weights that are meant, or None for files and None."""
    if not isinstance(weights, str):
        return None
    known = family.published(backbone)
    if weights in known:
        return known[weights]
    may_be_file = os.path.exists(weights) or os.sep in weights or "." in weights
    if may_be_file and weights != "DEFAULT":
        return None
    if not known:
        raise ValueError(
            f"weights must be a file or None (random) for {backbone!r}, which has no "
            f"published weights, got {weights!r}."
        )
    raise ValueError(
        f"weights must be one of {list(known)} for {backbone!r}, a file or None, got "
        f"{weights!r}."
    )


@contextlib.contextmanager
def _downloading(published: Published | None) -> Iterator[None]:
    """Where weights may be downloaded: say what to do where that fails.

    Those who do it tell about it on stdout, which may be where a result goes.
    """
    if published is None or not published.url:
        yield
        return
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"the weights {published.name} could not be downloaded from "
            f"{published.url} ({error}); download that file elsewhere and pass its "
            "path, as weights, or of a source as SourceCatalog.from_published(names, "
            "checkpoints={name: path})."
        ) from error
