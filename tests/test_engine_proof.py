"""Whether rules are noticed that do not hold for a model."""

import pytest
import torch
import torch.nn.functional as F
from cases import Apply, case
from test_engine import quietly
from test_grams import assert_same
from torch import nn
from zoo import parameter, squares

from gradconf import gram, reference
from gradconf.engine import work
from gradconf.engine.proof import dense_difference, norm, rank_one_difference


def off_by(difference, gradient, a, d):
    """The norm of `gradient - d a^T`, as the check of a sample finds it."""
    norm = torch.linalg.vector_norm(gradient, dtype=torch.float64)
    if difference is rank_one_difference:
        return difference(gradient, norm, a[:, 0], d[:, 0]).item()
    return difference(gradient, a, d).item()


@pytest.mark.parametrize(("difference", "positions"), [(rank_one_difference, 1), (dense_difference, 3)])
@pytest.mark.parametrize("shape", [(20, 30), (1, 10**6), (10**6, 1)])
@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e15])
def test_how_far_a_gradient_is_off_is_seen_at_any_scale(scale, shape, difference, positions):
    c, k = shape
    a, d, off = 1 + torch.rand(k, positions), scale * torch.rand(c, positions), 0.1 * scale * torch.randn(c, k)
    expected = torch.linalg.vector_norm(off, dtype=torch.float64).item()
    assert off_by(difference, d @ a.T + off, a, d) == pytest.approx(expected, rel=2e-3)


def test_an_overflow_on_the_way_is_no_agreement():
    a, d = torch.full((30, 1), 1e30), torch.ones(20, 1)
    gradient = 2 * d @ a.T
    assert not off_by(rank_one_difference, gradient, a, d) < 0.1 * gradient.double().norm()


@pytest.mark.parametrize("scale", [0.0, 1e-40, 1e-25, 1.0, 1e15, 1e30])
@pytest.mark.parametrize("shape", [(300,), (300, 1), (20, 3, 5)])
def test_a_norm_is_right_at_any_scale(shape, scale):
    values = scale * torch.randn(shape)
    assert norm(values).dtype == torch.float64
    assert norm(values).item() == pytest.approx(values.double().norm().item(), rel=1e-6, abs=0)


