"""Words: how text is split, and which words are known."""

import gzip
import os
import re
from collections import Counter
from contextlib import contextmanager

import numpy as np

_WORD = re.compile(r"\w+|[^\w\s]")
_DIGIT = re.compile(r"\d")


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
    with open_text(os.fspath(path)) as file:
        for number, line in enumerate(file, start=1):
            try:
                word, *numbers = line.decode("utf-8").rstrip().split(" ")
                if width is not None and len(numbers) > width:  # a word with blanks
                    word = " ".join([word, *numbers[:-width]])
                    numbers = numbers[-width:]
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


@contextmanager
def open_text(path):
    """Open a file of bytes, plain or compressed by gzip; also one to be read once."""
    with open(path, "rb") as file:
        if file.peek(2)[:2] == b"\x1f\x8b":
            with gzip.open(file) as unpacked:
                yield unpacked
        else:
            yield file
