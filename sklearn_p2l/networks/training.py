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
from sklearn_p2l.networks.recipe import Optimizer, Recipe, count_batches
from sklearn_p2l.networks.resuming import SavedRun
from sklearn_p2l.networks.turns import one_training, random_state

# A loss below this multiple of that of the best constant answer has learned something.
_LEARNED = 0.999
# Where even that loss is below this, all samples have the same labels.
_NOTHING_TO_LEARN = 1e-3


@dataclass(frozen=True)
class Data:
    """What a network is trained on, and what it is judged by."""

    #: What ``network.prepare`` returns.
    inputs: Any
    loss: Loss
    #: Of targets, logits, and weights or None.
    score: Callable[..., float]
    #: Indices of the samples that are trained on, and of those that are kept out.
    kept: torch.Tensor
    validation: torch.Tensor


@dataclass
class Run:
    """What a training has come to."""

    #: How many samples it was trained on.
    n_samples: int = 0
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
    everything = torch.arange(len(inputs))
    kept = torch.from_numpy(np.setdiff1d(everything.numpy(), validation))
    data = Data(inputs, loss, score, kept, torch.from_numpy(validation))
    run, best = Run(), BestEpoch(recipe.monitor)
    with (
        one_training,
        seeded(seed, loss.device),
        _deterministic_cudnn(),
        autocast("float32", loss.device),  # a caller's own one is left outside
    ):
        start, probe = time.perf_counter(), None
        if recipe.starts_as_probe or recipe.freezes_body:
            run.without_probe = not is_linear(network, inputs, loss, recipe)
            if recipe.freezes_body and not run.without_probe:
                data = Data(inputs, loss, score, everything, everything[:0])
            if not run.without_probe:
                probe = start_as_probe(network, inputs, loss, recipe, data.kept)
        if probe is not None and recipe.freezes_body:
            _record_probe(run, probe, data, time.perf_counter() - start)
            report(run.history[0])
        else:
            saved = SavedRun(folder, network, inputs, loss, recipe, validation, seed)
            _descend(run, best, network, data, recipe, report, saved)
    network.requires_grad_(True)
    network.eval()
    _check_finite(network, _diverged(recipe))
    run.n_samples = len(data.kept)
    if not run.history:
        run.converged = False
    else:
        _judge(run, best, network, data, recipe)
    network.cpu()
    return run


def _descend(
    run: Run,
    best: "BestEpoch",
    network: Network,
    data: Data,
    recipe: Recipe,
    report: Callable[[dict], None],
    saved: SavedRun,
) -> None:
    """Follow the gradients, epoch by epoch, from where a saved run had come to."""
    device, train = data.loss.device, not recipe.pretrained
    scaled = scaled_features(network, data.inputs, data.kept, train, device)
    n_batches = count_batches(len(data.kept), recipe.batch_size)
    with scaled if recipe.scale_features else nullcontext():
        optimizer = Optimizer(network, recipe, n_batches, device)
        saved.load(network, optimizer, best, run)
        try:
            for epoch in range(len(run.history) + 1, recipe.epochs + 1):
                if best.epochs_until(epoch - 1) >= recipe.patience:
                    break
                start = time.perf_counter()
                record = {"epoch": epoch, "learning_rate": optimizer.learning_rate}
                _set_mode(network, recipe)
                record["train_loss"] = _train_epoch(
                    network, data, n_batches, optimizer, recipe
                )
                if len(data.validation):
                    record |= _validate(network, data, recipe)
                record["seconds"] = time.perf_counter() - start
                run.history.append(record)
                if len(data.validation):
                    best.compare(record, network)
                report(record)
                saved.save_if_due(network, optimizer, best, run)
                random_state.give_way()
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


def _record_probe(run: Run, probe: Probe, data: Data, seconds: float) -> None:
    """Note what a linear probe has come to, as if it were an epoch."""
    record = {"epoch": 1, "learning_rate": 0.0}
    record["train_loss"] = _loss_of(probe.fitted, data, data.kept)
    record |= _validation_of(probe.left_out, data, data.kept)
    run.history.append(record | {"seconds": seconds})


def _train_epoch(
    network: Network, data: Data, n_batches: int, optimizer: Optimizer, recipe: Recipe
) -> float:
    """Pass all samples that are not kept out once; return the mean loss."""
    loss = data.loss
    total = torch.zeros((), device=loss.device)
    order = data.kept[torch.randperm(len(data.kept))]
    for indices in order.tensor_split(n_batches):
        batch = augment(data.inputs[indices].to(loss.device), recipe.augment)
        with autocast(recipe.precision, loss.device):
            logits = network(batch)
        value = loss.for_step(logits.float(), indices)
        optimizer.step(value)
        total += value.detach() * len(indices)
    mean = total.item() / len(order)
    if not np.isfinite(mean):
        raise ValueError(_diverged(recipe))
    return mean


def _validate(network: Network, data: Data, recipe: Recipe) -> dict:
    logits = _logits_of(network, data, data.validation, recipe)
    return _validation_of(logits, data, data.validation)


def _validation_of(logits: np.ndarray, data: Data, rows: torch.Tensor) -> dict:
    return {
        "validation_loss": _loss_of(logits, data, rows),
        "validation_score": data.score(*data.loss.to_score(rows, logits)),
    }


def _loss_of(logits: np.ndarray, data: Data, rows: torch.Tensor) -> float:
    logits = torch.from_numpy(logits).float().to(data.loss.device)
    return data.loss(logits, rows).item()


def _logits_of(
    network: Network, data: Data, rows: torch.Tensor, recipe: Recipe
) -> np.ndarray:
    batches = (data.inputs[part] for part in rows.split(recipe.batch_size))
    return predict_logits(network, batches, recipe.precision, data.loss.device)


def _judge(
    run: Run, best: "BestEpoch", network: Network, data: Data, recipe: Recipe
) -> None:
    """Compare a training with the best answer that is always the same."""
    record = run.history[-1 if best.epoch is None else best.epoch - 1]
    n_outputs = network.classifier_parameters()[0].shape[0]
    constant = data.loss.constant(data.kept, n_outputs).numpy()

    def same(rows: torch.Tensor) -> np.ndarray:
        return np.tile(constant, (len(rows), 1))

    run.constant_loss = _loss_of(same(data.kept), data, data.kept)
    run.loss, enough = record["train_loss"], _LEARNED * run.constant_loss
    if not run.loss < enough:  # dropout and the like make it larger than it is
        logits = _logits_of(network, data, data.kept, recipe)
        run.loss = _loss_of(logits, data, data.kept)
        run.converged = run.loss < max(enough, _NOTHING_TO_LEARN)
    if "validation_loss" in record:
        rows = data.validation if len(data.validation) else data.kept
        of_same = _validation_of(same(rows), data, rows)
        run.converged &= bool(
            record["validation_loss"] < of_same["validation_loss"]
            or record["validation_score"] > of_same["validation_score"]
        )


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
        # In inference_mode, autocast would cast weights for each part of a batch anew.
        with torch.no_grad(), autocast(precision, device):
            logits.append(network(batch.to(device)).float().cpu().numpy())
    return np.concatenate(logits)


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
