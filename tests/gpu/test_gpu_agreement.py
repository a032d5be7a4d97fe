"""A GPU gives the CPU's float64 numbers, up to rounding: what the set-up page states."""

import copy
import dataclasses
import warnings

import pytest
import torch
from cases import CASES
from zoo import ZOO

import gradconf
from gradconf import gram, minibatch_gram, reference

cross_entropy = torch.nn.CrossEntropyLoss(reduction="none")
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-3}  # of the product of the gradients' lengths
# torch's own gradients of these differ between CPU and GPU by more, in float64 too: 1e-7 of K
ROUNDED_BY_TORCH = {"weight_norm"}
MODELS = ZOO | {f"case_{name}": made for name, made in CASES.items()}


@pytest.fixture
def digits():
    return gradconf.datasets.load("digits", train_size=200, test_size=50)


def agree(expected, measured, tolerance):
    assert measured.is_cuda
    lengths = expected.diagonal().sqrt()
    assert (expected - measured.cpu()).abs().le(tolerance * lengths[:, None] * lengths).all()


def cast(samples, dtype):
    if isinstance(samples, dict):
        return {name: cast(one, dtype) for name, one in samples.items()}
    if isinstance(samples, tuple | list):
        return type(samples)(cast(one, dtype) for one in samples)
    return samples.to(dtype) if samples.is_floating_point() else samples


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", MODELS)
def test_the_zoo(name, dtype, gpu):
    made = MODELS[name]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of falling back
        expected = reference.gram(made.model, made.loss_fn, made.inputs, made.targets)
        there = made.model.to(gpu, dtype), made.loss_fn, cast(made.inputs, dtype), cast(made.targets, dtype)
        if name in ROUNDED_BY_TORCH:
            expected = reference.gram(*there).cpu()
        measured = gram(*there)
    agree(expected, measured, TOLERANCE[dtype])


def model(kind, digits):
    generator = torch.Generator().manual_seed(0)
    return gradconf.models.for_dataset(kind, digits)(3 if kind == "mlp" else 10, 2, generator=generator)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_the_models_of_the_course(kind, dtype, digits, gpu):
    here = model(kind, digits).double()
    there = copy.deepcopy(here).to(gpu, dtype)
    x, y = digits.train_inputs[:40], digits.train_targets[:40]
    agree(
        gram(here, cross_entropy, x.double(), y),
        gram(there, cross_entropy, x.to(gpu, dtype), y.to(gpu)),
        TOLERANCE[dtype],
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", ["mlp", "cnn", "wrn"])
def test_minibatches_in_training_mode(kind, dtype, digits, gpu):
    here = model(kind, digits).double().train()
    there = copy.deepcopy(here).to(gpu, dtype)
    x, y = digits.train_inputs.split(40), digits.train_targets.split(40)
    agree(
        minibatch_gram(here, cross_entropy, [(a.double(), b) for a, b in zip(x, y, strict=True)]),
        minibatch_gram(there, cross_entropy, [(a.to(gpu, dtype), b.to(gpu)) for a, b in zip(x, y, strict=True)]),
        TOLERANCE[dtype],
    )


def test_training_of_many_seeds(digits, gpu):
    here = [model("mlp", digits).double() for _ in range(2)]
    there = [copy.deepcopy(one).to(gpu) for one in here]
    protocol = {"learning_rates": 0.1, "seeds": (1, 2), "epochs": 3, "batch_size": 50}
    doubled = {name: getattr(digits, name).double() for name in ("train_inputs", "test_inputs")}
    in_double = dataclasses.replace(digits, **doubled)
    for run, other in zip(
        gradconf.train_many(here, cross_entropy, in_double, **protocol),
        gradconf.train_many(there, cross_entropy, in_double, **protocol),
        strict=True,
    ):
        assert run.history.train_loss.to_numpy() == pytest.approx(other.history.train_loss.to_numpy(), rel=1e-6)
