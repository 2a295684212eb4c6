"""Maps: one point per target and source."""

import numpy as np

from sklearn_p2l._alignment import align_columns, reorder_rows
from sklearn_p2l.metrics import spearman_score
from sklearn_p2l.plotting._drawing import (
    COLORS,
    MARKERS,
    check_measured,
    check_names,
    check_numbers,
    check_ranker,
    check_sizes,
    divergences_and_measured,
    draw_legend,
    drawn,
    measured_and_scores,
    metric_suffix,
    new_axes,
    plain,
)
from sklearn_p2l.selection._ranker import known_sizes, zscore


class ScoreImprovementDisplay:
    """Predicted scores against measured improvements (Figure 6).

    Up to 8 targets have a colour and a marker each. The text tells the mean of the
    targets' Spearman correlations.

    Parameters
    ----------
    y : ndarray of shape (n_targets, n_sources)
        Measured improvements I, NaN where not measured.

    scores : ndarray of shape (n_targets, n_sources)
        Predicted scores E.

    target_names : list of str
        Names of the targets.

    Attributes
    ----------
    scatters_ : list of matplotlib PathCollection
        The points: one collection per target, or a single one for more than 8.

    text_ : matplotlib Text
        The mean correlation.

    ax_ : matplotlib Axes
        Axes drawn on.

    figure_ : matplotlib Figure
        Figure of the axes.

    Examples
    --------
    >>> from sklearn_p2l.plotting import ScoreImprovementDisplay
    >>> display = ScoreImprovementDisplay.from_predictions([[0.3, 0.1]], [[1.0, -1.0]])
    >>> display.text_.get_text()
    'mean ρ = 1.00'
    """

    def __init__(self, *, y, scores, target_names):
        self.y = y
        self.scores = scores
        self.target_names = target_names

    def plot(self, ax=None):
        """Draw the points.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : ScoreImprovementDisplay
            This display, with its artists.
        """
        rho = spearman_score(self.y, self.scores)
        each = len(self.y) <= len(COLORS)
        ax = new_axes(ax, width=8 if each else 6.4)
        groups = zip(self.scores, self.y) if each else [(self.scores, self.y)]
        self.scatters_ = []
        for i, (scores, y) in enumerate(groups):
            measured = ~np.isnan(y)
            scatter = ax.scatter(
                scores[measured],
                y[measured],
                color=COLORS[i],
                marker=MARKERS[i],
                edgecolors="black",
                linewidths=0.4,
                alpha=0.85,
                label=plain(self.target_names[i]) if each else None,
            )
            self.scatters_.append(scatter)
        ax.set(xlabel="predicted score E", ylabel="measured improvement I")
        self.text_ = draw_legend(ax, title=f"mean ρ = {rho:.2f}", outside=each)
        return drawn(self, ax)

    @classmethod
    def from_estimator(cls, estimator, X, y, *, target_names=None, ax=None):
        """Score the sources of every target and draw the points.

        Parameters
        ----------
        estimator : estimator
            Fitted, with `decision_function`: a ranker, a pipeline that ends in one, or
            a search over either.

        X : array-like of shape (n_targets, n_features), or sequence of datasets
            The targets, as the estimator takes them.

        y : array-like or DataFrame of shape (n_targets, n_sources)
            Measured improvements, NaN where not measured; columns of a DataFrame are
            matched to the sources by name.

        target_names : sequence of str, default=None
            Names for the legend; None takes the index of a DataFrame `y`, or numbers.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : ScoreImprovementDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If `y` is misaligned, or holds no measured candidate.
        """
        if target_names is None and hasattr(y, "columns"):
            target_names = y.index
        y, scores = measured_and_scores(estimator, X, y)
        return cls.from_predictions(y, scores, target_names=target_names, ax=ax)

    @classmethod
    def from_predictions(cls, y, scores, *, target_names=None, ax=None):
        """Draw the points for given scores.

        Parameters
        ----------
        y : array-like or DataFrame of shape (n_targets, n_sources)
            Measured improvements, NaN where not measured.

        scores : array-like or DataFrame of shape (n_targets, n_sources)
            Predicted scores E, higher is better; -inf is left out. Where both are
            DataFrames, columns are matched by name.

        target_names : sequence of str, default=None
            Names for the legend; None takes the index of a DataFrame `y`, or numbers.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : ScoreImprovementDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If `y` and `scores` differ in shape, or `y` holds no measured candidate.
        """
        if target_names is None:
            target_names = y.index if hasattr(y, "columns") else range(len(y))
        y, scores = check_measured(y, scores)
        target_names = check_names(target_names, "target_names", len(y))
        return cls(y=y, scores=scores, target_names=target_names).plot(ax)


