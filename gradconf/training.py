"""Plain stochastic gradient descent, as the paper trains."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from gradconf.datasets import Dataset
from gradconf.problems import LossFunction, check_shape

Measure = Callable[[nn.Module, int], dict[str, Any]]
EXPLOSION = 1e3  # a loss so many times that of the untrained model counts as divergence
EVALUATION_ROWS = 4096  # samples evaluated at a time


@dataclass(frozen=True)
class Run:
    """What a training run leaves behind.

    Attributes:
        model: the trained model, the very object that was passed in.
        history: one row an epoch, epoch 0 before training, with the columns epoch, steps, learning_rate, train_loss,
            train_accuracy, test_loss, test_accuracy and whatever was measured. Losses are finite; accuracies are nan if
            the model's outputs are not one score a class.
        diverged_at: the epoch in which the loss exploded or became NaN, which ended the run, 0 if the untrained model's
            loss was not finite; None if the run reached its end.
    """

    model: nn.Module
    history: pd.DataFrame
    diverged_at: int | None

    @property
    def diverged(self) -> bool:
        """Whether the loss exploded or became NaN."""
        return self.diverged_at is not None


def train(
    model: nn.Module,
    loss_fn: LossFunction,
    dataset: Dataset,
    *,
    learning_rate: float,
    epochs: int = 30,
    batch_size: int = 128,
    decay_at: tuple[float, ...] = (0.4, 0.8),
    decay_factor: float = 0.1,
    seed: int = 0,
    measure: Measure | None = None,
    progress: bool = True,
) -> Run:
    """Train a model in place by SGD without momentum, weight decay or augmentation.

    `w <- w - alpha grad F_B(w)` over mini-batches B of fresh random order each epoch, F_B their mean loss, alpha
    multiplied by `decay_factor` after the given shares of the epochs. The paper uses 200 epochs, B = 128, and decays
    at 40% and 80%. Losses in the history are means over the whole set in evaluation mode, after each epoch.

    Args:
        model: trained on the device it is on, all of it in training mode; left in the mode it was in.
        loss_fn: maps `(outputs, targets)` to one loss a sample, shape `(N,)`.
        dataset: moved to the model's device.
        learning_rate: alpha at the beginning.
        epochs: passes over the training set.
        batch_size: samples a step, B; the last batch of an epoch may be smaller.
        decay_at: shares of the epochs after which the rate decays; `()` keeps it constant.
        decay_factor: what the rate is multiplied by.
        seed: seed of the order of the samples.
        measure: called with `(model, epoch)`, in training mode, before training and after each epoch; what it
            returns, by name, joins that epoch's row.
        progress: whether to show a bar; below another one it vanishes at its end.

    Returns:
        The model, its history, and whether and when it diverged.

    Raises:
        ValueError: if a number is out of range, there is no parameter to train, or `loss_fn` does not return one loss
            a sample.

    Source: Sankararaman et al. 2020, Section 7 (protocol).
    """
    check_schedule(learning_rate, epochs, batch_size, decay_at, decay_factor)
    check_trainable(model)
    dataset = dataset.to(next(model.parameters()).device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    milestones = decay_epochs(decay_at, epochs)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, decay_factor)
    steps = math.ceil(len(dataset.train_targets) / batch_size)
    limit = math.inf
    rows: list[dict[str, float]] = []
    with modes_kept(model):
        for epoch in (bar := _bar(epochs, progress)):
            row = {"epoch": epoch, "steps": epoch * steps, "learning_rate": schedule.get_last_lr()[0]}
            worst = _epoch(model, loss_fn, dataset, optimizer, batch_size, generator) if epoch else 0.0
            row |= _evaluate(model, loss_fn, dataset)
            if not max(worst, row["train_loss"], row["test_loss"]) < limit:
                return Run(model, pd.DataFrame(rows, columns=None if rows else list(row)), epoch)
            model.train()
            rows.append(joined(row, measure(model, epoch)) if measure else row)
            limit = EXPLOSION * max(1.0, row["train_loss"], row["test_loss"]) if epoch == 0 else limit
            bar.set_postfix(loss=f"{row['train_loss']:.3g}")
            if epoch:
                schedule.step()
    return Run(model, pd.DataFrame(rows), None)


def _bar(epochs: int, progress: bool) -> tqdm:
    hidden = {} if progress else {"disable": True}  # so that TQDM_DISABLE still counts
    return tqdm(range(epochs + 1), desc="training", unit="epoch", leave=None, **hidden)


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Put each module back into the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _epoch(
    model: nn.Module,
    loss_fn: LossFunction,
    dataset: Dataset,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    generator: torch.Generator,
) -> float:
    """Take the steps of one epoch and return the largest mini-batch loss, infinite if one was NaN."""
    model.train()
    order = torch.randperm(len(dataset.train_targets), generator=generator).to(dataset.train_inputs.device)
    worst = torch.zeros((), device=order.device)
    for batch in order.split(batch_size):
        optimizer.zero_grad(set_to_none=True)
        losses = loss_fn(model(dataset.train_inputs[batch]), dataset.train_targets[batch])
        check_shape(losses, len(batch))
        loss = losses.mean()
        loss.backward()
        optimizer.step()
        worst = torch.maximum(worst, loss.detach())  # keeps NaN, and needs no synchronisation until the epoch ends
    return worst.nan_to_num(nan=math.inf).item()


@torch.no_grad()
def _evaluate(model: nn.Module, loss_fn: LossFunction, dataset: Dataset) -> dict[str, float]:
    """Return mean loss, infinite if it is NaN, and accuracy on both sets, in evaluation mode."""
    model.eval()
    numbers = {}
    for part in ("train", "test"):
        inputs, targets = getattr(dataset, f"{part}_inputs"), getattr(dataset, f"{part}_targets")
        losses, correct = [], []
        for x, y in zip(inputs.split(EVALUATION_ROWS), targets.split(EVALUATION_ROWS), strict=True):
            outputs = model(x)  # (n, C)
            losses.append(check_shape(loss_fn(outputs, y), len(y)))
            correct.append(correct_ones(outputs, y, dataset.classes))
        numbers[f"{part}_loss"] = torch.cat(losses).double().mean().nan_to_num(nan=math.inf).item()
        numbers[f"{part}_accuracy"] = torch.cat(correct).double().mean().item()
    return numbers


def correct_ones(outputs: Tensor, targets: Tensor, classes: int) -> Tensor:
    """Tell which samples are classified rightly, shape `(n,)`; nan where outputs are not one score a class."""
    if isinstance(outputs, Tensor) and outputs.shape == (len(targets), classes):
        return outputs.argmax(1) == targets
    return torch.full(targets.shape, math.nan, device=targets.device)


def decay_epochs(decay_at: tuple[float, ...], epochs: int) -> list[int]:
    """Return the epochs after which the rate decays."""
    return [max(1, round(share * epochs)) for share in decay_at]


def joined(row: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """Return the row of an epoch with what was measured, refusing names that it has already."""
    if twice := sorted(row.keys() & measured.keys()):
        raise ValueError(f"measure returned '{twice[0]}', which the history holds already: give it another name.")
    return row | measured


def check_schedule(
    learning_rate: float, epochs: int, batch_size: int, decay_at: tuple[float, ...], decay_factor: float
) -> None:
    """Refuse numbers that are out of range."""
    if not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise ValueError(f"learning_rate must be a positive number, not {learning_rate}.")
    if epochs < 0 or batch_size < 1:
        raise ValueError(f"epochs must be at least 0 and batch_size at least 1, not {epochs} and {batch_size}.")
    if any(not 0 < share < 1 for share in decay_at):
        raise ValueError(f"decay_at holds shares of the epochs between 0 and 1, not {decay_at}.")
    if not (decay_factor > 0 and math.isfinite(decay_factor)):
        raise ValueError(f"decay_factor must be a positive number, not {decay_factor}.")


def check_trainable(model: nn.Module) -> None:
    """Refuse a model without a parameter to train."""
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("the model has no parameter with requires_grad=True, so there is nothing to train.")
