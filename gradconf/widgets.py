"""Figures with controls that also work in a web page, where no kernel answers: all frames come with the page."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import ipywidgets
import numpy as np
from tqdm import tqdm

from gradconf.plots import Picture

MANY = 60  # frames; a page with more of them gets too heavy


def explore(draw: Callable[..., Picture], /, **values: Sequence[Any]) -> ipywidgets.VBox:
    """Turn a function that draws a picture, and values of its arguments, into a figure with a control an argument.

    Every combination is drawn when this is called. Where ipywidgets has `Stack` (version 8) the browser itself switches
    between the frames, so the figure is alive in a page without a kernel; before (as in Colab) the kernel switches.
    The alternative text of each frame begins with the chosen values.

    Args:
        draw: called with one value of each argument, by name.
        values: for each argument the values to choose from: a slider for numbers, buttons for all else.

    Returns:
        The figure, which a notebook displays when it is the last line of a cell.

    Raises:
        TypeError: if what draw returns is no picture.
        ValueError: if there is nothing to choose from, or there would be more than 60 frames.

    Example:
        >>> from gradconf import plots
        >>> figure = explore(lambda spread: plots.two_quadratics(spread, [(0, 1)]), spread=[1, 2, 3])
        >>> figure.children[0].options
        (('1', 0), ('2', 1), ('3', 2))
    """
    choices = {name: list(options) for name, options in values.items()}
    frames = math.prod(len(options) for options in choices.values())
    if not values or frames == 0 or frames > MANY:
        raise ValueError(
            f"a figure has between 1 and {MANY} frames, not {frames if values else 0}: choose other values."
        )
    controls = {name: _control(name, options) for name, options in choices.items()}
    with tqdm(total=frames, desc="drawing", unit="frame") as progress:
        view = _view(draw, choices, controls, {}, progress)
    return ipywidgets.VBox([*controls.values(), view])


def _control(name: str, options: list[Any]) -> ipywidgets.Widget:
    labelled = [(_label(option), index) for index, option in enumerate(options)]
    numbers = all(isinstance(option, Real) and not isinstance(option, bool | np.bool_) for option in options)
    make = ipywidgets.SelectionSlider if numbers else ipywidgets.RadioButtons
    looks = {"style": {"description_width": "7em"}, "layout": {"width": "min(28em, 100%)"}}
    return make(options=labelled, value=0, description=_words(name), **looks)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _label(option: Any) -> str:
    if isinstance(option, bool | np.bool_):
        return "yes" if option else "no"
    return f"{option:,.6g}" if isinstance(option, Real) else str(option)


def _view(
    draw: Callable[..., Picture],
    values: dict[str, list[Any]],
    controls: dict[str, ipywidgets.Widget],
    chosen: dict[str, Any],
    progress: tqdm,
) -> ipywidgets.Widget:
    """Return one frame where all values are chosen, else a page for each value of the next argument."""
    if len(chosen) == len(values):
        picture = draw(**chosen)
        if not isinstance(picture, Picture):
            raise TypeError(f"draw must return a picture of gradconf.plots, not {type(picture).__name__}.")
        told = ", ".join(f"{_words(name)} {_label(option)}" for name, option in chosen.items())
        frame = ipywidgets.HTML(replace(picture, alt=f"{told}: {picture.alt}")._repr_html_())
        progress.update()
        return frame
    name = list(values)[len(chosen)]
    pages = [_view(draw, values, controls, chosen | {name: option}, progress) for option in values[name]]
    return _switch(controls[name], pages)


def _switch(control: ipywidgets.Widget, pages: list[ipywidgets.Widget]) -> ipywidgets.Widget:
    if hasattr(ipywidgets, "Stack"):
        stack = ipywidgets.Stack(pages, selected_index=0)
        ipywidgets.jslink((control, "index"), (stack, "selected_index"))
        return stack
    shown = ipywidgets.VBox(pages[:1])
    control.observe(lambda change: setattr(shown, "children", (pages[change["new"]],)), "index")
    return shown
