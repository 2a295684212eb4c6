"""The state of a training on disk, so that one that was killed goes on."""

import hashlib
import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sklearn_p2l._files import atomic_write
from sklearn_p2l.networks.base import Network
from sklearn_p2l.networks.loss import Loss
from sklearn_p2l.networks.weights import hash_weights

# Share of the time that may be spent on writing states.
_SHARE = 0.05


class SavedRun:
    """The state of one training in a folder, by a hash of all that decides about it.

    So several trainings can share a folder, and none goes on from the state of another.
    Without a folder, all of it does nothing.
    """

    def __init__(
        self,
        folder: str | os.PathLike | None,
        network: Network,
        inputs: Any,
        loss: Loss,
        *settings: Any,
    ):
        self.path, self.device = None, loss.device
        self.last, self.cost = time.monotonic(), 0.0
        if folder is not None:
            described = hash_weights(network.model), repr(network.model)
            digest = hashlib.sha256(f"{described} {loss.device.type}".encode())
            tensors = (
                [inputs] if isinstance(inputs, torch.Tensor) else vars(inputs).values()
            )
            for value in (*tensors, loss.targets, loss.weight):
                if value is not None:
                    digest.update(f"{value.shape} {value.dtype}".encode())
                    digest.update(np.ascontiguousarray(value.numpy()).data)
            for value in settings:
                value = value.tolist() if isinstance(value, np.ndarray) else value
                digest.update(repr(value).encode())
            self.path = Path(folder) / f"training-{digest.hexdigest()[:32]}.pt"

    def load(self, network: Network, optimizer: Any, best: Any, run: Any) -> None:
        """Put everything in the state on disk, if there is one."""
        if self.path is None or not self.path.is_file():
            return
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            network.train()  # nothing is kept of the weights it had
            network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            best.epoch, best.value, best.state = state["best"]
            run.history[:] = state["history"]
            torch.set_rng_state(state["random"])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(state["random_cuda"], self.device)
        except Exception as error:  # readers of broken files raise almost anything
            raise ValueError(
                "checkpoint_folder must hold states that this version has written, but "
                f"{self.path} cannot be read ({type(error).__name__}: {error}); delete "
                "that file to train from the start."
            ) from error

    def save_if_due(
        self, network: Network, optimizer: Any, best: Any, run: Any
    ) -> None:
        """Write the state, unless writing would take too much of the time."""
        start = time.monotonic()
        if self.path is None or (start - self.last) * _SHARE < self.cost:
            return
        state = {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "best": [best.epoch, best.value, best.state],
            "history": [{k: _plain(v) for k, v in r.items()} for r in run.history],
            "random": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self.device)
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path) as file:
            file.write(buffer.getbuffer())
        self.last = time.monotonic()
        self.cost = self.last - start

    def forget(self) -> None:
        """Delete the state: what it was kept for is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _plain(value: Any) -> int | float:
    return value.item() if isinstance(value, np.generic) else value
