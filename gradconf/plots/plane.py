"""The picture that the course begins with: two samples that want a plane's points elsewhere."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from gradconf.plots.picture import PALETTE, Picture, canvas, show

Points = Sequence[tuple[float, float]]


def two_quadratics(spread: float, points: Points, *, trail: Points = ()) -> Picture:
    """Draw the gradients of `f_i(w) = |w - c_i|^2 / 2`, with minima `c = (-s, 0), (s, 0)`, at some points w.

    `<grad f_1, grad f_2> = <w - c_1, w - c_2>` is negative exactly inside the circle with diameter `c_1 c_2`
    (Thales), and smallest at its centre: `eta = s^2`.

    Args:
        spread: s, half the distance of the minima.
        points: where to draw both descent directions `-grad f_i`.
        trail: points on a path, to be joined by a line.

    Returns:
        The picture, its alternative text holding the inner product and the cosine at each point.
    """
    minima = np.array([[-spread, 0.0], [spread, 0.0]])
    with canvas(width=5.2, height=4.6) as (figure, (axes,)):
        circle = np.linspace(0, 2 * np.pi, 200)
        axes.fill(spread * np.cos(circle), spread * np.sin(circle), color="0.85", label="they clash")
        axes.plot(*np.array(trail, dtype=float).reshape(-1, 2).T, ".-", color="0.5", linewidth=1)
        for k, minimum in enumerate(minima):
            axes.plot(*minimum, "*", markersize=15, color=PALETTE[k], label=f"minimum of {k + 1}")
        for point in np.array(points, dtype=float):
            axes.plot(*point, "o", color="0.2", markersize=5)
            _arrows(axes, point, minima)
        reach = 1.15 * max(spread, np.abs([*points, *trail]).max())
        axes.set(xlim=(-1.3 * reach, 1.3 * reach), ylim=(-reach, reach), aspect="equal")
        axes.set(xlabel="first weight", ylabel="second weight", title="Descent directions of two samples")
        figure.legend(loc="outside lower center", ncols=3, columnspacing=1, handletextpad=0.5)
    products = [_products(np.array(point, dtype=float), minima) for point in points]
    said = "; ".join(
        f"at {tuple(p)} inner product {k:.2f}, cosine {c:.2f}" for p, (k, c) in zip(points, products, strict=True)
    )
    return show(
        figure,
        alt=f"Two minima at ({0 - spread:g}, 0) and ({spread:g}, 0), and the arrows from some points to both, scaled "
        f"to half their length. Inside the circle of radius {spread:g} around 0 the gradients clash. {said}.",
    )


def _arrows(axes: Axes, point: np.ndarray, minima: np.ndarray) -> None:
    for k, minimum in enumerate(minima):
        dashed = {"linestyle": "--"} if k else {}
        arrow = {"arrowstyle": "-|>", "color": PALETTE[k], "linewidth": 2.2, "shrinkA": 0, "shrinkB": 0} | dashed
        axes.annotate("", xy=tuple(point + (minimum - point) / 2), xytext=tuple(point), arrowprops=arrow)


def _products(point: np.ndarray, minima: np.ndarray) -> tuple[float, float]:
    first, second = point - minima
    inner = float(first @ second)
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return inner, inner / lengths if lengths else math.nan
