"""What the speed benchmarks share: timing side by side, and tables of what came out."""

import csv
import os
import platform
import statistics
import time
from pathlib import Path

import joblib

DATA = Path(
    os.environ.get("SKLEARN_P2L_DATA", Path(__file__).parents[2] / "shared")
).absolute()


def side_by_side(functions, *, repeats=3, warm_up=True):
    """Median seconds of each function; they take turns, so that all see the same."""
    rounds = rounds_of(functions, repeats=repeats, warm_up=warm_up)
    return {name: statistics.median(values) for name, values in rounds.items()}


def rounds_of(functions, *, repeats=3, warm_up=True):
    """Seconds of each function in each round, in which they take turns."""
    seconds = {name: [] for name in functions}
    for repeat in range(repeats + warm_up):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if repeat or not warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def write(path, rows):
    """Write rows, dicts with the same keys, as CSV, and print them."""
    path = Path(path)
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(*(f"{key}={value}" for key, value in row.items()), sep="  ", flush=True)


def device_suffix():
    """What names of tables end in: nothing on a CPU, "_cuda" on a GPU."""
    from sklearn_p2l.networks import choose_device

    kind = choose_device("auto").type
    return "" if kind == "cpu" else f"_{kind}"


def rounded(value, digits=3):
    return float(f"{value:.{digits}g}")


def machine():
    """The hardware and the versions that numbers belong to."""
    import numpy
    import PIL
    import sklearn
    import torch
    import torchvision

    from sklearn_p2l.networks.devices import has_fast_bfloat16

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [x for x in cpuinfo.read_text().splitlines() if "model name" in x]
        name = models[0].split(":")[1].strip() if models else name
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    modules = (numpy, PIL, sklearn, torch, torchvision)
    return {
        "cpu": f"{name}, {joblib.cpu_count()} cores",
        "instructions": torch.backends.cpu.get_cpu_capability() + " and AMX" * amx,
        "bfloat16": "yes" if has_fast_bfloat16(torch.device("cpu")) else "no",
        "gpu": device,
        "python": platform.python_version(),
        **{module.__name__: module.__version__ for module in modules},
    }
