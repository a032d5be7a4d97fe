import subprocess
import sys

import ipywidgets
import pytest

from gradconf import plots
from gradconf.widgets import MANY, explore

needs_stack = pytest.mark.skipif(not hasattr(ipywidgets, "Stack"), reason="ipywidgets before version 8 has no Stack")


def draw(**_):
    with plots.canvas(width=1, height=1) as (figure, _):
        return plots.show(figure, alt="drawn")


def shown(view):
    """The frame that a view shows now."""
    while not isinstance(view, ipywidgets.HTML):
        view = view.children[getattr(view, "selected_index", 0)]
    return view.value


@pytest.fixture
def links(monkeypatch):
    """What the browser will keep equal, as pairs of control and stack."""
    found, original = [], ipywidgets.jslink

    def linked(source, target):
        found.append((source[0], target[0]))
        return original(source, target)

    monkeypatch.setattr(ipywidgets, "jslink", linked)
    return found


@needs_stack
def test_a_frame_for_each_value_in_order(links):
    figure = explore(draw, width=[8, 16, 32])
    slider, stack = figure.children
    assert isinstance(slider, ipywidgets.SelectionSlider)
    assert [label for label, _ in slider.options] == ["8", "16", "32"]
    assert [frame.value.split('"')[1] for frame in stack.children] == [f"width {w}: drawn" for w in (8, 16, 32)]
    assert links == [(slider, stack)]


@needs_stack
def test_every_combination_of_controls_shows_its_frame(links):
    figure = explore(draw, depth=[2, 4], batch_norm=[True, False], activation=["relu", "tanh", "linear"])
    *controls, view = figure.children
    assert [control.description for control in controls] == ["depth", "batch norm", "activation"]
    assert [type(c).__name__ for c in controls] == ["SelectionSlider", "RadioButtons", "RadioButtons"]
    assert [label for label, _ in controls[1].options] == ["yes", "no"]
    for i, depth in enumerate([2, 4]):
        for j, batch_norm in enumerate([True, False]):
            for k, activation in enumerate(["relu", "tanh", "linear"]):
                for control, stack in links:
                    stack.selected_index = (i, j, k)[controls.index(control)]
                chosen = f"depth {depth}, batch norm {'yes' if batch_norm else 'no'}, activation {activation}"
                assert f'alt="{chosen}: drawn"' in shown(view)


def test_without_stack_the_kernel_switches(monkeypatch):
    monkeypatch.delattr(ipywidgets, "Stack", raising=False)  # as in version 7, which Colab has
    figure = explore(draw, width=[8, 16], init=["he", "lecun"])
    width, init, view = figure.children
    assert 'alt="width 8, init he: drawn"' in shown(view)
    width.index, init.index = 1, 1
    assert 'alt="width 16, init lecun: drawn"' in shown(view)
    width.index = 0
    assert 'alt="width 8, init lecun: drawn"' in shown(view)


@pytest.mark.parametrize("values", [{}, {"width": []}, {"width": range(MANY + 1)}, {"a": range(8), "b": range(8)}])
def test_no_frame_or_too_many_are_refused(values):
    with pytest.raises(ValueError, match=f"between 1 and {MANY} frames"):
        explore(draw, **values)


def test_what_is_no_picture_is_refused():
    with pytest.raises(TypeError, match=r"must return a picture of gradconf\.plots, not str"):
        explore(lambda x: "picture", x=[1, 2])


def test_the_package_does_not_need_ipywidgets_until_a_figure_is_made():
    code = "import sys; sys.modules['ipywidgets'] = None; import gradconf"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
