import pytest
import torch
from torch import nn

from gradconf.models import cnn, linear_net, mlp, wrn
from gradconf.models.convolutional import Block
from gradconf.models.initialization import build

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def of(model, kinds):
    return [module for module in model.modules() if isinstance(module, kinds)]


def count(model):
    return sum(p.numel() for p in model.parameters())


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("depth", [0, 1, 5])
@pytest.mark.parametrize("make", [mlp, linear_net])
def test_depth_counts_hidden_layers(make, depth):
    sizes = [6] + [7] * depth + [3]
    shapes = [tuple(layer.weight.shape) for layer in of(make(depth, 7, in_features=6, out_features=3), nn.Linear)]
    assert shapes == list(zip(sizes[1:], sizes[:-1], strict=True))


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (cnn(16, 2), 680_010),
        (cnn(10, 1), 75_050),
        (cnn(40, 2), 2_230_090),
        (wrn(16, 2), 691_674),
        (mlp(300, 30, in_features=784, out_features=10), 301_930),
    ],
    ids=["cnn-16-2", "cnn-10-1", "cnn-40-2", "wrn-16-2", "mlp-300-30"],
)
def test_numbers_of_parameters(model, parameters):
    assert count(model) == parameters


@pytest.mark.parametrize("depth", [10, 16, 28])
def test_cnn_has_the_convolutions_of_its_depth(depth):
    assert len(of(cnn(depth, 1), nn.Conv2d)) == 1 + 6 * (depth - 4) // 6
    assert [layer.stride[0] for layer in of(cnn(depth, 1), nn.Conv2d)].count(2) == 2


@pytest.mark.parametrize("gain", [1.0, 3.0])
@pytest.mark.parametrize(
    ("init", "variance"),
    [
        ("he", lambda fan_in, fan_out: 2 / fan_in),
        ("glorot", lambda fan_in, fan_out: 2 / (fan_in + fan_out)),
        ("lecun", lambda fan_in, fan_out: 1 / fan_in),
    ],
)
@pytest.mark.parametrize(
    ("make", "fans"),
    [
        (lambda: nn.Linear(100, 400), (100, 400)),
        (lambda: nn.Conv1d(40, 120, 5), (200, 600)),
        (lambda: nn.Conv2d(30, 90, 3), (270, 810)),
    ],
    ids=["linear", "conv1d", "conv2d"],
)
def test_initial_weights_have_the_stated_variance(make, fans, init, variance, gain):
    weight = build(make, init=init, gain=gain, generator=seeded(0)).weight.detach()
    std = gain * variance(*fans) ** 0.5
    assert weight.std().item() == pytest.approx(std, rel=0.03)
    assert abs(weight.mean().item()) < 0.03 * std
    beyond = (weight.abs() > 2 * std).double().mean().item()
    assert beyond == pytest.approx(0.0455, rel=0.15)


@pytest.mark.parametrize("shape", [(5, 5), (5, 9), (9, 5)])
def test_orthogonal_weights_are_orthonormal_times_the_gain(shape):
    model = build(lambda: nn.Linear(*shape), init="orthogonal", gain=1.5, generator=seeded(0))
    weight = model.weight.detach()
    product = weight @ weight.T if shape[0] >= shape[1] else weight.T @ weight
    torch.testing.assert_close(product, 1.5**2 * torch.eye(min(shape)))


@pytest.mark.parametrize("init", ["he", "orthogonal"])
def test_weights_come_from_the_generator_and_from_nowhere_else(init):
    for make in (
        lambda **kwargs: mlp(2, 8, in_features=4, out_features=3, **kwargs),
        lambda **kwargs: wrn(10, 1, **kwargs),
    ):
        torch.manual_seed(1)
        state = torch.get_rng_state()
        model = make(init=init, generator=seeded(0))
        assert torch.equal(torch.get_rng_state(), state)
        assert same(model, make(init=init, generator=seeded(0)))
        assert not same(model, make(init=init, generator=seeded(1)))


def test_without_a_generator_the_global_seed_decides():
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(mlp(1, 8, in_features=4, out_features=3))
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


def test_biases_batch_norm_and_mode_at_the_start():
    model = wrn(10, 1, init="lecun")
    assert model.training
    assert len(of(model, NORMS)) == 7
    for norm in of(model, NORMS):
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()
        assert (norm.running_mean == 0).all()
        assert (norm.running_var == 1).all()
        assert norm.num_batches_tracked == 0
    biases = [
        layer.bias for m in (model, cnn(10, 1), mlp(2, 5, in_features=3, out_features=2)) for layer in of(m, LAYERS)
    ]
    assert all((bias == 0).all() for bias in biases if bias is not None)
    assert [layer for layer in of(cnn(10, 1), LAYERS) if layer.bias is None] == []
    assert [layer for layer in of(model, (nn.Conv1d, nn.Conv2d)) if layer.bias is not None] == []


