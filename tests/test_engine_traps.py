"""Ways in which an engine that watches uses of parameters can be misled: it must give the right K, or refuse."""

import pytest
import torch
import torch.nn.functional as F
from cases import Apply, Squared
from test_engine import quietly
from test_grams import assert_same
from torch import nn
from torch.utils.checkpoint import checkpoint
from zoo import apply, parameter, squares

from gradconf import explain, gram, reference

ALONE = 3  # of six samples, the one that is run alone
TABLE = torch.tensor([[0, 1], [2, 3], [4, 5], [1, 1], [3, 5], [0, 4]])


def without_gradient(m, x):
    with torch.no_grad():
        h = m.f(x).tanh()
    return m.f(h)


def derivative(m, x):
    x = x.clone().requires_grad_()
    u = m.g(m.f(x).tanh())
    return torch.cat([u, torch.autograd.grad(u.sum(), x, create_graph=True)[0]], 1)


def penalty_of_others(m, x):
    slope = derivative(m, x)[:, 2:]
    return m.g(m.f(x).tanh()) + torch.where(x[:, :1] > 0, slope.sum(1, keepdim=True), 0)


def in_order_and_back(m, x):
    order = x[:, 0].argsort()
    return m.g(m.f(x[order]).tanh())[order.argsort()]


def slope_by_functions(m, x):
    slope = torch.func.vmap(torch.func.grad(lambda z: m.g(m.f(z).tanh()).square().sum()))(x)
    return m.g(m.f(x).tanh()) * slope.sum(1, keepdim=True)


def forward_slope(m, x):
    return sum(torch.func.jvp(lambda z: m.g(m.f(z).tanh()), (x,), (torch.ones_like(x),)))


def routed(m, x):
    h = x.reshape(-1, 4)
    right = h[:, 0] > 0
    out = h.new_zeros(len(h), 3)
    out[right], out[~right] = m.f(h[right]), m.g(h[~right])
    return out.reshape(len(x), -1)


def unevenly_routed():
    counts = torch.tensor([2, 2, 2, 4, 1, 1])  # positions of each sample that take the first branch: N * 2 in all
    x = torch.randn(6, 4, 4).double().abs()
    x[..., 0] *= torch.where(torch.arange(4) < counts[:, None], 1.0, -1.0)
    return x


def six(first, *, sort=False):
    """Samples of which `first` is the first number of the one that is run alone, which sorting leaves in place."""
    x = 1 + torch.rand(6, 4).double()
    x[:, 0] = torch.tensor([6.0, 5, 4, 3, 2, 1]).roll(1 if sort else 0)
    x[ALONE, 0] = first
    return x


def one_without_gradient():
    x = torch.randn(6, 6, 4).double()
    x[1] = 0
    return x


def linears(function, *shape, **options):
    return lambda: apply(function, *shape, f=nn.Linear(4, 4), g=nn.Linear(4, 2), loss_fn=squares, **options)


def raw(function, inputs, **shapes):
    return lambda: apply(
        function, inputs=inputs(), n=len(inputs()), loss_fn=squares, **{k: parameter(*s) for k, s in shapes.items()}
    )


def rows(*shape):
    return lambda: torch.randn(5, *shape).double()


def ones(x):
    return x.new_ones(6, 1)


TRAPS = {
    "addmm_square": raw(lambda m, x: torch.addmm(m.b, x, m.w), rows(4), w=(4, 4), b=(4,)),
    "addmm_beta_alpha": raw(lambda m, x: torch.addmm(m.b, x, m.w, beta=0.5, alpha=2), rows(4), w=(4, 3), b=(3,)),
    "addmm_bias_of_one": raw(lambda m, x: torch.addmm(m.b, x, m.w), rows(4), w=(4, 3), b=(1,)),
    "addmm_keywords": raw(lambda m, x: torch.addmm(input=m.b, mat1=x, mat2=m.w), rows(4), w=(4, 3), b=(3,)),
    "matmul_keyword": raw(lambda m, x: torch.matmul(x, other=m.w), rows(4), w=(4, 3)),
    "linear_bias_of_one": raw(lambda m, x: F.linear(x, m.w, m.b), rows(4), w=(3, 4), b=(1,)),
    "linear_vector": raw(lambda m, x: F.linear(x, m.w)[:, None], rows(4), w=(4,)),
    "linear_vector_positions": raw(lambda m, x: F.linear(x, m.w), rows(3, 4), w=(4,)),
    "one_parameter_in_two_roles": raw(lambda m, x: F.layer_norm(x, (4,), m.p, m.p), rows(4), p=(4,)),
    "product_of_parameters": raw(lambda m, x: F.embedding(x, m.a @ m.b).mean(1), lambda: TABLE, a=(6, 2), b=(2, 3)),
    "spread_over_a_table": raw(lambda m, x: F.embedding(x, ones(m.p.detach()) * m.p).mean(1), lambda: TABLE, p=(1, 2)),
    "first_use_detached": linears(lambda m, x: m.f(m.f(x).tanh().detach()), 4),
    "first_use_without_gradient": linears(without_gradient, 4),
    "input_requires_gradient": linears(lambda m, x: m.g(m.f(x.clone().requires_grad_()).tanh()), 4),
    "derivative_in_the_model": linears(derivative, 4),
    "derivative_of_other_samples": linears(penalty_of_others, inputs=six(-1.0), n=6),
    "grad_in_the_model": linears(slope_by_functions, 4),
    "jvp_in_the_model": linears(forward_slope, 4),
    "embedding_by_frequency": raw(
        lambda m, x: F.embedding(x, m.p, scale_grad_by_freq=True).mean(1), lambda: TABLE.roll(1, 0), p=(6, 2)
    ),
    "in_order_and_back": linears(in_order_and_back, inputs=six(3.5, sort=True), n=6),
    "layer_of_no_width": raw(
        lambda m, x: F.linear(x, m.w) + F.linear(x, m.e).sum(1, keepdim=True), rows(4), w=(3, 4), e=(0, 4)
    ),
    "vmap_in_the_model": linears(lambda m, x: torch.func.vmap(lambda z: m.g(m.f(z).tanh()))(x), 4),
    "checkpoint": linears(lambda m, x: m.g(checkpoint(lambda z: m.f(z).tanh(), m.f(x), use_reentrant=False)), 4),
    "sequence_first_middle": linears(lambda m, x: m.g(m.f(x.transpose(0, 1)).tanh())[1], 3, 4),
    "sequence_first_dead_sample": linears(
        lambda m, x: m.f(x.transpose(0, 1)).mean(0) * x[:, :1, 0].square(), inputs=one_without_gradient(), n=6
    ),
    "routed_positions": lambda: apply(
        routed, inputs=unevenly_routed(), n=6, f=nn.Linear(4, 3), g=nn.Linear(4, 3), loss_fn=squares
    ),
    "script_first": lambda: linears(lambda m, x: m.g(m.s(x).tanh()), 4, s=torch.jit.script(nn.Linear(4, 4).double()))(),
    "custom_function_first": linears(lambda m, x: m.g(m.f(x * Squared.apply(m.p))), 4, p=parameter(4)),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("max_memory", [None, 2**11, 2**13])
@pytest.mark.parametrize("name", TRAPS)
def test_no_trap_gives_a_wrong_number(name, max_memory):
    made = TRAPS[name]()
    try:
        measured = quietly(gram, made, max_memory=max_memory)
    except MemoryError:
        pytest.skip("too little memory")
    assert_same(measured, quietly(reference.gram, made))


def test_a_model_that_changes_its_input_leaves_the_callers_alone():
    x = torch.randn(5, 4)
    copy = x.clone()
    gram(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)), squares, x, torch.zeros(5))
    assert torch.equal(x, copy)


