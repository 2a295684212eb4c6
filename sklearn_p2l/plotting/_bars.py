"""Bars: the ranking of one target, and the sizes of the sources."""

from collections.abc import Mapping
from numbers import Real

import numpy as np

from sklearn_p2l._provenance import Vectors
from sklearn_p2l.metrics import _check_top
from sklearn_p2l.plotting._drawing import (
    BLUE,
    COLORS,
    check_names,
    check_numbers,
    check_ranker,
    check_sizes,
    draw_legend,
    drawn,
    name_rows,
    new_axes,
)
from sklearn_p2l.selection._explain import chances_of_best
from sklearn_p2l.selection._pipeline import ranker_and_vectors
from sklearn_p2l.selection._ranker import known_sizes


class RankingDisplay:
    """The ranking of one target, and what it is made of: the terms of E as bars.

    For each source, best on top, the bars of all terms are stacked, positive ones to
    the right of 0 and negative ones to the left, and a marker shows their sum E.
    Sources that may not be used (E = -inf) are left out. Where the ranker tells it,
    the chance of being the best stands on the right.

    Parameters
    ----------
    terms : dict of str to ndarray of shape (n_sources,)
        The terms by name, as `decision_terms` of a ranker gives them.

    names : list of str
        Names of the sources.

    order : ndarray of int
        Positions of the sources, best first.

    p_best : ndarray of shape (n_sources,), default=None
        The chance of each source to be the best.

    Attributes
    ----------
    bars_ : dict of str to matplotlib BarContainer
        The bars of each term, best source first.

    scores_ : matplotlib Line2D
        The markers at E.

    ax_ : matplotlib Axes
        Axes with the bars.

    figure_ : matplotlib Figure
        Figure of the axes.

    See Also
    --------
    sklearn_p2l.selection.explain : The same as a table.

    Examples
    --------
    >>> from sklearn_p2l.plotting import RankingDisplay
    >>> display = RankingDisplay.from_predictions(
    ...     {"size": [-1.3, 0.9], "divergence": [1.2, -0.6]}, names=["birds", "cars"]
    ... )
    >>> [label.get_text() for label in display.ax_.get_yticklabels()]
    ['cars', 'birds']
    """

    def __init__(self, *, terms, names, order, p_best=None):
        self.terms = terms
        self.names = names
        self.order = order
        self.p_best = p_best

    def plot(self, ax=None, *, top=None):
        """Draw the ranking.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        top : int, default=None
            Number of best sources to show; None shows all.

        Returns
        -------
        display : RankingDisplay
            This display, with its artists.
        """
        E = sum(self.terms.values())
        order = self.order[~np.isneginf(E[self.order])]
        order = order if top is None else order[: _check_top(top)]
        ax = new_axes(ax, width=8, rows=len(order))
        rows = np.arange(len(order))
        right, left = np.zeros(len(order)), np.zeros(len(order))  # ends of the stacks
        self.bars_ = {}
        for i, (name, term) in enumerate(self.terms.items()):
            term = term[order]
            self.bars_[name] = ax.barh(
                rows,
                term,
                left=np.where(term > 0, right, left),
                height=0.7,
                color=COLORS[i % len(COLORS)],
                hatch="/" * (i // len(COLORS)),
                edgecolor="white",
                linewidth=0.5,
                label=name,
            )
            right += np.maximum(term, 0)
            left += np.minimum(term, 0)
        (self.scores_,) = ax.plot(
            E[order],
            rows,
            linestyle="none",
            marker="D",
            color="white",
            markeredgecolor="black",
            label="E, their sum" if len(self.terms) > 1 else "E",
        )
        ax.axvline(0, color="black", linewidth=0.8)
        if self.terms.keys() == {"size", "divergence"}:
            ax.set_xlabel("score E = z(log|s|) + k · z(D)")
        else:
            ax.set_xlabel("score E, the sum of its terms")
        name_rows(ax, [self.names[i] for i in order])
        if self.p_best is not None:
            right = ax.secondary_yaxis("right")
            right.set_yticks(rows, [f"{self.p_best[i]:.0%}" for i in order])
            right.set_ylabel("P(best)")
        draw_legend(
            ax,
            handles=[*self.bars_.values(), self.scores_],
            away=0.01 if self.p_best is None else 0.14,
        )
        return drawn(self, ax)

    @classmethod
    def from_estimator(cls, estimator, x, *, top=None, ax=None):
        """Rank the sources for one target and draw the ranking.

        Parameters
        ----------
        estimator : estimator
            A fitted ranker, a pipeline that ends in one, or a search over either.

        x : array-like of shape (n_features,) or (1, n_features), or list of a dataset
            One target, as the estimator takes it: a summary, or ``[dataset]`` for a
            pipeline that embeds datasets.

        top : int, default=None
            Number of best sources to show; None shows all.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : RankingDisplay
            The display, in the order of the estimator's `predict`.

        Raises
        ------
        ValueError
            If `x` is not one target, or comes from another reference network than the
            sources.
        """
        check_ranker(estimator, "decision_terms")
        ranker, X = ranker_and_vectors(estimator, _one_target(x))
        terms = ranker.decision_terms(X)
        order = ranker._order(sum(terms.values()))[0]
        chances = chances_of_best(ranker, X)
        return cls.from_predictions(
            {name: term[0] for name, term in terms.items()},
            names=ranker.source_labels_,
            order=order[order >= 0],  # -1 stands for no source
            p_best=None if chances is None else chances[0],
            top=top,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls, terms, *, names, order=None, p_best=None, top=None, ax=None
    ):
        """Draw the ranking for given terms.

        Parameters
        ----------
        terms : mapping of str to array-like of shape (n_sources,)
            The terms of one target by name, such as "size" and "divergence", whose
            sum is E; a source whose sum is -inf is left out.

        names : sequence of str of length n_sources
            Names of the sources.

        order : array-like of int, default=None
            Positions of the sources, best first; those that are absent are left out.
            None orders them by E.

        p_best : array-like of shape (n_sources,), default=None
            The chance of each source to be the best, as `predict_proba` of an
            EvidenceSelector gives it for one target.

        top : int, default=None
            Number of best sources to show; None shows all.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : RankingDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If terms, names and order are not of one length, or no source has a
            finite E.
        """
        if not isinstance(terms, Mapping) or not terms:
            raise ValueError(
                "terms must be a mapping of names to arrays, got "
                f'{type(terms).__name__}; pass {{"size": ..., "divergence": ...}}.'
            )
        checked, shape = {}, None
        for name, term in terms.items():
            term = check_numbers(term, f"terms[{name!r}]", 1, shape, finite=False)
            checked[name], shape = term, term.shape
        E = sum(checked.values())
        if np.isnan(E).any() or np.isposinf(E).any() or np.isneginf(E).all():
            raise ValueError(
                "terms must be finite for some source, and -inf for those left out, "
                f"got the sums {E}; pass what decision_terms returns for one target."
            )
        names = check_names(names, "names", len(E))
        if p_best is not None:
            p_best = check_numbers(p_best, "p_best", 1, shape)
        order = _check_order(order, E)
        display = cls(terms=checked, names=names, order=order, p_best=p_best)
        return display.plot(ax, top=top)


def _one_target(x):
    """`x` as a batch of one target, if it is a single vector; else as it is."""
    is_vector = getattr(getattr(x, "dtype", None), "kind", "") in ("b", "i", "u", "f")
    if isinstance(x, (list, tuple)):
        is_vector = all(isinstance(value, Real) for value in x)
        x = np.array(x) if is_vector else x
    if is_vector and x.ndim == 1:
        if hasattr(x, "to_frame"):
            x = x.to_frame().T
        elif isinstance(x, Vectors):
            means = None if x.class_means is None else [x.class_means]
            x = Vectors(np.asarray(x)[np.newaxis], x.fingerprint, means)
        else:
            x = x[np.newaxis]
    if len(x) != 1:
        raise ValueError(
            f"x must be one target, got {len(x)} rows; pass one of them, X[i], or for "
            "a pipeline that embeds datasets a list of one, [dataset]."
        )
    return x


def _check_order(order, E):
    if order is None:
        return np.argsort(-E, kind="stable")
    order = np.asarray(order)
    allowed = np.isin(np.arange(len(E)), order)
    if order.dtype.kind not in "iu" or order.shape != (allowed.sum(),):
        raise ValueError(
            f"order must hold positions of the sources, from 0 to {len(E) - 1} and "
            f"each at most once, got {order.tolist()}."
        )
    return order


class SourceSizesDisplay:
    """Sizes of the sources as horizontal bars, largest on top (Figure 5).

    The bars are decimal logarithms; the sizes themselves stand beside them.

    Parameters
    ----------
    sizes : ndarray of shape (n_sources,)
        Sizes of the sources.

    names : list of str
        Names of the sources.

    Attributes
    ----------
    bars_ : matplotlib BarContainer
        The bars, largest source first.

    ax_ : matplotlib Axes
        Axes with the bars.

    figure_ : matplotlib Figure
        Figure of the axes.

    Examples
    --------
    >>> from sklearn_p2l.plotting import SourceSizesDisplay
    >>> display = SourceSizesDisplay.from_predictions([100, 10_000], ["birds", "cars"])
    >>> display.bars_.datavalues
    array([4., 2.])
    """

    def __init__(self, *, sizes, names):
        self.sizes = sizes
        self.names = names

    def plot(self, ax=None):
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : SourceSizesDisplay
            This display, with its artists.
        """
        ax = new_axes(ax, rows=len(self.sizes))
        order = np.argsort(-self.sizes, kind="stable")
        sizes = self.sizes[order]
        self.bars_ = ax.barh(range(len(order)), np.log10(sizes), 0.7, color=BLUE)
        ax.bar_label(
            self.bars_, [f"{size:,.10g}" for size in sizes], padding=3, fontsize="small"
        )
        ax.margins(x=0.18)
        ax.set_xlabel(r"$\log_{10}$(size)")
        name_rows(ax, [self.names[i] for i in order])
        return drawn(self, ax)

    @classmethod
    def from_estimator(cls, estimator, *, ax=None):
        """Draw the sizes of a ranker's sources.

        Parameters
        ----------
        estimator : estimator
            A fitted ranker, a pipeline that ends in one, or a search over either.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : SourceSizesDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the size of a source is unknown.
        """
        ranker = check_ranker(estimator, "decision_terms")
        sizes = known_sizes(ranker.sources_)
        return cls.from_predictions(sizes, ranker.source_labels_, ax=ax)

    @classmethod
    def from_predictions(cls, sizes, names, *, ax=None):
        """Draw given sizes.

        Parameters
        ----------
        sizes : array-like of shape (n_sources,)
            Sizes of the sources, above 0.

        names : sequence of str of length n_sources
            Names of the sources.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : SourceSizesDisplay
            The display, drawn.
        """
        sizes = check_sizes(sizes)
        return cls(sizes=sizes, names=check_names(names, "names", len(sizes))).plot(ax)
