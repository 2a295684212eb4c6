"""Fine-tuning and prediction: short functions over a network and its inputs."""

import copy
import math
import time
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn

from sklearn_p2l.networks.devices import autocast, seeded


def train(
    network,
    inputs,
    targets: np.ndarray,
    *,
    validation: np.ndarray,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    body_multiplier: float,
    momentum: float,
    weight_decay: float,
    step_size: float,
    gamma: float,
    class_weight: np.ndarray | None,
    patience: int,
    augment: str | None,
    precision: str,
    device: torch.device,
    score: Callable[[np.ndarray, np.ndarray], float],
    progress: Callable[[Iterable], Iterable],
    seed: int,
) -> tuple[list[dict], bool]:
    """Train a network in place; return its history and whether it was interrupted.

    `inputs`: what ``network.prepare`` returns. `targets`: class indices (n,) or a
    multilabel indicator (n, n_labels). `validation`: indices kept out of training; if
    there are any, the weights of the epoch with the lowest validation loss are restored
    at the end. Global random state and settings stay as they were.
    """
    network = network.to(device)
    frozen = body_multiplier == 0
    if frozen and augment is None:
        with seeded(seed, device):
            trained, inputs = _freeze_body(
                network, inputs, batch_size, precision, device
            )
    else:
        trained = network
    held_out = torch.from_numpy(validation)
    held_out_batches = [inputs[part] for part in held_out.split(batch_size)]
    kept = np.setdiff1d(np.arange(len(targets)), validation)
    multilabel = targets.ndim == 2
    truth = torch.from_numpy(targets.astype(np.float32 if multilabel else np.int64))
    weight = None if class_weight is None else torch.from_numpy(class_weight).to(device)

    def loss_of(logits, indices):
        wanted = truth[indices].to(device)
        if multilabel:
            losses = nn.functional.binary_cross_entropy_with_logits(
                logits, wanted, reduction="none"
            )
            return losses.sum(dim=1).mean()  # not the less, the more labels there are
        losses = nn.functional.cross_entropy(logits, wanted, weight, reduction="none")
        if weight is None:
            return losses.mean()
        return losses.sum() / weight[wanted].sum().clamp_min(1e-12)

    for parameter in network.body_parameters():
        parameter.requires_grad_(not frozen)
    groups = [{"params": network.classifier_parameters(), "lr": learning_rate}]
    if not frozen:
        body_rate = body_multiplier * learning_rate
        groups.append({"params": network.body_parameters(), "lr": body_rate})
    optimizer = torch.optim.SGD(groups, momentum=momentum, weight_decay=weight_decay)
    base_rates = [group["lr"] for group in optimizer.param_groups]
    epochs_per_step = math.ceil(step_size * epochs - 1e-9)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
    history, best, interrupted = [], None, False
    with seeded(seed, device), _deterministic_cudnn():
        try:
            for epoch in progress(range(1, epochs + 1)):
                start, total = time.perf_counter(), 0.0
                for group, rate in zip(optimizer.param_groups, base_rates):
                    group["lr"] = rate * gamma ** ((epoch - 1) // epochs_per_step)
                trained.train(not frozen)  # a frozen body keeps its statistics, too
                for indices in _shuffled_batches(kept, batch_size):
                    batch = _augment(inputs[indices].to(device), augment)
                    with autocast(precision, device):
                        logits = trained(batch)
                    loss = loss_of(logits.float(), indices)
                    optimizer.zero_grad(set_to_none=True)
                    scaler.scale(loss).backward()
                    scaler.step(optimizer)
                    scaler.update()
                    total += loss.item() * len(indices)
                record = {
                    "epoch": epoch,
                    "learning_rate": optimizer.param_groups[0]["lr"],
                    "train_loss": total / len(kept),
                }
                if not np.isfinite(total):
                    raise ValueError(_diverged(learning_rate))
                if len(held_out):
                    logits = predict_logits(
                        trained, held_out_batches, precision, device
                    )
                    loss = loss_of(torch.from_numpy(logits).to(device), held_out).item()
                    record["validation_loss"] = loss
                    record["validation_score"] = score(targets[validation], logits)
                    if best is None or not loss >= best[0]:
                        state = copy.deepcopy(trained.state_dict())
                        best = (loss if np.isfinite(loss) else np.inf, epoch, state)
                record["seconds"] = time.perf_counter() - start
                history.append(record)
                if best is not None and epoch - best[1] >= patience:
                    break
        except KeyboardInterrupt:
            interrupted = True
    if best is not None:
        trained.load_state_dict(best[2])
    network.requires_grad_(True)
    network.cpu().eval()
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise ValueError(_diverged(learning_rate))
    return history, interrupted


@torch.inference_mode()
def predict_logits(
    network, batches: Iterable, precision: str, device: torch.device
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


@torch.no_grad()
def _freeze_body(network, inputs, batch_size, precision, device):
    """Compute the features of a frozen body once; return its head, to train on them.

    Returns the network and its inputs where more than the head comes after the
    features, so that logits cannot be had from them.
    """
    head = _Head(network.model.get_submodule(network.head))
    network.eval()
    some = inputs[torch.arange(min(len(inputs), batch_size))].to(device)
    if not _gives_logits(head, network, some):
        return network, inputs
    features = []
    for indices in torch.arange(len(inputs)).split(batch_size):
        batch = inputs[indices].to(device)
        with autocast(precision, device):
            features.append(network.forward_features(batch).float().cpu())
    return head, torch.cat(features)


def _gives_logits(head, network, batch) -> bool:
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


def _deterministic_cudnn():
    """Make cuDNN choose deterministic algorithms, with the user's other settings."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=False,
        deterministic=True,
        allow_tf32=cudnn.allow_tf32,
    )


def _diverged(learning_rate: float) -> str:
    return (
        "training must reach finite weights and losses, but it diverged; pass a "
        f"smaller learning_rate than {learning_rate:g}, or larger batches where the "
        "network has batch normalisation."
    )


def _shuffled_batches(kept: np.ndarray, batch_size: int) -> Iterable[torch.Tensor]:
    """Split in random order into equal batches of about `batch_size`, none of one.

    Batch normalisation cannot train on a single sample.
    """
    order = torch.from_numpy(kept)[torch.randperm(len(kept))]
    n_batches = min(-(-len(kept) // batch_size), len(kept) // 2)
    return order.tensor_split(max(1, n_batches))


def _augment(batch: torch.Tensor, augment: str | None) -> torch.Tensor:
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
