"""Relation datasets: bags of contexts, each of which mentions one pair of entities.

A sample is a pair of entities with all the text that mentions both of them; its labels
are the relations between them (paper, section 3.3). Nothing here imports torch.
"""

import operator
import os
import re
import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import joblib
import numpy as np

from sklearn_p2l.exceptions import SkippedSamplesWarning
from sklearn_p2l.samples._modality import Modality
from sklearn_p2l.samples._sampling import random_rows, reservoir
from sklearn_p2l.samples._words import open_text

_SPAN = re.compile(r"\[(\d+),(\d+)\)")
_N_FIELDS = 9


@dataclass(frozen=True, slots=True)
class Context:
    """A piece of text that mentions both entities of a pair.

    Parameters
    ----------
    text : str
        The text, mostly a sentence.

    span_1, span_2 : tuple of int
        Where the first and the second entity are mentioned: start and end, in
        characters, the end excluded. Either may come first, one may lie within the
        other, but they must not cross.

    url : str, default=""
        Where the text comes from.

    Examples
    --------
    >>> from sklearn_p2l.datasets import Context
    >>> context = Context("Paris lies in France.", (0, 5), (14, 20))
    >>> context.text[slice(*context.span_2)]
    'France'
    """

    text: str
    span_1: tuple[int, int]
    span_2: tuple[int, int]
    url: str = ""

    def __post_init__(self):
        if not isinstance(self.text, str):
            raise ValueError(f"text must be a str, got {type(self.text).__name__}.")
        for name in ("span_1", "span_2"):
            object.__setattr__(self, name, _as_span(getattr(self, name), name))
        (start_1, end_1), (start_2, end_2) = self.span_1, self.span_2
        for name, start, end in (("1", start_1, end_1), ("2", start_2, end_2)):
            if not 0 <= start < end <= len(self.text):
                raise ValueError(
                    f"span {name} must lie within its context of {len(self.text)} "
                    f"characters, got [{start},{end})."
                )
            if self.text[start:end].isspace():
                raise ValueError(
                    f"span {name} must hold a word, got blanks at [{start},{end})."
                )
        if start_1 < start_2 < end_1 < end_2 or start_2 < start_1 < end_2 < end_1:
            raise ValueError(
                "the spans of a context must not cross, got "
                f"[{start_1},{end_1}) and [{start_2},{end_2})."
            )


@dataclass(frozen=True, slots=True)
class Bag:
    """All contexts of one pair of entities, with the relations between the two.

    Parameters
    ----------
    id_1, id_2 : str
        The entities.

    contexts : sequence of Context
        At least one; their order does not matter.

    relations : sequence of str, default=()
        Relations between them, marked ">" from the first to the second entity, "<"
        from the second to the first; none for an unrelated pair, a negative.

    type_1, type_2 : str, default=""
        Types of the entities, such as "PERSON".

    Examples
    --------
    >>> from sklearn_p2l.datasets import Bag, Context
    >>> context = Context("Paris lies in France.", (0, 5), (14, 20))
    >>> bag = Bag("France", "Paris", [context], ["<capital"])
    >>> bag.relations
    ('<capital',)
    """

    id_1: str
    id_2: str
    contexts: tuple[Context, ...]
    relations: tuple[str, ...] = ()
    type_1: str = ""
    type_2: str = ""

    def __post_init__(self):
        if isinstance(self.relations, str):
            raise ValueError(
                f"relations must be a sequence of str, got one str; pass "
                f"[{self.relations!r}]."
            )
        if not isinstance(self.contexts, (list, tuple)) or not all(
            isinstance(context, Context) for context in self.contexts
        ):
            raise ValueError(
                "contexts must be a sequence of Context, got "
                f"{self.contexts!r:.80}; pass [Context(text, span_1, span_2)]."
            )
        if not self.contexts:
            raise ValueError(
                f"a bag must have at least one context, got none for {self.id_1!r} and "
                f"{self.id_2!r}."
            )
        object.__setattr__(self, "contexts", tuple(self.contexts))
        object.__setattr__(self, "relations", tuple(self.relations))


def _as_span(span, name):
    if type(span) is tuple and len(span) == 2 and type(span[0]) is type(span[1]) is int:
        return span
    try:
        start, end = map(operator.index, span)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be two integers, start and end, got {span!r}."
        ) from error
    return start, end


