"""Clocks: contestants take turns, so that a busy moment of the machine hits all of them."""

import gc
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count, flop_registry

LONG = 5.0  # seconds: calls longer than this are made in fewer rounds
FEW = 3
aten = torch.ops.aten


def convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, *args: object, out_val: object) -> int:
    """Count a convolution's backward pass; torch's own count is too large by the number of groups."""
    transposed, wanted = args[4], args[-1]
    return sum(wanted[:2]) * conv_flop_count(x.shape, weight.shape, grad.shape, transposed)


FORMULAS = flop_registry | {
    aten.convolution_backward: convolution_backward,
    aten.addmm_: flop_registry[aten.addmm],  # torch counts no products that are added in place
    aten.baddbmm_: flop_registry[aten.baddbmm],
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        aten._scaled_dot_product_flash_attention_backward
    ],
}


class Operations(TorchDispatchMode):
    """Counts the floating point operations of matrix products, convolutions and attention, 2 a multiplication.

    Attributes:
        total: operations so far.
    """

    def __init__(self) -> None:
        """Start at 0."""
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operation and count it."""
        out = func(*args, **(kwargs or {}))
        formula = FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Time one call, waiting for the device before and after."""
    synchronise(device)
    start = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - start


def interleave(calls: dict[str, Callable], rounds: dict[str, int], device: torch.device) -> dict[str, list[float]]:
    """Time calls in turn, the first of every round alternating, each in as many rounds as stated."""
    times = {name: [] for name in calls}
    for k in range(max(rounds.values())):
        turn = [name for name in calls if k < rounds[name]]
        gc.collect()
        for name in turn[k % len(turn) :] + turn[: k % len(turn)]:
            times[name].append(seconds(calls[name], device))
    return times


def calibration(device: torch.device) -> tuple[Callable[[], object], float]:
    """Make a float32 matrix product that is large enough to reach the device's peak, and count its operations."""
    n, k = (1024, 4096) if device.type == "cpu" else (8192, 8192)
    a, b = torch.randn(n, k, device=device), torch.randn(k, n, device=device)
    return lambda: a @ b, 2 * n * n * k


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
