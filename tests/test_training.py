import copy
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gradconf import train
from gradconf.datasets import Dataset, load
from gradconf.models import mlp, wrn

COLUMNS = ["epoch", "steps", "learning_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy"]
losses = partial(cross_entropy, reduction="none")


@pytest.fixture(scope="module")
def digits():
    return load("digits", train_size=200, test_size=100, balanced=True)


@pytest.fixture
def model():
    return mlp(1, 16, in_features=64, out_features=10, generator=torch.Generator().manual_seed(0))


def changed(data, **parts):
    names = ("train_inputs", "train_targets", "test_inputs", "test_targets")
    return Dataset("changed", *(parts.get(n, getattr(data, n)) for n in names), classes=10, provenance="")


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_history_has_a_row_an_epoch_and_the_loss_falls(model, digits):
    run = train(model, losses, digits, learning_rate=0.1, epochs=10, batch_size=32)
    history = run.history
    assert run.model is model
    assert (run.diverged, run.diverged_at) == (False, None)
    assert list(history.columns) == COLUMNS
    assert history["epoch"].tolist() == list(range(11))
    assert history["steps"].tolist() == [7 * k for k in range(11)]
    assert np.isfinite(history.to_numpy()).all()
    first, last = history.iloc[0], history.iloc[-1]
    assert last["train_loss"] < 0.5 * first["train_loss"]
    assert last["test_accuracy"] > first["test_accuracy"] + 0.3


def test_the_last_row_describes_the_trained_model(model, digits):
    last = train(model, losses, digits, learning_rate=0.1, epochs=2, batch_size=32).history.iloc[-1]
    for part in ("train", "test"):
        outputs, targets = model(getattr(digits, f"{part}_inputs")), getattr(digits, f"{part}_targets")
        assert last[f"{part}_loss"] == pytest.approx(cross_entropy(outputs, targets).item(), rel=1e-5)
        assert last[f"{part}_accuracy"] == pytest.approx((outputs.argmax(1) == targets).double().mean().item())


def test_one_step_follows_the_gradient_of_the_mean_loss(model, digits):
    loss = cross_entropy(model(digits.train_inputs), digits.train_targets)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    expected = weights(model) - 0.3 * gradient
    train(model, losses, digits, learning_rate=0.3, epochs=1, batch_size=200, decay_at=())
    torch.testing.assert_close(weights(model), expected)


def test_the_steps_of_an_epoch_visit_each_sample_once(digits):
    seen = []

    def spy(outputs, targets):
        if torch.is_grad_enabled():
            seen.append(targets)
        return losses(outputs, targets)

    data = changed(digits, train_targets=torch.arange(200))
    train(mlp(0, 1, in_features=64, out_features=200), spy, data, learning_rate=0.1, epochs=2, batch_size=64)
    assert [len(batch) for batch in seen] == [64, 64, 64, 8] * 2
    orders = torch.cat(seen).view(2, 200).tolist()
    assert [sorted(order) for order in orders] == [list(range(200))] * 2
    assert orders[0] != orders[1]


def test_the_learning_rate_decays_at_40_and_80_percent(model, digits):
    history = train(model, losses, digits, learning_rate=0.5, epochs=10).history
    expected = [0.5] * 5 + [0.05] * 4 + [0.005] * 2
    assert history["learning_rate"].tolist() == pytest.approx(expected)
    history = train(model, losses, digits, learning_rate=0.5, epochs=4, decay_at=(0.5,), decay_factor=0.5).history
    assert history["learning_rate"].tolist() == pytest.approx([0.5] * 3 + [0.25] * 2)


