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

from gradconf import gram, reference

TABLE = torch.tensor([[0, 1], [2, 3], [4, 5], [1, 1], [3, 5], [0, 4]])


def without_gradient(m, x):
    with torch.no_grad():
        h = m.f(x).tanh()
    return m.f(h)


def derivative(m, x):
    x = x.clone().requires_grad_()
    u = m.g(m.f(x).tanh())
    return torch.cat([u, torch.autograd.grad(u.sum(), x, create_graph=True)[0]], 1)


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
