"""Relations in text: the default recipe against the one that was tuned for the PCNN.

    python benchmarks/training/text.py

Three subtasks of the relations benchmark, from random weights, three seeds; about ten
minutes on 2 CPU cores. "Before" is what benchmarks/relations uses: SGD at 0.1, falling
to 0.3 of it after each quarter. Writes measured/text.csv; `report.py` makes a table.
"""

import sys
import time
from pathlib import Path

import pandas as pd
import torch
from joblib import Parallel, delayed

sys.path.insert(0, str(Path(__file__).parents[1]))
from dealing import tasks_of

from sklearn_p2l import NetworkClassifier

HERE = Path(__file__).parent
SUBTASKS = ("associatedWith", "hasMember", "sameSettingAs")
RECIPES = {
    "default": {},
    "before": dict(
        optimizer="sgd",
        learning_rate=0.1,
        weight_decay=1e-5,
        schedule="step",
        step_size=0.25,
        gamma=0.3,
        warmup=0.0,
        max_grad_norm=None,
        scale_features=False,
        epochs=30,
        batch_size=32,
    ),
}


def run(name, task, recipe, seed):
    torch.set_num_threads(1)
    start = time.perf_counter()
    classifier = NetworkClassifier("pcnn", random_state=seed, **RECIPES[recipe])
    classifier.fit(task)
    return dict(
        subtask=name,
        recipe=recipe,
        seed=seed,
        auc_pr=classifier.score(task.X_test, task.y_test),
        converged=classifier.converged_,
        seconds=time.perf_counter() - start,
    )


def main():
    _, targets = tasks_of("relations").load_tasks()
    rows = Parallel(n_jobs=2, verbose=5)(
        delayed(run)(name, targets[name], recipe, seed)
        for name in SUBTASKS
        for recipe in RECIPES
        for seed in (0, 1, 2)
    )
    (HERE / "measured").mkdir(exist_ok=True)
    frame = pd.DataFrame(rows).round(4)
    frame.to_csv(HERE / "measured" / "text.csv", index=False)


if __name__ == "__main__":
    main()
