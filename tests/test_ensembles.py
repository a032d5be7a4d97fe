import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gradconf import train, train_many
from gradconf.datasets import load
from gradconf.models import mlp, residual_mlp

losses = partial(cross_entropy, reduction="none")


@pytest.fixture(scope="module")
def digits():
    return load("digits", train_size=200, test_size=100, balanced=True)


@pytest.fixture(scope="module")
def double_digits(digits):
    data = copy.copy(digits)
    object.__setattr__(data, "train_inputs", data.train_inputs.double())
    object.__setattr__(data, "test_inputs", data.test_inputs.double())
    return data


def generator(seed):
    return torch.Generator().manual_seed(seed)


def small(seed, **options):
    return mlp(2, 12, in_features=64, out_features=10, generator=generator(seed), **options)


def normalised(seed, **options):
    return residual_mlp(3, 12, in_features=64, out_features=10, generator=generator(seed), **options)


def state(model):
    return torch.cat([v.detach().double().flatten() for v in model.state_dict().values()])


@pytest.mark.parametrize(
    "make", [small, normalised, partial(normalised, skip=False), partial(small, activation="tanh")]
)
def test_each_model_trains_as_it_would_alone(double_digits, make):
    models = [make(seed).double() for seed in (0, 1, 2)]
    alone = copy.deepcopy(models)
    rates, seeds, options = [0.1, 0.03, 0.3], [5, 6, 5], {"epochs": 4, "batch_size": 64, "decay_at": (0.5,)}
    runs = train_many(models, losses, double_digits, learning_rates=rates, seeds=seeds, **options)
    for run, model, one, rate, seed in zip(runs, models, alone, rates, seeds, strict=True):
        expected = train(one, losses, double_digits, learning_rate=rate, seed=seed, **options)
        assert run.model is model
        assert list(run.history.columns) == list(expected.history.columns)
        np.testing.assert_allclose(run.history.to_numpy(), expected.history.to_numpy(), rtol=1e-9)
        torch.testing.assert_close(state(model), state(one), rtol=1e-8, atol=1e-10)
        assert (run.diverged_at, expected.diverged_at) == (None, None)


def test_one_rate_serves_all_and_the_seed_decides_the_order(digits):
    models = [copy.deepcopy(small(0)) for _ in range(3)]
    runs = train_many(models, losses, digits, learning_rates=0.1, seeds=[1, 1, 2], epochs=2, batch_size=32)
    assert runs[0].history.equals(runs[1].history)
    assert not runs[0].history.equals(runs[2].history)


def test_a_model_that_diverges_leaves_the_others_alone(digits):
    rates = [0.1, 1e6, 0.1, 1e30]
    models = [small(seed) for seed in range(4)]
    alone = copy.deepcopy(models)
    runs = train_many(models, losses, digits, learning_rates=rates, seeds=range(4), epochs=3)
    expected = [
        train(model, losses, digits, learning_rate=rate, epochs=3, seed=seed)
        for seed, (model, rate) in enumerate(zip(alone, rates, strict=True))
    ]
    assert [run.diverged_at for run in runs] == [run.diverged_at for run in expected]
    assert [run.diverged for run in runs] == [False, True, False, True]
    for run, one in zip(runs, expected, strict=True):
        assert np.isfinite(run.history.to_numpy()).all()
        np.testing.assert_allclose(run.history.to_numpy(), one.history.to_numpy(), rtol=1e-3)
    assert all(torch.isfinite(state(runs[k].model)).all() for k in (0, 2))


def test_all_may_diverge(digits):
    runs = train_many([small(0), small(1)], losses, digits, learning_rates=1e30, seeds=[0, 1], epochs=5)
    assert all(run.diverged for run in runs)


def test_what_is_measured_joins_its_row_and_sees_the_weights_of_the_epoch(digits):
    seen = []

    def measure(model, epoch):
        seen.append((model.training, epoch))
        return {"size": state(model).norm().item()}

    models = [small(seed).eval() for seed in (0, 1)]
    runs = train_many(models, losses, digits, learning_rates=0.1, seeds=[0, 1], epochs=2, measure=measure)
    assert seen == [(True, epoch) for epoch in (0, 0, 1, 1, 2, 2)]
    for run in runs:
        assert run.history["size"].is_unique
        assert run.history["size"].iloc[-1] == state(run.model).norm().item()