class SizeSimilarityDisplay:
    """Size and nearness of the sources, and what they improved (Figure 4).

    A bubble map with one bubble per measured pair of target and source: to the right
    are larger sources, at the top nearer ones. Colour and area of a bubble show the
    improvement.

    Parameters
    ----------
    sizes : ndarray of shape (n_sources,)
        Sizes of the sources.

    divergences : ndarray of shape (n_targets, n_sources)
        Divergences D, smaller is nearer.

    improvements : array-like or DataFrame of shape (n_targets, n_sources)
        Measured improvements, NaN where not measured.

    metric : str, default=None
        Name of the divergence, for the label.

    Attributes
    ----------
    scatter_ : matplotlib PathCollection
        The bubbles, larger ones first.

    colorbar_ : matplotlib Colorbar
        The scale of the colours.

    ax_ : matplotlib Axes
        Axes drawn on.

    figure_ : matplotlib Figure
        Figure of the axes.

    Examples
    --------
    >>> from sklearn_p2l.plotting import SizeSimilarityDisplay
    >>> display = SizeSimilarityDisplay.from_predictions(
    ...     [100, 10_000], [[0.2, 0.5]], [[0.1, 0.3]]
    ... )
    >>> display.scatter_.get_array()
    masked_array(data=[0.3, 0.1],
                 mask=False,
           fill_value=1e+20)
    """

    def __init__(self, *, sizes, divergences, improvements, metric=None):
        self.sizes = sizes
        self.divergences = divergences
        self.improvements = improvements
        self.metric = metric

    def plot(self, ax=None, *, standardize=False):
        """Draw the map.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        standardize : bool, default=False
            Whether to scale the improvements of each target to mean 0 and standard
            deviation 1, so that targets of differing difficulty compare.

        Returns
        -------
        display : SizeSimilarityDisplay
            This display, with its artists.
        """
        ax = new_axes(ax)
        values = zscore(self.improvements) if standardize else self.improvements
        targets, sources = np.nonzero(~np.isnan(self.improvements))
        order = np.argsort(-values[targets, sources], kind="stable")
        targets, sources = targets[order], sources[order]
        values = values[targets, sources]
        self.scatter_ = ax.scatter(
            self.sizes[sources],
            self.divergences[targets, sources],
            s=15 + 205 * (values - values.min()) / (np.ptp(values) or 1.0),
            c=values,
            cmap="viridis",
            alpha=0.8,
            edgecolors="black",
            linewidths=0.4,
        )
        self.colorbar_ = ax.figure.colorbar(
            self.scatter_,
            ax=ax,
            label="improvement" + (", z within target" if standardize else ""),
        )
        ax.margins(0.08)
        ax.set_xscale("log")
        ax.yaxis.set_inverted(True)
        metric = metric_suffix(self.metric)
        ax.set(xlabel="size of source", ylabel=f"divergence{metric}, nearer is up")
        return drawn(self, ax)

    @classmethod
    def from_estimator(cls, estimator, X, y, *, standardize=False, ax=None):
        """Compute the divergences and draw the map.

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

        standardize : bool, default=False
            Whether to scale the improvements of each target to mean 0 and standard
            deviation 1, so that targets of differing difficulty compare.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : SizeSimilarityDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If `y` is misaligned, or the size of a source is unknown.
        """
        ranker = check_ranker(estimator, "divergences")
        sizes = known_sizes(ranker.sources_)
        D, y = divergences_and_measured(estimator, X, y)
        return cls.from_predictions(
            sizes, D, y, metric=ranker.metric, standardize=standardize, ax=ax
        )

    @classmethod
    def from_predictions(
        cls,
        sizes,
        divergences,
        improvements,
        *,
        metric=None,
        standardize=False,
        ax=None,
    ):
        """Draw the map for given divergences.

        Parameters
        ----------
        sizes : array-like or Series of shape (n_sources,)
            Sizes of the sources, above 0.

        divergences : array-like or DataFrame of shape (n_targets, n_sources)
            Divergences D, smaller is nearer; NaN is left out. The columns of a
            DataFrame name the sources, and those of `improvements` and the index of
            `sizes` are matched to them.

        improvements : array-like or DataFrame of shape (n_targets, n_sources)
            Measured improvements, NaN where not measured.

        metric : str, default=None
            Name of the divergence, for the label.

        standardize : bool, default=False
            Whether to scale the improvements of each target to mean 0 and standard
            deviation 1, so that targets of differing difficulty compare.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : SizeSimilarityDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If shapes differ, a size is not positive, or nothing was measured.
        """
        if hasattr(divergences, "columns"):
            names = list(divergences.columns)
            sizes = reorder_rows(sizes, names)
            if hasattr(improvements, "columns"):
                improvements = align_columns(improvements, names)
        divergences = check_numbers(divergences, "divergences", 2)
        improvements = check_numbers(improvements, "improvements", 2, divergences.shape)
        improvements = np.where(np.isnan(divergences), np.nan, improvements)
        if np.isnan(improvements).all():
            raise ValueError(
                "improvements must hold measured ones, got NaN only; measure some."
            )
        sizes = check_sizes(sizes, divergences.shape[1])
        display = cls(
            sizes=sizes,
            divergences=divergences,
            improvements=improvements,
            metric=metric,
        )
        return display.plot(ax, standardize=standardize)
