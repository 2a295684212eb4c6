"""
Which divergence, and which k?
==============================

The score of a source is ``z(log size) + k z(D)``. Two things can be chosen: the
divergence D between two datasets, and its weight k. This example learns k for several
divergences on the same measured transfer, compares the curves, and lets
``GridSearchCV`` choose.
"""

# %%
# The curve over k
# ----------------
#
# k only matters through the order in which it puts the sources, so the mean rank
# correlation with the measured improvements is a staircase. ``fit`` computes it
# exactly; the marker is the k that is taken, the middle of the widest best step.
import matplotlib.pyplot as plt

from sklearn_p2l import SourceSelector
from sklearn_p2l.datasets import load_transfer_results
from sklearn_p2l.plotting import KCurveDisplay

results = load_transfer_results()
training = results.training
X, y = results.vectors[training], results.improvements[training]
selector = SourceSelector(results.sources)
metrics = ["kl", "js", "chi2", "euclidean", "cityblock"]
display = KCurveDisplay.from_estimator(selector, X, y, metrics=metrics)
display.ax_.axvline(0, color="grey", linewidth=0.8)
display.ax_.set_title("Seven training targets")
plt.show()

# %%
# At k = 0 the size alone ranks. To the left nearness counts more and more, until it
# alone ranks; to the right of 0 distance would be an advantage. The curve is flat
# around its best part, here as far as it goes to the left, so the exact k matters
# little: the interval of the best step is narrow only because there are many steps.
selector.fit(X, y)
low, high = selector.k_interval_
print(f"k = {selector.k_:.3f}, best from {low:.3f} to {high:.3f}")
left, right, correlation = selector.k_curve_.T
good = correlation > correlation.max() - 0.05
print(f"within 0.05 of the best: k from {left[good].min():.2f}", end=" ")
print(f"to {right[good].max():.2f}")

# %%
# Let the data choose
# -------------------
#
# A selector is an estimator like any other, so ``GridSearchCV`` can choose the
# divergence by leaving one target out at a time. Seven targets are few: look at the
# spread over them before you take the first place for more than it is.
import pandas as pd
from sklearn.model_selection import GridSearchCV, LeaveOneOut

search = GridSearchCV(selector, {"metric": metrics}, cv=LeaveOneOut()).fit(X, y)
table = pd.DataFrame(search.cv_results_)
columns = ["param_metric", "mean_test_score", "std_test_score"]
table = table[columns].sort_values("mean_test_score", ascending=False)
table.round(3)

# %%
# And on targets that took no part in the choice, beside a k that nobody learned:
held_out = ~training
X_new, y_new = results.vectors[held_out], results.improvements[held_out]
rows = {}
for metric in metrics:
    learned = SourceSelector(results.sources, metric=metric).fit(X, y)
    borrowed = SourceSelector(results.sources, metric=metric, k=-1.0).fit(X)
    rows[metric] = {
        "k learned": learned.score(X_new, y_new),
        "k = -1": borrowed.score(X_new, y_new),
    }
scores = pd.DataFrame(rows).T
ax = scores.plot.barh(figsize=(7, 3.5), xlabel="mean Spearman correlation", width=0.7)
ax.invert_yaxis()
ax.set_title("Ten held-out targets")
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
ax.figure.tight_layout()
plt.show()

# %%
# The divergences differ little from one another, as the paper says, and so do a
# learned k and a borrowed one.
