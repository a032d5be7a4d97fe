"""Powers of two that keep float32 products in range, sample by sample: `true value = value * 2^exponent`.

Where products would neither underflow nor overflow anyhow, exponents are 0, and a CPU then spares the multiplication.
"""

import math

import torch
from torch import Tensor

LOWEST = -126  # exponent of float32's smallest normal number, and of zero
MILD = 2.0**24  # a product of four norms between 1 / MILD and MILD is a normal number


def panel(n: int, device: torch.device) -> int:
    """Return how many rows of a symmetric `(n, n)` product to compute at a time, to skip the lower triangle."""
    if device.type == "cuda":
        return 1024  # a smaller product would not fill it
    return 32 if n < 256 else 128


def exponents(values: Tensor) -> Tensor:
    """Return integers e, shape `(N,)`, by which values of shape `(N, ...)` are to be scaled: `max |values_i| <= 2^e_i`.

    On a CPU they are all 0 where every sample's values can be multiplied as they are. A GPU would have to wait to know.
    """
    if not values.numel():
        return torch.zeros(len(values), dtype=torch.int32, device=values.device)
    values = values[:, None] if values.dim() == 1 else values
    rest = tuple(range(1, values.dim()))
    if values.is_cuda:
        largest = torch.linalg.vector_norm(values, math.inf, dim=rest)
    else:
        least, most = torch.linalg.vector_norm(values, dim=rest).aminmax()
        if least.item() > 1 / MILD and most.item() < MILD:
            return torch.zeros((), dtype=torch.int32).expand(len(values))
        largest = torch.maximum(values.amax(rest), -values.amin(rest))
    return torch.frexp(largest.clamp_(2.0 ** (LOWEST - 1), 2.0 ** (-LOWEST - 1))).exponent


def plain(exponent: Tensor) -> bool:
    """Tell whether values need no scaling, where that can be told without waiting."""
    return not exponent.is_cuda and (exponent.stride() == (0,) or not exponent.any())


def added(exponent: Tensor, other: Tensor) -> Tensor:
    """Return the exponents of products, `exponent + other`."""
    return exponent if plain(other) else other if plain(exponent) else exponent + other


def factors(exponent: Tensor, values: Tensor) -> Tensor:
    """Return `2^(-exponent_i)`, shape `(N, 1, ...)`, to multiply values of shape `(N, ...)` with."""
    return torch.pow(2.0, -exponent.to(values.dtype)).view(-1, *[1] * (values.dim() - 1))


def scaled(values: Tensor, exponent: Tensor) -> Tensor:
    """Return `values_i * 2^(-exponent_i)`, shape `(N, ...)`."""
    return values if plain(exponent) else values * factors(exponent, values)
