"""Many models of one architecture trained at once, as one batched model: seeds and learning rates for little more."""

import copy
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from tqdm import tqdm

from gradconf.datasets import Dataset
from gradconf.problems import LossFunction, check_shape
from gradconf.refusals import refuse_dropout
from gradconf.training import (
    EVALUATION_ROWS,
    EXPLOSION,
    Measure,
    Run,
    check_schedule,
    check_trainable,
    correct_ones,
    decay_epochs,
    joined,
    modes_kept,
)


def train_many(
    models: Sequence[nn.Module],
    loss_fn: LossFunction,
    dataset: Dataset,
    *,
    learning_rates: float | Sequence[float],
    seeds: Sequence[int],
    epochs: int = 30,
    batch_size: int = 128,
    decay_at: tuple[float, ...] = (0.4, 0.8),
    decay_factor: float = 0.1,
    measure: Measure | None = None,
) -> list[Run]:
    """Train models of one architecture in place, each as `gradconf.train` would by itself, but all at once.

    `w_k <- w_k - alpha_k grad F_{B_k}(w_k)` for every model k, with mini-batches B_k in the order that its own seed
    gives. Weights are stacked and run through `torch.func.vmap`, so that K small matrix products become one. A model
    that diverges leaves the others alone.

    Args:
        models: K modules with the same layers and shapes, on one device; their weights differ.
        loss_fn: maps `(outputs, targets)` to one loss a sample, shape `(N,)`.
        dataset: moved to the models' device.
        learning_rates: alpha_k at the beginning, or one for all.
        seeds: of the order of the samples, one a model.
        epochs: as in `train`.
        batch_size: as in `train`.
        decay_at: as in `train`.
        decay_factor: as in `train`.
        measure: as in `train`, called for each model in turn; it must not change the model.

    Returns:
        K runs, as `train` returns them.

    Raises:
        ValueError: if the models differ in more than their weights, share weights, have none to train or draw at
            random, if rates or seeds are not as many as models, if a number is out of range, or `loss_fn` does not
            return one loss a sample.

    Source: Sankararaman et al. 2020, Section 7 (protocol).
    """
    models = [models] if isinstance(models, nn.Module) else list(models)
    rates = _checked(models, learning_rates, seeds)
    for rate in rates:
        check_schedule(rate, epochs, batch_size, decay_at, decay_factor)
    dataset = dataset.to(next(models[0].parameters()).device)
    milestones, steps = decay_epochs(decay_at, epochs), math.ceil(len(dataset.train_targets) / batch_size)
    members = [_Member(*one) for one in zip(models, rates, seeds, strict=True)]
    alive = _Ensemble(members, loss_fn)
    alive.check(dataset.train_inputs[:2])
    for epoch in (progress := tqdm(range(epochs + 1), desc=f"training {len(members)} models", unit="epoch")):
        decayed = decay_factor ** sum(milestone < epoch for milestone in milestones)
        worst = alive.epoch(dataset, batch_size, decayed) if epoch else [0.0] * len(alive.members)
        for member, largest, row in zip(alive.members, worst, alive.evaluate(dataset), strict=True):
            facts = {"epoch": epoch, "steps": epoch * steps, "learning_rate": member.rate * decayed}
            member.note(facts | row, largest)
        if measure or epoch == epochs or any(member.diverged_at is not None for member in alive.members):
            alive.write_back()
        alive = alive.without_diverged()
        if measure:
            for member in alive.members:
                member.measure(measure, epoch)
        if not alive.members:
            break
        progress.set_postfix(loss=f"{min(member.rows[-1]['train_loss'] for member in alive.members):.3g}")
    return [member.run() for member in members]


