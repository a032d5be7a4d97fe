"""A zoo of models to measure, the ways of measuring them, and the promise that measuring leaves no trace."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

import gradconf
from gradconf.models import cnn, mlp, wrn

CLASSES = 3
# Options of a fresh Python. It hides deprecations inside of packages, and old releases are full of them.
STRICT = ("-W", "error", "-W", "ignore::DeprecationWarning")


@dataclass
class Case:
    model: nn.Module
    inputs: object
    targets: object
    loss_fn: Callable
    warns: bool = False


def cross_entropy(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")


class Apply(nn.Module):
    """A model written as one function of itself and its inputs."""

    def __init__(self, function, **members):
        super().__init__()
        for name, member in members.items():
            setattr(self, name, member)
        self.function = function

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


class Squared(torch.autograd.Function):
    """x^2 in the old style, which torch.func refuses."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad * ctx.saved_tensors[0]


def case(model, *shape, inputs=None, loss_fn=cross_entropy, n=5, warns=False):
    inputs = torch.randn(n, *shape, dtype=torch.float64) if inputs is None else inputs
    return Case(model.double(), inputs, torch.randint(CLASSES, (n,)), loss_fn, warns)


def normalised(model, *shape):
    made = case(model, *shape)
    for _ in range(3):
        made.model(made.inputs + torch.randn_like(made.inputs))
    made.model.eval()
    return made


def frozen():
    model = mlp(2, 6, in_features=4, out_features=CLASSES)
    model.linear_1.weight.requires_grad_(False)
    return case(model, 4)


def tied():
    model = Apply(lambda m, x: m.out(m.embed(x).mean(1)), embed=nn.Embedding(CLASSES, 4), out=nn.Linear(4, CLASSES))
    model.out.weight = model.embed.weight
    return case(model, inputs=torch.randint(CLASSES, (5, 6)))


def dict_targets():
    def loss_fn(outputs, targets):
        return targets["weight"] * cross_entropy(outputs, targets["class"])

    made = case(nn.Linear(4, CLASSES), 4, loss_fn=loss_fn)
    made.targets = {"class": made.targets, "weight": torch.rand(5, dtype=torch.float64)}
    return made


def closure(scale=1.0):
    weight = nn.Parameter(torch.randn(CLASSES, 4))
    return case(Apply(lambda m, x: scale * F.linear(x, weight), weight=weight), 4)


def penalty():
    model = nn.Linear(4, CLASSES)
    return case(model, 4, loss_fn=lambda o, t: cross_entropy(o, t) + 1e-3 * model.weight.square().sum(), warns=True)


def pair_model():
    return Apply(lambda m, x, y: m.left(x) * m.right(y), left=nn.Linear(4, CLASSES), right=nn.Linear(2, CLASSES))


def pair_inputs():
    return torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)


def recurrent():
    lstm = nn.LSTM(2, 4, batch_first=True)
    return case(Apply(lambda m, x: m.out(m.lstm(x)[0][:, -1]), lstm=lstm, out=nn.Linear(4, CLASSES)), 6, 2, warns=True)


CASES = {
    "mlp": lambda: case(mlp(2, 6, in_features=4, out_features=CLASSES), 4),
    "mlp_without_biases": lambda: case(mlp(2, 6, in_features=4, out_features=CLASSES, bias=False), 4),
    "cnn_2d": lambda: case(cnn(10, 1, out_features=CLASSES), 3, 8, 8),
    "cnn_1d": lambda: case(cnn(10, 1, in_channels=1, out_features=CLASSES, dims=1), 1, 16),
    "wrn_2d": lambda: normalised(wrn(10, 1, out_features=CLASSES), 3, 8, 8),
    "wrn_1d": lambda: normalised(wrn(10, 1, in_channels=1, out_features=CLASSES, dims=1), 1, 16),
    "strided": lambda: case(
        nn.Sequential(nn.Conv2d(2, 4, 3, 2), nn.Tanh(), nn.Conv2d(4, CLASSES, 3, 3), nn.Flatten()), 2, 9, 9
    ),
    "frozen": frozen,
    "tied": tied,
    "used_twice": lambda: case(Apply(lambda m, x: m.f(m.f(x).tanh())[:, :CLASSES], f=nn.Linear(4, 4)), 4),
    "integers": lambda: case(
        nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(8, CLASSES)), inputs=torch.randint(7, (5, 2))
    ),
    "tuple_inputs": lambda: case(pair_model(), inputs=pair_inputs()),
    "list_inputs": lambda: case(pair_model(), inputs=list(pair_inputs())),
    "dict_inputs": lambda: case(pair_model(), inputs=dict(zip("yx", reversed(pair_inputs()), strict=True))),
    "dict_targets": dict_targets,
    "unused": lambda: case(Apply(lambda m, x: m.f(x), f=nn.Linear(4, CLASSES), idle=nn.Linear(4, 4)), 4),
    "raw_parameter": lambda: case(
        Apply(
            lambda m, x: m.f(x) + m.shift * x.sum(1, keepdim=True),
            f=nn.Linear(4, CLASSES),
            shift=nn.Parameter(torch.randn(CLASSES)),
        ),
        4,
    ),
    "lstm": recurrent,
    "custom_function": lambda: case(Apply(lambda m, x: Squared.apply(m.f(x)), f=nn.Linear(4, CLASSES)), 4),
    "closure": closure,
    "penalty_in_the_loss": penalty,
}

MEASURES = {
    "gram": gradconf.gram,
    "reference.gram": gradconf.reference.gram,
    "minibatch_gram": lambda model, loss_fn, x, y: gradconf.minibatch_gram(model, loss_fn, [(x, y)]),
    "reference.minibatch_gram": lambda model, loss_fn, x, y: gradconf.reference.minibatch_gram(
        model, loss_fn, [(x, y)]
    ),
}


def same(a, b):
    return (a is None and b is None) or a.is_meta or torch.equal(a, b)


@contextmanager
def no_trace(model):
    """Assert that nothing about the model or the CPU's random numbers is different afterwards."""

    def copies(tensors):
        return [(t, None if t is None else t.detach().clone()) for t in tensors]

    parameters = list(model.parameters())
    values = copies([*parameters, *model.buffers()])
    gradients = copies([p.grad for p in parameters])
    flags = [p.requires_grad for p in parameters], [m.training for m in model.modules()]
    state = torch.get_rng_state()
    yield
    assert [id(t) for t in [*model.parameters(), *model.buffers()]] == [id(t) for t, _ in values]
    assert [id(p.grad) for p in parameters] == [id(g) for g, _ in gradients]
    assert all(same(tensor, copy) for tensor, copy in [*values, *gradients])
    assert ([p.requires_grad for p in parameters], [m.training for m in model.modules()]) == flags
    assert torch.equal(torch.get_rng_state(), state)