def read_bags(path, *, on_error="raise"):
    """Read bags of contexts from a file in CC-DBP's format, one at a time.

    Each line has nine fields, separated by tabs and without escapes: ID 1, ID 2, type
    1, type 2, span 1, span 2, relations, context, URL. Spans are in characters, such
    as ``[150,161)``; relations are separated by commas, each with its direction (``>``
    from entity 1 to entity 2, ``<`` back), and empty for unrelated pairs. ID 1 comes
    before ID 2 in the order of characters; the lines of a pair follow one another and
    have the same relations.

    Parameters
    ----------
    path : str or path-like
        The file, in UTF-8, plain or compressed by gzip.

    on_error : {"raise", "skip"}, default="raise"
        What to do with a malformed line: an error with its number, or in the end a
        warning with the number of lines skipped.

    Yields
    ------
    bag : Bag
        One pair. Memory holds one bag at a time, where pairs come in order, as
        CC-DBP's do; in a file that is not in order, also a number for each pair read.

    Raises
    ------
    ValueError
        If a line has not nine fields, is not UTF-8, has spans out of range or crossing,
        or comes apart from the other lines of its pair; or if a compressed file is
        damaged.

    References
    ----------
    Glass and Gliozzo, "A Dataset for Web-scale Knowledge Base Population", 2018.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn_p2l.datasets import read_bags
    >>> line = "France Paris GPE GPE [14,20) [0,5) <capital"
    >>> text = "\\t".join([*line.split(), "Paris lies in France.", "a.example"])
    >>> with tempfile.NamedTemporaryFile("w", suffix=".tsv") as file:
    ...     _ = file.write(text)
    ...     file.flush()
    ...     bags = list(read_bags(file.name))
    >>> bags[0].id_2, bags[0].relations, len(bags[0].contexts)
    ('Paris', ('<capital',), 1)
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}.")
    skipped = []
    yield from _read_bags(os.fspath(path), on_error, skipped)
    if skipped:
        warnings.warn(
            f"Skipped {len(skipped)} line(s) that cannot be used; the first: "
            f"{skipped[0].rstrip('.')}. Mend or remove them, or pass "
            "on_error='raise' to stop at the first.",
            SkippedSamplesWarning,
            stacklevel=2,
        )


def _read_bags(path, on_error, skipped):
    """Yield bags; the messages of skipped lines go to the list `skipped`."""
    pair, types, relations, contexts = None, (), (), []
    largest = ("", "")  # a pair after all others has not been there before
    seen = None if os.path.isfile(path) else set()  # a stream is read only once
    for number, line in _numbered_lines(path):
        try:
            new_pair, new_types, new_relations, context = _parse(line)
            if new_pair == pair and new_relations != relations:
                raise ValueError(
                    f"the relations must be those of the lines before, {relations}, "
                    f"got {new_relations}"
                )
            if new_pair != pair and new_pair < largest and seen is None:
                seen = _pairs_before(path, number)
            if new_pair != pair and seen is not None and hash(new_pair) in seen:
                raise ValueError(
                    "all lines of a pair must follow one another, got more of "
                    f"{new_pair} after other pairs"
                )
        except ValueError as error:
            message = f"line {number} of {path}: {str(error).rstrip('.')}."
            if on_error == "raise":
                raise ValueError(message) from error
            skipped.append(message)
            continue
        if new_pair != pair:
            if contexts:
                yield Bag(*pair, contexts, relations, *types)
            pair, types, relations, contexts = new_pair, new_types, new_relations, []
            largest = max(largest, pair)
            if seen is not None:
                seen.add(hash(pair))
        contexts.append(context)
    if contexts:
        yield Bag(*pair, contexts, relations, *types)


def _pairs_before(path, end):
    """Hashes of the pairs in the lines before `end`."""
    pairs = set()
    for number, line in _numbered_lines(path):
        if number == end:
            break
        with suppress(ValueError):
            pairs.add(hash(_parse(line)[0]))
    return pairs


def _numbered_lines(path):
    with open_text(path) as file:
        number = 0
        try:
            for number, line in enumerate(file, start=1):
                yield number, line
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(
                f"{path} must be a whole file, but is damaged after line {number}: "
                f"{error}"
            ) from error


def _parse(line):
    """Return pair, types, relations and context of one line of bytes."""
    try:
        fields = line.rstrip(b"\r\n").decode("utf-8").split("\t")
    except UnicodeDecodeError as error:
        raise ValueError(f"a line must be UTF-8, got {error}") from error
    if len(fields) != _N_FIELDS:
        raise ValueError(f"a line must have {_N_FIELDS} fields, got {len(fields)}")
    id_1, id_2, type_1, type_2, span_1, span_2, relations, text, url = fields
    if not id_1 < id_2:
        raise ValueError(f"ID 1 must come before ID 2, got {id_1!r} and {id_2!r}")
    relations = tuple(relations.split(",")) if relations else ()
    for relation in relations:
        if relation[:1] not in ("<", ">") or len(relation) < 2:
            raise ValueError(
                f"a relation must begin with its direction, < or >, got {relation!r}"
            )
    context = Context(text, _parse_span(span_1), _parse_span(span_2), url)
    return (id_1, id_2), (type_1, type_2), relations, context


def _parse_span(text):
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError(f"a span must look like [150,161), got {text!r}")
    return int(match[1]), int(match[2])


class _Bags(Modality):
    """Pairs of entities with the text that mentions them."""

    name, sample, unit = "bags", "bag", "line"

    def recognises(self, dataset):
        if isinstance(dataset, (str, os.PathLike)):
            return os.fspath(dataset).lower().endswith((".tsv", ".tsv.gz"))
        return isinstance(dataset, Bag) or (
            _is_sequence(dataset)
            and any(isinstance(item, Bag) for item in islice(dataset, 1))
        )

    def as_samples(self, X):
        if isinstance(X, (str, os.PathLike)):
            return list(read_bags(X))
        return [X] if isinstance(X, Bag) else X

    def random_part(self, dataset, n_samples, rng, on_error):
        if not isinstance(dataset, (str, os.PathLike)):
            bags = list(self.as_samples(dataset))
            return random_rows(bags, n_samples, rng), len(bags)
        if n_samples is None:
            return dataset, None
        return reservoir(read_bags(dataset, on_error=on_error), n_samples, rng), None

    def content_key(self, dataset):
        if isinstance(dataset, (str, os.PathLike)):
            if not os.path.exists(dataset):
                return None
            status = os.stat(dataset)
            path = os.path.abspath(dataset)
            return joblib.hash((path, status.st_size, status.st_mtime_ns))
        return joblib.hash([repr(bag) for bag in self.as_samples(dataset)])


BAGS = _Bags()


def _is_sequence(dataset):
    if hasattr(dataset, "to_numpy"):  # a Series
        dataset = dataset.to_numpy()
    return isinstance(dataset, (list, tuple)) or (
        isinstance(dataset, np.ndarray) and dataset.dtype == object
    )


def bag_batches(dataset, batch_size, *, on_error="raise", skipped=None):
    """Read a dataset of relation bags in batches.

    Parameters
    ----------
    dataset : sequence of Bag, str or path-like
        Bags, or a file in CC-DBP's format, which is streamed.

    batch_size : int
        Bags per batch.

    on_error : {"raise", "skip"}, default="raise"
        What to do with a malformed line of a file, as in :func:`read_bags`.

    skipped : list, default=None
        Collects the messages of skipped lines.

    Yields
    ------
    batch : list of Bag

    Raises
    ------
    ValueError
        If the dataset is empty or holds anything else than bags.
    """
    if isinstance(dataset, (str, os.PathLike)) and BAGS.recognises(dataset):
        skipped = [] if skipped is None else skipped
        dataset = _read_bags(os.fspath(dataset), on_error, skipped)
    elif not _is_sequence(dataset):
        raise ValueError(
            "a dataset for a relation network must be a sequence of Bag, or a .tsv or "
            f".tsv.gz file, got {dataset!r:.80}; read_bags makes bags from other files."
        )
    bags = iter(dataset)
    any_bag = False
    while batch := list(islice(bags, batch_size)):
        any_bag = True
        for bag in batch:
            if not isinstance(bag, Bag):
                raise ValueError(
                    "a dataset for a relation network must hold relation bags only, "
                    f"got {type(bag).__name__}."
                )
        yield batch
    if not any_bag:
        detail = f": all {len(skipped)} lines were skipped" if skipped else ""
        raise ValueError(f"a dataset must have at least one bag, got none{detail}.")