@pytest.mark.parametrize(("dims", "shape"), [(1, (4, 2, 40)), (1, (4, 2, 7)), (2, (4, 2, 32, 32)), (2, (4, 2, 9, 5))])
@pytest.mark.parametrize("build_model", [wrn, cnn])
def test_convolutional_networks_map_batches_to_outputs(build_model, dims, shape):
    model = build_model(10, 1, dims=dims, in_channels=2, out_features=6)
    x = torch.randn(shape, generator=seeded(0))
    assert model(x).shape == (4, 6)
    halved = model[:-5](x).shape
    assert halved == (4, 64, *((n + 3) // 4 for n in shape[2:]))


@pytest.mark.parametrize(("activation", "function"), [("relu", torch.relu), ("tanh", torch.tanh)])
def test_dense_networks_flatten_their_inputs_and_activate_all_but_the_outputs(activation, function):
    model = mlp(2, 8, in_features=12, out_features=3, activation=activation)
    x = torch.randn(5, 1, 3, 4)
    h = function(model.linear_1(function(model.linear_0(x.flatten(1)))))
    torch.testing.assert_close(model(x), model.linear_2(h))


def test_linear_net_is_the_product_of_its_matrices():
    model = linear_net(3, 6, in_features=5, out_features=2)
    product = torch.eye(5)
    for layer in of(model, nn.Linear):
        product = layer.weight @ product
    x = torch.randn(4, 5)
    torch.testing.assert_close(model(x), x @ product.T)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_a_block_whose_last_convolution_is_zero_is_the_identity_or_nothing(batch_norm):
    h = torch.randn(3, 16, 10)
    for skip in (True, False):
        block = Block((16, 16), stride=1, dims=1, batch_norm=batch_norm, skip=skip)
        nn.init.zeros_(block.conv_2.weight)
        if block.conv_2.bias is not None:
            nn.init.zeros_(block.conv_2.bias)
        assert torch.equal(block(h), h if skip else torch.zeros_like(h))


def test_a_block_that_changes_shape_adds_its_shortcut():
    block = Block((4, 8), stride=2, dims=2, batch_norm=False, skip=True)
    h = torch.randn(3, 4, 6, 6)
    shortcut = block.shortcut(h.relu())
    nn.init.zeros_(block.conv_2.weight)
    nn.init.zeros_(block.conv_2.bias)
    torch.testing.assert_close(block(h), shortcut)


def test_without_skip_and_batch_norm_the_network_is_a_chain():
    model = cnn(16, 1, in_channels=1, generator=seeded(0))
    x = torch.randn(2, 1, 8, 8, generator=seeded(1))
    first, *rest = of(model, nn.Conv2d)
    h = first(x)
    for conv in rest:
        h = conv(h.relu())
    torch.testing.assert_close(model(x), model.linear(h.relu().mean((2, 3))))
    assert not of(model, NORMS)
    assert same(model, wrn(16, 1, batch_norm=False, skip=False, in_channels=1, generator=seeded(0)))


@pytest.mark.parametrize("depth", [-2, 0, 4, 11, 12, 17])
def test_a_depth_that_no_residual_network_has_is_answered_with_one_that_does(depth):
    for model in (wrn, cnn):
        with pytest.raises(ValueError, match=rf"6 n \+ 4.*use (10|16), not {depth}\.$"):
            model(depth, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": -1}, "depth >= 0 .* not depth -1"),
        ({"width": 0}, "sizes >= 1, not .*width 0"),
        ({"in_features": 0}, "in_features 0"),
        ({"activation": "gelu"}, "unknown activation 'gelu': choose one of relu, tanh, identity"),
        ({"init": "zeros"}, "unknown init 'zeros': choose one of he, glorot, lecun, orthogonal"),
    ],
)
def test_dense_networks_refuse_what_they_cannot_build(arguments, message):
    with pytest.raises(ValueError, match=message):
        mlp(**({"depth": 1, "width": 4, "in_features": 3, "out_features": 2} | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"dims": 3}, "dims 3"), ({"width": 0}, "width 0"), ({"init": "zeros"}, "unknown init 'zeros'")],
)
def test_convolutional_networks_refuse_what_they_cannot_build(arguments, message):
    for model in (wrn, cnn):
        with pytest.raises(ValueError, match=message):
            model(**({"depth": 10, "width": 1} | arguments))
