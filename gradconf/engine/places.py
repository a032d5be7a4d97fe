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
PICKING = {"index_select", "gather", "take", "take_along_dim", "flip", "flipud", "fliplr", "roll", "sort", "embedding"}
PICKING |= {"index_add", "index_copy", "index_put", "scatter", "scatter_add", "scatter_reduce"}
PLAIN = (int, slice, type(None), type(...))  # indices that keep an order
JOINING = {"cat", "concat", "concatenate", "stack", "hstack", "vstack"}
WEIGHTS = 64  # different ones, so that of that many neighbours no two are alike


def may_move(function: Callable, args: tuple, kwargs: dict, samples: int) -> bool:
    """Tell whether a call may give rows another order.

    Args:
        function: a torch function.
        args: its arguments.
        kwargs: the others.
        samples: how many run together.

    Returns:
        Whether it picks or joins along a dimension that counts samples, or joins as many things as there are samples.
    """
    name = getattr(function, "__name__", "")
    plain = name if name in BY_INDEX else name.rstrip("_")
    if samples == 1 or plain not in BY_INDEX | PICKING | JOINING:
        return False
    tensors = [v for v in flat((args, kwargs)) if isinstance(v, Tensor)]
    as_many = plain in JOINING and len(tensors) % samples == 0
    if as_many or plain == "stack":
        return as_many
    data = tensors if plain in JOINING else tensors[1:2] if plain == "embedding" else tensors[:1]
    axes = {axis for t in data for k in _axes(t, samples) for axis in (k, k - t.dim())}
    if plain in BY_INDEX:
        indices = args[1] if isinstance(args[1], tuple) else args[1:2]
        picked = {k for k, i in enumerate(indices) if not isinstance(i, PLAIN)}
        written = plain == "__setitem__" and isinstance(next(iter(indices), None), int)
        counted = picked if any(i is None or i is ... for i in indices) else picked & axes
        return bool(axes) and (written or bool(counted))
    others = args[2:] if plain == "roll" else args[1:]  # by how much to roll is no dimension
    numbers = {v for v in flat((others, {k: v for k, v in kwargs.items() if k != "shifts"})) if type(v) is int}
    return bool(axes) and (not numbers or not axes.isdisjoint(numbers))


def _axes(tensor: Tensor, samples: int) -> list[int]:
    """Return the dimensions that count samples, the first one with some rows for each."""
    return [k for k, size in enumerate(tensor.shape) if size == samples or (k == 0 and size % samples == 0)]


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
