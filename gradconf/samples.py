"""Samples: a tensor, or a tuple, list or dict of tensors, whose first dimension counts the samples."""

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


def place(samples: Samples, name: str, device: torch.device) -> Samples:
    """Bring samples to the model's device, checking that they are usable.

    Args:
        samples: samples of shape `(N, ...)`.
        name: what the samples are called in error messages.
        device: where the model's parameters are.

    Returns:
        The samples on `device`, without a graph; tensors already there are not copied.

    Raises:
        ValueError: if a value is NaN or plus infinity, or a tensor is neither on the CPU nor on `device`.
    """
    for tensor in leaves(samples, name):
        if tensor.device not in (device, torch.device("cpu")):
            raise ValueError(
                f"{name} are on {tensor.device} but the model is on {device}: move one of them, or pass CPU tensors."
            )
        unusable = tensor.isnan() | tensor.isposinf()  # -inf is how attention masks say "not this one"
        if bool(unusable.any()):
            bad = unusable.reshape(len(tensor), -1).any(1).nonzero()[0].item()
            raise ValueError(f"{name} contain NaN or infinity, first in sample {bad}: clean the data first.")
    return map_tensors(lambda tensor: tensor.detach().to(device), samples)


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
