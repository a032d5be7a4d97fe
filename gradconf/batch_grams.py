"""The Gram matrix of mini-batch gradients, within bounded memory."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from gradconf import reference
from gradconf.engine.accumulator import Accumulator
from gradconf.engine.scaling import exponents, factors
from gradconf.isolation import constant_parameters, full_precision
from gradconf.memory import allowed, bundles, size
from gradconf.problems import LossFunction, Problem, pairs, pose
from gradconf.refusals import refuse_dropout, refuse_infinite
from gradconf.samples import Samples


def minibatch_gram(
    model: nn.Module,
    loss_fn: LossFunction,
    batches: Iterable[tuple[Samples, Samples]],
    *,
    params: Iterable[str] | None = None,
    max_memory: int | None = None,
) -> Tensor:
    """Compute the exact Gram matrix of mini-batch gradients.

    `K[a, b] = <grad F_a(w), grad F_b(w)>`, with `F_a` the mean loss of batch a. The model is measured in the mode
    it is in: train-mode batch norm is allowed, sees each batch as a whole, and its running statistics are restored.

    Args:
        model: float32 or float64 module without active dropout.
        loss_fn: maps `(outputs, targets)` to one loss a sample, shape `(B,)`; the mean is taken here.
        batches: M pairs of inputs and targets, iterated exactly once. A `DataLoader` will do, and
            `gradconf.minibatches` or `gradconf.minibatch_pairs` for the paper's protocol.
        params: names from `model.named_parameters()`; all trainable ones by default.
        max_memory: bytes of gradients to hold at a time; half of what the device has free by default. If the M
            gradients need more, the batches are run again for each group of parameters that fits.

    Returns:
        K, float64, shape `(M, M)`, symmetric, on the model's device.

    Raises:
        TypeError: if a batch holds something other than tensors.
        ValueError: if there is no batch, or the model or a batch cannot be measured.
        MemoryError: if the gradients of one parameter do not fit, saying what would do.

    Source: Sankararaman et al. 2020, Section 7 (the cosines of its figures are of mini-batch gradients).
    """
    refuse_dropout(model)
    names = None if params is None else [params] if isinstance(params, str) else list(params)
    problems = [pose(model, loss_fn, inputs, targets, params=names) for inputs, targets in pairs(batches)]
    if not problems:
        raise ValueError("there are no batches: pass at least one pair of inputs and targets.")
    memory = allowed(max_memory, problems[0].device)
    total = Accumulator(len(problems), problems[0].device)
    with constant_parameters(model), full_precision(problems[0].device):
        for some in bundles(_sized(problems, memory // 2), memory // 2):
            total.rows("", *_gradients([replace(problem, params=dict(some)) for problem in problems]))
        return refuse_infinite(total.result()[""], "batch")


def _sized(problems: list[Problem], budget: int) -> Iterator[tuple[tuple[str, nn.Parameter], int]]:
    """Yield each named parameter and the bytes that its gradients take, refusing what does not fit the budget."""
    for name, p in problems[0].params.items():
        needed = len(problems) * p.numel() * problems[0].dtype.itemsize
        if needed > budget:
            raise MemoryError(
                f"the gradients of {len(problems)} batches with respect to '{name}' take {size(needed)}, more than "
                f"half of max_memory ({size(2 * budget)}): measure fewer batches, raise max_memory to "
                f"{size(2 * needed + 1)}, or leave the parameter out with params=. The minimum over a random subset "
                f"of the batches is only an upper bound of the minimum over all."
            )
        yield (name, p), needed


def _gradients(problems: list[Problem]) -> tuple[Tensor, Tensor]:
    """Return the gradients of the batches' mean losses, shape `(M, P)`, and their exponents, shape `(M,)`."""
    first = problems[0]
    columns = sum(p.numel() for p in first.params.values())
    rows = torch.empty(len(problems), columns, dtype=first.dtype, device=first.device)
    for row, problem in zip(rows, problems, strict=True):
        row.copy_(reference.gradient(problem, slice(0, problem.samples)))
    exponent = exponents(rows)
    return rows.mul_(factors(exponent, rows)), exponent
