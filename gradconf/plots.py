"""The figures of the course: each knows what it shows, and says it to those who cannot see it."""

import base64
import html
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

PALETTE = sns.color_palette("colorblind")
DASHES = ("", (4, 1.5), (1, 1), (6, 1, 1, 1), (3, 1, 1, 1, 1, 1), (2, 2), (5, 1), (1, 2))
STYLE = {
    "figure.facecolor": "white",  # a light card, legible on light and dark pages alike
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#d5d5d5",
    "font.size": 12,
    "legend.frameon": False,
    "lines.linewidth": 2,
}


@dataclass(frozen=True)
class Picture:
    """A figure that a notebook shows as an image with alternative text.

    Attributes:
        figure: the matplotlib figure, to be changed or saved.
        alt: what it shows, with its values, in words.
    """

    figure: Figure
    alt: str

    def _repr_html_(self) -> str:
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=144, bbox_inches="tight")
        data = base64.b64encode(buffer.getvalue()).decode()
        width = round(self.figure.get_figwidth() * 96)
        style = f"width:{width}px;max-width:100%;height:auto;background:white"
        return f'<img alt="{html.escape(self.alt)}" style="{style}" src="data:image/png;base64,{data}">'


def show(figure: Figure, *, alt: str) -> Picture:
    """Show any matplotlib figure as an image with alternative text, in the book, in Jupyter and in Colab alike.

    Args:
        figure: made by `canvas` or by matplotlib.
        alt: what the figure shows, with the values it shows.

    Returns:
        A picture, which a notebook displays when it is the last line of a cell.

    Raises:
        ValueError: if `alt` is empty.
    """
    if not alt.strip():
        raise ValueError("a figure needs alternative text: say what it shows, with its values.")
    return Picture(figure, " ".join(alt.split()))


@contextmanager
def canvas(*, columns: int = 1, width: float = 6.4, height: float = 4.0) -> Iterator[tuple[Figure, np.ndarray]]:
    """Offer empty axes in the style of the course.

    Args:
        columns: number of panels beside each other.
        width: of the figure in inches.
        height: of the figure in inches.

    Yields:
        The figure and its axes, shape `(columns,)`.
    """
    with sns.axes_style("whitegrid", rc=STYLE), sns.plotting_context("notebook", rc={"font.size": 12}):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(1, columns, squeeze=False)[0]
        for panel in axes:
            panel.set_prop_cycle(color=PALETTE)
        yield figure, axes


def cosine_density(cosines: Mapping[str, Tensor], *, title: str = "Cosines between gradients") -> Picture:
    """Draw the kernel density estimate of the pairwise cosines, one curve a matrix, as in the paper's Figures 2 to 4.

    Args:
        cosines: matrices of cosines by name, each of shape `(N, N)`; pairs i < j are shown, nan left out.
        title: of the figure.

    Returns:
        The picture, its alternative text holding number of pairs, minimum, 1% quantile, mean and deviation.

    Raises:
        ValueError: if a matrix has no pair with a cosine.
    """
    pairs = {name: _pairs(matrix) for name, matrix in cosines.items()}
    with canvas() as (figure, (axes,)):
        for k, (name, values) in enumerate(pairs.items()):
            color, dashes = PALETTE[k % len(PALETTE)], (0, DASHES[k % len(DASHES)] or None)
            sns.kdeplot(values, ax=axes, clip=(-1, 1), color=color, fill=True, alpha=0.15, linewidth=0)
            sns.kdeplot(values, ax=axes, clip=(-1, 1), color=color, linestyle=dashes, label=name)
        axes.axvline(0, color="0.3", linewidth=1)
        axes.set(xlabel="cosine between two gradients", ylabel="density", xlim=(-1, 1), title=title)
        axes.legend()
    parts = [
        f"{name}: {len(v)} pairs, minimum {v.min():.2f}, 1% quantile {np.quantile(v, 0.01):.2f}, "
        f"mean {v.mean():.2f}, standard deviation {v.std():.2f}"
        for name, v in pairs.items()
    ]
    return show(figure, alt=f"{title}. Density of pairwise cosines between -1 and 1. {'; '.join(parts)}.")


