"""A small network for small images, which trains within seconds."""

from collections.abc import Sequence

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from sklearn_p2l.networks.base import Published
from sklearn_p2l.networks.preprocessing import Preprocessing
from sklearn_p2l.networks.tracing import TracedFamily

PREPROCESSING = Preprocessing(32, 32, "bilinear", (0.5,) * 3, (0.25,) * 3)


class SmallResNet(nn.Module):
    """A residual network for images of about 8 to 64 pixels; 78 thousand weights."""

    def __init__(self, num_classes: int = 10, widths: Sequence[int] = (16, 32, 64)):
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        for width_in, width in zip((widths[0], *widths), widths):
            stride, shortcut = 1, None
            if width != width_in:
                stride = 2
                shortcut = nn.Sequential(
                    nn.Conv2d(width_in, width, 1, stride, bias=False),
                    nn.BatchNorm2d(width),
                )
            layers.append(BasicBlock(width_in, width, stride, shortcut))
        self.body = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # (n, 3, S, S) -> (n, num_classes)
        return self.fc(self.pool(self.body(x)).flatten(1))


class SmallFamily(TracedFamily):
    """The only name is "small_resnet"; nobody publishes weights for it."""

    form = "'small_resnet'"

    def names(self) -> Sequence[str]:
        return ["small_resnet"]

    def model(
        self, name: str, published: Published | None
    ) -> tuple[nn.Module, Preprocessing]:
        return SmallResNet(), PREPROCESSING
