"""Bars: the ranking of one target, and the sizes of the sources."""

import numpy as np

from sklearn_p2l.metrics import (
    _check_top,
)
from sklearn_p2l.plotting._drawing import (
    BLUE,
    ORANGE,
    check_names,
    check_numbers,
    check_selector,
    check_sizes,
    draw_legend,
    drawn,
    name_rows,
    new_axes,
)


class RankingDisplay:
    """The ranking of one target, and what it is made of: equation 2 as bars.

    For each source, best on top, the bars of the size and of the divergence are
    stacked, negative ones to the left of 0, and a marker shows their sum E. Sources
    that may not be used (E = -inf) are left out.

    Parameters
    ----------
    size_term : ndarray of shape (n_sources,)
        ``z(log|s|)``, the first term of `SourceSelector.decision_terms`.
    divergence_term : ndarray of shape (n_sources,)
        k * z(D), the second one.
    names : list of str
        Names of the sources.

    Attributes
    ----------
    size_bars_, divergence_bars_ : matplotlib BarContainer
        The bars, best source first.
    scores_ : matplotlib Line2D
        The markers at E.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from sklearn_p2l.plotting import RankingDisplay
    >>> display = RankingDisplay.from_predictions(
    ...     [0.9, -1.3], [-0.6, 1.2], names=["cars", "birds"]
    ... )
    >>> [label.get_text() for label in display.ax_.get_yticklabels()]
    ['cars', 'birds']
    """

    def __init__(self, *, size_term, divergence_term, names):
        self.size_term = size_term
        self.divergence_term = divergence_term
        self.names = names

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
        """
        E = self.size_term + self.divergence_term
        order = np.argsort(-E, kind="stable")
        order = order[~np.isneginf(E[order])]
        order = order if top is None else order[: _check_top(top)]
        size, divergence = self.size_term[order], self.divergence_term[order]
        ax = new_axes(ax, width=8, rows=len(order))
        rows = np.arange(len(order))
        style = {"height": 0.7, "edgecolor": "white", "linewidth": 0.5}
        self.size_bars_ = ax.barh(rows, size, color=BLUE, label="size", **style)
        self.divergence_bars_ = ax.barh(
            rows,
            divergence,
            left=np.where(size * divergence > 0, size, 0.0),
            color=ORANGE,
            label="divergence",
            **style,
        )
        (self.scores_,) = ax.plot(
            E[order],
            rows,
            linestyle="none",
            marker="D",
            color="white",
            markeredgecolor="black",
            label="E, their sum",
        )
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_xlabel("score E = z(log|s|) + k · z(D)")
        name_rows(ax, [self.names[i] for i in order])
        draw_legend(ax, handles=[self.size_bars_, self.divergence_bars_, self.scores_])
        return drawn(self, ax)

    @classmethod
    def from_estimator(cls, estimator, x, *, top=None, ax=None):
        """Rank the sources for one target and draw the ranking.

        Parameters
        ----------
        estimator : SourceSelector
            Fitted selector.
        x : array-like of shape (n_features,) or (1, n_features)
            Summary of the target.
        top, ax
            As in `plot`.

        Returns
        -------
        display : RankingDisplay
        """
        check_selector(estimator)
        if np.ndim(x) == 1:
            x = x.to_frame().T if hasattr(x, "to_frame") else np.asanyarray(x)[None]
        if len(x) != 1:
            raise ValueError(
                f"x must be one target, got {len(x)} rows; pass one of them, X[i]."
            )
        size_term, divergence_term = estimator.decision_terms(x)
        names = estimator.source_labels_
        return cls.from_predictions(
            size_term[0], divergence_term[0], names=names, top=top, ax=ax
        )

    @classmethod
    def from_predictions(cls, size_term, divergence_term, *, names, top=None, ax=None):
        """Draw the ranking for given terms.

        Takes the parameters of the class, and those of `plot`.
        """
        size_term = check_numbers(size_term, "size_term", 1, finite=False)
        divergence_term = check_numbers(
            divergence_term, "divergence_term", 1, size_term.shape, finite=False
        )
        E = size_term + divergence_term
        if np.isnan(E).any() or np.isposinf(E).any() or np.isneginf(E).all():
            raise ValueError(
                "size_term and divergence_term must be finite for some source, and "
                f"-inf for those left out, got the sums {E}; pass decision_terms(X)[i]."
            )
        names = check_names(names, "names", len(E))
        display = cls(size_term=size_term, divergence_term=divergence_term, names=names)
        return display.plot(ax, top=top)


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
    figure_ : matplotlib Figure

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
        """Draw the sizes of a selector's sources.

        Parameters
        ----------
        estimator : SourceSelector
            Fitted selector.
        ax
            As in `plot`.

        Returns
        -------
        display : SourceSizesDisplay
        """
        check_selector(estimator)
        return cls.from_predictions(
            estimator.sources_.sizes, estimator.source_labels_, ax=ax
        )

    @classmethod
    def from_predictions(cls, sizes, names, *, ax=None):
        """Draw given sizes.

        Takes the parameters of the class, and those of `plot`.
        """
        sizes = check_sizes(sizes)
        return cls(sizes=sizes, names=check_names(names, "names", len(sizes))).plot(ax)
