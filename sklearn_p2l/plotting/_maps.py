"""Maps: one point per target and source, or per target."""

import numpy as np

from sklearn_p2l._ranking import zscore
from sklearn_p2l.metrics import (
    align_columns,
    spearman_score,
)
from sklearn_p2l.plotting._drawing import (
    BLUE,
    COLORS,
    MARKERS,
    RED,
    check_measured,
    check_names,
    check_numbers,
    check_sizes,
    divergences_of,
    draw_legend,
    drawn,
    label_points,
    metric_suffix,
    new_axes,
)


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
    figure_ : matplotlib Figure

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
                label=self.target_names[i] if each else None,
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
            Fitted, with `decision_function`: a selector, pipeline or baseline.
        X : array-like of shape (n_targets, n_features)
            What the estimator takes: summaries of the targets, for a selector.
        y : array-like or DataFrame of shape (n_targets, n_sources)
            Measured improvements, NaN where not measured.
        target_names : list of str, default=None
            Names for the legend; None takes the index of a DataFrame `y`, or numbers.
        ax
            As in `plot`.

        Returns
        -------
        display : ScoreImprovementDisplay
        """
        scores = estimator.decision_function(X)
        return cls.from_predictions(y, scores, target_names=target_names, ax=ax)

    @classmethod
    def from_predictions(cls, y, scores, *, target_names=None, ax=None):
        """Draw the points for given scores.

        Parameters
        ----------
        y : array-like or DataFrame of shape (n_targets, n_sources)
            Measured improvements, NaN where not measured.
        scores : array-like of shape (n_targets, n_sources)
            Predicted scores E, higher is better; -inf is left out.
        target_names : list of str, default=None
            Names for the legend; None takes the index of a DataFrame `y`, or numbers.
        ax
            As in `plot`.

        Returns
        -------
        display : ScoreImprovementDisplay
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
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

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
        estimator : SourceSelector
            Fitted selector; gives sources and divergence.
        X : array-like of shape (n_targets, n_features)
            Summaries of the targets.
        y : array-like or DataFrame of shape (n_targets, n_sources)
            Measured improvements, NaN where not measured.
        standardize, ax
            As in `plot`.

        Returns
        -------
        display : SizeSimilarityDisplay
        """
        D, y = divergences_of(estimator, X, y)
        sizes, metric = estimator.sources_.sizes, estimator.metric
        return cls.from_predictions(
            sizes, D, y, metric=metric, standardize=standardize, ax=ax
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

        Takes the parameters of the class, and those of `plot`.
        """
        if hasattr(divergences, "columns"):
            names = list(divergences.columns)
            if hasattr(improvements, "columns"):
                improvements = align_columns(improvements, names)
            if hasattr(sizes, "loc") and set(sizes.index) == set(names):
                sizes = sizes.loc[names]
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
    figure_ : matplotlib Figure

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
        self.losses_ = points(y < 0, f"{self.reference} wins", RED, "v")
        self.ties_ = points(y == 0, "tie", "grey", "o")
        shown = np.flatnonzero(known) if self.target_names else []
        ax.margins(x=0.15, y=0.1)
        ax.set_xlabel(f"divergence from {self.reference}{metric_suffix(self.metric)}")
        ax.set_ylabel(f"improvement by {self.source}\n− by {self.reference}")
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
        estimator : SourceSelector
            Fitted selector; gives sources and divergence.
        X : array-like of shape (n_targets, n_features)
            Summaries of the targets.
        y : array-like or DataFrame of shape (n_targets, n_sources)
            Measured improvements, NaN where not measured.
        source, reference : str
            Names of the two sources.
        target_names : list of str, default=None
            Names to write beside the points; None writes none.
        ax
            As in `plot`.

        Returns
        -------
        display : SourceComparisonDisplay
        """
        D, y = divergences_of(estimator, X, y)
        names = estimator.source_labels_.tolist()
        for parameter, name in (("source", source), ("reference", reference)):
            if name not in names:
                raise ValueError(
                    f"{parameter} must be the name of a source, got {name!r}; pass one "
                    f"of {names}."
                )
        reference_column = names.index(reference)
        return cls.from_predictions(
            D[:, reference_column],
            y[:, names.index(source)] - y[:, reference_column],
            source=source,
            reference=reference,
            metric=estimator.metric,
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

        Takes the parameters of the class, and those of `plot`.
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
