"""A GPU gives the CPU's numbers, up to rounding: what the set-up page states. Skipped where there is none."""

import copy
import dataclasses

import pytest
import torch

import gradconf

cross_entropy = torch.nn.CrossEntropyLoss(reduction="none")
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-3}  # of the product of the gradients' lengths

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.fixture
def digits():
    return gradconf.datasets.load("digits", train_size=200, test_size=50)


def model(kind, digits):
    generator = torch.Generator().manual_seed(0)
    return gradconf.models.for_dataset(kind, digits)(3 if kind == "mlp" else 10, 2, generator=generator)


def agree(cpu, gpu, tolerance):
    lengths = cpu.diagonal().sqrt()
    assert (cpu - gpu.cpu()).abs().le(tolerance * lengths[:, None] * lengths).all()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_per_sample_grams(kind, dtype, digits):
    here = model(kind, digits).to(dtype)
    x, y = digits.train_inputs[:40].to(dtype), digits.train_targets[:40]
    there = copy.deepcopy(here).cuda()
    agree(
        gradconf.gram(here, cross_entropy, x, y),
        gradconf.gram(there, cross_entropy, x.cuda(), y.cuda()),
        TOLERANCE[dtype],
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_minibatch_grams(dtype, digits):
    here = model("wrn", digits).to(dtype).train()
    there = copy.deepcopy(here).cuda()
    x, y = digits.train_inputs.to(dtype).split(40), digits.train_targets.split(40)
    agree(
        gradconf.minibatch_gram(here, cross_entropy, list(zip(x, y, strict=True))),
        gradconf.minibatch_gram(there, cross_entropy, [(a.cuda(), b.cuda()) for a, b in zip(x, y, strict=True)]),
        TOLERANCE[dtype],
    )


def test_training_of_many_seeds(digits):
    here = [model("mlp", digits).double() for _ in range(2)]
    there = [copy.deepcopy(one).cuda() for one in here]
    protocol = {"learning_rates": 0.1, "seeds": (1, 2), "epochs": 3, "batch_size": 50}
    doubled = {name: getattr(digits, name).double() for name in ("train_inputs", "test_inputs")}
    in_double = dataclasses.replace(digits, **doubled)
    for run, other in zip(
        gradconf.train_many(here, cross_entropy, in_double, **protocol),
        gradconf.train_many(there, cross_entropy, in_double, **protocol),
        strict=True,
    ):
        assert run.history.train_loss.to_numpy() == pytest.approx(other.history.train_loss.to_numpy(), rel=1e-6)
