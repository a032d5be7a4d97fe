"""Curves against depth, width or time, with their spread over seeds."""

import math

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from gradconf.plots.picture import Picture, canvas, show, wrapped

MANY, FEW = 8, 5  # the alternative text tells up to 8 values a curve, or 5 of more
HEIGHT, LEGEND_ROW = 3.6, 0.24  # inches, of the figure without a legend, and of a row of that
APART = 0.08  # of a linear axis: numbers that are nearer would run into each other


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
        The picture, its alternative text holding means and standard deviations of each curve, all or five of many.

    Raises:
        ValueError: if the table has no row.
    """
    if table.empty:
        raise ValueError("there is nothing to draw: the table has no row.")
    xlabel, ylabel = xlabel or x.replace("_", " "), ylabel or y.replace("_", " ")
    told_apart = {} if hue is None else {"hue": hue, "style": hue, "palette": "colorblind", "dashes": True}
    few = table[x].nunique() <= 15
    rows, columns = (0, 0) if hue is None else _legend_shape(table[hue])
    with canvas(height=HEIGHT + rows * LEGEND_ROW) as (figure, (axes,)):
        markers = few and (True if hue else "o")
        extra = {"markers": markers} if hue else ({"marker": "o"} if few else {})
        sns.lineplot(table, x=x, y=y, errorbar="sd", ax=axes, **told_apart, **extra)
        axes.set(xlabel=xlabel, ylabel=ylabel, title=wrapped(title))
        axes.set(**({"xscale": "log"} if log_x else {}), **({"yscale": "log"} if log_y else {}))
        _mark(axes, table[x], log_x)
        if columns:
            axes.legend().remove()  # inside it would lie on curves and bands
            words = not pd.api.types.is_numeric_dtype(table[hue])  # which speak for themselves
            figure.legend(loc="outside lower center", ncols=columns, title=None if words else str(hue), frameon=False)
    shown = f"{f'{title}, ' if title else ''}{ylabel} against {xlabel}"
    return show(figure, alt=f"{shown}. {_describe_curves(table, x, y, hue)}")


def _legend_shape(names: pd.Series) -> tuple[int, int]:
    """Return rows and columns of a legend in which names of curves fit beside each other."""
    longest, n = max(len(str(name)) for name in names.unique()), names.nunique()
    rows = math.ceil(n / (1 if longest > 26 else 2 if longest > 13 else 3))
    return rows, math.ceil(n / rows)


def _mark(axes: Axes, values: pd.Series, log_x: bool) -> None:
    """Mark a few whole numbers on the horizontal axis as they are, else so few that they do not touch."""
    marks = sorted(values.unique())
    whole = len(marks) <= 8 and pd.api.types.is_integer_dtype(values)
    if whole and (log_x or (np.diff(marks) >= APART * (marks[-1] - marks[0])).all()):
        axes.set_xticks(marks, [f"{mark:,}" for mark in marks])
        axes.set_xticks([], minor=True)
    elif not log_x and pd.api.types.is_numeric_dtype(values):
        axes.locator_params(axis="x", nbins=6)
        if values.max() >= 1000:
            axes.xaxis.set_major_formatter("{x:,.0f}")


def _describe_curves(table: pd.DataFrame, x: str, y: str, hue: str | None) -> str:
    parts = []
    for name, part in [("", table)] if hue is None else table.groupby(hue, sort=False):
        told = part.groupby(x)[y].agg(["mean", "std"])
        if len(told) > MANY:
            told = told.iloc[np.linspace(0, len(told) - 1, FEW).round().astype(int)]
        values = (
            f"{mean:.3g}{f' ± {std:.2g}' if pd.notna(std) else ''} at {_plain(at)}"
            for at, mean, std in told.itertuples()
        )
        parts.append((f"{name}: " if hue else "") + ", ".join(values))
    return "; ".join(parts) + "."


def _plain(number: float) -> str:
    """Return whole numbers as one reads them: 1,000 and not 1e+03."""
    return f"{number:,.0f}" if number == round(number) else f"{number:.3g}"
