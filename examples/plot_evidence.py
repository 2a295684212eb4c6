"""
Weigh more evidence
===================

Size and distance are not all there is to go by. This example adds how much each source
has helped others, and whether its classes differ where those of the target do; learns
what all of this is worth from measured transfer; and asks how sure the ranking is.

The measurements and the vectors, with class means, come with the package
(:func:`~sklearn_p2l.datasets.load_transfer_results`).
"""

# %%
# Signals and their weights
# -------------------------
#
# :class:`~sklearn_p2l.EvidenceSelector` takes the signals for which there is what they
# need. Its weights are learned on seven training targets, and pulled to equal ones as
# strongly as is best for targets that are left out.
import pandas as pd

from sklearn_p2l import EvidenceSelector, SourceSelector
from sklearn_p2l.datasets import load_transfer_results

results = load_transfer_results()
X, y, training = results.vectors, results.improvements, results.training
selector = EvidenceSelector(results.sources).fit(X[training], y[training])
pd.Series(selector.weights_).round(2)

# %%
# Rank the sources for a new target
# ---------------------------------
#
# Each signal is a term of the score E. The last column is the chance to be the best of
# all sources, as far as the training targets tell how well such a ranking does.
target = results.target_names.index("vegetables")
vector = X[[target]]
ranking = selector.explain(vector)
ranking.drop(columns=["target", "size"]).round(2)

# %%
# The same as a picture.
import matplotlib.pyplot as plt

from sklearn_p2l.plotting import RankingDisplay

display = RankingDisplay.from_estimator(selector, vector)
display.ax_.set_title("Sources for 300 photographs of vegetables")
plt.show()

# %%
# How many should be tried?
# -------------------------
#
# The chances of the first few add up; where they do so slowly, several are worth a
# trial: ``FineTuner(selector, zoo, n_candidates=n)``. And any of them is most likely
# better than random weights:
within = ranking["p_best"].cumsum()
n = int((within < 0.8).sum()) + 1
first = results.sources.names.index(ranking["source"][0])
gain = selector.transfer_proba(vector)[0, first]
print(f"the best is among the first {n} with a chance of {within[n - 1]:.0%}")
print(f"the first is better than no transfer with a chance of {gain:.0%}")

# %%
# Was it right?
# -------------
#
# On the ten targets of which nothing was learned, against equation 2:
from sklearn_p2l.evaluation import evaluate_selectors

improvements = pd.DataFrame(
    y, index=results.target_names, columns=results.sources.names
)
result = evaluate_selectors(
    {
        "equation 2": SourceSelector(results.sources),
        "separability alone": EvidenceSelector(
            results.sources, signals=["separability"]
        ),
        "all": EvidenceSelector(results.sources),
    },
    X,
    improvements,
    baseline=results.baseline,
    training=training,
)
measures = ["spearman", "regret_at_1", "regret_at_2", "regret_at_3"]
result.targets.groupby("selector", sort=False)[measures].mean().round(3)

# %%
# All of this has looked at the target through one network only. With the sources'
# checkpoints at hand, their own features tell more: :doc:`/guide/evidence`.
