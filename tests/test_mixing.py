import pytest
import torch
from cases import Apply, cross_entropy
from torch import nn

from gradconf import gram

X, Y = torch.randn(6, 4), torch.arange(6) % 3


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


def test_the_first_layer_that_mixes_is_named():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Sequential(nn.Linear(5, 5), Centred()), nn.Linear(5, 3))
    with pytest.raises(ValueError, match=r"samples beside it, from the layer '2\.1' on, so a per-sample"):
        gram(model, cross_entropy, X, Y)


def test_a_loss_that_mixes_is_refused_without_a_name():
    with pytest.raises(ValueError, match="samples beside it, so a per-sample"):
        gram(nn.Linear(4, 3), lambda o, t: cross_entropy(o, t) * o.mean(), X, Y)


def test_large_losses_that_rounding_changes_are_measured():
    model = Apply(lambda m, x: 1e4 * m.f(x), f=nn.Linear(4, 3))
    assert gram(model, cross_entropy, X, Y).isfinite().all()
