import re

import pytest
import torch
from cases import cross_entropy
from test_grams import assert_same
from torch import nn

from gradconf import minibatch_gram, reference


def posed(n=7):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
    return model, [(torch.randn(5, 4).double(), torch.randint(3, (5,))) for _ in range(n)]


@pytest.mark.parametrize("numbers", [24, 30, 60, 10**6])
def test_panels_do_not_show_in_the_result(numbers):
    model, batches = posed()
    whole = reference.minibatch_gram(model, cross_entropy, batches)
    assert_same(minibatch_gram(model, cross_entropy, iter(batches), max_memory=2 * 8 * 7 * numbers), whole)


def test_parameters_add_up():
    model, batches = posed()
    parts = [minibatch_gram(model, cross_entropy, batches, params=name) for name, _ in model.named_parameters()]
    assert_same(sum(parts), reference.minibatch_gram(model, cross_entropy, batches))


def test_too_little_memory_says_what_would_do():
    model, batches = posed()
    with pytest.raises(MemoryError, match=r"'0\.weight'.*upper bound of the minimum") as error:
        minibatch_gram(model, cross_entropy, batches, max_memory=100)
    amount, unit = re.search(r"raise max_memory to ([\d.]+) (KiB|bytes)", str(error.value)).groups()
    enough = int(float(amount) * (1024 if unit == "KiB" else 1))
    assert minibatch_gram(model, cross_entropy, batches, max_memory=enough).shape == (7, 7)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e15])
def test_tiny_and_huge_gradients_keep_their_cosines(scale):
    model, batches = posed()
    model = model.float()
    single = [(x.float(), y) for x, y in batches]
    K = minibatch_gram(model, lambda o, t: scale * cross_entropy(o, t), single)
    R = reference.minibatch_gram(model.double(), cross_entropy, batches)
    assert torch.allclose(K / scale**2, R, rtol=0, atol=1e-5 * R.diagonal().max().item())
