"""Training and prediction: short functions over a network and its inputs."""

import copy
import os
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from sklearn_p2l._probe import Probe
from sklearn_p2l.networks.augmentation import augment
from sklearn_p2l.networks.base import Network
from sklearn_p2l.networks.devices import autocast, seeded
from sklearn_p2l.networks.heads import is_linear, scaled_features, start_as_probe
from sklearn_p2l.networks.loss import Loss
from sklearn_p2l.networks.recipe import Optimizer, Recipe
from sklearn_p2l.networks.resuming import SavedRun

# A loss below this multiple of that of the best constant answer has learned something.
_LEARNED = 0.999
# Where even that loss is below this, all samples have the same labels.
_NOTHING_TO_LEARN = 1e-3


@dataclass
class Run:
    """What a training has come to."""

    #: How many samples it was trained on.
    n_samples: int
    #: One record per epoch.
    history: list[dict] = field(default_factory=list)
    #: Whether the keyboard stopped it.
    interrupted: bool = False
    #: Whether it is better than the best answer that is always the same.
    converged: bool = True
    #: Whether it should have been, or begun as, a linear probe, and could not.
    without_probe: bool = False
    #: Its loss at the end, on what it was trained on, and that of such an answer.
    loss: float = np.nan
    constant_loss: float = np.nan


def train(
    network: Network,
    inputs: Any,
    loss: Loss,
    recipe: Recipe,
    *,
    validation: np.ndarray,
    score: Callable[..., float],
    report: Callable[[dict], None],
    seed: int,
    folder: str | os.PathLike | None = None,
) -> Run:
    """Train a network in place.

    `inputs`: what ``network.prepare`` returns. `validation`: indices kept out of
    training; if there are any, the weights of the epoch that is best on them are
    restored at the end. `score`: of targets, logits, and weights or None. `report`: is
    told the record of each epoch. `folder`: where the state is kept, so that a training
    that was killed goes on from there. Global random state and settings stay as they
    were.
    """
    network = network.to(loss.device)
    _check_finite(network, "the weights of the start must be finite, got NaN or inf.")
    kept = np.setdiff1d(np.arange(len(inputs)), validation)
    run, best = Run(len(kept)), BestEpoch(recipe.monitor)
    with seeded(seed, loss.device), _deterministic_cudnn():
        start, probe = time.perf_counter(), None
        if recipe.starts_as_probe or recipe.freezes_body:
            run.without_probe = not is_linear(network, inputs, loss, recipe)
            if recipe.freezes_body and not run.without_probe:
                kept, validation = np.arange(len(inputs)), validation[:0]
                run.n_samples = len(kept)
            if not run.without_probe:
                probe = start_as_probe(network, inputs, loss, recipe, kept)
        if probe is not None and recipe.freezes_body:
            _record_probe(run, probe, loss, kept, score, time.perf_counter() - start)
            report(run.history[0])
        else:
            _descend(
                run,
                best,
                network,
                inputs,
                loss,
                recipe,
                kept,
                validation,
                score,
                report,
                SavedRun(folder, network, inputs, loss, recipe, validation, seed),
            )
    network.requires_grad_(True)
    network.eval()
    _check_finite(network, _diverged(recipe))
    if not run.history:
        run.converged = False
    else:
        _judge(run, best, network, inputs, loss, recipe, kept, validation, score)
    network.cpu()
    return run


def _descend(
    run: Run,
    best: "BestEpoch",
    network: Network,
    inputs: Any,
    loss: Loss,
    recipe: Recipe,
    kept: np.ndarray,
    validation: np.ndarray,
    score: Callable[..., float],
    report: Callable[[dict], None],
    saved: SavedRun,
) -> None:
    """Follow the gradients, epoch by epoch, from where a saved run had come to."""
    scaled = scaled_features(network, inputs, loss, kept, train=not recipe.pretrained)
    n_batches = _n_batches(len(kept), recipe.batch_size)
    with scaled if recipe.scale_features else nullcontext():
        optimizer = Optimizer(network, recipe, n_batches, loss.device)
        saved.load(network, optimizer, best, run)
        try:
            for epoch in range(len(run.history) + 1, recipe.epochs + 1):
                if best.epochs_until(epoch - 1) >= recipe.patience:
                    break
                start = time.perf_counter()
                record = {"epoch": epoch, "learning_rate": optimizer.learning_rate}
                _set_mode(network, recipe)
                record["train_loss"] = _train_epoch(
                    network, inputs, kept, n_batches, loss, optimizer, recipe
                )
                if len(validation):
                    record |= _validate(
                        network, inputs, validation, loss, recipe, score
                    )
                record["seconds"] = time.perf_counter() - start
                run.history.append(record)
                if len(validation):
                    best.compare(record, network)
                report(record)
                saved.save_if_due(network, optimizer, best, run)
        except KeyboardInterrupt:
            run.interrupted = True
        best.restore(network)
    if not run.interrupted:
        saved.forget()


