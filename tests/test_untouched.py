import subprocess
import sys

import pytest
import torch
from cases import CASES, MEASURES, STRICT, Apply, cross_entropy, no_trace
from torch import nn

import gradconf
from gradconf import gram, minibatch_gram, reference

X, Y = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3


def mixed_modes(batch_norm_trains=False, with_gradients=True):
    """A model with buffers, a frozen parameter, modules in both modes and gradients on some parameters."""
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 3))
    model(X)
    model[0].bias.requires_grad_(False)
    model[1].train(batch_norm_trains)
    model[2].eval()
    if with_gradients:
        for p in (model[0].weight, model[3].weight):
            p.grad = torch.randn_like(p)
    return model


@pytest.mark.parametrize("with_gradients", [True, False])
@pytest.mark.parametrize("measure", MEASURES)
def test_measuring_leaves_no_trace(measure, with_gradients):
    model = mixed_modes(batch_norm_trains="minibatch" in measure, with_gradients=with_gradients)
    with no_trace(model):
        K = MEASURES[measure](model, cross_entropy, X, Y)
    assert not K.requires_grad


@pytest.mark.parametrize("measure", [gram, reference.gram, reference.per_sample_gradients])
def test_measuring_some_parameters_leaves_the_gradients_of_the_others(measure):
    model = mixed_modes()
    with no_trace(model):
        measured = measure(model, cross_entropy, X, Y, params=["3.bias"])
    assert not measured.requires_grad


def test_the_loop_leaves_the_gradients_of_the_parameters_it_does_not_measure():
    case = CASES["penalty_in_the_loss"]()
    for p in case.model.parameters():
        p.grad = torch.randn_like(p)
    with no_trace(case.model), pytest.warns(UserWarning, match="slow"):
        gram(case.model, case.loss_fn, case.inputs, case.targets, params=["weight"])


@pytest.mark.parametrize("measure", MEASURES)
def test_inputs_that_require_a_gradient_receive_none(measure):
    x = X.clone().requires_grad_()
    assert not MEASURES[measure](mixed_modes(), cross_entropy, x, Y).requires_grad
    assert x.grad is None


@pytest.mark.parametrize("measure", MEASURES)
def test_a_graph_made_before_measuring_can_still_be_differentiated(measure):
    model = mixed_modes()
    loss = cross_entropy(model(X), Y).mean()
    MEASURES[measure](model, cross_entropy, X, Y)
    loss.backward()


@pytest.mark.parametrize("measure", MEASURES)
def test_no_grad_and_autocast_around_the_call_change_nothing(measure):
    model = mixed_modes()
    expected = MEASURES[measure](model, cross_entropy, X, Y)
    with torch.no_grad():
        assert torch.equal(MEASURES[measure](model, cross_entropy, X, Y), expected)
        assert not torch.is_grad_enabled()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(MEASURES[measure](model, cross_entropy, X, Y), expected)
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("good_calls", [0, 1, 2])
@pytest.mark.parametrize("module", [gradconf, reference])
@pytest.mark.parametrize("function", ["gram", "minibatch_gram"])
def test_an_error_half_way_leaves_no_trace(function, module, good_calls):
    model = mixed_modes(batch_norm_trains=function == "minibatch_gram")
    calls = []

    def loss_fn(outputs, targets):
        calls.append(outputs)
        if len(calls) > good_calls:
            torch.rand(3)
            raise KeyError("interrupted")
        return cross_entropy(outputs, targets)

    samples = (X, Y) if function == "gram" else ([(X, Y)] * 3,)
    with no_trace(model), pytest.raises(KeyError, match="interrupted"):
        getattr(module, function)(model, loss_fn, *samples)
    assert len(calls) > good_calls


def test_buffers_come_back_whether_they_were_overwritten_or_replaced():
    class Counting(nn.Linear):
        def forward(self, x):
            self.seen += len(x)
            self.last = self.last + x.mean()
            return super().forward(x)

    model = Counting(4, 3)
    model.register_buffer("seen", torch.tensor(0))
    model.register_buffer("last", torch.tensor(0.0))
    with no_trace(model):
        minibatch_gram(model, cross_entropy, [(X, Y)] * 2)


