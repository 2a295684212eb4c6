"""What is known of published networks before any of them is downloaded."""

import re
from dataclasses import dataclass

import torch

from sklearn_p2l.networks.base import Published, Settings


@dataclass(frozen=True)
class Images:
    """What a network was pre-trained on."""

    name: str
    size: int
    #: Where the size is from.
    reference: str


# By how names of weights mention them; the first that is mentioned came first.
PRETRAINING = {
    "in1k": Images("ImageNet-1k", 1_281_167, "Russakovsky et al. 2015, train"),
    "in21k": Images("ImageNet-21k", 14_197_122, "image-net.org, fall 2011 release"),
    "in22k": Images("ImageNet-21k", 14_197_122, "image-net.org, fall 2011 release"),
    "in21kp": Images("ImageNet-21k-P", 12_358_688, "Ridnik et al. 2021"),
    "inat21": Images("iNaturalist 2021", 2_686_843, "Van Horn et al. 2021, train"),
    "yfcc100m": Images("YFCC-100M", 99_200_000, "Thomee et al. 2016, photos"),
    "jft": Images("JFT-300M", 300_000_000, "Sun et al. 2017"),
    "ig1b": Images("IG-1B-Targeted", 940_000_000, "Yalniz et al. 2019"),
    "swag": Images("IG-3.6B", 3_600_000_000, "Singh et al. 2022 (SWAG)"),
    "openai": Images("WIT", 400_000_000, "Radford et al. 2021 (CLIP)"),
    "laion400m": Images("LAION-400M", 400_000_000, "Schuhmann et al. 2021"),
    "laion2b": Images("LAION-2B", 2_320_000_000, "Schuhmann et al. 2022, English"),
    "datacompxl": Images("DataComp-1B", 1_400_000_000, "Gadre et al. 2023"),
    "dfn2b": Images("DFN-2B", 2_000_000_000, "Fang et al. 2023"),
    "dfn5b": Images("DFN-5B", 5_000_000_000, "Fang et al. 2023"),
    "metaclip400m": Images("MetaCLIP-400M", 400_000_000, "Xu et al. 2023"),
    "metaclip2pt5b": Images("MetaCLIP-2.5B", 2_500_000_000, "Xu et al. 2023"),
    "webli": Images("WebLI", 10_000_000_000, "Chen et al. 2022 (PaLI)"),
    "lvd142m": Images("LVD-142M", 142_109_386, "Oquab et al. 2023 (DINOv2)"),
    "lvd1689m": Images("LVD-1689M", 1_689_000_000, "Siméoni et al. 2025 (DINOv3)"),
}


@dataclass(frozen=True)
class Facts:
    """What is known of a network with published weights; None where it is not."""

    architecture: str
    weights: str
    n_parameters: int | None
    n_classes: int | None
    #: Top-1 on ImageNet-1k, of 1.
    accuracy: float | None
    images: Images | None
    licence: str | None


def facts_of(backbone: str, weights: str, published: Published, family) -> Facts:
    """Collect what is known; a network is built without its weights if need be."""
    n_parameters, n_classes = published.n_parameters, published.n_classes
    if n_parameters is None:
        with torch.device("meta"):  # nothing is computed or kept
            network = family.build(backbone, Settings())
        n_parameters = sum(p.numel() for p in network.model.parameters())
        if n_classes is None:
            n_classes = len(network.model.get_submodule(network.head).weight)
    return Facts(
        architecture=backbone,
        weights=weights,
        n_parameters=n_parameters,
        n_classes=n_classes or None,
        accuracy=published.accuracy,
        images=images_of(f"{backbone}_{published.name}"),
        licence=published.licence,
    )


def images_of(name: str) -> Images | None:
    """What a name of weights says that they were pre-trained on first."""
    words = re.split(r"[^a-z0-9]+", name.lower().replace("imagenet1k", "in1k"))
    if "miil" in words:
        words = [word.replace("in21k", "in21kp") for word in words]
    if "swag" in words:  # "IMAGENET1K_SWAG" says what came last first
        return PRETRAINING["swag"]
    return next((PRETRAINING[word] for word in words if word in PRETRAINING), None)
