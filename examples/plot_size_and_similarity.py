"""
Size against similarity
=======================

Is a large source better, or a near one? This example looks at measured transfer over
both, and at what happens to a ranking when one of the two is left out.
"""

# %%
# Improvement over size and similarity
# ------------------------------------
#
# Each dot is a source for a target; colour and area tell what transfer gained. If size
# decided alone, colours would change from left to right; if similarity did, from bottom
# to top.
import matplotlib.pyplot as plt

from sklearn_p2l import SourceSelector
from sklearn_p2l.datasets import load_transfer_results
from sklearn_p2l.plotting import SizeSimilarityDisplay

results = load_transfer_results()
X, y, training = results.vectors, results.improvements, results.training
selector = SourceSelector(results.sources).fit(X[training], y[training])
SizeSimilarityDisplay.from_estimator(selector, X, y, standardize=True)
plt.show()

# %%
# One term at a time
# ------------------
#
# The same sources ranked by size alone, by nearness alone, and by both; and by one
# fixed order for all targets, the mean improvement on the training targets. All are
# judged on the ten targets that were held out.
from sklearn_p2l.metrics import picks_to_best_loss, regret_loss, spearman_score
from sklearn_p2l.selection import ConstantRanking, LargestSource, NearestSource

held_out = ~training
rules = {
    "size alone": LargestSource(results.sources),
    "nearness alone": NearestSource(results.sources),
    "both (P2L)": SourceSelector(results.sources),
    "same order for all": ConstantRanking(results.sources),
}
performance = y[held_out] + results.baseline[held_out, None]
table = {}
for name, rule in rules.items():
    scores = rule.fit(X[training], y[training]).decision_function(X[held_out])
    table[name] = {
        "Spearman": spearman_score(y[held_out], scores),
        "picks to the best": picks_to_best_loss(y[held_out], scores),
        "regret": regret_loss(performance, scores),
    }

import pandas as pd

table = pd.DataFrame(table).T
table.round(3)

# %%
# Higher is better for the correlation, lower for the other two. Both terms together
# order the sources better than either alone, and their first pick loses least. The last
# row is worth a look: it knows nothing of the target, only which sources were good for
# others, and orders them a little better still; see :doc:`/guide/limits`.
figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), sharey=True, layout="constrained")
for ax, column in zip(axes, table):
    ax.barh(table.index, table[column], color="C0")
    ax.set_title(column)
axes[0].invert_yaxis()
plt.show()

# %%
# What is a source's size?
# ------------------------
#
# ``sizes`` need not be numbers of images. Here the number of classes takes their place,
# which does as well on these targets: an idea to try on your own zoo.
n_classes = results.sources.column("n_classes")
by_classes = SourceSelector(results.sources.embeddings, sizes=n_classes)
by_classes.fit(X[training], y[training])
score = by_classes.score(X[held_out], y[held_out])
print(f"Spearman with numbers of images:  {table['Spearman']['both (P2L)']:.2f}")
print(f"Spearman with numbers of classes: {score:.2f}")
