"""Pairwise cosines: their distribution and their matrix."""

from collections.abc import Mapping

import numpy as np
import seaborn as sns
from torch import Tensor

from gradconf.plots.picture import DASHES, PALETTE, Picture, canvas, show, wrapped


def cosine_density(cosines: Mapping[str, Tensor], *, title: str = "Cosines between gradients") -> Picture:
    """Draw the kernel density estimate of the pairwise cosines, one curve a matrix, as in the paper's Figures 2 to 4.

    Args:
        cosines: matrices of cosines by name, each of shape `(N, N)`, or `(R, N, N)` for R networks whose pairs are
            shown together, or the cosines of M pairs, of shape `(M,)`; pairs i < j are shown, nan left out.
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
            if len(values) < 2 or np.ptp(values) < 1e-12:  # no density, all cosines are one
                axes.axvline(values[0], color=color, linestyle=dashes, label=name)
                continue
            sns.kdeplot(values, ax=axes, clip=(-1, 1), color=color, linestyle=dashes, label=name)
            axes.fill_between(*axes.lines[-1].get_data(), color=color, alpha=0.15, linewidth=0)
        axes.axvline(0, color="0.3", linewidth=1)
        axes.set(
            xlabel="cosine between two gradients",
            ylabel="density",
            xlim=(-1, 1),
            xticks=[-1, -0.5, 0, 0.5, 1],
            title=wrapped(title),
        )
        axes.legend()
    parts = [
        f"{name}: {len(v)} pairs, minimum {v.min():.2f}, 1% quantile {np.quantile(v, 0.01):.2f}, "
        f"mean {v.mean():.2f}, standard deviation {v.std():.2f}"
        for name, v in pairs.items()
    ]
    return show(figure, alt=f"{title}. Density of pairwise cosines between -1 and 1. {'; '.join(parts)}.")


def cosine_heatmap(
    cosine: Tensor, *, labels: Tensor | None = None, of: str = "sample", title: str = "Cosines between gradients"
) -> Picture:
    """Draw the matrix of cosines, its rows ordered by class.

    Args:
        cosine: matrix of shape `(N, N)`.
        labels: classes, shape `(N,)`; given, rows are sorted by class and classes are parted by lines.
        of: what has a gradient, such as `mini-batch`.
        title: of the figure.

    Returns:
        The picture, its alternative text holding the mean cosine within and between classes, and the minimum.
    """
    matrix = cosine.detach().cpu().numpy()
    classes = np.zeros(len(matrix), dtype=int) if labels is None else labels.cpu().numpy()
    order = np.argsort(classes, kind="stable")
    matrix, classes = matrix[np.ix_(order, order)], classes[order]
    with canvas(width=5.2, height=4.3) as (figure, (axes,)):
        bar = {"label": "cosine"}
        ticks = {"xticklabels": False, "yticklabels": False}
        sns.heatmap(matrix, ax=axes, vmin=-1, vmax=1, cmap="RdBu", square=True, cbar_kws=bar, **ticks)
        borders = np.flatnonzero(np.diff(classes)) + 1
        axes.hlines(borders, *axes.get_xlim(), color="0.2", linewidth=0.5)
        axes.vlines(borders, *axes.get_ylim(), color="0.2", linewidth=0.5)
        described = of if labels is None else f"{of}, ordered by class"
        axes.set(xlabel=described, ylabel=described, title=wrapped(title))
    return show(figure, alt=f"{title}. {_describe_heatmap(matrix, classes, labels is not None)}")


def _pairs(cosine: Tensor) -> np.ndarray:
    values = cosine.detach().cpu().numpy()
    if values.ndim == 1:
        return _known(values)
    first, second = np.triu_indices(values.shape[-1], 1)
    return _known(values[..., first, second].ravel())


def _known(values: np.ndarray) -> np.ndarray:
    values = values[~np.isnan(values)]
    if len(values) == 0:
        raise ValueError("there is no pair of gradients with a cosine to draw.")
    return values


def _describe_heatmap(matrix: np.ndarray, classes: np.ndarray, labelled: bool) -> str:
    i, j = np.triu_indices(len(matrix), 1)
    values, same = matrix[i, j], classes[i] == classes[j]
    known = _known(values)
    text = f"Heat map of {len(matrix)} by {len(matrix)} cosines, minimum {known.min():.2f}"
    within, between = values[same & ~np.isnan(values)], values[~same & ~np.isnan(values)]
    if labelled and len(within) and len(between):
        return f"{text}; mean {within.mean():.2f} within a class and {between.mean():.2f} between classes."
    return f"{text}, mean {known.mean():.2f}."
