"""timm's image classifiers and their published weights (extra ``[timm]``)."""

import functools
import math
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import nn

from sklearn_p2l._compat import import_optional
from sklearn_p2l.networks.base import Family, Published, Settings
from sklearn_p2l.networks.images import size_of
from sklearn_p2l.networks.layers import LayeredNetwork
from sklearn_p2l.networks.preprocessing import Preprocessing

_PREFIX = "timm/"


class TimmFamily(Family):
    """Names are "timm/" and timm's own, with a tag or without: "timm/resnet50.a1_in1k".

    Weights are "DEFAULT", those of the tag, or the first where the name has none; or
    another tag of the architecture. timm itself loads them: as safetensors, or as
    plain tensors, which run no code.
    """

    form = "'timm/<name>'"

    def names(self) -> Sequence[str]:
        try:
            names = _timm().list_models()
        except ImportError:
            return []
        return [_PREFIX + name for name in names]

    def knows(self, name: str) -> bool:
        timm = _timm()
        architecture, _, tag = name.removeprefix(_PREFIX).partition(".")
        known = timm.is_model(architecture)
        return known and (not tag or tag in _tags(architecture))

    def published(self, name: str) -> Mapping[str, Published]:
        timm = _timm()
        architecture, _, own = name.removeprefix(_PREFIX).partition(".")
        known = {}
        for tag in [own] if own else _tags(architecture):
            cfg = timm.get_pretrained_cfg(f"{architecture}.{tag}")
            if cfg is not None and cfg.has_weights:
                weights = _published(architecture, tag, cfg)
                known.setdefault("DEFAULT", weights)
                known[tag] = weights
        return known

    def build(self, name: str, settings: Settings) -> "TimmNetwork":
        timm, published = _timm(), settings.published
        if published is None:
            own = name.removeprefix(_PREFIX)
            create = functools.partial(timm.create_model, own)
            cfg = timm.get_pretrained_cfg(own)
        else:
            create = functools.partial(
                timm.create_model, published.name, pretrained=True
            )
            cfg = timm.get_pretrained_cfg(published.name)
        preprocessing = preprocessing_of(cfg.to_dict(), name).at(size_of(settings))
        size, changes = preprocessing.crop_size, {}
        if cfg.fixed_input_size and size != cfg.input_size[-1]:
            changes = {"img_size": size}
        try:
            model = create(**changes)
        except (TypeError, AssertionError) as error:
            raise ValueError(
                f"image_size must suit {name}, got {size}, with which timm raises "
                f"{type(error).__name__}: {error}"
            ) from error
        network = TimmNetwork(
            model, architecture=name, preprocessing=preprocessing, layer=settings.layer
        )
        network.metadata["architecture"] = name
        return network


class TimmNetwork(LayeredNetwork):
    """An image classifier that keeps timm's contract.

    Its features are ``forward_head(forward_features(x), pre_logits=True)``. One without
    a last layer (``num_classes=0``) is given one.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        architecture: str,
        preprocessing: Preprocessing,
        layer: str | None = None,
    ):
        if isinstance(model.get_classifier(), nn.Identity):
            model.reset_classifier(1)
        super().__init__(
            model,
            model.get_classifier(),
            architecture=architecture,
            preprocessing=preprocessing,
            layer=layer,
            penultimate="pre_logits",
        )

    def penultimate(self, pixels: torch.Tensor) -> torch.Tensor:
        features = self.model.forward_features(pixels)
        return self.model.forward_head(features, pre_logits=True)


def is_timm(model: nn.Module) -> bool:
    """Tell whether a module keeps timm's contract, and says how images become input."""
    methods = ("forward_features", "forward_head", "get_classifier", "reset_classifier")
    return all(callable(getattr(model, name, None)) for name in methods) and isinstance(
        getattr(model, "pretrained_cfg", None), dict
    )


def wrap_timm(model: nn.Module, architecture: str, settings: Settings) -> TimmNetwork:
    """Make a network of a module of timm's, with its own preprocessing."""
    preprocessing = preprocessing_of(model.pretrained_cfg, architecture)
    return TimmNetwork(
        model,
        architecture=architecture,
        preprocessing=preprocessing.at(size_of(settings)),
        layer=settings.layer,
    )


def preprocessing_of(cfg: Mapping[str, Any], architecture: str) -> Preprocessing:
    """What timm's own transform for evaluation does."""
    config = _timm().data.resolve_data_config(pretrained_cfg=cfg)
    channels, height, width = config["input_size"]
    mode, interpolation = config["crop_mode"] or "center", config["interpolation"]
    if channels != 3 or height != width or mode not in ("center", "squash"):
        raise ValueError(
            f"{architecture} must take square colour images that are resized and cut, "
            f"got input_size {config['input_size']} and crop_mode {mode!r}; pass "
            "features computed elsewhere as 2-D arrays."
        )
    side = math.floor(height / config["crop_pct"])
    return Preprocessing(
        resize_size=(side, side) if mode == "squash" else side,
        crop_size=height,
        interpolation="bilinear" if interpolation == "random" else interpolation,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _timm() -> ModuleType:
    return import_optional("timm", extra="timm", what="networks of timm")


def _tags(architecture: str) -> Sequence[str]:
    """Tags of an architecture that have weights, the default first."""
    names = _timm().list_pretrained(f"{architecture}.*") or []
    tags = [name.partition(".")[2] for name in names]
    default = _timm().get_pretrained_cfg(architecture)
    first = getattr(default, "tag", None)
    return sorted(tags, key=lambda tag: tag != first)


def _published(architecture: str, tag: str, cfg: Any) -> Published:
    url = cfg.url or ""
    if cfg.hf_hub_id:
        file = cfg.hf_hub_filename or "model.safetensors"
        url = f"https://huggingface.co/{cfg.hf_hub_id}/resolve/main/{file}"
    return Published(
        name=f"{architecture}.{tag}",
        url=url,
        n_classes=cfg.num_classes,
        licence=cfg.license,
    )
