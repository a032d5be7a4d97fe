import base64
import html.parser
import math

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from gradconf import cosine, plots

TITLE = 'Width "l" & depth <b>beta</b>'
MAKERS = {
    "cosine_density": lambda **kwargs: plots.cosine_density({"narrow": cosines(), "wide": cosines(1)}, **kwargs),
    "cosine_heatmap": lambda **kwargs: plots.cosine_heatmap(cosines(), labels=torch.arange(12) % 3, **kwargs),
    "curves": lambda **kwargs: plots.curves(table(3, 4), x="width", y="mean_cosine", hue="init", **kwargs),
    "show": lambda title="One panel": plots.show(panel(), alt=title),
    "two_quadratics": lambda **kwargs: plots.two_quadratics(2, [(0, 0), (3, 1)]),
}


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


def cosines(seed=0, n=12):
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))
    return cosine(x @ x.T)


def panel():
    with plots.canvas() as (figure, (axes,)):
        axes.plot([1, 2], [3, 4])
    return figure


def upper(matrix):
    return matrix.numpy()[np.triu_indices(len(matrix), 1)]


def table(repetitions, xs, inits=("he", "lecun", "glorot")):
    return pd.DataFrame(
        {"width": 2**x, "init": init, "mean_cosine": x * (k + 1) + repetition}
        for k, init in enumerate(inits)
        for x in range(xs)
        for repetition in range(repetitions)
    )


def labelled(picture):
    return [line for line in picture.figure.axes[0].get_lines() if not line.get_label().startswith("_")]


def test_a_picture_is_one_image_with_its_words_and_valid_data(make):
    parser = Tags()
    picture = make()
    parser.feed(picture._repr_html_())
    ((tag, attributes),) = parser.found
    assert tag == "img"
    assert attributes["alt"] == picture.alt
    kind, _, data = attributes["src"].partition(",")
    assert kind == "data:image/png;base64"
    content = base64.b64decode(data, validate=True)
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.endswith(b"IEND\xaeB`\x82")


@pytest.mark.parametrize("name", ["cosine_density", "cosine_heatmap", "curves"])
def test_a_title_survives_whatever_it_holds(name):
    parser = Tags()
    parser.feed(MAKERS[name](title=TITLE)._repr_html_())
    ((_, attributes),) = parser.found
    assert attributes["alt"].startswith(TITLE)


def test_drawing_leaves_matplotlib_as_it_was(make):
    before = dict(mpl.rcParams)
    make()._repr_html_()
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_a_figure_without_words_is_refused(alt):
    with plots.canvas() as (figure, _), pytest.raises(ValueError, match="needs alternative text"):
        plots.show(figure, alt=alt)


def test_the_words_are_put_on_one_line():
    with plots.canvas() as (figure, _):
        assert plots.show(figure, alt="  two\n   lines ").alt == "two lines"


def test_a_canvas_offers_its_panels_and_restores_the_style():
    before = dict(mpl.rcParams)
    with plots.canvas(columns=3, width=9, height=2) as (figure, axes):
        assert axes.shape == (3,)
        assert figure.get_size_inches().tolist() == [9, 2]
    assert dict(mpl.rcParams) == before


def test_cosine_density_pools_the_pairs_of_several_networks():
    first, second = cosines(), cosines(1)
    alt = plots.cosine_density({"both": torch.stack([first, second])}).alt
    i, j = torch.triu_indices(len(first), len(first), 1)
    together = torch.cat([first[i, j], second[i, j]])
    assert f"both: {len(together)} pairs, minimum {together.min():.2f}" in alt
    assert f"mean {together.mean():.2f}" in alt


def test_cosine_density_takes_the_cosines_of_pairs_as_they_are():
    values = torch.tensor([-0.5, math.nan, 0.25, 0.5])
    assert "paired: 3 pairs, minimum -0.50" in plots.cosine_density({"paired": values}).alt


def test_cosine_density_says_its_numbers():
    values = upper(cosines())
    alt = plots.cosine_density({"narrow": cosines()}).alt
    numbers = values.min(), np.quantile(values, 0.01), values.mean(), values.std()
    words = "narrow: 66 pairs, minimum {:.2f}, 1% quantile {:.2f}, mean {:.2f}, standard deviation {:.2f}"
    assert words.format(*numbers) in alt


def test_cosine_heatmap_says_its_numbers():
    matrix, labels = cosines(), torch.arange(12) % 3
    i, j = np.triu_indices(12, 1)
    values, within = upper(matrix), (labels[i] == labels[j]).numpy()
    alt = plots.cosine_heatmap(matrix, labels=labels).alt
    assert f"12 by 12 cosines, minimum {values.min():.2f}" in alt
    assert f"mean {values[within].mean():.2f} within a class and {values[~within].mean():.2f} between" in alt
    for unlabelled in (plots.cosine_heatmap(matrix), plots.cosine_heatmap(matrix, labels=torch.zeros(12))):
        assert f"minimum {values.min():.2f}, mean {values.mean():.2f}" in unlabelled.alt


def test_cosine_heatmap_orders_rows_by_class():
    labels = torch.tensor([1, 0, 1, 0])
    matrix = torch.where(labels[:, None] == labels, 0.9, -0.4)
    axes = plots.cosine_heatmap(matrix, labels=labels).figure.axes[0]
    drawn = axes.collections[0].get_array().reshape(4, 4)
    np.testing.assert_allclose(drawn, np.kron([[0.9, -0.4], [-0.4, 0.9]], np.ones((2, 2))), rtol=1e-6)


