"""
Serve a selector in another application, without torch
======================================================

Networks are needed to embed datasets and to fine-tune. Ranking needs only NumPy, SciPy,
scikit-learn and joblib. So a fitted :class:`~sklearn_p2l.SourceSelector` can serve
where PyTorch is not installed: in a web service, say. Here we fit one, store it, and
use it in a process that cannot import torch.
"""

# %%
# Where torch is
# --------------
# The selector learns from the zoo that comes with the package, and three datasets are
# embedded by its reference network.

import subprocess
import sys
import tempfile
from pathlib import Path

import joblib
import matplotlib.pyplot as plt

from sklearn_p2l import SourceSelector
from sklearn_p2l.datasets import load_small_tasks, load_zoo
from sklearn_p2l.plotting import RankingDisplay

zoo = load_zoo()
selector = SourceSelector(zoo.sources).fit(zoo.vectors, zoo.improvements)

tasks = load_small_tasks(random_state=0)
names = ["digits_5_to_9", "grey_china_edges", "china_zooms"]
vectors = zoo.embedder.fit_transform([tasks.held_out_targets[name] for name in names])

# %%
# Two files go to the other application: the selector, with its sources, and the
# vectors. Such files are pickles, so load them only from where you trust. The vectors
# know their reference network, and the selector refuses those of another one.

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
joblib.dump(selector, folder / "selector.joblib")
joblib.dump((names, vectors), folder / "vectors.joblib")
for path in sorted(folder.glob("*.joblib")):
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")

# %%
# Where torch is not
# ------------------
# There, ``pip install --no-deps sklearn-p2l`` next to NumPy, SciPy, scikit-learn and
# joblib is enough. This is the other application. Its first lines make every import of
# torch, and of what else only networks and images need, fail, as if it were not
# installed, so that we can be sure.

application = """
import sys


REFUSED = ("torch", "torchvision", "safetensors", "PIL", "tqdm", "pandas")


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in REFUSED:
            raise ImportError(f"{name} is refused here")


sys.meta_path.insert(0, Refuse())

import joblib

from sklearn_p2l.selection import explain

selector = joblib.load("selector.joblib")
names, vectors = joblib.load("vectors.joblib")

for target, ranking in zip(names, selector.predict(vectors)):
    print(f"{target:18} {ranking[0]}, then {ranking[1]}")

print(f"\\n{names[0]} in detail")
for row in explain(selector, vectors[:1], as_frame=False):  # True needs pandas
    terms = f"{row['size_term']:6.2f} {row['divergence_term']:6.2f}"
    print(f"{row['rank']} {row['source']:16} {row['E']:6.2f} = {terms}")

print("\\ntorch imported:", "torch" in sys.modules)

try:
    import torch
except ImportError as error:
    print("ImportError:", error)
"""


def serve(code):
    """Run the application in a process of its own, and show what it prints."""
    command = [sys.executable, "-c", code]
    print(subprocess.check_output(command, cwd=folder, text=True))


serve(application)

# %%
# Other sources, the same selector
# --------------------------------
# The other application can also change the sources. ``with_sources`` needs no torch
# either, and keeps ``k``. Here it leaves the largest source out.

refuse_torch = application.split("import joblib")[0]
other_sources = """
import joblib

selector = joblib.load("selector.joblib")
names, vectors = joblib.load("vectors.joblib")

sources = selector.sources_
fewer = selector.with_sources(sources[sources.sizes < sources.sizes.max()])
for target, ranking in zip(names, fewer.predict(vectors)):
    print(f"{target:18} {ranking[0]}, then {ranking[1]}")
"""
serve(refuse_torch + other_sources)

# %%
# A picture of a ranking
# ----------------------
# :mod:`sklearn_p2l.plotting` needs matplotlib but no torch. These are the rankings that
# the application gave.

figure, axes = plt.subplots(ncols=3, figsize=(13, 5), layout="constrained", sharex=True)
for ax, name, vector in zip(axes, names, vectors):
    display = RankingDisplay.from_estimator(selector, vector, ax=ax)
    ax.set(title=name, xlabel="score E")
    ax.get_legend().remove()
handles = [*display.bars_.values(), display.scores_]
figure.legend(handles=handles, loc="outside lower center", ncols=3)
plt.show()

temporary.cleanup()
