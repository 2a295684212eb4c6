"""Curves: correlation against k, and targets solved against picks."""

import warnings
from collections.abc import Mapping

import numpy as np
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from sklearn_p2l._alignment import last_step
from sklearn_p2l.exceptions import LearnedWeightWarning
from sklearn_p2l.metrics import picks_to_best_loss
from sklearn_p2l.plotting._drawing import (
    COLORS,
    LINES,
    MARKERS,
    check_measured,
    check_ranker,
    draw_legend,
    drawn,
    measured_and_scores,
    metric_name,
    new_axes,
    plain,
)
from sklearn_p2l.selection._pipeline import check_signs, ranker_and_vectors
from sklearn_p2l.selection._sweep import widest_best


class KCurveDisplay:
    """Mean Spearman correlation against k, one step line per divergence (Figure 1).

    A marker shows the k that is chosen: the middle of the widest best interval.

    Parameters
    ----------
    curves : mapping of str to array-like of shape (n_intervals, 3)
        Name and ``k_curve_`` of each line: left ends, right ends, correlations.

    Attributes
    ----------
    lines_ : list of matplotlib Line2D
        The step lines, in the order of `curves`.

    best_ : list of matplotlib Line2D
        The markers at the chosen k.

    ax_ : matplotlib Axes
        Axes drawn on.

    figure_ : matplotlib Figure
        Figure of the axes.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_p2l.plotting import KCurveDisplay
    >>> curve = [[-np.inf, -2, 0.4], [-2, -1, 0.7], [-1, np.inf, 0.3]]
    >>> display = KCurveDisplay.from_predictions({"KL": curve})
    >>> display.best_[0].get_xdata()
    array([-1.5])
    """

    def __init__(self, *, curves):
        self.curves = curves

    def plot(self, ax=None, *, k_range=None):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        k_range : tuple of float, default=None
            Ends of the k axis; None takes in most breakpoints and all best intervals.

        Returns
        -------
        display : KCurveDisplay
            This display, with its artists.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LearnedWeightWarning)
            best = {name: widest_best(curve) for name, curve in self.curves.items()}
        low, high = self._range(best.values()) if k_range is None else k_range
        if not low < high:
            raise ValueError(
                f"k_range must be increasing, got {k_range}; pass (lowest, highest)."
            )
        ax = new_axes(ax, width=8)
        self.lines_, self.best_ = [], []
        for i, (name, curve) in enumerate(self.curves.items()):
            left, right, score = curve[(curve[:, 1] > low) & (curve[:, 0] < high)].T
            k, top = best[name][0], curve[:, 2].max()
            color = COLORS[i % len(COLORS)]
            (line,) = ax.plot(
                np.append(np.maximum(left, low), min(right[-1], high)),
                np.append(score, score[-1]),
                drawstyle="steps-post",
                color=color,
                linestyle=LINES[i % len(LINES)],
            )
            (marker,) = ax.plot(
                [k],
                [top],
                color=color,
                linestyle=LINES[i % len(LINES)],
                marker=MARKERS[i % len(MARKERS)],
                markersize=8,
                markeredgecolor="black",
                label=f"{plain(name)}\n(ρ = {top:.3f} at k = {k:.3g})",
            )
            self.lines_.append(line)
            self.best_.append(marker)
        ax.set(xlim=(low, high), xlabel="k", ylabel="mean Spearman correlation ρ")
        draw_legend(ax)
        return drawn(self, ax)

    def _range(self, best):
        """Ends of the k axis that show what matters."""
        ends = np.concatenate([curve[:, 0] for curve in self.curves.values()])
        ends = ends[np.isfinite(ends)]
        shown = [*np.percentile(ends, [10, 90])] if ends.size else []
        for k, interval in best:
            shown += [k, *(end for end in interval if np.isfinite(end))]
        margin = 0.05 * (max(shown) - min(shown)) or 1.0
        return min(shown) - margin, max(shown) + margin

    @classmethod
    def from_estimator(cls, estimator, X, y, *, metrics=None, k_range=None, ax=None):
        """Learn k with every metric and draw the curves.

        The estimator is not changed. Warnings on the weights that are learned are
        left out: the picture shows them.

        Parameters
        ----------
        estimator : estimator
            A SourceSelector, fitted or not, which is cloned, with ``k="auto"``, for
            each metric; a pipeline that ends in one and whose other steps are fitted;
            or a fitted search over either.

        X : array-like of shape (n_targets, n_features), or sequence of datasets
            The training targets, as the estimator takes them.

        y : array-like or DataFrame of shape (n_targets, n_sources)
            Measured improvements, NaN where not measured; columns of a DataFrame are
            matched to the sources by name.

        metrics : str or list of str, default=None
            Divergences to compare; None takes the estimator's own alone.

        k_range : tuple of float, default=None
            Ends of the k axis; None takes in most breakpoints and all best intervals.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : KCurveDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If a metric cannot compare the vectors, or `y` is misaligned.
        """
        selector = check_ranker(estimator, "k", fitted=False)
        metrics = [selector.metric] if metrics is None else metrics
        metrics = [metrics] if isinstance(metrics, str) else metrics
        selectors = [clone(selector).set_params(metric=m, k="auto") for m in metrics]
        searched = getattr(estimator, "best_estimator_", estimator)
        for selector in selectors:
            steps = [*getattr(searched, "steps", [])[:-1], ("selector", selector)]
            check_signs(Pipeline(steps), X)
        _, X = ranker_and_vectors(estimator, X)
        curves = {}
        for metric, selector in zip(metrics, selectors):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", LearnedWeightWarning)
                curves[metric_name(metric)] = selector.fit(X, y).k_curve_
        return cls.from_predictions(curves, k_range=k_range, ax=ax)

    @classmethod
    def from_predictions(cls, curves, *, k_range=None, ax=None):
        """Draw curves that selectors have learned.

        Parameters
        ----------
        curves : mapping of str to array-like of shape (n_intervals, 3)
            Name and ``k_curve_`` of each line.

        k_range : tuple of float, default=None
            Ends of the k axis; None takes in most breakpoints and all best intervals.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : KCurveDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If a curve is not of that shape, or `k_range` does not increase.
        """
        if not isinstance(curves, Mapping) or not curves:
            raise ValueError(
                "curves must be a mapping of names to curves, got "
                f'{type(curves).__name__}; pass {{"KL": selector.k_curve_}}.'
            )
        checked = {}
        for name, curve in curves.items():
            checked[name] = np.asarray(curve, dtype=np.float64)
            if checked[name].ndim != 2 or checked[name].shape[1] != 3:
                raise ValueError(
                    f"curves[{name!r}] must be of shape (n_intervals, 3), got "
                    f"{checked[name].shape}; pass a selector's k_curve_."
                )
        return cls(curves=checked).plot(ax, k_range=k_range)


