"""How long it takes to begin: the import, and a ranking in a shell.

``python benchmarks/selection/startup.py`` takes a minute.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from timing import rounded, side_by_side, write

from sklearn_p2l.datasets import load_zoo

HERE = Path(__file__).parent
# What of scikit-learn and SciPy is used.
PARTS = (
    "import scipy.stats, scipy.linalg, scipy.special, joblib, sklearn.pipeline, "
    "sklearn.model_selection, sklearn.metrics, sklearn.linear_model, sklearn.frozen"
)


def python(*arguments):
    def run():
        command = [sys.executable, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    return run


def main():
    os.environ["OMP_NUM_THREADS"] = "1"
    zoo = load_zoo()
    with tempfile.TemporaryDirectory() as folder:
        zoo.sources.save(folder)
        vector = np.asarray(zoo.vectors[0]).tolist()
        line = f'{{"name": "target", "size": 60, "embedding": {vector}, '
        line += f'"fingerprint": "{zoo.sources.fingerprint}"}}'
        vectors = Path(folder) / "vectors.jsonl"
        vectors.write_text(line)
        seconds = side_by_side(
            {
                "import of scikit-learn's parts": python("-c", PARTS),
                "with import sklearn_p2l": python("-c", f"{PARTS}, sklearn_p2l"),
                "p2l rank of vectors": python(
                    "-m", "sklearn_p2l", "rank", str(vectors), folder
                ),
            },
            repeats=7,
        )
    base = seconds["import of scikit-learn's parts"]
    rows = [
        {
            "what": what,
            "seconds": rounded(value),
            "beyond_scikit_learn": rounded(value - base),
        }
        for what, value in seconds.items()
    ]
    write(HERE / "results" / "startup.csv", rows)


if __name__ == "__main__":
    main()
