"""Relation datasets: bags of contexts, each of which mentions one pair of entities.

A sample is a pair of entities with all the text that mentions both of them; its labels
are the relations between them (paper, section 3.3). Nothing here imports torch.
"""

import gzip
import os
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.utils import Bunch, check_random_state

_SPAN = re.compile(r"\[(\d+),(\d+)\)")
_WORD = re.compile(r"\w+|[^\w\s]")
_DIGIT = re.compile(r"\d")
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
        object.__setattr__(self, "contexts", tuple(self.contexts))
        object.__setattr__(self, "relations", tuple(self.relations))
        if not self.contexts:
            raise ValueError(
                f"a bag must have at least one context, got none for {self.id_1!r} and "
                f"{self.id_2!r}."
            )


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
            f"{skipped[0]}",
            UserWarning,
            stacklevel=2,
        )


def _read_bags(path, on_error, skipped):
    """Yield bags; the messages of skipped lines go to the list `skipped`."""
    pair, types, relations, contexts = None, (), (), []
    largest, seen = ("", ""), None  # a pair after all others has not been there before
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
    with _open(path) as file:
        number = 0
        try:
            for number, line in enumerate(file, start=1):
                yield number, line
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(
                f"{path} must be a whole file, but is damaged after line {number}: "
                f"{error}"
            ) from error


