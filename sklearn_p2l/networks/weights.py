"""Weights on disk: read without unpickling, compared key by key, hashed."""

import hashlib
import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save
from torch import nn

from sklearn_p2l._files import atomic_write

# Classifiers beside the final one, which some torchvision networks train with.
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")


def read_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a state dict and its metadata from a safetensors or torch file.

    Torch files are read with ``weights_only=True``: code in them is never executed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there must be a file at {path}, got none; weights are a file that is "
            "there, a name under which they are published, or None."
        )
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                # A safe_open handle has keys() but is not itself iterable.
                content = {key: file.get_tensor(key) for key in file.keys()}
                metadata = dict(file.metadata() or {})
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
            metadata = {}
    except Exception as error:  # readers of broken files raise almost anything
        raise ValueError(
            f"{path} must be a safetensors file or a torch state dict (plain tensors, "
            f"which can be read without executing code), got {type(error).__name__}: "
            f"{error}"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            metadata = {k: v for k, v in content.items() if isinstance(v, str)}
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor)
        for key, value in content.items()
    ):
        raise ValueError(f"{path} must hold a state dict: tensors by their names.")
    if empty := [key for key, value in content.items() if value.is_meta]:
        raise ValueError(
            f"{path} must hold tensors with their values, got some without, such as "
            f"{empty[0]!r}; write it anew from a network that is not on device 'meta'."
        )
    if all(key.startswith("module.") for key in content):  # from parallel training
        content = {key.removeprefix("module."): v for key, v in content.items()}
    return content, metadata


def checkpoint_metadata(path: str | Path) -> dict[str, str]:
    """Read what a checkpoint says about itself, from its header alone.

    Only safetensors files have one. Another file says nothing, nor does one that
    cannot be read: reading its weights will say what is wrong with it.
    """
    if Path(path).suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except Exception:  # readers of broken files raise almost anything
        return {}


def write_checkpoint(
    path: str | Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]
) -> None:
    """Write weights as safetensors; the file appears only when complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        # safetensors takes the bytes as they lie, whatever the order of the axes.
        arrays = {key: np.asarray(value, order="C") for key, value in arrays.items()}
        file.write(_in_order(save(arrays, metadata=metadata)))


def _in_order(content: bytes) -> bytes:
    """The same safetensors file, with what stands in its header always in one order."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)  # tensors are aligned
    return len(header).to_bytes(8, "little") + header + content[start:]


def get_weights(model: nn.Module) -> dict[str, np.ndarray]:
    """Copy all weights of a model to arrays."""
    return {
        key: np.array(value.detach().cpu().numpy(), order="C")
        for key, value in model.state_dict().items()
    }


def set_weights(model: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    """Copy arrays back into a model of the same architecture."""
    state = {k: torch.from_numpy(np.array(v)) for k, v in arrays.items()}
    model.load_state_dict(_with_versions(state, model))


def load_weights(
    model: nn.Module, state: dict[str, torch.Tensor], *, head: str, origin: str
) -> None:
    """Load a state dict into a model; only the head may be missing or differ.

    Raises
    ------
    ValueError
        Naming the keys that are missing, unexpected or of another shape.
    """
    wanted = model.state_dict()
    state = {k: v for k, v in state.items() if not k.startswith(_AUXILIARY)}
    body = {k for k in wanted if not _below(k, head)}
    optional = {k for k in wanted if k.endswith("num_batches_tracked")}
    problems = {
        "missing": sorted(body - optional - set(state)),
        "unexpected": sorted(
            k for k in set(state) - set(wanted) if not _below(k, head)
        ),
        "of another shape": sorted(
            k for k in body & set(state) if state[k].shape != wanted[k].shape
        ),
    }
    if any(problems.values()):
        listed = "; ".join(
            f"{len(keys)} {what}: {', '.join(keys[:5] + ['...'] * (len(keys) > 5))}"
            for what, keys in problems.items()
            if keys
        )
        raise ValueError(
            f"the weights from {origin} must fit the architecture, got keys {listed}; "
            "pass the architecture that they were trained with."
        )
    fitting = {
        k: v for k, v in state.items() if k in wanted and v.shape == wanted[k].shape
    }
    model.load_state_dict(_with_versions({**wanted, **fitting}, model))


def _with_versions(state: dict[str, torch.Tensor], model: nn.Module) -> OrderedDict:
    """Add the versions of modules, which torch keeps beside a state dict."""
    state = OrderedDict(state)
    state._metadata = model.state_dict()._metadata
    return state


def hash_weights(module: nn.Module, *, but: str = "") -> str:
    """Hash the parameters and buffers that the output of a module depends on.

    Those below `but`, the name of a layer, are left out.
    """
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        if not key.endswith("num_batches_tracked") and not (but and _below(key, but)):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _below(key: str, module_name: str) -> bool:
    return key.startswith(module_name + ".")