@dataclass(eq=False)
class _Member:
    """One model of many, and its history."""

    model: nn.Module
    rate: float
    seed: int
    rows: list[dict[str, float]] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    limit: float = math.inf
    diverged_at: int | None = None

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def note(self, row: dict[str, float], largest: float) -> None:
        """Add an epoch to the history, unless the loss exploded in it."""
        self.columns = list(row)
        if not max(largest, row["train_loss"], row["test_loss"]) < self.limit:
            self.diverged_at = int(row["epoch"])
            return
        if row["epoch"] == 0:
            self.limit = EXPLOSION * max(1.0, row["train_loss"], row["test_loss"])
        self.rows.append(row)

    def measure(self, measure: Measure, epoch: int) -> None:
        """Add to the last epoch what the user measures."""
        with modes_kept(self.model):
            self.rows[-1] = joined(self.rows[-1], measure(self.model.train(), epoch))

    def run(self) -> Run:
        """Return what `train` would."""
        return Run(self.model, pd.DataFrame(self.rows, columns=None if self.rows else self.columns), self.diverged_at)


class _Ensemble:
    """Models as one: every parameter and buffer with one more dimension in front, `(K, ...)`."""

    def __init__(self, members: list[_Member], loss_fn: LossFunction) -> None:
        self.members, self.loss_fn = members, loss_fn
        if not members:
            return
        self.base = copy.deepcopy(members[0].model)
        states = [_state(member.model) for member in members]
        self.state = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        trained = [name for name, p in self.base.named_parameters() if p.requires_grad]
        self.params = [self.state[name].requires_grad_() for name in trained]

    def outputs(self, inputs: Tensor, *, shared: bool) -> Tensor:
        """Run all models, on samples of their own `(K, n, ...)` or on shared ones `(n, ...)`; `(K, n, outputs)`."""
        batched = vmap(lambda state, x: functional_call(self.base, state, (x,)), in_dims=(0, None if shared else 0))
        try:
            return batched(self.state, inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ValueError(
                f"these models cannot be run as one, as torch.func.vmap says: {str(error).splitlines()[0]} Use train "
                f"for each, if it is not the data that do not fit."
            ) from error

    @torch.no_grad()
    def check(self, inputs: Tensor) -> None:
        """Refuse models that differ in what their weights do not show, such as a constant of their code."""
        self.base.eval()
        for k, (member, batched) in enumerate(zip(self.members, self.outputs(inputs, shared=True), strict=True)):
            with modes_kept(member.model):
                alone = member.model.eval()(inputs)
            if not torch.allclose(alone, batched, rtol=1e-2, atol=1e-3 * alone.abs().max().item(), equal_nan=True):
                raise ValueError(
                    f"model {k} computes something else than model 0 would with its weights: train_many trains models "
                    f"that differ only in their weights; use train for the others."
                )

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each model's each sample, shape `(K, n)`; targets of shape `(K, n)`."""
        each = zip(outputs, targets, strict=True)  # one at a time, as a loss may look at all of its batch
        return torch.stack([check_shape(self.loss_fn(*one), outputs.shape[1]) for one in each])

    def epoch(self, dataset: Dataset, batch_size: int, decayed: float) -> list[float]:
        """Take the steps of one epoch and return each model's largest mini-batch loss, infinite if one was NaN."""
        self.base.train()
        n, device = len(dataset.train_targets), dataset.train_inputs.device
        orders = torch.stack([torch.randperm(n, generator=member.generator) for member in self.members]).to(device)
        rates = torch.tensor([member.rate * decayed for member in self.members], dtype=self.params[0].dtype).to(device)
        worst = torch.zeros(len(self.members), device=device)
        for batch in orders.split(batch_size, dim=1):  # (K, B)
            outputs = self.outputs(dataset.train_inputs[batch], shared=False)  # (K, B, outputs)
            losses = self.losses(outputs, dataset.train_targets[batch]).mean(1)  # (K,)
            gradients = torch.autograd.grad(losses.sum(), self.params)
            with torch.no_grad():
                for p, g in zip(self.params, gradients, strict=True):  # (K, ...)
                    p.sub_(g * rates.to(p).view(-1, *[1] * (p.dim() - 1)))
            worst = torch.maximum(worst, losses.detach())
        return worst.nan_to_num(nan=math.inf).tolist()

    @torch.no_grad()
    def evaluate(self, dataset: Dataset) -> list[dict[str, float]]:
        """Return each model's mean loss, infinite if it is NaN, and accuracy on both sets, in evaluation mode."""
        self.base.eval()
        numbers = {}
        for part in ("train", "test"):
            inputs, targets = getattr(dataset, f"{part}_inputs"), getattr(dataset, f"{part}_targets")
            parts = list(self._evaluated(inputs, targets, dataset.classes))
            losses, correct = (torch.cat(column, dim=1).double().mean(1) for column in zip(*parts, strict=True))
            numbers[f"{part}_loss"] = losses.nan_to_num(nan=math.inf).tolist()
            numbers[f"{part}_accuracy"] = correct.tolist()
        return [dict(zip(numbers, row, strict=True)) for row in zip(*numbers.values(), strict=True)]

    def _evaluated(self, inputs: Tensor, targets: Tensor, classes: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield losses and correctness of some samples, shape `(K, n)` each."""
        k = len(self.members)
        rows = max(1, EVALUATION_ROWS // k)
        for x, y in zip(inputs.split(rows), targets.split(rows), strict=True):
            outputs = self.outputs(x, shared=True)
            correct = torch.stack([correct_ones(one, y, classes) for one in outputs])
            yield self.losses(outputs, y.expand(k, *y.shape)), correct

    @torch.no_grad()
    def write_back(self) -> None:
        """Give each model its weights and buffers."""
        for k, member in enumerate(self.members):
            for name, value in _state(member.model).items():
                value.copy_(self.state[name][k])

    def without_diverged(self) -> "_Ensemble":
        """Return the ensemble of those that have not diverged; weights must have been written back if one has."""
        left = [member for member in self.members if member.diverged_at is None]
        return self if len(left) == len(self.members) else _Ensemble(left, self.loss_fn)


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, detached."""
    return {name: value.detach() for name, value in (*model.named_parameters(), *model.named_buffers())}


def _checked(models: Sequence[nn.Module], learning_rates: float | Sequence[float], seeds: Sequence[int]) -> list[float]:
    """Refuse what cannot be trained together, and return one learning rate a model."""
    each = learning_rates if isinstance(learning_rates, Iterable) else [learning_rates] * len(models)
    rates = [float(rate) for rate in each]
    _check_numbers(models, rates, seeds)
    _check_alike(models)
    return rates


def _check_numbers(models: Sequence[nn.Module], rates: Sequence[float], seeds: Sequence[int]) -> None:
    if not models or not len(models) == len(rates) == len(seeds):
        raise ValueError(
            f"give at least one model and one learning rate and one seed for each: there are {len(models)} models, "
            f"{len(rates)} learning rates and {len(seeds)} seeds."
        )
    if len({id(model) for model in models}) < len(models):
        raise ValueError("a model is there more than once: build one for each seed.")
    weights = Counter(id(p) for model in models for p in model.parameters())
    if max(weights.values(), default=1) > 1:
        raise ValueError("two models share a weight, and would both change it: build each one by itself.")


def _check_alike(models: Sequence[nn.Module]) -> None:
    check_trainable(models[0])
    described = [_description(model) for model in models]
    if different := [k for k, it in enumerate(described) if it != described[0]]:
        raise ValueError(
            f"model {different[0]} has other layers than model 0: train_many trains models that differ only in their "
            f"weights; use train for the others."
        )
    for model in models:
        with modes_kept(model):
            try:
                refuse_dropout(model.train())
            except ValueError as error:
                raise ValueError(f"{str(error).split(',')[0]}: set its probability to 0, or use train.") from None


def _description(model: nn.Module) -> tuple:
    """Return what models must share to be one batched model."""
    trained = [p.requires_grad for p in model.parameters()]
    return str(model), [(name, v.shape, v.dtype, v.device) for name, v in _state(model).items()], trained
