"""What needs a GPU, in one command of about ten minutes.

    python benchmarks/gpu.py

runs the speed benchmarks where they use the GPU, and measures a ground truth on it with
one worker and with several. Each writes its tables, with "_cuda" in their names;
`python benchmarks/page.py` puts them into pages that name them. Where the data does not
fit, ``python benchmarks/gpu.py --data FOLDER`` first copies what is read of it, 40 MB,
into FOLDER, for SKLEARN_P2L_DATA to name there.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from timing import DATA, rounded, side_by_side, write

HERE = Path(__file__).parent
SCRIPTS = [
    "embedding/throughput.py",
    "selection/evidence.py",
    "training/throughput.py",
    "relations/network.py",
]
READ = [
    "data/folders/clothing",
    "data/images/scenes15.npz",
    "data/images/trashnet.npz",
    "models/squeezenet1_1.safetensors",
]


def copy_data(folder):
    """What the scripts read, and nothing else."""
    for name in READ:
        copy = shutil.copytree if (DATA / name).is_dir() else shutil.copy
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy(DATA / name, folder / name)


def workers():
    """A ground truth of small networks on one GPU, with several workers."""
    from sklearn_p2l import NetworkClassifier
    from sklearn_p2l.datasets import load_small_tasks, load_zoo
    from sklearn_p2l.ground_truth import measure_improvement

    targets = dict(list(load_small_tasks().training_targets.items())[:3])
    zoo = load_zoo().sources[["photos", "shapes", "clothing"]]

    def measured(n_jobs):
        with tempfile.TemporaryDirectory() as folder:
            settings = dict(folder=folder, n_jobs=n_jobs, verbose=0)
            measure_improvement(targets, zoo, NetworkClassifier(), **settings)

    functions = {f"{n} workers": lambda n=n: measured(n) for n in (1, 2, 4)}
    seconds = side_by_side(functions, repeats=1)
    base = seconds["1 workers"]
    return [
        {"what": what, "seconds": rounded(value), "faster": rounded(base / value)}
        for what, value in seconds.items()
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", metavar="FOLDER", help="only copy what is read there")
    options = parser.parse_args()
    if options.data:
        copy_data(Path(options.data))
        return
    for script in SCRIPTS:
        print(script, flush=True)
        subprocess.run([sys.executable, HERE / script], check=False)
    write(HERE / "training" / "results" / "workers_cuda.csv", workers())


if __name__ == "__main__":
    main()