def test_vanishing_gradients_are_left_out():
    matrix, without = cosines(n=13), cosines(n=13)[1:, 1:]
    matrix[0] = matrix[:, 0] = torch.nan
    density, expected = plots.cosine_density({"a": matrix}), plots.cosine_density({"a": without})
    assert density.alt == expected.alt
    curve, other = labelled(density)[0].get_ydata(), labelled(expected)[0].get_ydata()
    np.testing.assert_allclose(curve, other)
    labels = torch.arange(13) % 3
    words, others = (plots.cosine_heatmap(m, labels=k).alt for m, k in ((matrix, labels), (without, labels[1:])))
    assert words == others.replace("12 by 12", "13 by 13")


def test_a_class_without_a_cosine_of_its_own_is_no_obstacle():
    matrix = torch.tensor([[1, torch.nan, 0.2], [torch.nan] * 3, [0.2, torch.nan, 1]])
    assert "0.20" in plots.cosine_heatmap(matrix, labels=torch.tensor([0, 0, 1])).alt


def test_no_pair_at_all_is_refused():
    for matrix in (torch.ones(1, 1), torch.full((3, 3), torch.nan)):
        with pytest.raises(ValueError, match="no pair of gradients"):
            plots.cosine_density({"a": matrix})


@pytest.mark.parametrize("matrix", [torch.ones(3, 3), torch.tensor([[1.0, 0.3], [0.3, 1.0]])], ids=["equal", "single"])
def test_cosines_without_a_density_are_still_drawn(matrix):
    picture = plots.cosine_density({"a": matrix})
    assert f"minimum {matrix[0, 1]:.2f}" in picture.alt
    assert picture._repr_html_()


def test_curves_say_means_and_spread_of_all_values_or_of_some_of_many():
    alt = plots.curves(table(3, 4, ["he"]), x="width", y="mean_cosine", title="Growth").alt
    assert alt == "Growth, mean cosine against width. 1 ± 1 at 1, 2 ± 1 at 2, 3 ± 1 at 4, 4 ± 1 at 8."
    assert "±" not in plots.curves(table(1, 4, ["he"]), x="width", y="mean_cosine").alt
    alt = plots.curves(table(3, 4), x="width", y="mean_cosine", hue="init").alt
    assert "lecun: 1 ± 1 at 1, " in alt
    assert "7 ± 1 at 8" in alt
    large = pd.DataFrame({"width": [1000, 2000], "y": [0.25, 0.5]})
    assert plots.curves(large, x="width", y="y").alt == "y against width. 0.25 at 1,000, 0.5 at 2,000."
    many = pd.DataFrame({"x": range(21), "y": range(21)})
    assert plots.curves(many, x="x", y="y").alt.endswith("0 at 0, 5 at 5, 10 at 10, 15 at 15, 20 at 20.")


def test_curves_do_not_say_nan_where_the_last_point_stands_alone():
    data = pd.DataFrame({"x": [0, 0, 1], "y": [1, 2, 3]})
    assert "nan" not in plots.curves(data, x="x", y="y").alt


def test_curves_draw_the_means():
    drawn = plots.curves(table(3, 4, ["he"]), x="width", y="mean_cosine").figure.axes[0].get_lines()[0].get_xydata()
    assert drawn.tolist() == [[1, 1], [2, 2], [4, 3], [8, 4]]


def test_axes_are_logarithmic_where_asked():
    for log_x, log_y in ((True, False), (False, True)):
        axes = plots.curves(table(1, 4), x="width", y="mean_cosine", log_x=log_x, log_y=log_y).figure.axes[0]
        assert (axes.get_xscale() == "log", axes.get_yscale() == "log") == (log_x, log_y)


def test_a_few_whole_numbers_are_marked_unless_they_would_touch():
    for widths, marked in (([10, 16, 22], True), ([1, 2, 64], False)):
        data = pd.DataFrame({"width": widths, "y": [0.0, 1.0, 2.0]})
        ticks = plots.curves(data, x="width", y="y").figure.axes[0].get_xticks().tolist()
        assert (ticks == widths) == marked


@pytest.mark.parametrize("xs", [4, 20])
def test_curves_are_told_apart_by_more_than_colour(xs):
    lines = plots.curves(table(1, xs), x="width", y="mean_cosine", hue="init").figure.axes[0].get_lines()
    lines = [line for line in lines if len(line.get_xdata()) == xs]
    assert len({line.get_color() for line in lines}) == 3
    assert len({(str(line._dash_pattern), str(line.get_marker())) for line in lines}) == 3


def test_densities_are_told_apart_by_more_than_colour():
    lines = labelled(plots.cosine_density({name: cosines(k) for k, name in enumerate("abcdefgh")}))
    assert [line.get_label() for line in lines] == list("abcdefgh")
    assert len({str(line._dash_pattern) for line in lines}) == 8


def test_two_quadratics_say_whether_the_gradients_clash():
    alt = plots.two_quadratics(2, [(0, 0), (0, 1), (2.5, -1.5)]).alt
    for (x, y), point in {(0, 0): "(0, 0)", (0, 1): "(0, 1)", (2.5, -1.5): "(2.5, -1.5)"}.items():
        inner = x**2 + y**2 - 4
        angle = inner / np.hypot(x + 2, y) / np.hypot(x - 2, y)
        assert f"at {point} inner product {inner:.2f}, cosine {angle:.2f}" in alt


def test_an_empty_table_is_refused():
    with pytest.raises(ValueError, match="the table has no row"):
        plots.curves(table(0, 4), x="width", y="mean_cosine")
