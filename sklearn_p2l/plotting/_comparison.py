"""Two sources against each other: one point per target."""

import numpy as np

from sklearn_p2l.metrics import spearman_score
from sklearn_p2l.plotting._drawing import (
    BLUE,
    RED,
    check_names,
    check_numbers,
    check_ranker,
    divergences_and_measured,
    draw_legend,
    drawn,
    label_points,
    metric_suffix,
    new_axes,
    plain,
)


class SourceComparisonDisplay:
    """One source against another over divergence (Figure 8).

    One point per target: its divergence from the `reference`, and how much more
    `source` improved it than `reference` did. Above the zero line `source` wins.

    Parameters
    ----------
    divergences : ndarray of shape (n_targets,)
        Divergences of the targets from `reference`.

    differences : ndarray of shape (n_targets,)
        Improvements by `source` less those by `reference`, NaN where one of them was
        not measured.

    source : str
        Name of the source in question.

    reference : str
        Name of the source that it is compared with.

    metric : str, default=None
        Name of the divergence, for the label.

    target_names : list of str, default=None
        Names to write beside the points.

    Attributes
    ----------
    wins_, losses_, ties_ : matplotlib PathCollection
        The points above, below and on the zero line.

    line_ : matplotlib Line2D
        The zero line.

    labels_ : list of matplotlib Annotation
        The names of the targets.

    text_ : matplotlib Text
        Spearman correlation of divergence and difference.

    ax_ : matplotlib Axes
        Axes drawn on.

    figure_ : matplotlib Figure
        Figure of the axes.

    Examples
    --------
    >>> from sklearn_p2l.plotting import SourceComparisonDisplay
    >>> display = SourceComparisonDisplay.from_predictions(
    ...     [0.1, 0.2, 0.9], [-0.3, -0.1, 0.2], source="merged", reference="animals"
    ... )
    >>> display.text_.get_text()
    'ρ = 1.00'
    """

    def __init__(
        self,
        *,
        divergences,
        differences,
        source,
        reference,
        metric=None,
        target_names=None,
    ):
        self.divergences = divergences
        self.differences = differences
        self.source = source
        self.reference = reference
        self.metric = metric
        self.target_names = target_names

    def plot(self, ax=None):
        """Draw the comparison.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : SourceComparisonDisplay
            This display, with its artists.
        """
        x, y = self.divergences, self.differences
        known = ~np.isnan(y)
        rho = spearman_score([y[known]], [x[known]], average=None)[0]
        ax = new_axes(ax, width=8)

        def points(chosen, name, color, marker):
            label = f"{name} ({chosen.sum()})" if chosen.any() else None
            style = {"edgecolors": "black", "linewidths": 0.4, "label": label}
            return ax.scatter(x[chosen], y[chosen], c=color, marker=marker, **style)

        self.line_ = ax.axhline(0, color="black", linewidth=0.8)
        self.wins_ = points(y > 0, f"{self.source} wins", BLUE, "^")
        self.losses_ = points(y < 0, f"{plain(self.reference)} wins", RED, "v")
        self.ties_ = points(y == 0, "tie", "grey", "o")
        shown = np.flatnonzero(known) if self.target_names else []
        ax.margins(x=0.15, y=0.1)
        ax.set_xlabel(
            f"divergence from {plain(self.reference)}{metric_suffix(self.metric)}"
        )
        ax.set_ylabel(
            f"improvement by {plain(self.source)}\n− by {plain(self.reference)}"
        )
        self.text_ = draw_legend(ax, title=f"ρ = {rho:.2f}")
        names = [self.target_names[i] for i in shown]
        self.labels_ = label_points(ax, x[shown], y[shown], names)
        return drawn(self, ax)

    @classmethod
    def from_estimator(
        cls, estimator, X, y, *, source, reference, target_names=None, ax=None
    ):
        """Compute the divergences from `reference` and draw the comparison.

        Parameters
        ----------
        estimator : estimator
            A fitted ranker that has `divergences` (SourceSelector, NearestSource), a
            pipeline that ends in one, or a search over either.

        X : array-like of shape (n_targets, n_features), or sequence of datasets
            The targets, as the estimator takes them.

        y : array-like or DataFrame of shape (n_targets, n_sources)
            Measured improvements, NaN where not measured; columns of a DataFrame are
            matched to the sources by name.

        source : str
            Name of the source in question.

        reference : str
            Name of the source that it is compared with.

        target_names : sequence of str, default=None
            Names to write beside the points; None writes none.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : SourceComparisonDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If there are no such sources, `y` is misaligned, or no target was measured
            with both.
        """
        ranker = check_ranker(estimator, "divergences")
        names = ranker.source_labels_.tolist()
        for parameter, name in (("source", source), ("reference", reference)):
            if name not in names:
                raise ValueError(
                    f"{parameter} must be the name of a source, got {name!r}; pass one "
                    f"of {names}."
                )
        D, y = divergences_and_measured(estimator, X, y)
        i, j = names.index(source), names.index(reference)
        return cls.from_predictions(
            D[:, j],
            y[:, i] - y[:, j],
            source=source,
            reference=reference,
            metric=ranker.metric,
            target_names=target_names,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        divergences,
        differences,
        *,
        source,
        reference,
        metric=None,
        target_names=None,
        ax=None,
    ):
        """Draw the comparison for given divergences and differences.

        Parameters
        ----------
        divergences : array-like of shape (n_targets,)
            Divergences of the targets from `reference`; NaN is left out.

        differences : array-like of shape (n_targets,)
            Improvements by `source` less those by `reference`, NaN where one of them
            was not measured.

        source : str
            Name of the source in question.

        reference : str
            Name of the source that it is compared with.

        metric : str, default=None
            Name of the divergence, for the label.

        target_names : sequence of str, default=None
            Names to write beside the points; None writes none.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : SourceComparisonDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If shapes differ, or nothing was measured.
        """
        divergences = check_numbers(divergences, "divergences", 1)
        differences = check_numbers(differences, "differences", 1, divergences.shape)
        differences = np.where(np.isnan(divergences), np.nan, differences)
        if np.isnan(differences).all():
            raise ValueError(
                "differences must hold measured ones, got NaN only; take sources that "
                "were measured on the same targets."
            )
        if target_names is not None:
            target_names = check_names(target_names, "target_names", len(divergences))
        display = cls(
            divergences=divergences,
            differences=differences,
            source=source,
            reference=reference,
            metric=metric,
            target_names=target_names,
        )
        return display.plot(ax)
