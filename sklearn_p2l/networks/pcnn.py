"""PCNN: a network that reads all contexts of a pair of entities at once."""

import inspect
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sklearn_p2l.networks.base import Family, Network, Settings
from sklearn_p2l.networks.weights import hash_weights
from sklearn_p2l.samples import (
    BAGS,
    Bag,
    Context,
    bag_batches,
    build_vocabulary,
    read_word_vectors,
    tokenize,
)

_EMBEDDING_STD = 0.1
# What a checkpoint may say about itself: 4 GB of weights.
_MOST = 1_000_000_000


@dataclass
class BagBatch:
    """Bags of contexts of tokens, end to end and without padding.

    A token has the row of its word, and its distances from both entities, shifted to
    0..2 * max_distance. The tokens of a context lie in three pieces, up to the end of
    the entity that ends first, of the other one, and of the context.
    """

    words: torch.Tensor  # (n_tokens,)
    distances: torch.Tensor  # (n_tokens, 2)
    pieces: torch.Tensor  # (n_contexts, 3), numbers of tokens
    contexts: torch.Tensor  # (n_bags,), numbers of contexts

    def __len__(self) -> int:
        return len(self.contexts)

    def __getitem__(self, bags: torch.Tensor) -> "BagBatch":
        rows = _ranges(self.contexts, bags)
        tokens = _ranges(self.pieces.sum(dim=1), rows)
        return BagBatch(
            self.words[tokens],
            self.distances[tokens],
            self.pieces[rows],
            self.contexts[bags],
        )

    def to(self, device: torch.device) -> "BagBatch":
        return BagBatch(*(tensor.to(device) for tensor in vars(self).values()))


