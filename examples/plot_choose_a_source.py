"""
Choose a source
===============

Fifteen networks, one small dataset: which of them should be fine-tuned? This example
learns the weight of distance against size from measured transfer, ranks the sources for
a dataset it has not seen, looks at what the ranking is made of, and then at the truth.

The measurements come with the package
(:func:`~sklearn_p2l.datasets.load_transfer_results`): every source was fine-tuned on
every one of 17 small image datasets beforehand.
"""

# %%
# A zoo of sources
# ----------------
#
# A catalog holds a name, a size and one summary vector for each source.
from sklearn_p2l import SourceSelector
from sklearn_p2l.datasets import load_transfer_results

results = load_transfer_results()
results.sources

# %%
# Learn k
# -------
#
# On seven training targets the improvements of all sources were measured. ``fit``
# learns from them how much distance counts against size. A negative k means that
# distance hurts.
training = results.training
selector = SourceSelector(results.sources)
selector.fit(results.vectors[training], results.improvements[training])
print(f"k = {selector.k_:.2f}")

# %%
# Rank the sources for a new target
# ---------------------------------
#
# The new target is a set of 300 photographs of vegetables; none of the sources has
# ever seen one. Its vector is all that is needed.
target = results.target_names.index("vegetables")
vector = results.vectors[[target]]
ranking = selector.explain(vector)
ranking.drop(columns="target").round(2)

# %%
# The score E of a source is the sum of two terms, one for its size and one for its
# distance. A large source may be far away (to the left in orange), and a near one may
# be small (to the left in blue).
import matplotlib.pyplot as plt

from sklearn_p2l.plotting import RankingDisplay

display = RankingDisplay.from_estimator(selector, vector)
display.ax_.set_title("Sources for 300 photographs of vegetables")

# %%
# Was it right?
# -------------
#
# In practice, one would now fine-tune the pick. Here all sources have been, so that
# the prediction can be compared with what was measured.
truth = results.improvements[target]
accuracy = dict(zip(results.sources.names, truth + results.baseline[target]))
pick, best = ranking["source"][0], max(accuracy, key=accuracy.get)
largest = results.sources.names[results.sources.sizes.argmax()]
print(f"accuracy without transfer: {results.baseline[target]:.3f}")
for what, source in [("P2L's pick", pick), ("largest", largest), ("best", best)]:
    print(f"{what:>10}, {source}: {accuracy[source]:.3f}")

# %%
# The same for all ten targets that took no part in learning k: each dot is one source
# for one target. The higher a dot, the more transfer really gained.
from sklearn_p2l.plotting import ScoreImprovementDisplay

held_out = ~training
ScoreImprovementDisplay.from_estimator(
    selector,
    results.vectors[held_out],
    results.improvements[held_out],
    target_names=[n for n, h in zip(results.target_names, held_out) if h],
)
score = selector.score(results.vectors[held_out], results.improvements[held_out])
print(f"mean Spearman correlation on held-out targets: {score:.2f}")
plt.show()

# %%
# The prediction is far from perfect on these targets, and :doc:`/guide/limits` tells
# why. How many sources would have to be tried until the best one is among them, in
# comparison with simple rules, is shown by another display:
from sklearn_p2l.plotting import PicksDisplay
from sklearn_p2l.selection import LargestSource, NearestSource

X, y = results.vectors, results.improvements
rules = {
    "P2L": selector,
    "largest": LargestSource(results.sources).fit(X[training], y[training]),
    "nearest": NearestSource(results.sources).fit(X[training], y[training]),
}
PicksDisplay.from_estimator(rules, X[held_out], y[held_out])
plt.show()
