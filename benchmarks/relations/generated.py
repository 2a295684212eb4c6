"""Generated text for measurements: invented words, sentences as long as real ones."""

import numpy as np

from sklearn_p2l.datasets import Context


def sentences(n, seed=0):
    """Sentences of invented words, as long as real ones and as unequal."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("aeioubcdfghklmnprstvw"))
    words = ["".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(20_000)]
    lengths = np.clip(np.exp(rng.normal(np.log(27), 0.47, size=n)), 4, 100).astype(int)
    for length in lengths:  # a few words are frequent, most are rare
        yield [words[i] for i in np.minimum(rng.zipf(1.3, length) - 1, 19_999)]


def context(words, rng):
    first, second = rng.choice(len(words), size=2, replace=False)
    starts = np.cumsum([0, *(len(word) + 1 for word in words)])
    spans = [(int(starts[i]), int(starts[i]) + len(words[i])) for i in (first, second)]
    return Context(" ".join(words), *spans, "web.example/page")
