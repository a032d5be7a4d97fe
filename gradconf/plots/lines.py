"""Curves against depth, width or time, with their spread over seeds."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradconf.plots.picture import Picture, canvas, show, wrapped

MANY, FEW = 8, 5  # the alternative text tells up to 8 values a curve, or 5 of more
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
    with canvas() as (figure, (axes,)):
        markers = few and (True if hue else "o")
        extra = {"markers": markers} if hue else ({"marker": "o"} if few else {})
        sns.lineplot(table, x=x, y=y, errorbar="sd", ax=axes, **told_apart, **extra)
        axes.set(xlabel=xlabel, ylabel=ylabel, title=wrapped(title))
        axes.set(**({"xscale": "log"} if log_x else {}), **({"yscale": "log"} if log_y else {}))
        _tidy(figure, axes, table, x, hue, log_x)
    shown = f"{f'{title}, ' if title else ''}{ylabel} against {xlabel}"
    return show(figure, alt=f"{shown}. {_describe_curves(table, x, y, hue)}")


def _tidy(figure: Figure, axes: Axes, table: pd.DataFrame, x: str, hue: str | None, log_x: bool) -> None:
    """Mark a few whole numbers on the horizontal axis as they are, and put a long legend below the curves."""
    if hue:
        said = {} if pd.api.types.is_numeric_dtype(table[hue]) else {"title": None}  # such values speak for themselves
        if table[hue].nunique() > 5:
            axes.legend().remove()
            figure.legend(loc="outside lower center", ncols=2, **said)
        elif said:
            axes.legend(**said)
    values = sorted(table[x].unique())
    whole = len(values) <= 8 and pd.api.types.is_integer_dtype(table[x])
    if whole and (log_x or (np.diff(values) >= APART * (values[-1] - values[0])).all()):
        axes.set_xticks(values, [f"{value:,}" for value in values])
        axes.set_xticks([], minor=True)


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
