"""The default recipe against a linear probe, and against itself with a part changed.

    python benchmarks/training/recipes.py --folder work/recipes

takes about 80 minutes on 2 CPU cores. Interrupted and called again with the same
folder, it goes on where it stopped. It writes measured/recipes.csv, one row per
training; `report.py` makes the tables of it.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import dealing
from dealing import DATA
from tasks import CHOSEN_ON, JUDGED_ON, load_source, load_target

from sklearn_p2l import NetworkClassifier
from sklearn_p2l._files import atomic_write

MEASURED = Path(__file__).parent / "measured"
SEEDS = (0, 1, 2)
# The paper's protocol (section 4.1).
PAPER = dealing.PAPER | dict(learning_rate=0.01, head_init="random")
RECIPES = {
    "default": {},
    "paper": PAPER,
    # What this package did by default before: the paper's, with a head that is zero.
    "before": PAPER | dict(head_init="zero", epochs=30, batch_size=32),
    "closed-form probe": dict(body_learning_rate_multiplier=0),
}
# For a small network, whose body learns at the full rate by default.
SLOWER = {"body at a tenth": dict(body_learning_rate_multiplier=0.1)}
# The default, with one part of it taken away or exchanged.
CHANGES = {
    "without scaled features": dict(scale_features=False),
    "without warm-up": dict(warmup=0.0),
    "without clipping": dict(max_grad_norm=None),
    "constant rate": dict(schedule="constant"),
    "SGD": dict(optimizer="sgd", learning_rate=0.01, weight_decay=1e-4),
    "head random": dict(head_init="random"),
    "head from the probe": dict(head_init="probe"),
    "with crops": dict(augment="crop"),
}
SQUEEZENET = dict(
    backbone="squeezenet1_1", weights=DATA / "models" / "squeezenet1_1.safetensors"
)


def jobs(folder):
    """What is trained: start, target, recipe, seed, parameters."""
    targets = [*CHOSEN_ON, *JUDGED_ON]
    starts = {
        "imagenet, 64 px": SQUEEZENET | dict(image_size=64),
        "source, 32 px": dict(backbone=folder / "source.safetensors"),
        "random, 32 px": dict(backbone="small_resnet"),
        "random squeezenet, 64 px": dict(backbone="squeezenet1_1", image_size=64),
        "imagenet, 224 px": SQUEEZENET | dict(image_size=224),
    }
    judged = list(JUDGED_ON)
    plain = {k: RECIPES[k] for k in ("default", "paper", "before")}
    at_224 = {k: RECIPES[k] for k in ("default", "closed-form probe")}
    plan = [
        ("imagenet, 64 px", targets, RECIPES),
        ("source, 32 px", judged, RECIPES | SLOWER),
        ("random, 32 px", judged, plain),
        ("imagenet, 64 px", judged[:5], CHANGES),
        ("imagenet, 224 px", ["sign_digits", "trash", "clothing_b"], at_224),
        ("random squeezenet, 64 px", judged[:3], plain),
    ]
    for start, names, recipes in plan:
        for name in names:
            if not start.startswith("random"):
                yield start, name, "probe", 0, starts[start]
            for seed in SEEDS:
                for recipe, parameters in recipes.items():
                    yield start, name, recipe, seed, starts[start] | parameters


def run(folder, start, name, recipe, seed, parameters):
    """Train once, unless that was done before; keep the record as JSON."""
    text = "--".join([start, name, recipe, str(seed)]).replace(" ", "_")
    path = folder / f"{text}.json"
    if path.exists():
        return
    torch.set_num_threads(1)
    task, begin = load_target(name), time.perf_counter()
    record = dict(start=start, target=name, recipe=recipe, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if recipe == "probe":
            record |= probe(task, parameters)
        else:
            record |= train(task, NetworkClassifier(**parameters, random_state=seed))
    record["seconds"] = time.perf_counter() - begin
    with atomic_write(path) as file:
        file.write(json.dumps(record).encode())


def train(task, classifier):
    try:
        classifier.fit(task)
    except ValueError as error:
        if "diverged" not in str(error):
            raise
        # What is left is to answer with the most frequent class.
        most = np.bincount(np.searchsorted(np.unique(task.y), task.y)).argmax()
        accuracy = np.mean(task.y_test == np.unique(task.y)[most])
        return dict(accuracy=accuracy, converged=False)
    return dict(
        accuracy=classifier.score(task.X_test, task.y_test),
        converged=classifier.converged_,
        epochs=len(classifier.history_),
        train_loss=classifier.history_[-1]["train_loss"],
    )


def probe(task, parameters):
    """A logistic regression on standardised features, C by cross-validation."""
    body = NetworkClassifier(
        **parameters, body_learning_rate_multiplier=0, precision="float32"
    ).fit(task)
    F, F_test = body.transform(task.X), body.transform(task.X_test)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    grid = {"logisticregression__C": np.logspace(-4, 1, 6)}
    search = GridSearchCV(model, grid, cv=3).fit(F, task.y)
    return dict(accuracy=search.score(F_test, task.y_test), converged=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", required=True, help="for weights and records")
    parser.add_argument("--n-jobs", type=int, default=2, help="trainings at a time")
    options = parser.parse_args()
    folder = Path(options.folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "source.safetensors"
    if not source.exists():
        classifier = NetworkClassifier("small_resnet", random_state=0, verbose=1)
        classifier.fit(*load_source()).to_source("scenes", checkpoint=source)
    Parallel(n_jobs=options.n_jobs, verbose=1)(
        delayed(run)(folder, *job) for job in jobs(folder)
    )
    records = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    frame = pd.DataFrame(records)
    half = {name: "chosen on" for name in CHOSEN_ON}
    half |= {name: "judged on" for name in JUDGED_ON}
    frame.insert(2, "half", frame["target"].map(half))
    order = ["start", "target", "recipe", "seed"]
    frame = frame.sort_values(order, kind="stable").round(4)
    MEASURED.mkdir(exist_ok=True)
    frame.to_csv(MEASURED / "recipes.csv", index=False)


if __name__ == "__main__":
    main()
