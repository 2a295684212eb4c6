"""Relation tasks: labels, subtasks, small targets, and splits of bags."""

import warnings
from collections import Counter
from collections.abc import Mapping
from itertools import chain

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.utils import Bunch, check_random_state


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
            to scikit-learn, and so to classifiers, a target of two classes, scored by
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
            "taken. Give more unrelated pairs, or pass a lower negatives_per_positive.",
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
    bags = list(bags)
    numbers, rows, columns = {}, [], []
    for i, bag in enumerate(bags):
        for context in bag.contexts:
            name = context.url if document is None else document(context)
            text = "".join(c for c in context.text.lower() if c.isalpha())
            for key in (("text", text), ("document", name)):
                if key[1]:
                    rows.append(i)
                    columns.append(numbers.setdefault(key, len(numbers)))
    n_bags, n_keys = len(bags), len(numbers)
    shape = (n_bags + n_keys,) * 2
    columns = np.array(columns, dtype=np.int64) + n_bags
    edges = (np.ones(len(rows), dtype=bool), (rows, columns))
    _, groups = connected_components(coo_array(edges, shape=shape), directed=False)
    return np.unique(groups[:n_bags], return_inverse=True)[1].astype(np.int32)
