"""Samples: a tensor, or a tuple, list or dict of tensors, whose first dimension counts the samples."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

STRUCTURE = "a tensor, or a tuple, list or dict of tensors"
CONVERT = "convert arrays and numbers with torch.as_tensor first."

Samples = Tensor | tuple[Tensor, ...] | list[Tensor] | Mapping[str, Tensor]


def map_tensors(function: Callable[[Tensor], Tensor], samples: Samples) -> Samples:
    """Apply a function to every tensor and keep the structure around them.

    Args:
        function: takes a tensor of shape `(N, ...)`.
        samples: tensor, tuple, list or dict of tensors of shape `(N, ...)`.

    Returns:
        The same structure holding the function's results.
    """
    if isinstance(samples, Tensor):
        return function(samples)
    if isinstance(samples, Mapping):
        return {name: function(tensor) for name, tensor in samples.items()}
    mapped = [function(tensor) for tensor in samples]
    return type(samples)(*mapped) if hasattr(samples, "_fields") else type(samples)(mapped)


def leaves(samples: Samples, name: str) -> list[Tensor]:
    """List the tensors of a structure, refusing whatever is no such structure.

    Args:
        samples: tensor, tuple, list or dict of tensors of shape `(N, ...)`.
        name: what the samples are called in error messages, e.g. `"inputs"`.

    Returns:
        The tensors, in order.

    Raises:
        TypeError: if something in the structure is not a tensor.
    """
    if isinstance(samples, Tensor):
        return [samples]
    if not isinstance(samples, tuple | list | Mapping):
        raise TypeError(f"{name} must be {STRUCTURE}, not {type(samples).__name__}: {CONVERT}")
    values = list(samples.values() if isinstance(samples, Mapping) else samples)
    for value in values:
        if not isinstance(value, Tensor):
            holder, held = type(samples).__name__, type(value).__name__
            raise TypeError(f"{name} must be {STRUCTURE}, not a {holder} that holds {held}: {CONVERT}")
    return values


def count(inputs: Samples, targets: Samples) -> int:
    """Count the samples, N.

    Args:
        inputs: samples of shape `(N, ...)`.
        targets: samples of shape `(N, ...)`.

    Returns:
        N, at least 1.

    Raises:
        TypeError: if something is not a tensor.
        ValueError: if the tensors disagree on N, have no first dimension, or N is 0.
    """
    tensors = leaves(inputs, "inputs") + leaves(targets, "targets")
    if any(tensor.dim() == 0 for tensor in tensors):
        raise ValueError("every tensor needs a first dimension that counts the samples; got a scalar.")
    lengths = sorted({len(tensor) for tensor in tensors})
    if len(lengths) > 1:
        raise ValueError(f"inputs and targets must have one row a sample, but their lengths are {lengths}.")
    if not lengths or lengths[0] == 0:
        raise ValueError("there are no samples: pass at least one row of inputs and targets.")
    return lengths[0]


def check_usable(samples: Samples, name: str, device: torch.device) -> None:
    """Refuse samples that no model on a device can use.

    Args:
        samples: samples of shape `(N, ...)`.
        name: what the samples are called in error messages.
        device: where the model's parameters are.

    Raises:
        ValueError: if a value is NaN or plus infinity, or a tensor is neither on the CPU nor on `device`.
    """
    for tensor in leaves(samples, name):
        if tensor.device not in (device, torch.device("cpu")):
            raise ValueError(
                f"{name} are on {tensor.device} but the model is on {device}: move one of them, or pass CPU tensors."
            )
        # -inf is how attention masks say "not this one"; NaN is not less than infinity
        if tensor.is_floating_point() and tensor.numel() and not bool(tensor.amax() < math.inf):
            bad = (tensor.isnan() | tensor.isposinf()).reshape(len(tensor), -1).any(1).nonzero()[0].item()
            raise ValueError(f"{name} contain NaN or infinity, first in sample {bad}: clean the data first.")


def move(samples: Samples, device: torch.device) -> Samples:
    """Copy samples to a device, from the CPU to a GPU without waiting for it.

    Args:
        samples: samples of shape `(N, ...)`.
        device: where to.

    Returns:
        Copies, so that a model may overwrite them.
    """

    def copied(tensor: Tensor) -> Tensor:
        if device.type == "cuda" and tensor.device.type == "cpu":
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor.to(device, copy=True)

    return map_tensors(copied, samples)


def select(samples: Samples, rows: slice | Tensor) -> Samples:
    """Take some of the samples.

    Args:
        samples: samples of shape `(N, ...)`.
        rows: a slice, or indices of shape `(n,)`.

    Returns:
        Samples of shape `(n, ...)`.
    """
    return map_tensors(lambda tensor: tensor[rows], samples)


def call(model: nn.Module | Callable, inputs: Samples) -> Tensor:
    """Call a model the way its inputs ask for.

    Args:
        model: any callable.
        inputs: a tensor for `model(x)`, a tuple or list for `model(*x)`, a dict for `model(**x)`.

    Returns:
        What the model returns.
    """
    if isinstance(inputs, Tensor):
        return model(inputs)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs)


def join(first: Samples, second: Samples) -> Samples:
    """Put two sets of samples of the same structure behind each other.

    Args:
        first: samples of shape `(N_a, ...)`.
        second: samples of shape `(N_b, ...)`.

    Returns:
        Samples of shape `(N_a + N_b, ...)`.

    Raises:
        TypeError: if something is not a tensor.
        ValueError: if the structures, shapes or devices differ.
    """
    same = isinstance(first, Mapping) == isinstance(second, Mapping)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        same = first.keys() == second.keys()
    if isinstance(first, Mapping) and isinstance(second, Mapping) and same:
        second = {name: second[name] for name in first}
    a, b = leaves(first, "the first set"), leaves(second, "the second set")
    alike = [(x.shape[1:], x.device) == (y.shape[1:], y.device) for x, y in zip(a, b, strict=False)]
    if not same or len(a) != len(b) or not all(alike):
        raise ValueError("the two sets must have samples of the same structure, shapes and device.")
    joined = (torch.cat(pair) for pair in zip(a, b, strict=True))
    return map_tensors(lambda _: next(joined), first)
