"""How a network is trained: the settings, and the steps that follow from them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from sklearn_p2l.networks.base import Network


@dataclass(frozen=True)
class Recipe:
    """The settings of a training."""

    #: At most so many passes over the data.
    epochs: int
    #: Samples per step, about.
    batch_size: int
    #: "adamw" or "sgd".
    optimizer: str
    #: Largest learning rate of the last layer.
    learning_rate: float
    #: What the layers before it learn at, as a multiple; 0 freezes them.
    body_multiplier: float
    #: Momentum of the gradients, for "sgd".
    momentum: float
    #: Penalty on the squares of the weights; of AdamW, apart from the gradients.
    weight_decay: float
    #: How the learning rate falls: "cosine", "step" or "constant".
    schedule: str
    #: Share of the steps in which it rises first.
    warmup: float
    #: Share of the epochs after which "step" multiplies the rate ...
    step_size: float
    #: ... by this, again and again.
    gamma: float
    #: Gradients of a larger norm are cut to it; None leaves them.
    max_grad_norm: float | None
    #: Whether the last layer starts as a linear probe on the features.
    starts_as_probe: bool
    #: Whether the last layer sees features of unit size.
    scale_features: bool
    #: Whether the network was trained before.
    pretrained: bool
    #: Epochs without a better validation after which training stops.
    patience: int
    #: What is better: a lower "loss", or a higher "score".
    monitor: str
    #: Names of random changes to images before each step.
    augment: tuple[str, ...]
    #: "float32", "bfloat16", "float16" or "auto".
    precision: str

    @property
    def freezes_body(self) -> bool:
        return self.body_multiplier == 0


class Optimizer:
    """Updates weights: the last layer at the full learning rate, the others lower."""

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        steps_per_epoch: int,
        device: torch.device,
    ):
        head, body = network.classifier_parameters(), network.body_parameters()
        groups = [{"params": head, "lr": recipe.learning_rate}]
        network.requires_grad_(True)
        if recipe.freezes_body:
            for parameter in body:
                parameter.requires_grad_(False)
        else:
            rate = recipe.learning_rate * recipe.body_multiplier
            groups.append({"params": body, "lr": rate})
        self.parameters = [p for group in groups for p in group["params"]]
        self.max_grad_norm = recipe.max_grad_norm
        decay = recipe.weight_decay
        if recipe.optimizer == "adamw":
            self.steps = torch.optim.AdamW(groups, weight_decay=decay, fused=True)
        else:
            momentum = recipe.momentum
            self.steps = torch.optim.SGD(groups, momentum=momentum, weight_decay=decay)
        self.rates = torch.optim.lr_scheduler.LambdaLR(
            self.steps, rate_factor(recipe, steps_per_epoch)
        )
        scaled = recipe.precision == "float16"
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)

    @property
    def learning_rate(self) -> float:
        """Of the last layer, in the next step."""
        return self.steps.param_groups[0]["lr"]

    def step(self, loss: torch.Tensor) -> None:
        self.steps.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.max_grad_norm is not None:
            self.scaler.unscale_(self.steps)
            nn.utils.clip_grad_norm_(self.parameters, self.max_grad_norm)
        self.scaler.step(self.steps)
        self.scaler.update()
        self.rates.step()

    def state_dict(self) -> dict:
        return {
            name: getattr(self, name).state_dict()
            for name in ("steps", "rates", "scaler")
        }

    def load_state_dict(self, state: dict) -> None:
        for name, value in state.items():
            getattr(self, name).load_state_dict(value)


def count_batches(n_samples: int, batch_size: int) -> int:
    """Number of equal batches of about `batch_size`, none of one sample.

    Batch normalisation cannot train on a single sample.
    """
    return max(1, min(-(-n_samples // batch_size), n_samples // 2))


def rate_factor(recipe: Recipe, steps_per_epoch: int) -> Callable[[int], float]:
    """Return the learning rate at a step, as a multiple of the largest.

    It rises along a line, and then falls along half a cosine, in steps (the paper,
    section 4.1), or not at all.
    """
    n_steps = recipe.epochs * steps_per_epoch
    n_rising = round(recipe.warmup * n_steps)
    epochs_per_fall = math.ceil(recipe.step_size * recipe.epochs - 1e-9)

    def factor(step: int) -> float:
        if step < n_rising:
            return (step + 1) / n_rising
        if recipe.schedule == "cosine":
            progress = (step - n_rising) / max(1, n_steps - n_rising)
            return (1 + math.cos(math.pi * min(1.0, progress))) / 2
        if recipe.schedule == "step":
            return recipe.gamma ** (step // steps_per_epoch // epochs_per_fall)
        return 1.0

    return factor
