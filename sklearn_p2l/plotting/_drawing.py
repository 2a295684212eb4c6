"""What the displays share: axes, legends, colours, and checks of what is drawn."""

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from sklearn_p2l._alignment import align_improvements, last_step, source_labels
from sklearn_p2l._compat import import_pyplot
from sklearn_p2l.metrics import check_matrices
from sklearn_p2l.selection._pipeline import ranker_and_vectors

# Okabe and Ito's colours, which the colour-blind can tell apart.
BLUE, RED, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
COLORS = (BLUE, RED, GREEN, "#CC79A7", ORANGE, "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))


def new_axes(ax, *, width=6.4, rows=0):
    """Return `ax`, or new axes with room for that many rows of bars."""
    if ax is not None:
        return ax
    figsize = (width, max(4.8, 1 + 0.28 * rows))
    return import_pyplot().subplots(figsize=figsize, layout="constrained")[1]


def draw_legend(ax, *, title=None, handles=None, outside=True, away=0.01):
    """Draw a legend, beside axes that are alone in their figure; return its title.

    `away`: how far, as a share of their width.
    """
    if outside and len(ax.figure.axes) == 1 and ax.figure.get_layout_engine():
        place = {
            "loc": "upper left",
            "bbox_to_anchor": (1 + away, 1),
            "borderaxespad": 0,
        }
    else:
        place = {"loc": "best"}
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    legend = ax.legend(handles=handles, title=title, fontsize="small", **place)
    return legend.get_title()


def plain(name):
    """A name as it is, where matplotlib takes what is between dollars for formulas."""
    return str(name).replace("$", r"\$")


def label_points(ax, x, y, names):
    """Write names beside points, each where it covers least of what is there."""
    if not names:
        return []
    ax.figure.draw_without_rendering()  # so that all has its place
    points = ax.transData.transform(np.column_stack([x, y]))
    taken = [(px - 4, py - 4, px + 4, py + 4) for px, py in points]
    labels = []
    for name, *point in zip(names, x, y):
        style = {"textcoords": "offset points", "va": "center", "fontsize": "small"}
        label = ax.annotate(plain(name), point, (0, 0), **style)
        places = []
        for up in sorted(range(-30, 31, 6), key=abs):
            for right in (True, False):
                label.set_position((6 if right else -6, up))
                label.set_horizontalalignment("left" if right else "right")
                box = label.get_window_extent().extents
                covered = sum(_overlap(box, other) for other in taken)
                covered += 100 * (not ax.bbox.containsx(box[0 if not right else 2]))
                places.append((covered, abs(up), not right, up, box))
        _, _, left, up, box = min(places, key=lambda place: place[:4])
        label.set_position((-6 if left else 6, up))
        label.set_horizontalalignment("right" if left else "left")
        taken.append(box)
        labels.append(label)
    return labels


def _overlap(box, other):
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(width, 0) * max(height, 0)


def drawn(display, ax):
    display.ax_, display.figure_ = ax, ax.figure
    return display


def name_rows(ax, names):
    """Name the rows of horizontal bars, the first on top."""
    ax.set_yticks(range(len(names)), [plain(name) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)


def metric_name(metric):
    return {"kl": "KL", "js": "JS", "chi2": "χ²"}.get(metric, metric)


def metric_suffix(metric):
    return "" if metric in (None, "precomputed") else f" ({metric_name(metric)})"


def check_ranker(estimator, needs, *, fitted=True):
    """Return the ranker within `estimator`, which must have what a display needs."""
    ranker = last_step(estimator)
    if not hasattr(ranker, needs):
        raise TypeError(
            f"estimator must be a ranker that has {needs!r}, such as SourceSelector, a "
            "pipeline that ends in one, or a fitted search over either, got "
            f"{type(ranker).__name__}."
        )
    if fitted:
        check_is_fitted(ranker)
    return ranker


def check_measured(y, scores):
    """Both as matrices with the same columns; what may not be used is not measured."""
    y, scores = check_matrices(y, scores)
    y = np.where(np.isneginf(scores), np.nan, y)
    if np.isnan(y).all():
        raise ValueError(
            "y must hold measured improvements, got NaN only; measure some of them."
        )
    return y, scores


def measured_and_scores(estimator, X, y):
    """Return the measured improvements and E, columns in the order of the sources."""
    names = source_labels(estimator)
    if names is not None:
        y = align_improvements(y, names, X)
    return check_measured(y, estimator.decision_function(X))


def divergences_and_measured(estimator, X, y):
    """Return D(t, s) and the measured improvements; NaN where no candidate."""
    y = align_improvements(y, source_labels(estimator), X)
    ranker, X = ranker_and_vectors(estimator, X)
    D = ranker.divergences(X)
    return D, np.where(np.isnan(D), np.nan, y)


def check_numbers(values, name, ndim, shape=None, finite="allow-nan"):
    values = check_array(
        values,
        dtype=np.float64,
        ensure_2d=False,
        ensure_all_finite=finite,
        input_name=name,
    )
    if values.ndim != ndim or shape not in (None, values.shape):
        raise ValueError(
            f"{name} must be of shape {shape or f'{ndim}-D'}, got {values.shape}; pass "
            "one number for each."
        )
    return values


def check_sizes(sizes, length=None):
    shape = None if length is None else (length,)
    sizes = check_numbers(sizes, "sizes", 1, shape, finite=True)
    if (sizes <= 0).any():
        raise ValueError(
            f"sizes must be positive, got {sizes.min():g}; pass numbers of training "
            "examples."
        )
    return sizes


def check_names(names, name, length):
    names = [str(value) for value in names]
    if len(names) != length:
        raise ValueError(
            f"{name} must hold {length} names, got {len(names)}; pass one for each."
        )
    return names