def test_a_buffer_whose_elements_share_memory_is_no_obstacle():
    model = nn.Linear(4, 3)
    model.register_buffer("mask", torch.tensor(1.0).expand(3))
    with no_trace(model):
        gram(model, cross_entropy, X, Y)


SWITCHES = {
    "as torch comes": "pass",
    "allow_tf32 for products": "torch.backends.cuda.matmul.allow_tf32 = True",
    "no tf32 for convolutions": "torch.backends.cudnn.allow_tf32 = False",
    "medium": "torch.set_float32_matmul_precision('medium')",
}


@pytest.mark.parametrize("switched", SWITCHES.values(), ids=SWITCHES)
def test_tf32_is_off_inside_and_as_before_after(switched):
    script = f"""
import torch, gradconf
from gradconf.isolation import untouched
def switches():
    b = torch.backends
    return b.cuda.matmul.allow_tf32, b.cudnn.allow_tf32, torch.get_float32_matmul_precision()
{switched}
before, model = switches(), torch.nn.Linear(2, 2)
with untouched(model):
    assert torch.get_float32_matmul_precision() == "highest" or torch.backends.cuda.matmul.fp32_precision == "ieee"
assert switches() == before
"""
    subprocess.run([sys.executable, *STRICT, "-c", script], check=True)


LATER = {
    "all": "torch.backends.fp32_precision = 'ieee'",
    "cudnn": "torch.backends.cudnn.fp32_precision = 'ieee'",
    "mkldnn": "torch.backends.mkldnn.fp32_precision = 'ieee'",
}


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch has one switch alone")
@pytest.mark.parametrize("later", LATER.values(), ids=LATER)
def test_parts_still_follow_the_whole_when_it_is_switched_later(later):
    script = f"""
import torch, gradconf
from gradconf.isolation import untouched
def switches():
    b = torch.backends
    parts = b.cuda.matmul, b.cudnn.conv, b.cudnn.rnn, b.mkldnn.matmul, b.mkldnn.conv, b.mkldnn.rnn
    return [part.fp32_precision for part in (b, b.cudnn, b.mkldnn, *parts)]
def switched_later(measured):
    torch.backends.fp32_precision = "tf32"
    if measured:
        with untouched(torch.nn.Linear(2, 2)):
            assert set(switches()) == {{"ieee"}}
    {later}
    found = switches()
    torch.backends.fp32_precision = torch.backends.cudnn.fp32_precision = torch.backends.mkldnn.fp32_precision = "none"
    return found
assert switched_later(False) == switched_later(True)
"""
    subprocess.run([sys.executable, *STRICT, "-c", script], check=True)


@pytest.mark.parametrize("measure", MEASURES)
def test_inputs_that_a_model_overwrites_are_left_as_they_were(measure):
    layer = nn.Linear(4, 3)
    inputs = X.clone()
    overwriting = MEASURES[measure](Apply(lambda m, x: m.f(x.add_(1)), f=layer), cross_entropy, inputs, Y)
    assert torch.equal(inputs, X)
    assert torch.allclose(overwriting, MEASURES[measure](Apply(lambda m, x: m.f(x + 1), f=layer), cross_entropy, X, Y))


def test_a_module_of_two_names_keeps_its_parameters():
    model = Apply(lambda m, x: m.last(m.norm(m.same(x)) * m.scale.clamp(min=0.1)), first=nn.Linear(4, 5))
    model.same, model.norm, model.last = model.first, nn.BatchNorm1d(5).eval(), nn.Linear(5, 3)
    model.again, model.scale = model.norm, nn.Parameter(torch.full((5,), 0.3))
    before = [(name, id(p)) for name, p in model.named_parameters(remove_duplicate=False)]
    with no_trace(model):
        K = gram(model, cross_entropy, X, Y)
    assert [(name, id(p)) for name, p in model.named_parameters(remove_duplicate=False)] == before
    assert torch.allclose(K, reference.gram(model, cross_entropy, X, Y), rtol=1e-4)