class PicksDisplay:
    """Share of targets whose best source is among the first n picks (Figure 7).

    One step line per selector; the legend tells its mean number of picks.

    Parameters
    ----------
    picks : dict of str to ndarray of shape (n_targets,)
        Name of each selector, and the picks it needs to reach the best source of each
        target (:func:`~sklearn_p2l.metrics.picks_to_best_loss`).

    n_sources : int
        Number of sources: as many picks reach every best source.

    Attributes
    ----------
    lines_ : list of matplotlib Line2D
        The step lines, in the order of `picks`.

    ax_ : matplotlib Axes
        Axes drawn on.

    figure_ : matplotlib Figure
        Figure of the axes.

    Examples
    --------
    >>> from sklearn_p2l.plotting import PicksDisplay
    >>> improvements = [[0.3, 0.1, 0.2], [0.1, 0.2, 0.0]]
    >>> E = [[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]]
    >>> display = PicksDisplay.from_predictions(improvements, {"size": E})
    >>> display.lines_[0].get_ydata()
    array([0.5, 0.5, 1. ])
    """

    def __init__(self, *, picks, n_sources):
        self.picks = picks
        self.n_sources = n_sources

    def plot(self, ax=None):
        """Draw the shares.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : PicksDisplay
            This display, with its artists.
        """
        ax = new_axes(ax)
        n = np.arange(1, self.n_sources + 1)
        self.lines_ = []
        for i, (name, picks) in enumerate(self.picks.items()):
            above = min(len(self.picks) - 1 - i, 3)
            self.lines_ += ax.plot(
                n,
                np.mean(picks[:, np.newaxis] <= n, axis=0),
                drawstyle="steps-post",
                color=COLORS[i % len(COLORS)],
                linestyle=LINES[i % len(LINES)],
                marker=MARKERS[i % len(MARKERS)],
                markevery=1 + self.n_sources // 20,
                # Lines that run together stay visible: later ones are thinner.
                linewidth=1.5 + 1.2 * above,
                markersize=5 + 2 * above,
                label=f"{plain(name)} (mean {picks.mean():.3g})",
            )
        ax.set(xlabel="picks", ylabel="share of targets whose best source is reached")
        ax.set_ylim(-0.03, 1.03)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(loc="lower right")
        return drawn(self, ax)

    @classmethod
    def from_estimator(cls, estimators, X, y, *, ax=None):
        """Rank with one or several rankers and draw the shares.

        Parameters
        ----------
        estimators : estimator or mapping of str to estimator
            Fitted, with `decision_function`: rankers, pipelines that end in one,
            searches over either. All take the same `X`.

        X : array-like of shape (n_targets, n_features), or sequence of datasets
            What the estimators take.

        y : array-like or DataFrame of shape (n_targets, n_sources)
            Measured improvements, NaN where not measured; columns of a DataFrame are
            matched to the sources of each estimator by name.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : PicksDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If `y` is misaligned, or holds no target with two measured candidates.
        """
        if not isinstance(estimators, Mapping):
            estimators = {type(last_step(estimators)).__name__: estimators}
        pairs = {n: measured_and_scores(e, X, y) for n, e in estimators.items()}
        return cls._from_pairs(pairs, ax)

    @classmethod
    def from_predictions(cls, y, scores, *, ax=None):
        """Draw the shares for given scores.

        Parameters
        ----------
        y : array-like or DataFrame of shape (n_targets, n_sources)
            Measured improvements, NaN where not measured.

        scores : array-like of shape (n_targets, n_sources) or mapping of str to such
            Predicted scores E by the name of their ranker, higher is better; -inf is
            left out. Where both are DataFrames, columns are matched by name.

        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        display : PicksDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If `y` and scores differ in shape, or `y` holds no target with two
            measured sources.
        """
        scores = scores if isinstance(scores, Mapping) else {"E": scores}
        return cls._from_pairs({n: check_measured(y, E) for n, E in scores.items()}, ax)

    @classmethod
    def _from_pairs(cls, pairs, ax):
        """Draw the shares for pairs of improvements and scores, by name."""
        if not pairs:
            raise ValueError(
                "estimators or scores must hold at least one ranker, got an empty "
                "mapping; pass {name: estimator} or {name: matrix}."
            )
        picks = {}
        for name, (y, E) in pairs.items():
            needed = picks_to_best_loss(y, E, average=None)
            picks[name] = needed[~np.isnan(needed)]
            if not picks[name].size:
                raise ValueError(
                    "y must hold a target with at least two measured sources, got "
                    "none; measure more."
                )
        n_sources = max(E.shape[1] for _, E in pairs.values())
        return cls(picks=picks, n_sources=n_sources).plot(ax)