def _ranges(lengths: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Positions of the members of the chosen ones of consecutive groups."""
    starts = lengths.cumsum(0) - lengths
    counts = lengths[chosen]
    before = counts.cumsum(0) - counts
    shift = torch.repeat_interleave(starts[chosen] - before, counts)
    return shift + torch.arange(len(shift))


class PCNN(nn.Module):
    """Piecewise convolutional network over bags of contexts (Zeng et al., 2015).

    Words and their distances from the two entities are embedded; a convolution along
    the context, its maximum over each of three pieces, and tanh describe a context. A
    network in network, two layers with ReLU applied to each context, and the maximum
    over the contexts describe the pair (paper, Figure 3). These features are never
    negative, as KL and its kin need them.

    Parameters
    ----------
    vocabulary : sequence of str, default=()
        Known words. Others share `n_buckets` vectors by a hash of their letters.

    num_classes : int, default=2
        Number of relations.

    word_vectors : str or path-like, default=None
        File in GloVe's format, which gives vocabulary (where that is empty),
        `word_size` and initial vectors.

    word_size, position_size : int, default=50, 5
        Widths of the vectors of words, and of their distances from an entity.

    n_buckets : int, default=4096
        Vectors that unknown words share.

    max_distance : int, default=60
        Larger distances from an entity, in words, count as this one.

    n_filters : int, default=230
        Filters of the convolution.

    kernel_size : int, default=3
        Words that a filter sees at once; odd.

    n_features : int, default=200
        Width of the features.

    dropout : float, default=0.5
        Share of the features that training leaves out.

    max_tokens : int, default=120
        Of a longer context, the tokens nearest to an entity count.

    max_contexts : int, default=100
        Of a bag with more contexts, so many count, drawn by `seed` and their text,
        whatever their order.

    seed : int, default=0
        See `max_contexts`.

    References
    ----------
    Zeng et al., "Distant Supervision for Relation Extraction via Piecewise
    Convolutional Neural Networks", 2015; the paper, section 3.3.

    Examples
    --------
    >>> from functools import partial
    >>> from sklearn_p2l import NetworkClassifier
    >>> from sklearn_p2l.networks import PCNN
    >>> classifier = NetworkClassifier(partial(PCNN, n_filters=60))
    """

    def __init__(
        self,
        vocabulary: Sequence[str] = (),
        num_classes: int = 2,
        *,
        word_vectors: str | os.PathLike | None = None,
        word_size: int = 50,
        n_buckets: int = 4096,
        position_size: int = 5,
        max_distance: int = 60,
        n_filters: int = 230,
        kernel_size: int = 3,
        n_features: int = 200,
        dropout: float = 0.5,
        max_tokens: int = 120,
        max_contexts: int = 100,
        seed: int = 0,
    ):
        super().__init__()
        vectors = None
        if word_vectors is not None:
            vocabulary, vectors = read_word_vectors(
                word_vectors, words=vocabulary or None
            )
            word_size = vectors.shape[1]
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, got {kernel_size}.")
        self.settings = {
            "word_size": word_size,
            "n_buckets": n_buckets,
            "position_size": position_size,
            "max_distance": max_distance,
            "n_filters": n_filters,
            "kernel_size": kernel_size,
            "n_features": n_features,
            "dropout": dropout,
            "max_tokens": max_tokens,
            "max_contexts": max_contexts,
            "seed": seed,
        }
        self.kernel_size = kernel_size
        self.positions = nn.ModuleList(
            nn.Embedding(2 * max_distance + 1, position_size) for _ in range(2)
        )
        width = word_size + 2 * position_size
        self.convolution = nn.Linear(kernel_size * width, n_filters)
        self.network_in_network = nn.Sequential(
            nn.Linear(3 * n_filters, n_features),
            nn.ReLU(),
            nn.Linear(n_features, n_features),
            nn.ReLU(),
        )
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(n_features, num_classes)
        for embedding in self.positions:
            nn.init.normal_(embedding.weight, std=_EMBEDDING_STD)
        self.set_vocabulary(vocabulary)
        if vectors is not None:
            with torch.no_grad():
                self.words.weight[: len(vectors)] = torch.from_numpy(vectors)

    def set_vocabulary(self, vocabulary: Sequence[str]) -> None:
        """Give the network words, with random vectors."""
        self.vocabulary = tuple(vocabulary)
        self.rows = {word: row for row, word in enumerate(self.vocabulary)}
        n_rows = len(self.rows) + self.settings["n_buckets"]
        self.words = nn.Embedding(n_rows, self.settings["word_size"])
        nn.init.normal_(self.words.weight, std=_EMBEDDING_STD)

    def describe(self) -> str:
        """All that is needed beside the weights to build the network again."""
        return json.dumps({"vocabulary": self.vocabulary, **self.settings})

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "PCNN":
        """Build the network that a checkpoint describes; it names no file to read."""
        try:
            described = json.loads(metadata["pcnn"])
            vocabulary = described.pop("vocabulary")
            _check_described(vocabulary, described)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as err:
            raise ValueError(
                "the metadata 'pcnn' of a checkpoint must be what PCNN.describe wrote, "
                f"got {metadata['pcnn']!r:.120} ({err}); write the checkpoint again."
            ) from err
        return cls(vocabulary, **described)

    def encode(self, bags: Sequence[Bag]) -> BagBatch:
        """Turn bags into numbers."""
        counts, parts = [], []
        for bag in bags:
            contexts = self._choose(bag.contexts)
            counts.append(len(contexts))
            parts += [self._encode_context(context) for context in contexts]
        words, distances, pieces = (list(part) for part in zip(*parts))
        return BagBatch(
            torch.from_numpy(np.concatenate(words)),
            torch.from_numpy(np.concatenate(distances)),
            torch.from_numpy(np.stack(pieces)),
            torch.tensor(counts),
        )

    def _choose(self, contexts: Sequence[Context]) -> Sequence[Context]:
        limit, seed = self.settings["max_contexts"], self.settings["seed"]
        if len(contexts) <= limit:
            return contexts
        return sorted(contexts, key=lambda c: _hash(f"{seed} {c!r}"))[:limit]

    def _encode_context(
        self, context: Context
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        texts, spans = tokenize(context.text)
        n_known, n_buckets = len(self.rows), self.settings["n_buckets"]
        words = np.array(
            [
                self.rows[text]
                if text in self.rows
                else n_known + _hash(text) % n_buckets
                for text in texts
            ]
        )
        position = np.arange(len(words))
        distances, ends = np.empty((len(words), 2), dtype=np.int64), []
        for column, (start, end) in enumerate((context.span_1, context.span_2)):
            first = np.searchsorted(spans[:, 1], start, side="right")
            last = np.searchsorted(spans[:, 0], end, side="left") - 1
            distances[:, column] = position - position.clip(first, last)
            ends.append(last)
        piece = (position > min(ends)).astype(np.int64) + (position > max(ends))
        if len(words) > self.settings["max_tokens"]:
            nearness = np.abs(distances).min(axis=1)
            order = np.argsort(nearness, kind="stable")
            kept = np.sort(order[: self.settings["max_tokens"]])
            words, distances, piece = words[kept], distances[kept], piece[kept]
        limit = self.settings["max_distance"]
        distances = distances.clip(-limit, limit) + limit
        return words, distances, np.bincount(piece, minlength=3)

    def contexts(self, batch: BagBatch) -> torch.Tensor:
        """Describe each context by itself: (n_contexts, 3 * n_filters), in -1..1."""
        first, second = self.positions
        tokens = torch.cat(
            [
                self.words(batch.words),
                first(batch.distances[:, 0]),
                second(batch.distances[:, 1]),
            ],
            dim=1,
        )  # (n_tokens, width)
        lengths = batch.pieces.sum(dim=1)
        context = torch.repeat_interleave(
            torch.arange(len(lengths), device=lengths.device), lengths
        )
        n_tokens, reach = len(tokens), self.kernel_size // 2
        # Row n_tokens stands for what lies beyond either end of a context.
        tokens = torch.cat([tokens, tokens.new_zeros(1, tokens.shape[1])])
        here = torch.arange(n_tokens, device=tokens.device)
        windows = []
        for offset in range(-reach, reach + 1):
            there = (here + offset).clamp(0, n_tokens - 1)
            inside = (context[there] == context) & (there == here + offset)
            windows.append(tokens[torch.where(inside, there, n_tokens)])
        responses = self.convolution(torch.cat(windows, dim=1)).float()
        strongest = _segment_max(responses, batch.pieces.flatten())
        return torch.tanh(strongest).view(len(lengths), -1)

    def features(self, batch: BagBatch) -> torch.Tensor:
        """Describe each bag: (n_bags, n_features), at least 0."""
        described = self.network_in_network(self.contexts(batch)).float()
        return _segment_max(described, batch.contexts)

    def forward(self, batch: BagBatch) -> torch.Tensor:
        return self.fc(self.dropout(self.features(batch)))


def _segment_max(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Maximum over consecutive groups of rows; 0 for empty ones, as nothing is there.

    (n, d), (n_groups,) -> (n_groups, d)
    """
    filled = lengths > 0
    largest = torch.segment_reduce(values, "max", lengths=lengths[filled], axis=0)
    result = values.new_zeros(len(lengths), values.shape[1])
    return result.index_copy(0, filled.nonzero().squeeze(1), largest)


def _hash(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


class RelationNetwork(Network):
    """A PCNN as a network that keeps the contract; `layer`: "features" or "contexts".

    "contexts" is the largest response over a bag's contexts before the network in
    network, which has a sign.
    """

    takes = BAGS.name
    image_size = None

    def __init__(self, model: PCNN, *, layer: str | None = None):
        super().__init__(model, architecture="pcnn", head="fc")
        self.layer = layer or "features"
        if self.layer not in ("features", "contexts"):
            raise ValueError(
                f"layer must be 'features' or 'contexts' for a PCNN, got {layer!r}."
            )
        self.preprocessing = model.describe()
        self.metadata = {"architecture": "pcnn", "pcnn": self.preprocessing}

    def check(self) -> None:
        """Needs no try: it is known how a PCNN is built."""
        settings = self.model.settings
        self.signed = self.layer == "contexts"
        self.num_features = settings["n_features"]
        if self.layer == "contexts":
            self.num_features = 3 * settings["n_filters"]

    def preprocess(self, samples: Sequence[Bag]) -> BagBatch:
        return self.model.encode(samples)

    def read(
        self,
        dataset: Any,
        batch_size: int,
        *,
        on_error: str = "raise",
        skipped: list[str] | None = None,
        ahead: bool = False,
    ) -> Iterator[BagBatch]:
        # Never ahead: Python cannot encode in a thread beside its own.
        batches = bag_batches(dataset, batch_size, on_error=on_error, skipped=skipped)
        return map(self.preprocess, batches)

    def prepare(self, batches: Iterable[BagBatch], n_samples: int) -> BagBatch:
        parts = list(batches)
        return BagBatch(
            *(torch.cat(tensors) for tensors in zip(*(vars(p).values() for p in parts)))
        )

    def forward(self, batch: BagBatch) -> torch.Tensor:
        return self.model(batch)

    def forward_features(self, batch: BagBatch) -> torch.Tensor:
        if self.layer == "features":
            return self.model.features(batch)
        return _segment_max(self.model.contexts(batch), batch.contexts)

    def features_hash(self) -> str:
        return hash_weights(self.model, but=self.head)


def _check_described(vocabulary: Any, settings: Mapping[str, Any]) -> None:
    """Refuse settings of another kind, and those of networks beyond all memory."""
    parameters = inspect.signature(PCNN.__init__).parameters.values()
    known = {p.name: p.default for p in parameters if type(p.default) in (int, float)}
    known.pop("num_classes")
    if set(settings) - set(known):
        raise ValueError(f"it has no {sorted(set(settings) - set(known))}")
    if not isinstance(vocabulary, list) or {*map(type, vocabulary)} - {str}:
        raise ValueError("its vocabulary is a list of words")
    for name, value in settings.items():
        if type(value) is not type(known[name]) or not 0 <= value <= _MOST:
            raise ValueError(f"its {name} is a number from 0 to {_MOST:,}")
    sizes = known | settings
    n_words = len(vocabulary) + sizes["n_buckets"]
    width = sizes["word_size"] + 2 * sizes["position_size"]
    n_weights = (
        n_words * sizes["word_size"]
        + 4 * sizes["max_distance"] * sizes["position_size"]
        + sizes["kernel_size"] * width * sizes["n_filters"]
        + (3 * sizes["n_filters"] + sizes["n_features"]) * sizes["n_features"]
    )
    if n_weights > _MOST:
        raise ValueError(f"it has at most {_MOST:,} weights, not {n_weights:,}")


class PCNNFamily(Family):
    """The only name is "pcnn"; a factory may return one with other settings."""

    form = "'pcnn'"

    def names(self) -> Sequence[str]:
        return ["pcnn"]

    def build(self, name: str, settings: Settings) -> RelationNetwork:
        return wrap_pcnn(PCNN(), settings)


def wrap_pcnn(model: PCNN, settings: Settings) -> RelationNetwork:
    """Make a network of a PCNN: the one that metadata describe, else this one.

    One without a vocabulary takes it from the samples, where they are text.
    """
    if settings.image_size is not None:
        raise ValueError(
            f"image_size must be None for a network of text, got {settings.image_size}."
        )
    if "pcnn" in settings.metadata:
        model = PCNN.from_metadata(settings.metadata)
    elif not model.vocabulary and BAGS.recognises(settings.samples):
        model.set_vocabulary(build_vocabulary(BAGS.as_samples(settings.samples)))
    return RelationNetwork(model, layer=settings.layer)