@pytest.mark.parametrize("training", [True, False])
def test_modes_the_random_state_and_requires_grad_stay(digits, training):
    models = [normalised(seed).train(training) for seed in (0, 1)]
    models[1].norm.train(not training)
    for model in models:
        model.stem.weight.requires_grad_(False)
    stems = [model.stem.weight.clone() for model in models]
    before = torch.get_rng_state()
    train_many(models, losses, digits, learning_rates=0.1, seeds=[0, 1], epochs=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert [model.training for model in models] == [training] * 2
    assert models[1].norm.training is not training
    assert all(torch.equal(model.stem.weight, stem) for model, stem in zip(models, stems, strict=True))
    assert all(p.grad is None for model in models for p in model.parameters())
    assert [model.norm.num_batches_tracked.item() for model in models] == [2, 2]


def test_models_that_cannot_be_one_are_refused(digits):
    go = partial(train_many, loss_fn=losses, dataset=digits, learning_rates=0.1, epochs=1)
    with pytest.raises(ValueError, match="2 models, 2 learning rates and 1 seeds"):
        go([small(0), small(1)], seeds=[0])
    with pytest.raises(ValueError, match="at least one model"):
        go([], seeds=[])
    with pytest.raises(ValueError, match="model 1 has other layers than model 0"):
        go([small(0), mlp(2, 13, in_features=64, out_features=10)], seeds=[0, 1])
    with pytest.raises(ValueError, match="model 1 has other layers than model 0"):
        go([small(0), small(1, activation="tanh")], seeds=[0, 1])
    with pytest.raises(ValueError, match="more than once"):
        go([model := small(0), model], seeds=[0, 1])
    with pytest.raises(ValueError, match=r"draws at random.*"):
        go([nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Dropout(0.5))], seeds=[0])
    with pytest.raises(ValueError, match="learning_rate must be a positive number, not -1"):
        train_many([small(0)], losses, digits, learning_rates=[-1], seeds=[0])
    with pytest.raises(ValueError, match="one loss a sample"):
        train_many([small(0)], cross_entropy, digits, learning_rates=0.1, seeds=[0])


def test_a_shared_weight_is_refused_as_both_would_change_it(digits):
    first, second = small(0), small(1)
    second[1].weight = first[1].weight
    with pytest.raises(ValueError, match="share a weight"):
        train_many([first, second], losses, digits, learning_rates=0.1, seeds=[0, 1])


def test_nothing_to_train_is_refused(digits):
    with pytest.raises(ValueError, match="nothing to train"):
        train_many([small(0).requires_grad_(False)], losses, digits, learning_rates=0.1, seeds=[0])


def test_variants_with_equal_weights_but_other_wiring_are_refused(digits):
    pair = [residual_mlp(5, 8, in_features=64, out_features=10, skip=skip) for skip in (True, False)]
    with pytest.raises(ValueError, match="model 1 computes something else"):
        train_many(pair, losses, digits, learning_rates=0.1, seeds=[0, 1])


def test_a_loss_that_looks_at_its_batch_sees_the_batch_of_one_model(double_digits):
    def relative(outputs, targets):
        each = losses(outputs, targets)
        return each / each.mean().detach()

    def run(seed):
        return small(seed).double()

    options = {"dataset": double_digits, "epochs": 2}
    together = train_many([run(0), run(1)], relative, learning_rates=torch.tensor([0.1, 0.2]), seeds=[0, 1], **options)
    alone = train(run(1), relative, learning_rate=float(torch.tensor(0.2)), seed=1, **options)
    assert together[1].history.train_loss.to_numpy() == pytest.approx(alone.history.train_loss.to_numpy(), rel=1e-9)
    assert together[0].history.learning_rate.dtype == float


def test_what_vmap_cannot_run_is_refused(digits):
    class Noisy(nn.Linear):
        def forward(self, x):
            return nn.functional.dropout(super().forward(x.flatten(1)), training=self.training)

    with pytest.raises(ValueError, match=r"cannot be run as one, as torch\.func\.vmap says: .* Use train"):
        train_many([Noisy(64, 10)], losses, digits, learning_rates=0.1, seeds=[0])


def test_models_that_differ_in_their_code_only_are_refused(digits):
    class Tempered(nn.Linear):
        temperature = 1.0

        def forward(self, x):
            return super().forward(x.flatten(1)) / self.temperature

    models = [Tempered(64, 10), Tempered(64, 10)]
    models[1].temperature = 2.0
    with pytest.raises(ValueError, match="model 1 computes something else than model 0 would"):
        train_many(models, losses, digits, learning_rates=0.1, seeds=[0, 1])