def test_the_seed_decides_the_run(model, digits):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    runs = [
        train(copy.deepcopy(model), losses, digits, learning_rate=0.1, epochs=2, batch_size=32, seed=seed)
        for seed in (3, 3, 4)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert runs[0].history.equals(runs[1].history)
    assert torch.equal(weights(runs[0].model), weights(runs[1].model))
    assert not runs[0].history.equals(runs[2].history)


def test_what_is_measured_joins_its_row_and_sees_training_mode(model, digits):
    seen = []

    def measure(measured, epoch):
        seen.append((measured is model, measured.training))
        return {"size": weights(measured).norm().item(), "squared_epoch": epoch**2}

    start = weights(model).norm().item()
    history = train(model.eval(), losses, digits, learning_rate=0.1, epochs=3, measure=measure).history
    assert seen == [(True, True)] * 4
    assert list(history.columns) == [*COLUMNS, "size", "squared_epoch"]
    assert history["squared_epoch"].tolist() == [0, 1, 4, 9]
    assert history["size"].iloc[[0, -1]].tolist() == [start, weights(model).norm().item()]


@pytest.mark.parametrize("learning_rate", [1e6, 1e30])
def test_a_run_that_explodes_says_when_and_keeps_finite_rows(model, digits, learning_rate):
    run = train(model, losses, digits, learning_rate=learning_rate, epochs=5)
    assert run.diverged
    assert run.diverged_at == len(run.history) < 6
    assert np.isfinite(run.history.to_numpy()).all()


def test_an_untrained_model_without_a_finite_loss_has_diverged_at_0(model, digits):
    data = changed(digits, train_inputs=digits.train_inputs.where(torch.arange(64).view(8, 8) > 0, torch.nan))
    before = weights(model)
    run = train(model, losses, data, learning_rate=0.1, epochs=5)
    assert (run.diverged_at, len(run.history)) == (0, 0)
    assert torch.equal(weights(model), before)
    assert list(run.history.columns) == COLUMNS


def test_rows_are_finite_when_only_the_test_loss_is_not(model, digits):
    data = changed(digits, test_inputs=digits.test_inputs * torch.inf)
    run = train(model, losses, data, learning_rate=0.1, epochs=1)
    assert np.isfinite(run.history.to_numpy(dtype=float)).all()


@pytest.mark.parametrize("reduced", [cross_entropy, lambda outputs, targets: losses(outputs, targets)[:, None]])
def test_a_loss_that_is_not_one_number_a_sample_is_refused(model, digits, reduced):
    with pytest.raises(ValueError, match=r'one loss a sample.*reduction="none"'):
        train(model, reduced, digits, learning_rate=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": 0}, "learning_rate must be a positive number, not 0"),
        ({"learning_rate": -0.1}, "learning_rate .* not -0.1"),
        ({"learning_rate": float("nan")}, "learning_rate .* not nan"),
        ({"learning_rate": float("inf")}, "learning_rate .* not inf"),
        ({"epochs": -1}, "epochs must be at least 0 .* not -1"),
        ({"batch_size": 0}, "batch_size at least 1, not .* 0"),
        ({"decay_at": (0.4, 80)}, "shares of the epochs between 0 and 1"),
        ({"decay_at": (0.0,)}, "shares of the epochs between 0 and 1"),
        ({"decay_factor": -1}, "decay_factor must be a positive number, not -1"),
        ({"measure": lambda model, epoch: {"train_loss": 0.0}}, "measure returned 'train_loss', which the history"),
    ],
)
def test_numbers_out_of_range_are_refused(model, digits, arguments, message):
    before = weights(model)
    with pytest.raises(ValueError, match=message):
        train(model, losses, digits, **({"learning_rate": 0.1, "epochs": 1} | arguments))
    assert torch.equal(weights(model), before)


def test_no_epochs_leave_one_row_and_the_model_as_it_was(model, digits):
    before = weights(model)
    run = train(model, losses, digits, learning_rate=0.1, epochs=0)
    assert run.history["epoch"].tolist() == [0]
    assert torch.equal(weights(model), before)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("learning_rate", [0.1, 1e6])
def test_the_model_keeps_its_mode(model, digits, training, learning_rate):
    assert (
        train(model.train(training), losses, digits, learning_rate=learning_rate, epochs=1).model.training == training
    )


@pytest.mark.parametrize("training", [True, False])
def test_the_model_keeps_its_mode_when_training_fails(model, digits, training):
    with pytest.raises(ValueError, match="one loss a sample"):
        train(model.train(training), cross_entropy, digits, learning_rate=0.1)
    assert model.training == training


def test_each_part_of_the_model_keeps_its_mode(digits):
    norm = nn.BatchNorm1d(16).eval()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), norm, nn.Linear(16, 10))
    train(model, losses, digits, learning_rate=0.1, epochs=1, batch_size=50)
    assert (model.training, norm.training) == (True, False)


@pytest.mark.parametrize("size", [64, 65])
def test_a_residual_network_with_batch_norm_trains_whatever_the_last_batch(size):
    data = load("mnist1d", train_size=size, test_size=64)
    model = wrn(10, 1, dims=1, in_channels=1, generator=torch.Generator().manual_seed(0))
    run = train(model, losses, data, learning_rate=0.05, epochs=1, batch_size=64)
    assert not run.diverged
    assert run.history["train_loss"].is_monotonic_decreasing
    assert model.norm.num_batches_tracked == -(-size // 64)


@pytest.mark.parametrize("silent", [True, False])
def test_progress_is_shown_unless_disabled(silent):
    script = """
import torch
from gradconf import models, train
from gradconf.datasets import load
loss = torch.nn.CrossEntropyLoss(reduction="none")
model = models.mlp(0, 1, in_features=64, out_features=10)
train(model, loss, load("digits", train_size=20), learning_rate=0.1, epochs=2)
"""
    environment = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
    environment |= {"TQDM_DISABLE": "1"} if silent else {}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert (done.stderr == "") if silent else ("training: 100%" in done.stderr and "3/3" in done.stderr)


def test_nothing_to_train_is_refused(model, digits):
    with pytest.raises(ValueError, match="nothing to train"):
        train(model.requires_grad_(False), losses, digits, learning_rate=0.1)
