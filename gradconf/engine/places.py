"""Samples that change places inside a model, sorted by length, say, and put back in order at its end.

Inputs and output gradients of a layer in between are then not in the order of the samples. The sample that runs
alone tells, unless it happens to be where it would be anyway. So where a model picks rows, all samples are looked at: a
loss that counts w_i times must make the output gradients of its own sample, and of no other, w_i times as large.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SEQUENCES = (tuple, list)
HOLDERS = (*SEQUENCES, dict)
BY_INDEX = {"__getitem__", "__setitem__"}
MOVING = {"index_select", "gather", "take", "take_along_dim", "flip", "flipud", "roll", "sort", "cat", "concat"}
MOVING |= {"concatenate", "vstack", "stack", "index_add", "index_copy", "index_put", "scatter", "scatter_add"}
WEIGHTS = 64  # different ones: of that many neighbours no two are alike


def may_move(function: Callable, args: tuple, kwargs: dict, samples: int) -> bool:
    """Tell whether a call may give rows another order.

    Args:
        function: a torch function.
        args: its arguments.
        kwargs: the others.
        samples: how many run together.

    Returns:
        Whether it picks or joins rows along the first dimension of a tensor that has some for each sample.
    """
    name = getattr(function, "__name__", "")
    if samples == 1 or not (name in BY_INDEX or name.rstrip("_") in MOVING):
        return False
    if name == "stack":
        return len(args[0]) % samples == 0
    rows = [v for v in flat(args[:1]) if isinstance(v, Tensor) and v.dim() > 0 and len(v) % samples == 0]
    if name in BY_INDEX:
        indices = [i for i in (args[1] if isinstance(args[1], tuple) else args[1:2]) if i is not None]
        return bool(rows) and isinstance(indices[0] if indices else None, Tensor | list)
    others = args[2:] if name.startswith("roll") else args[1:]  # by how much to roll is no dimension
    numbers = {v for v in flat((others, {k: v for k, v in kwargs.items() if k != "shifts"})) if type(v) is int}
    return any(not numbers or {0, -v.dim()} & numbers for v in rows)


def out_of_place(lengths: Callable[[Tensor], dict[int, Tensor]], losses: Tensor) -> set[int]:
    """Find the uses that see samples in another order than the losses.

    Args:
        lengths: runs a backward pass with weights of the losses, shape `(N,)`, and returns the lengths of the output
            gradients of uses, shape `(N,)`, by position.
        losses: shape `(N,)`.

    Returns:
        Positions of the uses of which output gradients follow other weights than those of their rows.
    """
    spread = torch.arange(len(losses), device=losses.device) * 37 % WEIGHTS - WEIGHTS // 2
    weights = torch.pow(2.0, spread.to(losses.dtype))  # powers of two, with which rounding stays the same
    once, weighted = lengths(torch.ones_like(weights)), lengths(weights)
    return {k for k in once if not torch.allclose(weighted[k], once[k] * weights, rtol=1e-3, atol=0)}


def flat(values: Any) -> list[Any]:
    """Return what sequences and dicts hold, however deep."""
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, SEQUENCES):
        return [values]
    return [leaf for value in values for leaf in (flat(value) if isinstance(value, HOLDERS) else (value,))]