def test_an_embedding_with_max_norm_is_left_alone_or_refused():
    model = Apply(lambda m, x: m.e(x).mean(1), e=nn.Embedding(6, 4, max_norm=0.5)).double()
    before = model.e.weight.detach().clone()
    with pytest.raises(ValueError, match="max_norm"):
        gram(model, squares, TABLE, torch.zeros(6))
    assert torch.equal(model.e.weight, before)


@pytest.mark.parametrize("share", [0.3, 0.1, 0.03])
def test_a_small_part_that_rules_do_not_see_counts_in_float32(share):
    def forward(m, x):
        return torch.cat([m.g(m.f(x).tanh()), share * derivative(m, x)[:, 2:]], 1)

    made = linears(forward, 4)()
    expected = quietly(reference.gram, made)
    made.model, made.inputs = made.model.float(), made.inputs.float()
    scale = expected.diagonal().sqrt()
    assert ((quietly(gram, made) - expected) / torch.outer(scale, scale)).abs().max() < 1e-5


@pytest.mark.parametrize("mixed", [1e-1, 1e-2, 1e-3])
def test_weak_mixing_is_refused_in_float32(mixed):
    model = Apply(lambda m, x: m.f(x - mixed * x.mean(0)), f=nn.Linear(4, 3))
    with pytest.raises(ValueError, match="samples beside it"):
        gram(model, squares, 1 + torch.rand(32, 4), torch.zeros(32))


def test_a_tensor_kept_in_an_attribute_is_put_back():
    def forward(m, x):
        h = m.f(x) * m.p.exp()  # no rule, so vmap runs it
        m.seen = 0.9 * m.seen + h.detach().mean(0)
        return h

    made = apply(forward, 4, f=nn.Linear(4, 3), p=parameter(3), loss_fn=squares)
    made.model.seen = before = torch.zeros(3).double()
    assert_same(quietly(gram, made), quietly(reference.gram, made))
    assert made.model.seen is before


class Product(torch.autograd.Function):
    """x * p out of sight."""

    @staticmethod
    def forward(ctx, x, p):
        ctx.save_for_backward(x, p)
        return x * p

    @staticmethod
    def backward(ctx, d):
        x, p = ctx.saved_tensors
        return d * p, d * x


def test_what_only_a_later_block_uses_out_of_sight_is_not_lost():
    def forward(m, x):  # (N, 16, 4)
        h = m.f(x)
        return torch.where(x[:, :1, :1] > 0, Product.apply(h, m.p), h) if (x[:, 0, 0] > 0).any() else h

    made = apply(forward, 16, 4, n=40, f=nn.Linear(4, 64), p=parameter(64), loss_fn=squares)
    made.inputs[:, 0, 0] = torch.where(torch.arange(40) < 36, -1.0, 1.0)
    expected = quietly(reference.gram, made)
    for max_memory in (None, 2**18):
        assert_same(quietly(gram, made, max_memory=max_memory), expected)


def test_a_hook_of_the_models_own_still_finds_what_forward_left():
    def forward(m, x):
        m.seen = m.f(x)
        m.seen.register_hook(lambda d: setattr(m, "scale", (d * m.seen.detach()).sum()))
        return m.g(m.seen.tanh())

    made = linears(forward, 4)()
    made.model.seen = None
    assert not quietly(explain, made).path.eq("fall back").any()
    assert_same(quietly(gram, made), quietly(reference.gram, made))
    assert made.model.seen is None
    assert not hasattr(made.model, "scale")
