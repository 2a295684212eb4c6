"""torchvision's classification networks and their published weights."""

import functools
from collections.abc import Mapping, Sequence

import torchvision
from torch import nn

from sklearn_p2l.networks.base import Published
from sklearn_p2l.networks.preprocessing import Preprocessing
from sklearn_p2l.networks.tracing import TracedFamily


class TorchvisionFamily(TracedFamily):
    """Names are torchvision's, such as "resnet50"; weights "IMAGENET1K_V2"."""

    form = "the name of a torchvision classification network"

    def names(self) -> Sequence[str]:
        return torchvision.models.list_models(module=torchvision.models)

    def published(self, name: str) -> Mapping[str, Published]:
        known = torchvision.models.get_model_weights(name)
        return {key: _published(w) for key, w in known.__members__.items()}

    def model(
        self, name: str, published: Published | None
    ) -> tuple[nn.Module, Preprocessing]:
        kwargs = {}
        if name in ("googlenet", "inception_v3"):
            kwargs = {"aux_logits": False, "init_weights": True}
        model = torchvision.models.get_model(name, weights=None, **kwargs)
        if published is None:
            default = torchvision.models.get_model_weights(name).DEFAULT
            return model, _preprocessing_of(default)
        if hasattr(model, "transform_input"):  # as torchvision does with its weights
            model.transform_input = True
        return model, published.preprocessing


def _published(weights: torchvision.models.WeightsEnum) -> Published:
    meta = weights.meta
    measured = meta.get("_metrics", {}).get("ImageNet-1K", {})
    accuracy = measured.get("acc@1")
    return Published(
        name=str(weights),
        url=weights.url,
        fetch=functools.partial(
            weights.get_state_dict, progress=True, check_hash=True, weights_only=True
        ),
        preprocessing=_preprocessing_of(weights),
        n_parameters=meta.get("num_params"),
        n_classes=len(meta.get("categories", ())) or None,
        accuracy=None if accuracy is None else round(accuracy / 100, 5),
        licence=meta.get("license"),
    )


def _preprocessing_of(weights: torchvision.models.WeightsEnum) -> Preprocessing:
    preset = weights.transforms()
    return Preprocessing(
        preset.resize_size[0],
        preset.crop_size[0],
        preset.interpolation.value,
        tuple(preset.mean),
        tuple(preset.std),
    )