def _open(path):
    with open(path, "rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return (gzip.open if is_gzip else open)(path, "rb")


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


def is_bags(dataset):
    """Tell whether a dataset holds relation bags: in memory, or in a TSV file."""
    if isinstance(dataset, (str, os.PathLike)):
        return os.fspath(dataset).lower().endswith((".tsv", ".tsv.gz"))
    return isinstance(dataset, (list, tuple)) and any(
        isinstance(item, Bag) for item in islice(dataset, 1)
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
    if isinstance(dataset, (str, os.PathLike)) and is_bags(dataset):
        skipped = [] if skipped is None else skipped
        dataset = _read_bags(os.fspath(dataset), on_error, skipped)
    elif not isinstance(dataset, (list, tuple, np.ndarray)):
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


# -- labels, subtasks, targets ----------------------------------------------------


def relation_labels(bags, relations=None, *, directed=False):
    """Label bags by their relations, as a multilabel indicator.

    Parameters
    ----------
    bags : sequence of Bag
        The samples.

    relations : sequence of str, default=None
        The relations to label, in this order; others are left out. None takes all
        that there are, sorted.

    directed : bool, default=False
        Whether the two directions of a relation are two labels, ">r" and "<r", or one,
        "r". Which entity of a pair comes first is a matter of their names alone.

    Returns
    -------
    labels : Bunch
        y : ndarray of shape (n_bags, n_relations)
            1 where the relation holds; a row of zeros is a negative. A single column is
            to scikit-learn, and so to FineTuner, a target of two classes, scored by
            accuracy unless told otherwise.
        relations : list of str
            Names of the columns.

    Raises
    ------
    ValueError
        If a relation is given twice, or with a direction although ``directed=False``.

    Examples
    --------
    >>> from sklearn_p2l.datasets import Bag, Context, relation_labels
    >>> text = [Context("Paris lies in France.", (0, 5), (14, 20))]
    >>> bags = [
    ...     Bag("France", "Paris", text, ["<capital", ">has"]),
    ...     Bag("Mont", "Paris", text),
    ... ]
    >>> relation_labels(bags)
    {'y': array([[1, 1],
           [0, 0]]), 'relations': ['capital', 'has']}
    """
    present = [
        bag.relations if directed else {r.lstrip("<>") for r in bag.relations}
        for bag in bags
    ]
    if relations is None:
        relations = sorted(set(chain.from_iterable(present)))
    relations = list(relations)
    if len(set(relations)) < len(relations):
        twice = sorted(r for r, n in Counter(relations).items() if n > 1)
        raise ValueError(f"relations must be different ones, got twice: {twice}.")
    for relation in relations:
        if (relation[:1] in ("<", ">")) != directed:
            raise ValueError(
                f"relations must be named {'with' if directed else 'without'} their "
                f"direction for directed={directed}, got {relation!r}."
            )
    column = {relation: j for j, relation in enumerate(relations)}
    y = np.zeros((len(present), len(relations)), dtype=np.int64)
    for i, names in enumerate(present):
        for name in names:
            if name in column:
                y[i, column[name]] = 1
    return Bunch(y=y, relations=relations)


def subtask_labels(bags, subtasks, *, directed=False):
    """Label bags for several subtasks, each of which has relations of its own.

    The paper splits relation prediction into subtasks by high-level relations
    (section 4.2).

    Parameters
    ----------
    bags : sequence of Bag
        The samples.

    subtasks : mapping of str to str
        The subtask of each relation; relations that are not in it are left out.

    directed : bool, default=False
        Whether labels have a direction, as in :func:`relation_labels`; the relations
        of the mapping have none.

    Returns
    -------
    labels : dict of str to Bunch
        What :func:`relation_labels` returns, for each subtask, in the order of their
        names. Bags with none of a subtask's relations are negatives there.

    Examples
    --------
    >>> from sklearn_p2l.datasets import Bag, Context, subtask_labels
    >>> text = [Context("Paris lies in France.", (0, 5), (14, 20))]
    >>> bags = [Bag("France", "Paris", text, ["<capital", ">has"])]
    >>> labels = subtask_labels(bags, {"capital": "place", "has": "part"})
    >>> labels["place"].relations, labels["place"].y
    (['capital'], array([[1]]))
    """
    if not isinstance(subtasks, Mapping) or not all(
        isinstance(name, str) for item in subtasks.items() for name in item
    ):
        raise ValueError(
            "subtasks must map names of relations to names of subtasks, got "
            f"{subtasks!r:.80}."
        )
    directions = ("<", ">") if directed else ("",)
    return {
        subtask: relation_labels(
            bags,
            sorted(
                direction + relation
                for relation, of in subtasks.items()
                if of == subtask
                for direction in directions
            ),
            directed=directed,
        )
        for subtask in sorted(set(subtasks.values()))
    }


def sample_target(
    y, *, n_positives=20, negatives_per_positive=10, strata=None, random_state=None
):
    """Draw a small target the way the paper does (section 4.2).

    Parameters
    ----------
    y : array-like of shape (n_bags, n_relations)
        Multilabel indicator, as :func:`relation_labels` returns it.

    n_positives : int, default=20
        Positive bags drawn for each relation; all where there are fewer.

    negatives_per_positive : int, default=10
        Negatives drawn for each positive; all, with a warning, where there are fewer.

    strata : array-like of shape (n_bags,), default=None
        Kind of each bag, such as the collection its text is from. Negatives then have
        the same shares of kinds as the positives, as far as there are enough, so that
        the kind does not tell one from the other. None draws from all alike.

    random_state : int, RandomState instance or None, default=None
        Decides who is drawn.

    Returns
    -------
    indices : ndarray of shape (n_drawn,)
        Rows of the target, in ascending order.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_p2l.datasets import sample_target
    >>> y = np.zeros((1000, 2), dtype=int)
    >>> y[:50, 0] = 1
    >>> y[50:55, 1] = 1
    >>> rows = sample_target(y, random_state=0)
    >>> y[rows].sum(axis=0), len(rows)
    (array([20,  5]), 275)
    """
    y = np.asarray(y)
    if y.ndim != 2 or not np.isin(y, (0, 1)).all():
        raise ValueError(
            "y must be a multilabel indicator (n_bags, n_relations) of 0 and 1, got "
            f"shape {y.shape}."
        )
    if n_positives < 1 or negatives_per_positive < 0:
        raise ValueError(
            "n_positives must be at least 1 and negatives_per_positive at least 0, got "
            f"{n_positives} and {negatives_per_positive}."
        )
    rng = check_random_state(random_state)
    drawn = [rng.permutation(np.flatnonzero(column))[:n_positives] for column in y.T]
    positives = np.unique(np.concatenate(drawn))
    if not len(positives):
        raise ValueError("y must hold at least one positive, got none.")
    pool = np.flatnonzero(~y.any(axis=1))
    n_wanted = negatives_per_positive * len(positives)
    if len(pool) < n_wanted:
        warnings.warn(
            f"There are only {len(pool)} negatives in place of {n_wanted}; all are "
            "taken.",
            UserWarning,
            stacklevel=2,
        )
        n_wanted = len(pool)
    pool = rng.permutation(pool)
    if strata is not None:
        pool = _in_proportion(pool, positives, np.asarray(strata), n_wanted)
    return np.sort(np.concatenate([positives, pool[:n_wanted]]))


def _in_proportion(pool, positives, strata, n_wanted):
    """Order the pool so that its first `n_wanted` have the positives' shares of kinds.

    Of each kind come first as many as its share; the rest follow in their order.
    """
    kinds, counts = np.unique(strata[positives], return_counts=True)
    share = dict(zip(kinds.tolist(), np.ceil(n_wanted * counts / counts.sum())))
    taken, first, rest = Counter(), [], []
    for row in pool.tolist():
        kind = strata[row]
        kind = kind.item() if hasattr(kind, "item") else kind
        taken[kind] += 1
        (first if taken[kind] <= share.get(kind, 0) else rest).append(row)
    return np.array(first + rest, dtype=np.int64)


def text_groups(bags, *, document=None):
    """Number bags so that bags which share any text have the same number.

    To be split by, as `groups` of scikit-learn's splitters or of
    ``measure_improvement``: no text is then on both sides.

    Parameters
    ----------
    bags : sequence of Bag
        The samples.

    document : callable, default=None
        Names the document of a context, ``document(context) -> str``, so that a
        document is not split either; "" for unknown. None takes its `url`.

    Returns
    -------
    groups : ndarray of shape (n_bags,)
        Numbers from 0 on. Bags are connected by a document, or by a context of the
        same text but for case, digits, blanks and punctuation, also through others.

    Examples
    --------
    >>> from sklearn_p2l.datasets import Bag, Context, text_groups
    >>> france = Context("Paris lies in France.", (0, 5), (14, 20))
    >>> europe = Context("Paris , capital of Europe .", (0, 5), (19, 25))
    >>> text_groups(
    ...     [
    ...         Bag("France", "Paris", [france]),
    ...         Bag("Europe", "Paris", [europe]),
    ...         Bag("Paris", "in", [Context("paris lies in France", (0, 5), (11, 13))]),
    ...     ]
    ... )
    array([0, 1, 0], dtype=int32)
    """
    numbers, rows, columns = {}, [], []
    for i, bag in enumerate(bags):
        for context in bag.contexts:
            name = context.url if document is None else document(context)
            text = "".join(c for c in context.text.lower() if c.isalpha())
            for key in (("text", text), ("document", name)):
                if key[1]:
                    rows.append(i)
                    columns.append(numbers.setdefault(key, len(numbers)))
    n_bags, n_keys = i + 1, len(numbers)
    shape = (n_bags + n_keys,) * 2
    edges = (np.ones(len(rows), dtype=bool), (rows, np.add(columns, n_bags)))
    _, groups = connected_components(coo_array(edges, shape=shape), directed=False)
    return np.unique(groups[:n_bags], return_inverse=True)[1].astype(np.int32)


# -- words ------------------------------------------------------------------------


def tokenize(text):
    """Split a text into words, and each punctuation mark by itself.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    words : list of str
        In lower case, each digit as 0, so that years or amounts look alike.

    spans : ndarray of shape (n_words, 2)
        Start and end of each word in the text, in characters, end excluded.

    Examples
    --------
    >>> from sklearn_p2l.datasets import tokenize
    >>> words, spans = tokenize("Born in 1984, Oslo.")
    >>> words
    ['born', 'in', '0000', ',', 'oslo', '.']
    >>> spans[2].tolist()
    [8, 12]
    """
    matches = list(_WORD.finditer(text))
    words = [_DIGIT.sub("0", match[0].lower()) for match in matches]
    spans = np.array([match.span() for match in matches], dtype=np.int64)
    return words, spans.reshape(-1, 2)


def build_vocabulary(bags, *, min_count=2, max_words=50_000):
    """List the words of bags, the most frequent first.

    Parameters
    ----------
    bags : iterable of Bag
        The text.

    min_count : int, default=2
        Words that are rarer are left out.

    max_words : int, default=50000
        At most so many.

    Returns
    -------
    vocabulary : list of str
        Words by decreasing frequency, equally frequent ones in alphabetical order.

    Examples
    --------
    >>> from sklearn_p2l.datasets import Bag, Context, build_vocabulary
    >>> text = Context("Paris lies in France, Paris does.", (0, 5), (14, 20))
    >>> build_vocabulary([Bag("France", "Paris", [text])])
    ['paris']
    """
    counts = Counter()
    for bag in bags:
        for context in bag.contexts:
            counts.update(tokenize(context.text)[0])
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [word for word, n in ordered if n >= min_count][:max_words]


def read_word_vectors(path, *, words=None, max_words=None):
    """Read pre-trained word vectors from a text file in GloVe's format.

    Parameters
    ----------
    path : str or path-like
        A file in UTF-8, plain or compressed by gzip, with one word a line, followed by
        its numbers, separated by blanks. A first line with two numbers, as word2vec
        writes it, is passed over.

    words : collection of str, default=None
        Read the vectors of these words only.

    max_words : int, default=None
        Stop after so many words.

    Returns
    -------
    words : list of str
        Words in the order of the file, in the form that :func:`tokenize` gives them;
        of several with the same form the first counts.

    vectors : ndarray of shape (n_words, n_dimensions)
        Their vectors, as float32.

    Raises
    ------
    ValueError
        If a line has not as many numbers as the first one; the message has its number.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn_p2l.datasets import read_word_vectors
    >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
    ...     _ = file.write("the 0.1 0.2\\nParis 0.3 -0.5\\n")
    ...     file.flush()
    ...     words, vectors = read_word_vectors(file.name)
    >>> words, vectors.shape
    (['the', 'paris'], (2, 2))
    """
    wanted = None if words is None else set(words)
    found, width = {}, None
    with _open(os.fspath(path)) as file:
        for number, line in enumerate(file, start=1):
            try:
                word, *numbers = line.decode("utf-8").rstrip().split(" ")
                if number == 1 and len(numbers) == 1:
                    continue  # word2vec's header: numbers of words and dimensions
                vector = np.array(numbers, dtype=np.float32)
                width = len(vector) if width is None else width
                if len(vector) != width or not width or not np.isfinite(vector).all():
                    raise ValueError(
                        f"expected {width} finite numbers, got {len(vector)}"
                    )
            except ValueError as error:
                raise ValueError(
                    f"line {number} of {path} must be a word with its vector: {error}"
                ) from error
            word = _DIGIT.sub("0", word.lower())
            if word not in found and (wanted is None or word in wanted):
                found[word] = vector
            if max_words is not None and len(found) == max_words:
                break
    if not found:
        raise ValueError(f"{path} must hold vectors of the words asked for, got none.")
    return list(found), np.stack(list(found.values()))