def _set_mode(network: Network, recipe: Recipe) -> None:
    """Frozen layers keep their statistics; so do those in front of a probe.

    It was fitted on what they give with these statistics, and fits nothing else.
    """
    network.train(not recipe.freezes_body)
    if recipe.starts_as_probe:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _record_probe(
    run: Run,
    probe: Probe,
    loss: Loss,
    kept: np.ndarray,
    score: Callable[..., float],
    seconds: float,
) -> None:
    """Note what a linear probe has come to, as if it were an epoch."""
    rows = torch.from_numpy(kept)
    fitted, left_out = (
        torch.from_numpy(logits).float().to(loss.device)
        for logits in (probe.fitted, probe.left_out)
    )
    run.history.append(
        {
            "epoch": 1,
            "learning_rate": 0.0,
            "train_loss": loss(fitted, rows).item(),
            "validation_loss": loss(left_out, rows).item(),
            "validation_score": score(*loss.to_score(rows, probe.left_out)),
            "seconds": seconds,
        }
    )


def _train_epoch(
    network: Network,
    inputs: Any,
    kept: np.ndarray,
    n_batches: int,
    loss: Loss,
    optimizer: Optimizer,
    recipe: Recipe,
) -> float:
    """Pass all samples that are not kept out once; return the mean loss."""
    total = torch.zeros((), device=loss.device)
    order = torch.from_numpy(kept)[torch.randperm(len(kept))]
    for indices in order.tensor_split(n_batches):
        batch = augment(inputs[indices].to(loss.device), recipe.augment)
        with autocast(recipe.precision, loss.device):
            logits = network(batch)
        value = loss.for_step(logits.float(), indices)
        optimizer.step(value)
        total += value.detach() * len(indices)
    mean = total.item() / len(order)
    if not np.isfinite(mean):
        raise ValueError(_diverged(recipe))
    return mean


def _validate(
    network: Network,
    inputs: Any,
    validation: np.ndarray,
    loss: Loss,
    recipe: Recipe,
    score: Callable[..., float],
) -> dict:
    logits = _logits_of(network, inputs, validation, loss, recipe)
    indices = torch.from_numpy(validation)
    value = loss(torch.from_numpy(logits).to(loss.device), indices).item()
    value_of_score = score(*loss.to_score(indices, logits))
    return {"validation_loss": value, "validation_score": value_of_score}


def _logits_of(
    network: Network, inputs: Any, rows: np.ndarray, loss: Loss, recipe: Recipe
) -> np.ndarray:
    batches = (inputs[p] for p in torch.from_numpy(rows).split(recipe.batch_size))
    return predict_logits(network, batches, recipe.precision, loss.device)


def _judge(
    run: Run,
    best: "BestEpoch",
    network: Network,
    inputs: Any,
    loss: Loss,
    recipe: Recipe,
    kept: np.ndarray,
    validation: np.ndarray,
    score: Callable[..., float],
) -> None:
    """Compare a training with the best answer that is always the same."""
    record = run.history[-1 if best.epoch is None else best.epoch - 1]
    rows = torch.from_numpy(kept)
    n_outputs = network.classifier_parameters()[0].shape[0]
    constant = loss.constant(rows, n_outputs)
    run.constant_loss = loss(constant.expand(len(rows), -1), rows).item()
    run.loss, enough = record["train_loss"], _LEARNED * run.constant_loss
    if not run.loss < enough:  # dropout and the like make it larger than it is
        logits = torch.from_numpy(_logits_of(network, inputs, kept, loss, recipe))
        run.loss = loss(logits, rows).item()
        run.converged = run.loss < max(enough, _NOTHING_TO_LEARN)
    if "validation_loss" in record:
        held_out = torch.from_numpy(validation) if len(validation) else rows
        same = constant.expand(len(held_out), -1)
        learned = record["validation_loss"] < loss(same, held_out).item()
        of_same = score(*loss.to_score(held_out, same.numpy()))
        learned |= record["validation_score"] > of_same
        run.converged &= bool(learned)


class BestEpoch:
    """The weights of the epoch that is best in validation, if there is one.

    Of epochs with the same score the one with the lower loss is better.
    """

    def __init__(self, monitor: str):
        self.monitor = monitor
        self.epoch, self.value, self.state = None, [np.inf, np.inf], None

    def compare(self, record: dict, network: nn.Module) -> None:
        loss = record["validation_loss"]
        score = record["validation_score"] if self.monitor == "score" else 0.0
        value = [-float(score), loss] if np.isfinite(loss) else [np.inf, np.inf]
        if self.epoch is None or value < self.value:
            state = copy.deepcopy(network.state_dict())
            self.epoch, self.value, self.state = record["epoch"], value, state

    def epochs_until(self, epoch: int) -> float:
        """How long the best epoch is ago; -inf where there is none."""
        return -np.inf if self.epoch is None else epoch - self.epoch

    def restore(self, network: nn.Module) -> None:
        if self.state is not None:
            network.load_state_dict(self.state)


def predict_logits(
    network: nn.Module, batches: Iterable, precision: str, device: torch.device
) -> np.ndarray:
    """Compute float32 logits (n, n_outputs) of batches, in evaluation mode."""
    network = network.to(device).eval()
    logits = []
    for batch in batches:
        # Only here: neither weights nor what a user's dataset computes is ours to mark.
        with torch.inference_mode(), autocast(precision, device):
            logits.append(network(batch.to(device)).float().cpu().numpy())
    return np.concatenate(logits)


def _n_batches(n_samples: int, batch_size: int) -> int:
    """Number of equal batches of about `batch_size`, none of one sample.

    Batch normalisation cannot train on a single sample.
    """
    return max(1, min(-(-n_samples // batch_size), n_samples // 2))


def _check_finite(network: Network, message: str) -> None:
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise ValueError(message)


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
