"""Put the matrix and the vectors of this benchmark into the package.

    python benchmarks/transfer/package.py --folder work/transfer

writes what `sklearn_p2l.datasets.load_transfer_results` loads, from the tables in
results/ and the vectors that `run.py --folder work/transfer` has kept (they are
computed again where it has not; the images are found through SKLEARN_P2L_DATA).
"""

import argparse
from pathlib import Path

import numpy as np
from run import embedder
from tasks import load_tasks
from truth import Truth

import sklearn_p2l

FILE = "datasets/data/transfer_results.npz"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", required=True, help="of run.py")
    folder = Path(parser.parse_args().folder)
    truth = Truth()
    sources, targets = load_tasks()
    assert list(sources) == list(truth.sizes.index)
    assert list(targets) == list(truth.targets.index)
    tasks = [*sources.values(), *targets.values()]
    reference = embedder(
        "squeezenet", class_means=True, memory=folder / "vectors", verbose=1
    )
    embedded = reference.fit_transform(tasks)
    vectors = np.asarray(embedded, dtype=np.float32)
    means = [own.astype(np.float16) for own in embedded.class_means]
    np.savez_compressed(
        Path(sklearn_p2l.__file__).parent / FILE,
        fingerprint=reference.fingerprint_,
        source_names=list(sources),
        source_sizes=truth.sizes.to_numpy(),
        source_n_classes=truth.n_classes.to_numpy(),
        source_vectors=vectors[: len(sources)],
        target_names=list(targets),
        target_sizes=truth.targets["n_train"].to_numpy(),
        target_vectors=vectors[len(sources) :],
        n_class_means=[len(own) for own in means],
        class_means=np.vstack(means),
        training=truth.learning,
        improvements=truth.improvement.to_numpy(),
        baseline=truth.baseline.to_numpy(),
    )


if __name__ == "__main__":
    main()
