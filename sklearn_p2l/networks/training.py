"""Fine-tuning and prediction: short functions over a network and its inputs."""

import copy
import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sklearn_p2l.networks.base import Network
from sklearn_p2l.networks.devices import autocast, seeded


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: stochastic gradient descent with a step schedule."""

    #: At most so many passes over the data.
    epochs: int
    #: Samples per step, about.
    batch_size: int
    #: Learning rate of the last layer, at first.
    learning_rate: float
    #: What the layers before it learn at, as a multiple; 0 freezes them.
    body_multiplier: float
    #: Momentum of the gradients.
    momentum: float
    #: Penalty on the squares of the weights.
    weight_decay: float
    #: Share of the epochs after which the learning rate is multiplied ...
    step_size: float
    #: ... by this, again and again.
    gamma: float
    #: Epochs without a lower validation loss after which training stops.
    patience: int
    #: How images are changed before each step: None, "shift" or "flip".
    augment: str | None
    #: "float32", "bfloat16", "float16" or "auto".
    precision: str

    @property
    def freezes_body(self) -> bool:
        return self.body_multiplier == 0


def train(
    network: Network,
    inputs: Any,
    targets: np.ndarray,
    recipe: Recipe,
    *,
    validation: np.ndarray,
    class_weight: np.ndarray | None = None,
    sample_weight: np.ndarray | None = None,
    device: torch.device,
    score: Callable[[np.ndarray, np.ndarray], float],
    progress: Callable[[Iterable], Iterable],
    seed: int,
) -> tuple[list[dict], bool]:
    """Train a network in place; return its history and whether it was interrupted.

    `inputs`: what ``network.prepare`` returns. `targets`: class indices (n,) or a
    multilabel indicator (n, n_labels). `validation`: indices kept out of training; if
    there are any, the weights of the epoch with the lowest validation loss are restored
    at the end. `class_weight` (n_classes,) and `sample_weight` (n,) weigh the samples
    in both losses; where there are both, they multiply. Global random state and
    settings stay as they were.
    """
    network = network.to(device)
    trained, inputs = _what_is_trained(network, inputs, recipe, device, seed)
    loss_of = _Loss(targets, class_weight, sample_weight, device)
    kept = np.setdiff1d(np.arange(len(targets)), validation)
    held_out = torch.from_numpy(validation)
    held_out_batches = [inputs[part] for part in held_out.split(recipe.batch_size)]
    optimizer = _Optimizer(network, recipe, device)
    best, history, interrupted = _BestEpoch(), [], False
    with seeded(seed, device), _deterministic_cudnn():
        try:
            for epoch in progress(range(1, recipe.epochs + 1)):
                start = time.perf_counter()
                rate = optimizer.begin(epoch)
                trained.train(not recipe.freezes_body)  # it keeps its statistics, too
                loss = _train_epoch(
                    trained, inputs, kept, loss_of, optimizer, recipe, device
                )
                record = {"epoch": epoch, "learning_rate": rate, "train_loss": loss}
                if len(held_out):
                    logits = predict_logits(
                        trained, held_out_batches, recipe.precision, device
                    )
                    loss = loss_of(torch.from_numpy(logits).to(device), held_out).item()
                    record["validation_loss"] = loss
                    record["validation_score"] = score(targets[validation], logits)
                    best.compare(loss, epoch, trained)
                record["seconds"] = time.perf_counter() - start
                history.append(record)
                if best.epochs_until(epoch) >= recipe.patience:
                    break
        except KeyboardInterrupt:
            interrupted = True
    best.restore(trained)
    network.requires_grad_(True)
    network.cpu().eval()
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise ValueError(_diverged(recipe))
    return history, interrupted


def _train_epoch(
    trained: nn.Module,
    inputs: Any,
    kept: np.ndarray,
    loss_of: "_Loss",
    optimizer: "_Optimizer",
    recipe: Recipe,
    device: torch.device,
) -> float:
    """Pass all samples that are not kept out once; return the mean loss."""
    total = 0.0
    for indices in _shuffled_batches(kept, recipe.batch_size):
        batch = _augment(inputs[indices].to(device), recipe.augment)
        with autocast(recipe.precision, device):
            logits = trained(batch)
        loss = loss_of(logits.float(), indices)
        optimizer.step(loss)
        total += loss.item() * loss_of.count(indices)
    if not np.isfinite(total):
        raise ValueError(_diverged(recipe))
    return total / max(loss_of.count(torch.from_numpy(kept)), 1e-12)


class _Loss:
    """The mean loss of samples, each with its own weight and that of its class."""

    def __init__(
        self,
        targets: np.ndarray,
        class_weight: np.ndarray | None,
        sample_weight: np.ndarray | None,
        device: torch.device,
    ):
        self.multilabel = targets.ndim == 2
        dtype = np.float32 if self.multilabel else np.int64
        self.targets = torch.from_numpy(targets.astype(dtype))
        self.class_weight = self.sample_weight = None
        if class_weight is not None:
            self.class_weight = torch.from_numpy(class_weight).to(device)
        if sample_weight is not None:
            self.sample_weight = torch.tensor(sample_weight, dtype=torch.float32)

    def __call__(self, logits: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        # (n, n_outputs), (n,) -> ()
        wanted = self.targets[indices].to(logits.device)
        if self.multilabel:  # a sum: not the less, the more labels there are
            losses = nn.functional.binary_cross_entropy_with_logits(
                logits, wanted, reduction="none"
            ).sum(dim=1)
            weights = None
        else:
            losses = nn.functional.cross_entropy(
                logits, wanted, self.class_weight, reduction="none"
            )
            weights = None if self.class_weight is None else self.class_weight[wanted]
        if self.sample_weight is not None:
            own = self.sample_weight[indices].to(logits.device)
            losses = losses * own
            weights = own if weights is None else own * weights
        if weights is None:
            return losses.mean()
        return losses.sum() / weights.sum().clamp_min(1e-12)

    def count(self, indices: torch.Tensor) -> float:
        """How many samples these are, or what they weigh."""
        if self.sample_weight is None:
            return len(indices)
        return self.sample_weight[indices].sum().item()


class _Optimizer:
    """Gradient descent for the head and, unless it is frozen, the body."""

    def __init__(self, network: Network, recipe: Recipe, device: torch.device):
        body = network.body_parameters()
        for parameter in body:
            parameter.requires_grad_(not recipe.freezes_body)
        rate = recipe.learning_rate
        groups = [{"params": network.classifier_parameters(), "lr": rate}]
        if not recipe.freezes_body:
            groups.append({"params": body, "lr": recipe.body_multiplier * rate})
        self.sgd = torch.optim.SGD(
            groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        self.base_rates = [group["lr"] for group in self.sgd.param_groups]
        self.epochs_per_step = math.ceil(recipe.step_size * recipe.epochs - 1e-9)
        self.gamma = recipe.gamma
        scaled = recipe.precision == "float16"
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)

    def begin(self, epoch: int) -> float:
        """Set the learning rates of an epoch; return that of the head."""
        factor = self.gamma ** ((epoch - 1) // self.epochs_per_step)
        for group, rate in zip(self.sgd.param_groups, self.base_rates):
            group["lr"] = rate * factor
        return self.sgd.param_groups[0]["lr"]

    def step(self, loss: torch.Tensor) -> None:
        self.sgd.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.sgd)
        self.scaler.update()


class _BestEpoch:
    """The weights of the epoch with the lowest validation loss, if there is one."""

    def __init__(self):
        self.epoch, self.loss, self.state = None, np.inf, None

    def compare(self, loss: float, epoch: int, trained: nn.Module) -> None:
        if self.epoch is None or not loss >= self.loss:
            self.loss = loss if np.isfinite(loss) else np.inf
            self.epoch, self.state = epoch, copy.deepcopy(trained.state_dict())

    def epochs_until(self, epoch: int) -> float:
        """How long the best epoch is ago; -inf where there is none."""
        return -np.inf if self.epoch is None else epoch - self.epoch

    def restore(self, trained: nn.Module) -> None:
        if self.state is not None:
            trained.load_state_dict(self.state)


@torch.inference_mode()
def predict_logits(
    network: nn.Module, batches: Iterable, precision: str, device: torch.device
) -> np.ndarray:
    """Compute float32 logits (n, n_outputs) of batches, in evaluation mode."""
    network = network.to(device).eval()
    logits = []
    for batch in batches:
        batch = batch.to(device)
        with autocast(precision, device):
            logits.append(network(batch).float().cpu().numpy())
    return np.concatenate(logits)


class _Head(nn.Module):
    """The last layer of a network, on the features before it."""

    def __init__(self, layer: nn.Linear | nn.Conv2d):
        super().__init__()
        self.layer = layer

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # (n, num_features) -> (n, num_classes)
        if isinstance(self.layer, nn.Conv2d):
            features = features[..., None, None]
        return self.layer(features).flatten(1)


def _what_is_trained(
    network: Network, inputs: Any, recipe: Recipe, device: torch.device, seed: int
) -> tuple[nn.Module, Any]:
    """Return a network and its inputs, or its head and the features before that.

    A frozen body needs to be passed only once, unless its inputs change.
    """
    if not recipe.freezes_body or recipe.augment is not None:
        return network, inputs
    with seeded(seed, device):
        return _freeze_body(network, inputs, recipe, device)


@torch.no_grad()
def _freeze_body(
    network: Network, inputs: Any, recipe: Recipe, device: torch.device
) -> tuple[nn.Module, Any]:
    """Compute the features of a frozen body once; return its head, to train on them.

    Returns the network and its inputs where more than the head comes after the
    features, so that logits cannot be had from them.
    """
    head = _Head(network.model.get_submodule(network.head))
    network.eval()
    some = inputs[torch.arange(min(len(inputs), recipe.batch_size))].to(device)
    if not _gives_logits(head, network, some):
        return network, inputs
    features = []
    for indices in torch.arange(len(inputs)).split(recipe.batch_size):
        batch = inputs[indices].to(device)
        with autocast(recipe.precision, device):
            features.append(network.forward_features(batch).float().cpu())
    return head, torch.cat(features)


def _gives_logits(head: _Head, network: Network, batch: Any) -> bool:
    """Try whether a head turns features into a network's logits, with random weights.

    The fresh head may hold zeros, which any layer after it would pass on.
    """
    kept = [parameter.clone() for parameter in head.parameters()]
    try:
        for parameter in head.parameters():
            nn.init.normal_(parameter)
        expected, got = network(batch), head(network.forward_features(batch))
        largest = expected.abs().max()
        return torch.allclose(got, expected, rtol=0, atol=float(1e-3 * largest))
    except RuntimeError:  # the head takes another shape
        return False
    finally:
        for parameter, value in zip(head.parameters(), kept):
            parameter.copy_(value)


def _deterministic_cudnn() -> AbstractContextManager:
    """Make cuDNN choose deterministic algorithms, with the user's other settings."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=False,
        deterministic=True,
        allow_tf32=cudnn.allow_tf32,
    )


