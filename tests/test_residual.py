import pytest
import torch
from torch import nn

from gradconf.models import post_activation_mlp, residual_mlp

VARIANTS = [(norm, skip) for norm in (True, False) for skip in (True, False)]


def build(depth, *, width=6, seed=0, make=residual_mlp, **options):
    return make(
        depth, width, in_features=5, out_features=3, generator=torch.Generator().manual_seed(seed), **options
    ).double()


def matrices(model):
    return [module.weight for module in model.modules() if isinstance(module, nn.Linear)]


def normalised(h):
    return (h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt()


@pytest.mark.parametrize("depth", [1, 3, 17])
@pytest.mark.parametrize(("norm", "skip"), VARIANTS)
def test_depth_counts_matrices(depth, norm, skip):
    assert len(matrices(build(depth, batch_norm=norm, skip=skip))) == depth + 1


def test_all_variants_draw_the_same_matrices():
    first, *others = [matrices(build(7, batch_norm=norm, skip=skip)) for norm, skip in VARIANTS]
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not torch.equal(first[0], matrices(build(7, seed=1))[0])


@pytest.mark.parametrize(("norm", "skip"), VARIANTS)
def test_it_computes_what_the_formula_says(norm, skip):
    model, x = build(3, batch_norm=norm, skip=skip), torch.randn(9, 5, dtype=torch.float64)
    z = normalised if norm else lambda h: h
    w_0, w_1, w_2, w_3 = matrices(model)
    h = x @ w_0.T
    h = (h if skip else 0) + z(z(h).relu() @ w_1.T).relu() @ w_2.T
    torch.testing.assert_close(model(x), z(h).relu() @ w_3.T)


@pytest.mark.parametrize("norm", [True, False])
def test_the_counter_example_computes_what_the_formula_says(norm):
    model = build(2, make=post_activation_mlp, batch_norm=norm)
    x, z = torch.randn(9, 5, dtype=torch.float64), normalised if norm else lambda h: h
    w_0, w_1, w_2 = matrices(model)
    h = z(x @ w_0.T).relu()
    h = h + z(h @ w_1.T).relu()
    torch.testing.assert_close(model(x), h @ w_2.T)
    assert len(matrices(build(8, make=post_activation_mlp))) == 9


@pytest.mark.parametrize("depth", [0, 2, -1])
def test_a_depth_that_is_not_whole_blocks_is_refused(depth):
    with pytest.raises(ValueError, match=f"depth is 1, 3, 5, ...: use {max(1, depth + 1)}, not {depth}"):
        build(depth)


def test_sizes_below_one_are_refused():
    for make in (residual_mlp, post_activation_mlp):
        with pytest.raises(ValueError, match="not width 0"):
            build(3, width=0, make=make)
    with pytest.raises(ValueError, match="depth is at least 1, not 0"):
        build(0, make=post_activation_mlp)
    with pytest.raises(ValueError, match="unknown init"):
        build(3, init="zero")
