from contextlib import nullcontext

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from cases import CASES, Apply, closure, cross_entropy
from hypothesis import given
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gradconf
from gradconf import gram, minibatch_gram, reference
from gradconf.engine.work import make_plan
from gradconf.models import linear_net, mlp, wrn
from gradconf.problems import pose_alone

SEEDS = st.integers(0, 2**16)
WARNING = "one backward\\(\\) a sample"


def assert_same(measured, expected, tolerance=1e-10):
    lengths = expected.diagonal().sqrt()
    assert measured.dtype == torch.float64
    assert (measured - expected).abs().le(tolerance * lengths[:, None] * lengths).all()


def batches_of(inputs, targets, size):
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def small(seed, n=5, bias=True):
    torch.manual_seed(seed)
    model = mlp(2, 6, in_features=4, out_features=3, activation="tanh", bias=bias).double()
    return model, torch.randn(n, 4, dtype=torch.float64), torch.randint(3, (n,))


@pytest.mark.parametrize("name", CASES)
def test_gram_equals_one_backward_a_sample(name, device):
    case = CASES[name]()
    model = case.model.to(device)
    with pytest.warns(UserWarning, match=WARNING) if case.warns else nullcontext():
        measured = gram(model, case.loss_fn, case.inputs, case.targets)
    assert measured.device.type == device.type
    assert_same(measured, reference.gram(model, case.loss_fn, case.inputs, case.targets))


@pytest.mark.parametrize("name", CASES)
def test_minibatch_gram_equals_one_backward_a_batch(name, device):
    case = CASES[name]()
    batches = [
        tuple(gradconf.samples.select(s, rows) for s in (case.inputs, case.targets))
        for rows in (slice(0, 2), slice(2, 5), slice(0, 5))
    ]
    model = case.model.to(device)
    assert_same(
        minibatch_gram(model, case.loss_fn, batches), reference.minibatch_gram(model, case.loss_fn, iter(batches))
    )


@pytest.mark.parametrize("dims", [1, 2])
def test_batch_norm_in_training_mode_sees_whole_batches(dims, device):
    model = wrn(10, 1, in_channels=2, out_features=3, dims=dims).double().to(device)
    x, y = torch.randn(6, 2, *[8] * dims, dtype=torch.float64), torch.randint(3, (6,))
    measured = minibatch_gram(model, cross_entropy, batches_of(x, y, 3))
    assert_same(measured, reference.minibatch_gram(model, cross_entropy, batches_of(x, y, 3)))
    for _ in range(3):
        model(x.to(device))
    assert not torch.allclose(minibatch_gram(model.eval(), cross_entropy, batches_of(x, y, 3)), measured, rtol=1e-2)


def test_buffers_that_a_forward_pass_changes_are_those_the_caller_sees(device):
    model = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)).double().to(device).train()
    batches = [(torch.randn(3, 4, dtype=torch.float64), torch.randint(3, (3,))) for _ in range(2)]
    assert_same(minibatch_gram(model, cross_entropy, batches), reference.minibatch_gram(model, cross_entropy, batches))


@given(SEEDS)
def test_minibatch_gram_averages_the_gram(seed):
    model, x, y = small(seed, n=6)
    averages = torch.eye(3, dtype=torch.float64).repeat_interleave(2, dim=1) / 2
    measured = minibatch_gram(model, cross_entropy, batches_of(x, y, 2))
    assert_same(measured, averages @ gram(model, cross_entropy, x, y) @ averages.T)


@pytest.mark.parametrize("name", ["mlp", "wrn_1d", "tied", "unused"])
def test_subsets_of_the_parameters_add_up(name):
    case = CASES[name]()
    names = [name for name, _ in case.model.named_parameters()]
    first, second, every = (
        gram(case.model, case.loss_fn, case.inputs, case.targets, params=part)
        for part in (names[::2], iter(names[1::2]), None)
    )
    assert_same(first + second, every)


def test_a_tied_parameter_counts_once_whatever_it_is_called():
    case = CASES["tied"]()
    one, both = (
        gram(case.model, case.loss_fn, case.inputs, case.targets, params=names)
        for names in ("out.weight", ["embed.weight", "out.weight"])
    )
    assert torch.equal(one, both)


@given(SEEDS, st.integers(1, 7), st.booleans())
def test_gram_is_symmetric_and_positive_semidefinite(seed, n, bias):
    model, x, y = small(seed, n, bias)
    K = gram(model, cross_entropy, x, y)
    assert K.shape == (n, n)
    assert torch.equal(K, K.T)
    assert torch.linalg.eigvalsh(K).min() >= -1e-12 * K.trace()


@given(SEEDS)
def test_gram_follows_a_permutation_of_the_samples(seed):
    model, x, y = small(seed)
    order = torch.randperm(len(x))
    assert_same(gram(model, cross_entropy, x[order], y[order]), gram(model, cross_entropy, x, y)[order][:, order])


@given(SEEDS, st.lists(st.floats(1e-3, 1e3), min_size=5, max_size=5))
def test_scaling_a_sample_s_loss_scales_its_row_and_leaves_the_cosines(seed, factors):
    model, x, y = small(seed)
    factors = torch.tensor(factors, dtype=torch.float64)
    K = gram(model, cross_entropy, x, y)
    scaled = gram(model, lambda o, t: t["factor"] * cross_entropy(o, t["class"]), x, {"class": y, "factor": factors})
    assert_same(scaled, factors[:, None] * factors * K)
    assert torch.allclose(gradconf.cosine(scaled), gradconf.cosine(K), rtol=0, atol=1e-10)