def _diverged(recipe: Recipe) -> str:
    return (
        "training must reach finite weights and losses, but it diverged; pass a "
        f"smaller learning_rate than {recipe.learning_rate:g}, or larger batches "
        "where the network has batch normalisation."
    )


def _shuffled_batches(kept: np.ndarray, batch_size: int) -> Iterable[torch.Tensor]:
    """Split in random order into equal batches of about `batch_size`, none of one.

    Batch normalisation cannot train on a single sample.
    """
    order = torch.from_numpy(kept)[torch.randperm(len(kept))]
    n_batches = min(-(-len(kept) // batch_size), len(kept) // 2)
    return order.tensor_split(max(1, n_batches))


def _augment(batch: Any, augment: str | None) -> Any:
    """Shift a batch by up to an eighth of its side, and mirror half of its images."""
    if augment is None:
        return batch
    if not isinstance(batch, torch.Tensor):
        raise ValueError(f"augment must be None for text, got {augment!r}.")
    size = batch.shape[-1]
    margin = max(1, size // 8)
    padded = nn.functional.pad(batch.float(), (margin,) * 4, mode="replicate")
    top, left = torch.randint(0, 2 * margin + 1, (2,)).tolist()
    batch = padded[..., top : top + size, left : left + size].to(batch.dtype)
    if augment == "flip":
        mirrored = torch.rand(len(batch), device=batch.device) < 0.5
        batch = torch.where(mirrored.view(-1, 1, 1, 1), batch.flip(-1), batch)
    return batch
