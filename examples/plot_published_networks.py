"""
Which published network for my images?
======================================

Published networks come without the data that they were trained on, so equation 2 has
nothing to compare. But they can be opened: each looks once at the labelled images, and
is judged by how well its features tell the classes apart. The pick is fine-tuned.

This page never downloads. Set ``DOWNLOAD = True`` where there is an internet, and the
same lines rank networks of torchvision, timm and Hugging Face.
"""

# %%
# The images
# ----------
#
# 60 photographs of clothes in ten classes, where the test data of this package is at
# hand; else scanned digits, which ship with scikit-learn.
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_p2l import (
    EvidenceSelector,
    FineTuner,
    NetworkClassifier,
    SourceCatalog,
    Task,
)
from sklearn_p2l.datasets import load_zoo

DOWNLOAD = False
data = Path(os.environ.get("SKLEARN_P2L_DATA", "../../shared"))
folder = data / "data" / "folders" / "clothing"
if folder.is_dir():
    task = Task.from_folder(folder)
    X, y = task.X, task.y
else:
    X, y = load_digits(return_X_y=True)
    X = np.uint8(X.reshape(-1, 8, 8) * (255 / 16))
rows, others = train_test_split(
    np.arange(len(y)), train_size=60, test_size=100, stratify=y, random_state=0
)
X, y = [X[i] for i in range(len(y))], np.asarray(y)
task = Task([X[i] for i in rows], y[rows])
X_test, y_test = [X[i] for i in others], y[others]
task

# %%
# The candidates
# --------------
#
# What is known of a network before it is downloaded: its parameters, its published
# accuracy, what it was pre-trained on.
names = ["squeezenet1_1"]
if DOWNLOAD:
    names += ["resnet50", "timm/convnext_atto.d2_in1k", "hf/microsoft/resnet-18"]
file = data / "models" / "squeezenet1_1.safetensors"
files = {"squeezenet1_1": file} if file.exists() else {}
published = SourceCatalog.from_published(names, checkpoints=files)
published

# %%
# Beside them stand a network of the same makers with random weights, which knows
# nothing, and some of the small zoo that comes with the package.
import torch
import torchvision

random = tempfile.mkdtemp()
architectures = ["shufflenet_v2_x0_5"]
_ = torch.manual_seed(0)
for name in architectures:
    model = torchvision.models.get_model(name, weights=None)
    torch.save(model.state_dict(), f"{random}/{name}.pt")
untrained = SourceCatalog.from_arrays(
    None,
    sizes=None,
    names=[f"random {name}" for name in architectures],
    architectures=architectures,
    checkpoints=[f"{random}/{name}.pt" for name in architectures],
)
zoo = load_zoo()
candidates = untrained.append(zoo.sources[["clothing", "photos", "shapes"]])
if files or DOWNLOAD:
    candidates = published.append(candidates)
candidates

# %%
# The ranking
# -----------
#
# How the signals are weighed, and how sure the ranking is, was learned from the
# packaged zoo, where it was measured what fine-tuning gains. Each network is opened
# once, one at a time.
signals = ["logme", "probe", "knn"]
selector = EvidenceSelector(zoo.sources, signals=signals)
selector = selector.fit(zoo.vectors, zoo.improvements, scores=zoo.scores)
selector = selector.with_sources(candidates)
start = time.perf_counter()
ranking = selector.explain([task]).drop(columns=["target", "size", "margin"])
seconds = time.perf_counter() - start
ranking["parameters"] = [
    candidates[n].columns.get("parameters") for n in ranking.source
]
print(f"{len(candidates)} networks, each opened once: {seconds:.0f} s")
ranking.round(2)

# %%
# Fine-tune the pick
# ------------------
#
# ``n_candidates=3`` would try the first three and keep the best. The tuned network,
# at 64 pixels to keep this page short, against a network that starts from nothing:
start = time.perf_counter()
classifier = NetworkClassifier(epochs=6, image_size=64, random_state=0)
tuner = FineTuner(selector, candidates, classifier).fit(task)
seconds = time.perf_counter() - start
pick = candidates[tuner.source_]
nothing = NetworkClassifier(
    pick.architecture, epochs=6, image_size=64, random_state=0
).fit(task)
print(f"fine-tuned in {seconds:.0f} s")
pd.Series(
    {
        f"{tuner.source_}, fine-tuned": tuner.score(X_test, y_test),
        "random weights, in as many passes": nothing.score(X_test, y_test),
        "the most frequent class": pd.Series(y_test).value_counts(normalize=True).max(),
    },
    name="accuracy on 100 other images",
).round(3)
