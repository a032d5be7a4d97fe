"""Random initial weights whose scale and source of randomness are said, not implied."""

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn

Model = TypeVar("Model", bound=nn.Module)

INITIALIZATIONS = ("he", "glorot", "lecun", "orthogonal")


def build(make: Callable[[], Model], *, init: str, gain: float, generator: Generator | None) -> Model:
    """Build a model and give it initial weights, drawing only from `generator`.

    Weights of linear and convolutional layers, with fan_in and fan_out counted over the kernel:

    | init | distribution |
    | --- | --- |
    | he | normal, variance `gain^2 * 2 / fan_in` |
    | glorot | normal, variance `gain^2 * 2 / (fan_in + fan_out)` |
    | lecun | normal, variance `gain^2 / fan_in` |
    | orthogonal | uniform over matrices with orthonormal rows or columns, times `gain` |

    Biases start at 0, batch norm at scale 1 and shift 0.

    Args:
        make: makes the module; it may leave its parameters uninitialised.
        init: one of `he`, `glorot`, `lecun`, `orthogonal`.
        gain: factor on every weight.
        generator: CPU generator; the global one by default.

    Returns:
        The module on the CPU, in training mode.

    Raises:
        ValueError: if `init` is unknown.

    Source: He et al. 2015, Glorot & Bengio 2010, LeCun et al. 1998, Saxe et al. 2014; the paper uses the first for
    its convolutional networks.
    """
    if init not in INITIALIZATIONS:
        raise ValueError(f"unknown init '{init}': choose one of {', '.join(INITIALIZATIONS)}.")
    with torch.device("meta"):  # so that torch's own initialisation draws no random numbers
        model = make()
    model = model.to_empty(device="cpu")
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            _fill(module.weight, init, gain, generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_parameters()
    return model


def _fill(weight: Tensor, init: str, gain: float, generator: Generator | None) -> None:
    fan_in = weight[0].numel()
    fan_out = weight.numel() // weight.shape[1]
    variance = {"he": 2 / fan_in, "glorot": 2 / (fan_in + fan_out), "lecun": 1 / fan_in}
    if init == "orthogonal":
        nn.init.orthogonal_(weight, gain, generator=generator)
    else:
        nn.init.normal_(weight, std=gain * math.sqrt(variance[init]), generator=generator)
