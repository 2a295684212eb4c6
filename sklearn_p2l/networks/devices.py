"""Where and in which precision to compute."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sklearn_p2l.networks.turns import random_state

_CPU = torch.device("cpu")

# glibc gives freed memory back to the system, which clears it for the next layer anew.
# It learns how much to keep from the largest block of up to 32 MiB that was freed: one.
torch.empty(2**25 - 2**16, dtype=torch.uint8, device="cpu")


def choose_device(device: str | torch.device) -> torch.device:
    """Resolve "auto" to the GPU if there is one, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(
            f"device must be 'auto' or a torch device that is present, got {device!r}: "
            f"{error}"
        ) from error


def gpus() -> range:
    """Numbers of the GPUs that are visible; does not start CUDA."""
    return range(torch.cuda.device_count())


@contextmanager
def at_most_threads(limit: int | None) -> Iterator[None]:
    """Compute with at most so many threads inside (None: as many as before)."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, limit or before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    """Compute in the precision; "auto" is bfloat16 where the device is made for it.

    A caller's own autocast neither changes that, nor is it left what was cast here: it
    would take that for the weights once they have changed.
    """
    dtype = {
        "float32": None,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
        "auto": torch.bfloat16 if has_fast_bfloat16(device) else None,
    }[precision]
    if dtype is None and not torch.is_autocast_enabled(device.type):
        yield
        return
    torch.clear_autocast_cache()
    try:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            yield
    finally:
        torch.clear_autocast_cache()


@contextmanager
def seeded(seed: int, device: torch.device = _CPU) -> Iterator[None]:
    """Draw from `seed` inside, and leave all random state as it was before.

    Other threads wait, until `random_state` gives way.
    """
    gpus = [device] if device.type == "cuda" else []
    with random_state, torch.random.fork_rng(devices=gpus):
        # torch.manual_seed would seed every GPU, and no one would restore them.
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield


def has_fast_bfloat16(device: torch.device) -> bool:
    """Tell whether a device has instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return device.type == "cpu" and bool(supported())