@given(SEEDS)
def test_gram_sums_to_the_squared_gradient_of_the_summed_loss(seed):
    model, x, y = small(seed)
    gradients = torch.autograd.grad(cross_entropy(model(x), y).sum(), list(model.parameters()))
    total = sum(g.square().sum() for g in gradients)
    assert torch.allclose(gram(model, cross_entropy, x, y).sum(), total, rtol=1e-10)


@pytest.mark.parametrize("measure", [gram, reference.gram])
@given(seed=SEEDS, n=st.integers(1, 6), bias=st.booleans())
def test_linear_regression_in_closed_form(measure, seed, n, bias):
    torch.manual_seed(seed)
    model = nn.Linear(3, 1, bias=bias, dtype=torch.float64)
    x, y = torch.randn(n, 3, dtype=torch.float64), torch.randn(n, 1, dtype=torch.float64)
    residuals = (model(x) - y).detach()
    K = measure(model, lambda o, t: (o - t).square().sum(1) / 2, x, y)
    assert_same(K, residuals @ residuals.T * (x @ x.T + bias))


@pytest.mark.parametrize("depth", [0, 1, 4, 16])
def test_cosines_of_orthogonal_linear_nets_are_those_of_the_inputs_at_any_depth(depth):
    model = linear_net(depth, 8, in_features=5).double()
    x = F.normalize(torch.randn(6, 5, dtype=torch.float64))
    y = torch.randn(6, dtype=torch.float64).sign()
    K = gram(model, lambda o, t: F.softplus(-t * o[:, 0]), x, y)
    assert torch.allclose(gradconf.cosine(K), y[:, None] * y * (x @ x.T), atol=1e-5)


def test_one_sample_gives_its_squared_length():
    model, x, y = small(0, n=1)
    gradients = torch.autograd.grad(cross_entropy(model(x), y).sum(), list(model.parameters()))
    assert torch.allclose(gram(model, cross_entropy, x, y), sum(g.square().sum() for g in gradients).reshape(1, 1))


@pytest.mark.parametrize("n", [1, 4, 7])
def test_blocks_do_not_show_in_the_result(n):
    model, x, y = small(0, n)
    whole = gram(model, cross_entropy, x, y)
    sizes = []
    activations = make_plan(pose_alone(model, cross_entropy, x, y)).activations
    handle = model.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    assert_same(gram(model, cross_entropy, x, y, max_memory=8 * activations), whole)
    handle.remove()
    assert max(sizes[-n:]) <= (n if n <= 4 else 2)


def test_tiny_float32_gradients_do_not_vanish():
    model = mlp(36, 16, in_features=4, out_features=3, activation="tanh", bias=False, gain=0.1)
    x, y = torch.randn(4, 4), torch.randint(3, (4,))
    measured, expected = (m(model, cross_entropy, x, y, params=["linear_0.weight"]) for m in (gram, reference.gram))
    assert expected.diagonal().min() > 0
    assert expected.diagonal().max() < 1e-50
    assert_same(measured, expected, tolerance=1e-4)


def test_a_parameter_that_no_module_hands_over_counts_however_small_its_gradients():
    case = closure(scale=1e-25)
    model, x = case.model.float(), case.inputs.float()
    measured = gram(model, case.loss_fn, x, case.targets)
    assert_same(measured, reference.gram(model, case.loss_fn, x, case.targets), tolerance=1e-6)


def test_a_hidden_parameter_is_noticed_however_small_its_gradients():
    weight = nn.Parameter(torch.randn(3, 4))
    hidden = Apply(lambda m, x: 1e-25 * F.linear(x, weight.exp()) + 0 * m.f(x), weight=weight, f=nn.Linear(4, 3))
    x, y = torch.randn(5, 4), torch.arange(5) % 3
    with pytest.warns(UserWarning, match=WARNING):
        measured = gram(hidden, cross_entropy, x, y)
    assert_same(measured, reference.gram(hidden, cross_entropy, x, y), tolerance=1e-6)


def test_the_warning_points_at_the_caller():
    case = CASES["penalty_in_the_loss"]()
    with pytest.warns(UserWarning, match=WARNING) as caught:
        gram(case.model, case.loss_fn, case.inputs, case.targets)
    assert {warning.filename for warning in caught} == {__file__}


def test_batches_are_iterated_once_and_to_the_end():
    model, x, y = small(0, n=6)
    served = []
    batches = (served.append(k) or batch for k, batch in enumerate(batches_of(x, y, 2)))
    assert minibatch_gram(model, cross_entropy, batches).shape == (3, 3)
    assert served == [0, 1, 2]


def test_a_shuffling_data_loader_is_measured_in_the_order_it_serves():
    model, x, y = small(0, n=6)

    def loader():
        order = torch.Generator().manual_seed(1)
        return DataLoader(TensorDataset(x, y), batch_size=2, shuffle=True, generator=order)

    expected = reference.minibatch_gram(model, cross_entropy, list(loader()))
    assert_same(minibatch_gram(model, cross_entropy, loader()), expected)
    assert not torch.allclose(expected, reference.minibatch_gram(model, cross_entropy, batches_of(x, y, 2)))
