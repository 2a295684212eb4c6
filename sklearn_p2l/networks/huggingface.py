"""Hugging Face's image classifiers (extra ``[huggingface]``)."""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from sklearn_p2l._compat import import_optional
from sklearn_p2l.networks.base import Family, Published, Settings
from sklearn_p2l.networks.images import size_of
from sklearn_p2l.networks.layers import LayeredNetwork
from sklearn_p2l.networks.preprocessing import Preprocessing

_PREFIX = "hf/"
# Pillow's numbers of its filters, by which processors name them.
_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
# What a processor's own resize and ours may differ by, in levels of 0..255.
_MOST_LEVELS = 2.5
# A configuration may come from anywhere. No image classifier is larger than this.
_MOST_LAYERS, _MOST_WEIGHTS = 1_000, 10_000_000_000


class HuggingFaceFamily(Family):
    """Names are "hf/" and a name on the hub, or a folder: "hf/microsoft/resnet-18".

    The folder holds ``config.json``, ``preprocessor_config.json`` and, for the weights
    "DEFAULT", ``model.safetensors``; other files of weights are not read, and no code
    that comes with a network is run. A trained network's file holds the configuration.
    """

    form = "'hf/<name or folder>'"

    def names(self) -> Sequence[str]:
        return []

    def knows(self, name: str) -> bool:
        return len(name) > len(_PREFIX)

    def published(self, name: str) -> Mapping[str, Published]:
        return {"DEFAULT": Published(name.removeprefix(_PREFIX))}

    def build(self, name: str, settings: Settings) -> "HuggingFaceNetwork":
        auto, with_weights = _transformers(), settings.published is not None
        classifier = auto.AutoModelForImageClassification
        if not with_weights and "hf.config" in settings.metadata:
            config = _config_from(settings.metadata["hf.config"])
            _check_size(classifier, config, name)
            model = classifier.from_config(config)
            content = json.loads(settings.metadata["hf.preprocessing"])
            preprocessing = _preprocessing_from(content)
        else:
            folder = _folder_of(name.removeprefix(_PREFIX), with_weights)
            local = {"local_files_only": True}
            processor = auto.AutoImageProcessor.from_pretrained(folder, **local)
            preprocessing = preprocessing_of(processor, name)
            config = auto.AutoConfig.from_pretrained(folder, **local)
            _check_size(classifier, config, name)
            if with_weights:
                local["use_safetensors"] = True
                model = classifier.from_pretrained(folder, config=config, **local)
            else:
                model = classifier.from_config(config)
        network = HuggingFaceNetwork(
            model,
            architecture=name,
            preprocessing=preprocessing.at(size_of(settings)),
            layer=settings.layer,
        )
        network.metadata |= {
            "architecture": name,
            "hf.config": _config_as_json(model.config),
            "hf.preprocessing": json.dumps(dataclasses.asdict(preprocessing)),
        }
        return network