def test_a_norm_of_few_large_among_tiny_numbers():
    values = torch.full((100, 100), 1e-30)
    values[3, 3] = 1e-3
    assert norm(values).item() == pytest.approx(1e-3, rel=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_norm_that_is_no_number_stays_none(value):
    values = torch.ones(4, 4)
    values[1, 1] = value
    assert not norm(values).isfinite()


class SumOfSquares(torch.autograd.Function):
    """A use of a parameter that no torch function shows."""

    @staticmethod
    def forward(ctx, w):
        ctx.save_for_backward(w)
        return w.square().sum()

    @staticmethod
    def backward(ctx, d):
        return 2 * d * ctx.saved_tensors[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bias_is_not_lost_with_weights_that_fall_back(dtype):
    linear = nn.Linear(6, 5)
    nn.init.normal_(linear.weight, std=1e-2)
    made = case(Apply(lambda m, x: m.f(x) + SumOfSquares.apply(m.f.weight), f=linear), 6, loss_fn=squares, n=8)
    made.model, made.inputs = made.model.to(dtype), made.inputs.to(dtype)
    expected = quietly(reference.gram, made)
    difference = (quietly(gram, made) - expected).abs() / expected.diagonal().max()
    assert difference.max() < (1e-4 if dtype == torch.float32 else 1e-10)


def gated(m, x):
    return (x[:, :1] > 0).to(x.dtype)  # the gradient of a sample with x_0 <= 0 is zero


ZERO_AT_FIRST = {
    "a rule that misses an argument": lambda m, x: gated(m, x) * torch.add(m.f(x), m.w, alpha=2),
    "a use out of sight": lambda m, x: m.f(x) + m.w.sum() + gated(m, x) * SumOfSquares.apply(m.w),
    "a weight out of sight": lambda m, x: gated(m, x) * (m.f(x) * m.w + SumOfSquares.apply(m.f.weight)),
    "one of two": lambda m, x: torch.add(m.f(x) * gated(m, x), m.w, alpha=3) + gated(m, -x) * m.w,
    "nearly zero": lambda m, x: (40 * x[:, :1]).sigmoid() * torch.add(m.f(x), m.w, alpha=2),
    "a wrong use beside a right one": lambda m, x: m.f(x) + m.w + gated(m, x) * torch.add(m.f(x), m.w, alpha=2),
    "a hidden use beside a right one": lambda m, x: m.f(x) + m.w + gated(m, x) * SumOfSquares.apply(m.w),
    "a hidden use of weights": lambda m, x: m.f(x) + m.w + gated(m, x) * SumOfSquares.apply(m.f.weight),
    "first a right one, then a wrong one": lambda m, x: (
        torch.add(m.f(x), gated(m, -x) * m.w) + gated(m, x) * (m.f(x) * m.w + torch.add(m.f(x), m.w, alpha=2))
    ),
    "a branch": lambda m, x: m.f(x) + (gated(m, x) * SumOfSquares.apply(m.w) if (x[:, 0] > 0).any() else 0),
    "reversed": lambda m, x: m.f(x.flip(0)).flip(0).tanh() * m.w,
    "right": lambda m, x: gated(m, x) * (m.f(x) * m.w),
}


@pytest.mark.parametrize("numbers", [None, 4_500])  # all samples at once, in blocks
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ZERO_AT_FIRST)
def test_another_sample_tells_where_a_gradient_is_zero(name, dtype, numbers):
    wide = nn.Sequential(nn.Linear(6, 300), nn.Tanh(), nn.Linear(300, 3))
    model = Apply(lambda m, x: ZERO_AT_FIRST[name](m, x) + m.wide(x), f=nn.Linear(6, 3), w=parameter(3), wide=wide)
    made = case(model, 6, loss_fn=squares, n=9)
    made.model, made.inputs = made.model.to(dtype), made.inputs.to(dtype)
    made.inputs[:, 0] = 1 + made.inputs[:, 0].abs()
    made.inputs[5, 0] = -1  # the one that is run alone
    expected = quietly(reference.gram, made)
    max_memory = numbers and numbers * dtype.itemsize
    difference = (quietly(gram, made, max_memory=max_memory) - expected).abs() / expected.diagonal().max()
    assert difference.max() < (1e-4 if dtype == torch.float32 else 1e-10)


def mixture(m, x):
    """Send each sample to one expert, that of its largest input."""
    chosen = F.one_hot(x.argmax(1), len(m.experts)).to(x.dtype)
    return sum(chosen[:, k, None] * expert(x) for k, expert in enumerate(m.experts))


def test_experts_that_the_first_sample_does_not_ask(monkeypatch):
    experts = nn.ModuleList(nn.Linear(5, 3) for _ in range(5))
    made = case(Apply(mixture, experts=experts), 5, loss_fn=squares, n=20)
    tried, real = [], work._tried
    monkeypatch.setattr(work, "_tried", lambda problem: tried.append(problem.samples) or real(problem))
    assert_same(quietly(gram, made), quietly(reference.gram, made))
    asked = made.inputs.argmax(1).unique()
    assert tried == [1] * (len(asked) - 1)  # one sample for each other expert, its weight and bias


def test_gradients_that_are_zero_for_all_samples_keep_their_rules(monkeypatch):
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    nn.init.zeros_(model[2].weight)
    made = case(model, 5, loss_fn=squares, n=8)
    monkeypatch.delattr(work, "_tried")
    assert_same(quietly(gram, made), quietly(reference.gram, made))


def test_a_gradient_that_comes_in_a_later_block():
    def forward(m, x):
        z = m.g(x)
        return m.f(x) + (gated(m, x) * z if (x[:, 0] > 0).any() else 0)

    made = case(Apply(forward, f=nn.Linear(40, 3), g=nn.Linear(40, 3)), 40, loss_fn=squares, n=9)
    made.inputs[:, 0] = -1
    made.inputs[1, 0] = 1
    assert_same(quietly(gram, made, max_memory=40_000), quietly(reference.gram, made))


def test_only_what_is_refuted_falls_back(monkeypatch):
    seen, real = [], work._fall_back
    monkeypatch.setattr(
        work, "_fall_back", lambda problem, plan, *rest: seen.append(plan) or real(problem, plan, *rest)
    )
    test_another_sample_tells_where_a_gradient_is_zero("a rule that misses an argument", torch.float64, None)
    assert [name for name, path in seen[-1].paths.items() if not path.fast] == ["w"]
