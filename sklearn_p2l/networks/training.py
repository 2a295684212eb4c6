"""Fine-tuning and prediction: short functions over a network and its inputs."""

import copy
import math
import tempfile
import time
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn

from sklearn_p2l.networks.devices import autocast

# Larger inputs are kept in a temporary file rather than in memory.
_IN_MEMORY_BYTES = 2 * 2**30


def prepare(network, batches: Iterable, n_samples: int) -> torch.Tensor:
    """Preprocess all samples once, into one uint8 tensor (n_samples, 3, S, S)."""
    size = network.preprocessing.crop_size
    shape = (n_samples, 3, size, size)
    if np.prod(shape) > _IN_MEMORY_BYTES:
        with tempfile.TemporaryFile() as file:  # the mapping outlives the file object
            inputs = np.memmap(file, np.uint8, "w+", shape=shape)
    else:
        inputs = np.empty(shape, np.uint8)
    done = 0
    for images in batches:
        batch = network.preprocess(images)
        inputs[done : done + len(batch)] = batch.numpy()
        done += len(batch)
    return torch.from_numpy(inputs)


def train(
    network,
    inputs: torch.Tensor,
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

    `targets`: class indices (n,) or a multilabel indicator (n, n_labels). `validation`:
    indices kept out of training; if there are any, the weights of the epoch with the
    lowest validation loss are restored at the end. Global random state and settings
    stay as they were.
    """
    held_out = torch.from_numpy(validation)
    kept = np.setdiff1d(np.arange(len(targets)), validation)
    multilabel = targets.ndim == 2
    truth = torch.from_numpy(targets.astype(np.float32 if multilabel else np.int64))
    weight = None if class_weight is None else torch.from_numpy(class_weight).to(device)
    loss_of = nn.BCEWithLogitsLoss() if multilabel else nn.CrossEntropyLoss(weight)

    network = network.to(device, memory_format=torch.channels_last)
    frozen = body_multiplier == 0
    for parameter in network.body_parameters():
        parameter.requires_grad_(not frozen)
    groups = [{"params": network.classifier_parameters(), "lr": learning_rate}]
    if not frozen:
        body_rate = body_multiplier * learning_rate
        groups.append({"params": network.body_parameters(), "lr": body_rate})
    optimizer = torch.optim.SGD(groups, momentum=momentum, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.StepLR(
        optimizer, step_size=math.ceil(step_size * epochs - 1e-9), gamma=gamma
    )
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
    history, best, interrupted = [], None, False
    gpus = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=gpus),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        torch.manual_seed(seed)
        try:
            for epoch in progress(range(1, epochs + 1)):
                start, total = time.perf_counter(), 0.0
                network.train(not frozen)  # a frozen body keeps its statistics, too
                for indices in _shuffled_batches(kept, batch_size):
                    batch = _augment(inputs[indices].to(device), augment)
                    batch = batch.contiguous(memory_format=torch.channels_last)
                    with autocast(precision, device):
                        logits = network(batch)
                    loss = loss_of(logits.float(), truth[indices].to(device))
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
                    raise ValueError(
                        f"training diverged: the loss is not finite in epoch {epoch}; "
                        f"pass a smaller learning_rate than {learning_rate:g}."
                    )
                if len(held_out):
                    logits = predict_logits(
                        network, inputs[held_out], batch_size, precision, device
                    )
                    loss = loss_of(
                        torch.from_numpy(logits).to(device), truth[held_out].to(device)
                    )
                    record["validation_loss"] = loss.item()
                    record["validation_score"] = score(targets[validation], logits)
                    if best is None or record["validation_loss"] < best[0]:
                        best = (record["validation_loss"], epoch, _copy_state(network))
                record["seconds"] = time.perf_counter() - start
                history.append(record)
                schedule.step()
                if best is not None and epoch - best[1] >= patience:
                    break
        except KeyboardInterrupt:
            interrupted = True
    if best is not None:
        network.load_state_dict(best[2])
    network.requires_grad_(True)
    network.cpu().eval()
    return history, interrupted


@torch.inference_mode()
def predict_logits(
    network,
    inputs: torch.Tensor,
    batch_size: int,
    precision: str,
    device: torch.device,
) -> np.ndarray:
    """Compute float32 logits (n, n_outputs) in evaluation mode."""
    network = network.to(device, memory_format=torch.channels_last).eval()
    logits = []
    for batch in inputs.split(batch_size):
        batch = batch.to(device).contiguous(memory_format=torch.channels_last)
        with autocast(precision, device):
            logits.append(network(batch).float().cpu().numpy())
    return np.concatenate(logits)


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
    size = batch.shape[-1]
    margin = max(1, size // 8)
    padded = nn.functional.pad(batch.float(), (margin,) * 4, mode="replicate")
    top, left = torch.randint(0, 2 * margin + 1, (2,)).tolist()
    batch = padded[..., top : top + size, left : left + size].to(batch.dtype)
    if augment == "flip":
        mirrored = torch.rand(len(batch), device=batch.device) < 0.5
        batch = torch.where(mirrored.view(-1, 1, 1, 1), batch.flip(-1), batch)
    return batch


def _copy_state(network) -> dict:
    return copy.deepcopy(network.state_dict())