def cosine_heatmap(
    cosine: Tensor, *, labels: Tensor | None = None, title: str = "Cosines between gradients"
) -> Picture:
    """Draw the matrix of cosines, its rows ordered by class.

    Args:
        cosine: matrix of shape `(N, N)`.
        labels: classes, shape `(N,)`; given, rows are sorted by class and classes are parted by lines.
        title: of the figure.

    Returns:
        The picture, its alternative text holding the mean cosine within and between classes, and the minimum.
    """
    matrix = cosine.detach().cpu().numpy()
    classes = np.zeros(len(matrix), dtype=int) if labels is None else labels.cpu().numpy()
    order = np.argsort(classes, kind="stable")
    matrix, classes = matrix[np.ix_(order, order)], classes[order]
    with canvas(width=5.8, height=4.8) as (figure, (axes,)):
        bar = {"label": "cosine"}
        ticks = {"xticklabels": False, "yticklabels": False}
        sns.heatmap(matrix, ax=axes, vmin=-1, vmax=1, cmap="RdBu", square=True, cbar_kws=bar, **ticks)
        borders = np.flatnonzero(np.diff(classes)) + 1
        axes.hlines(borders, *axes.get_xlim(), color="0.2", linewidth=0.5)
        axes.vlines(borders, *axes.get_ylim(), color="0.2", linewidth=0.5)
        described = "sample" if labels is None else "sample, ordered by class"
        axes.set(xlabel=described, ylabel=described, title=title)
    return show(figure, alt=f"{title}. {_describe_heatmap(matrix, classes, labels is not None)}")


def curves(
    table: pd.DataFrame,
    *,
    x: str,
    y: str,
    hue: str | None = None,
    log_x: bool = False,
    log_y: bool = False,
    title: str = "",
    xlabel: str | None = None,
    ylabel: str | None = None,
) -> Picture:
    """Draw the mean of y against x with a band of one standard deviation over the repetitions at the same x.

    Args:
        table: tidy table, one row a value; rows with the same x (and hue) are repetitions, e.g. seeds.
        x: column on the horizontal axis.
        y: column on the vertical axis.
        hue: column whose values get a curve each, told apart by colour, dashes and marker.
        log_x: logarithmic horizontal axis.
        log_y: logarithmic vertical axis.
        title: of the figure.
        xlabel: label of the horizontal axis; the column's name by default.
        ylabel: label of the vertical axis; the column's name by default.

    Returns:
        The picture, its alternative text holding first and last mean of each curve with the spread.

    Raises:
        ValueError: if the table has no row.
    """
    if table.empty:
        raise ValueError("there is nothing to draw: the table has no row.")
    xlabel, ylabel = xlabel or x.replace("_", " "), ylabel or y.replace("_", " ")
    told_apart = {} if hue is None else {"hue": hue, "style": hue, "palette": "colorblind", "dashes": True}
    few = table[x].nunique() <= 15
    with canvas() as (figure, (axes,)):
        markers = few and (True if hue else "o")
        extra = {"markers": markers} if hue else ({"marker": "o"} if few else {})
        sns.lineplot(table, x=x, y=y, errorbar="sd", ax=axes, **told_apart, **extra)
        axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
        axes.set(**({"xscale": "log"} if log_x else {}), **({"yscale": "log"} if log_y else {}))
    return show(figure, alt=f"{title or f'{ylabel} against {xlabel}'}. {_describe_curves(table, x, y, hue)}")


def label_lines(axes: Axes, **lines: float) -> None:
    """Draw labelled horizontal lines, for bounds and exact values.

    Args:
        axes: what to draw on.
        **lines: height by label; underscores become spaces.
    """
    for k, (label, height) in enumerate(lines.items()):
        axes.axhline(height, color="0.25", linewidth=1.5, dashes=DASHES[k + 1], label=label.replace("_", " "))


def _pairs(cosine: Tensor) -> np.ndarray:
    values = cosine.detach().cpu().numpy()
    values = values[np.triu_indices(len(values), 1)]
    values = values[~np.isnan(values)]
    if len(values) == 0:
        raise ValueError("there is no pair of gradients with a cosine to draw.")
    return values


def _describe_heatmap(matrix: np.ndarray, classes: np.ndarray, labelled: bool) -> str:
    i, j = np.triu_indices(len(matrix), 1)
    values, same = matrix[i, j], classes[i] == classes[j]
    text = f"Heat map of {len(matrix)} by {len(matrix)} cosines, minimum {np.nanmin(values):.2f}"
    if labelled and same.any() and not same.all():
        within, between = np.nanmean(values[same]), np.nanmean(values[~same])
        return f"{text}; mean {within:.2f} within a class and {between:.2f} between classes."
    return f"{text}, mean {np.nanmean(values):.2f}."


def _describe_curves(table: pd.DataFrame, x: str, y: str, hue: str | None) -> str:
    parts = []
    for name, part in [("", table)] if hue is None else table.groupby(hue, sort=False):
        means, spread = part.groupby(x)[y].mean(), part.groupby(x)[y].std()
        first, last = means.index[0], means.index[-1]
        around = f" (standard deviation {spread[last]:.2g})" if spread.notna().any() else ""
        label = f"{hue.replace('_', ' ')} {name}: " if hue else ""
        parts.append(f"{label}{means[first]:.3g} at {first:g}, {means[last]:.3g}{around} at {last:g}")
    return "; ".join(parts) + "."