class HuggingFaceNetwork(LayeredNetwork):
    """An image classifier of transformers; its features are what its last layer takes.

    Parameters
    ----------
    layer : str or None
        Name of a module; None is what feeds the last layer.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        architecture: str,
        preprocessing: Preprocessing,
        layer: str | None = None,
    ):
        linear = [
            module
            for name, module in model.named_modules()
            if name.partition(".")[0] == "classifier" and isinstance(module, nn.Linear)
        ]
        # Of several layers in a row it is the last.
        head = linear[-1] if linear else getattr(model, "classifier", nn.Identity())
        super().__init__(
            model,
            head,
            architecture=architecture,
            preprocessing=preprocessing,
            layer=layer,
            penultimate="input of the classifier",
        )

    @staticmethod
    def logits_of(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
        return model(pixels).logits

    def penultimate(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.passing(self.head, pixels, out=False)


def _check_size(classifier: Any, config: Any, name: str) -> None:
    """Refuse a configuration of a network that no memory would hold."""
    layers = [
        np.sum(value)
        for key, value in config.to_dict().items()
        if ("layers" in key or "depths" in key) and isinstance(value, (int, list))
    ]
    wanted = (
        f"the configuration of {name} must be that of a network of at most "
        f"{_MOST_LAYERS:,} layers and {_MOST_WEIGHTS:,} weights"
    )
    if max(layers, default=0) > _MOST_LAYERS:
        raise ValueError(f"{wanted}, got {max(layers):,} layers.")
    try:
        with torch.device("meta"):  # which has no memory to run out of
            weights = classifier.from_config(config).parameters()
            n_weights = sum(value.numel() for value in weights)
    except (RuntimeError, OverflowError) as error:
        raise ValueError(f"{wanted}, got one that cannot be built: {error}") from error
    if n_weights > _MOST_WEIGHTS:
        raise ValueError(f"{wanted}, got {n_weights:,} weights.")


def preprocessing_of(processor: Any, architecture: str) -> Preprocessing:
    """What an image processor does, after a trial whether it does that."""
    settings = processor.to_dict()
    try:
        rule = _preprocessing_from_settings(settings)
        same = _agree(processor, rule)
    except (KeyError, TypeError, ValueError):
        same = False
    if not same:
        raise ValueError(
            f"the image processor of {architecture} must resize images, cut their "
            f"centre and normalise them, got {type(processor).__name__} with "
            f"{settings}; pass features computed elsewhere as 2-D arrays."
        )
    return rule


def _preprocessing_from_settings(settings: Mapping[str, Any]) -> Preprocessing:
    size, short = dict(settings["size"]), settings["size"].get("shortest_edge")
    ratio = settings.get("crop_pct")
    if ratio and short:  # ConvNext's processor, and those like it
        height = width = short
        resize = int(short / ratio) if short < 384 else (short, short)
    else:
        resize = short or (size["height"], size["width"])
        crop = settings["crop_size"] if settings.get("do_center_crop") else None
        height, width = (crop["height"], crop["width"]) if crop else resize
    if height != width:
        raise ValueError("images are square")
    normal = settings.get("do_normalize", True)
    return Preprocessing(
        resize_size=resize,
        crop_size=height,
        interpolation=_FILTERS[int(settings.get("resample", 2))],
        mean=tuple(settings["image_mean"]) if normal else (0.0,) * 3,
        std=tuple(settings["image_std"]) if normal else (1.0,) * 3,
        floors=True,
    )


def _agree(processor: Any, rule: Preprocessing) -> bool:
    """Try whether a processor and a rule turn images into the same input."""
    rng = np.random.default_rng(0)
    for shape in [(31, 23), (115, 150), (180, 260)]:
        coarse = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        image = coarse.repeat(2, axis=0).repeat(2, axis=1)
        got = processor(images=image, return_tensors="np")["pixel_values"][0]
        ours = (rule(image) / 255 - np.array(rule.mean)) / np.array(rule.std)
        if got.shape != ours.transpose(2, 0, 1).shape:
            return False
        levels = np.abs(got.transpose(1, 2, 0) - ours) * np.array(rule.std) * 255
        if levels.max() > _MOST_LEVELS:
            return False
    return True


def _preprocessing_from(content: Mapping[str, Any]) -> Preprocessing:
    lists = {k: tuple(v) for k, v in content.items() if isinstance(v, list)}
    return Preprocessing(**{**content, **lists})


def _config_as_json(config: Any) -> str:
    """A configuration without the names of classes, which are not those of a target."""
    content = config.to_diff_dict()
    for key in ("id2label", "label2id", "_name_or_path"):
        content.pop(key, None)
    return json.dumps(content | {"model_type": config.model_type}, default=str)


def _config_from(text: str) -> Any:
    content = json.loads(text)
    return _transformers().AutoConfig.for_model(content.pop("model_type"), **content)


def _folder_of(place: str, with_weights: bool) -> str:
    """A folder with the files of a network, which are downloaded if need be."""
    if os.path.isdir(place):
        return place
    files = ["config.json", "preprocessor_config.json", "processor_config.json"]
    if with_weights:
        files.append("model*.safetensors*")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return _hub().snapshot_download(place, allow_patterns=files)
    except Exception as error:  # the hub and its transport have errors of their own
        raise OSError(
            f"{place!r} is no folder, and could not be downloaded from "
            f"https://huggingface.co/{place} ({error}); download config.json, "
            "preprocessor_config.json and model.safetensors elsewhere into a folder, "
            "and pass backbone='hf/<its path>'."
        ) from error


def _transformers() -> ModuleType:
    what = "networks of Hugging Face"
    return import_optional("transformers", extra="huggingface", what=what)


def _hub() -> ModuleType:
    what = "networks of Hugging Face"
    return import_optional("huggingface_hub", extra="huggingface", what=what)
