"""The visible checks of the assignments, as a student sees them: what they say to plausible answers.

Some answers here are right, so this file is not published. ANSWER-KEY: stays with the teacher.
"""

import contextlib
import io

import pytest
from handed_out import surroundings


def check(name, number, answer):
    """Return what the check of a question prints after an answer, or raise what it raises."""
    scope, source = surroundings(name, f"q{number}")
    known, printed = dict(scope), io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(answer, known)
        exec(source, known)
    return printed.getvalue()


READ = 'reading = {{"shared direction": "D", "ranks": {{"A": {}, "B": {}, "C": {}}}}}'


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        ((48, 12, 192), "the wider the density, the smaller the rank"),
        ((192, 48, 12), "the wider the density, the smaller the rank"),
        (("'192'", "'12'", "'48'"), "positive numbers, without quotation marks"),
        ((192, 12, "'about 50'"), "positive numbers, without quotation marks"),
        ((192, 12, -48), "positive numbers"),
    ],
)
def test_ranks_read_from_a_figure_are_numbers_in_the_right_order(ranks, said):
    with pytest.raises(AssertionError, match=said):
        check("02_width", 4, READ.format(*ranks))


@pytest.mark.parametrize("ranks", [(500, 1, 2), (192.0, "torch.tensor(12.)", 48)])
def test_ranks_in_the_right_order_leave_the_numbers_to_the_hidden_tests(ranks):
    said = check("02_width", 4, READ.format(*ranks))
    assert "order of the ranks are right" in said
    assert "hidden tests look at the numbers" in said


@pytest.mark.parametrize("rows", ["[[w, s] for w in widths for s in seeds]", "{}", "torch.zeros(6, 6)"])
def test_a_sweep_that_is_no_table_is_told_so(rows):
    with pytest.raises(AssertionError, match="a pandas DataFrame, please"):
        check("02_width", 6, f"def sweep(widths, seeds): return {rows}")


INFLUENCE = """
def influence(model, x, y):
    model.train()
    x = x.clone().requires_grad_()
    losses = F.cross_entropy(model(x), y, reduction="none"){}
    rows = [torch.autograd.grad(loss, x, retain_graph=True)[0].{} for loss in losses]
    return torch.stack(rows){}
"""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("def influence(model, x, y): return torch.full((8, 8), 100.0)", "the losses move otherwise"),
        (INFLUENCE.format("", "abs().sum(1)", ""), "the losses move otherwise"),
        (INFLUENCE.format("", "square().sum(1)", ""), "the losses move otherwise"),
        (INFLUENCE.format(" / len(x)", "norm(dim=1)", ""), "N times too small: is your loss averaged"),
        (INFLUENCE.format("", "norm(dim=1)", ".T"), "rows and columns are swapped"),
    ],
)
def test_lengths_of_gradients_that_are_wrong_either_way_are_told_so(answer, said):
    with pytest.raises(AssertionError, match=said):
        check("04_batchnorm_skip", 1, answer)


def test_lengths_of_gradients_that_are_right_pass():
    assert "of the influence" in check("04_batchnorm_skip", 1, INFLUENCE.format("", "norm(dim=1)", ""))


def test_a_model_that_is_not_returned_is_no_open_question():
    assert "still open" in check("04_batchnorm_skip", 3, "def calibrate(model, batches): ...")
    for answer in ("model.eval()", "[model(x) for x in batches]"):
        with pytest.raises(AssertionError, match="return the model"):
            check("04_batchnorm_skip", 3, f"def calibrate(model, batches): {answer}")


@pytest.mark.parametrize(
    ("number", "answer", "said"),
    [
        (1, "def expected_squared_length(*args): return ...", "one number, please"),
        (2, "def predicted_cosine(K, batch): return K", "one number, please"),
        (5, "def value_at_loss(*args): return [0.0]", "one number, please"),
        (5, "def value_at_loss(l, v, t): return {1.25: -0.75, 3.0: 0.0}.get(t)", "math.nan, not None"),
    ],
)
def test_something_else_than_a_number_is_told_so(number, answer, said):
    with pytest.raises(AssertionError, match=said):
        check("02_width", number, answer)
