import gc
import math
import warnings
import weakref

import hypothesis.strategies as st
import pytest
import torch
from cases import Apply, case, no_trace
from hypothesis import assume, given
from test_grams import assert_same
from torch import nn
from zoo import ZOO, apply, layer, parameter, tokens

from gradconf import cross_gram, explain, gram, layer_grams, measure, reference
from gradconf.engine import registry
from gradconf.engine.budget import BLOCK, Budget
from gradconf.engine.contributions import Rows
from gradconf.engine.work import make_plan
from gradconf.models import cnn, mlp
from gradconf.problems import pose_alone
from gradconf.statistics import confusion

SIZES = st.integers(1, 4)
SEVERAL = ["linear", "linear_3d", "conv2d_groups", "batch_norm_2d", "embedding_tied", "attention", "added", "prelu"]


def quietly(function, made, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of falling back
        return function(made.model, made.loss_fn, made.inputs, made.targets, **options)


def plan(made):
    return quietly(lambda *task: make_plan(pose_alone(*task)), made)


def enough(made, samples_at_once):
    """What max_memory runs so many samples at a time."""
    return math.ceil(samples_at_once * plan(made).activations / BLOCK)


def take(made, rows):
    inputs = made.inputs
    made.inputs = inputs[rows] if isinstance(inputs, torch.Tensor) else tuple(x[rows] for x in inputs)
    made.targets = made.targets[rows]
    return made


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_equals_one_backward_a_sample(name):
    made = ZOO[name]()
    with no_trace(made.model):
        measured = quietly(gram, made)
    assert_same(measured, quietly(reference.gram, made))


@pytest.mark.parametrize("samples_at_once", [1, 2])
@pytest.mark.parametrize("name", ZOO)
def test_memory_does_not_show_in_the_result(name, samples_at_once):
    made = ZOO[name]()
    memory = enough(made, samples_at_once)
    for _ in range(20):  # a parameter may need more
        try:
            measured = quietly(gram, made, max_memory=memory)
            break
        except MemoryError:
            memory = memory * 5 // 4
    assert_same(measured, quietly(reference.gram, made))


@pytest.mark.parametrize("name", ZOO)
def test_blocks_for_speed_do_not_show_in_the_result(name, monkeypatch):
    made = ZOO[name]()
    activations = plan(made).activations
    for size, value in {"LARGE": 0, "PART": 2 * activations, "FEW": 1}.items():
        monkeypatch.setattr(f"gradconf.engine.budget.{size}", value)
    problem = pose_alone(made.model, made.loss_fn, made.inputs, made.targets)
    budget = Budget.of(problem, plan(made), 2**34)
    assert budget.kept
    assert budget.step == 2
    assert_same(quietly(gram, made, max_memory=2**34), quietly(reference.gram, made))


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("name", SEVERAL)
def test_one_or_two_samples_are_enough(name, n):
    made = take(ZOO[name](), slice(n))
    assert_same(quietly(gram, made), quietly(reference.gram, made))


@pytest.mark.parametrize("name", SEVERAL)
def test_layers_add_up_and_a_cross_gram_is_a_block(name):
    made = ZOO[name]()
    expected = quietly(reference.gram, made)
    for memory in (None, enough(made, 4)):
        assert_same(sum(quietly(layer_grams, made, max_memory=memory).values()), expected)
    halves = [(part.inputs, part.targets) for part in (take(ZOO[name](), rows) for rows in (slice(2), slice(2, 5)))]
    torch.manual_seed(0)
    joint = (torch.cat([a[k] for a in halves]) for k in (0, 1))
    K = gram(made.model, made.loss_fn, *joint)
    assert torch.allclose(cross_gram(made.model, made.loss_fn, *halves), K[:2, 2:], rtol=1e-12, atol=0)


def test_tied_layers_are_one():
    made = apply(
        lambda m, x: m.g(m.out(m.e(x).tanh().mean(1))),
        inputs=tokens(5, 4),
        e=nn.Embedding(7, 3),
        out=nn.Linear(3, 7),
        g=nn.Linear(7, 3),
    )
    made.model.out.weight = made.model.e.weight
    found = quietly(layer_grams, made)
    assert list(found) == ["e + out", "g"]
    assert_same(sum(found.values()), quietly(reference.gram, made))


@given(SIZES, SIZES, SIZES, *[st.tuples(SIZES, SIZES)] * 5, st.integers(0, 9), st.booleans())
def test_convolutions_of_all_shapes(groups, a, b, kernel, stride, padding, dilation, size, seed, bias):
    size = [s + k for s, k in zip(size, kernel, strict=True)]
    padding = [p - 1 for p in padding]
    assume(all(s + 2 * p > d * (k - 1) for s, p, d, k in zip(size, padding, dilation, kernel, strict=True)))
    torch.manual_seed(seed)
    for kind in (nn.Conv2d, nn.ConvTranspose2d):
        if kind is nn.ConvTranspose2d and any(
            (s - 1) * t - 2 * p + d * (k - 1) < 0
            for s, t, p, d, k in zip(size, stride, padding, dilation, kernel, strict=True)
        ):
            continue
        f = kind(groups * a, groups * b, kernel, stride, padding, dilation=dilation, groups=groups, bias=bias)
        made = layer(f, groups * a, *size, n=3)
        assert_same(quietly(gram, made), quietly(reference.gram, made))


@given(st.integers(1, 6), st.integers(1, 5), SIZES, SIZES, st.booleans())
def test_linear_layers_of_all_shapes(n, positions, inner, outer, bias):
    made = layer(nn.Linear(inner, outer, bias=bias), positions, inner, n=n)
    assert_same(quietly(gram, made), quietly(reference.gram, made))


def test_explain_tells_the_path_of_each_parameter():
    made = case(Apply(lambda m, x: m.f(x), f=mlp(2, 6, in_features=4, out_features=3), idle=nn.Linear(2, 2)), 4)
    table = quietly(explain, made)
    assert list(table.index) == [name for name, _ in made.model.named_parameters()]
    assert set(table.path[[name for name in table.index if "weight" in name and "idle" not in name]]) == {"contract"}
    assert set(table.path[["idle.weight", "idle.bias"]]) == {"unused"}
    assert set(quietly(explain, case(cnn(10, 1, out_features=3), 3, 8, 8)).path) <= {"form", "contract"}
    assert "form" in set(quietly(explain, case(cnn(10, 1, out_features=3), 3, 8, 8)).path)
    assert quietly(explain, ZOO["embedding"]()).path["e.weight"] == "form"
    table = quietly(explain, ZOO["lstm"]())
    falls = table.index.str.startswith("rnn")
    assert set(table.path[falls]) == {"fall back"}
    assert table.reason[falls].ne("").all()
    assert not table.path[~falls].eq("fall back").any()


def test_explain_says_in_words_what_no_rule_was_made_for():
    def forward(m, x):
        return m.f(x) @ m.f(m.table).mT  # (N, 3) @ (3, 3): the table runs once for all samples

    made = case(Apply(forward, f=nn.Linear(4, 3), table=nn.Parameter(torch.rand(3, 4))), 4)
    reasons = quietly(explain, made).reason
    assert reasons["table"] == "the first dimension of its output is not that of samples"
    assert_same(quietly(gram, made), quietly(reference.gram, made))


def test_measure_is_the_confusion_of_gram():
    made = case(mlp(2, 6, in_features=4, out_features=3), 4)
    assert repr(quietly(measure, made)) == repr(confusion(quietly(gram, made), labels=made.targets))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_can_move_to_another_device(name):
    made = ZOO[name]()
    inputs = made.inputs if isinstance(made.inputs, tuple) else (made.inputs,)
    outputs = made.model.to("meta")(*(x.to("meta") for x in inputs))
    assert made.loss_fn(outputs, made.targets.to("meta")).is_meta


def my_scale(x, scale):
    if torch.overrides.has_torch_function((x, scale)):
        return torch.overrides.handle_torch_function(my_scale, (x, scale), x, scale)
    return x * scale.exp()


def test_a_rule_of_ones_own():
    made = apply(lambda m, x: my_scale(m.f(x), m.s), 4, f=nn.Linear(4, 3), s=parameter(3))
    expected = quietly(reference.gram, made)

    @registry.rule(my_scale, "input scale")
    def _rule(call, d, n):
        return {"scale": Rows((call["input"] * d * call["scale"].exp()).reshape(n, -1, d.shape[-1]).sum(1))}

    try:
        assert quietly(explain, made).path["s"] == "form"
        assert_same(quietly(gram, made), expected)
    finally:
        del registry.RULES[my_scale]
    assert_same(quietly(gram, made), expected)


@pytest.mark.parametrize("memory", [None, 2**14])
@pytest.mark.parametrize("name", ["conv2d_groups", "attention", "lstm", "embedding_of_positions"])
def test_nothing_is_left_behind(name, memory):
    made, alive = ZOO[name](), []

    def loss_fn(outputs, targets):
        alive.append(weakref.ref(outputs))
        return made.loss_fn(outputs, targets)

    gc.disable()  # so that only what nobody refers to goes
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            gram(made.model, loss_fn, made.inputs, made.targets, max_memory=memory)
        assert not [reference for reference in alive if reference() is not None]
    finally:
        gc.enable()
