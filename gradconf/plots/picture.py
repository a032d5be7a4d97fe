"""A figure as a notebook shows it: an image in the course's style, with alternative text."""

import base64
import html
import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from PIL import Image

PALETTE = sns.color_palette("colorblind")
COLOURS = 128
TITLE = 52  # characters that fit beside each other
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
        data = base64.b64encode(self._png()).decode()
        width = round(self.figure.get_figwidth() * 96)
        style = f"width:{width}px;max-width:100%;height:auto;background:white"
        return f'<img alt="{html.escape(self.alt)}" style="{style}" src="data:image/png;base64,{data}">'

    def _png(self) -> bytes:
        """Return the image with 128 colours, which look the same and take a third of the space."""
        drawn, small = io.BytesIO(), io.BytesIO()
        self.figure.savefig(drawn, format="png", dpi=144, bbox_inches="tight")
        image = Image.open(drawn).convert("RGB")
        image.quantize(COLOURS, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
        return small.getvalue()


def wrapped(title: str) -> str:
    """Return a title in lines that are no wider than a figure of the usual width, and about equally long."""
    lines = textwrap.wrap(title, TITLE)
    width = next(width for width in range(1, TITLE + 1) if len(textwrap.wrap(title, width)) <= len(lines))
    return textwrap.fill(title, width)


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
def canvas(*, columns: int = 1, width: float = 5.2, height: float = 3.6) -> Iterator[tuple[Figure, np.ndarray]]:
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
