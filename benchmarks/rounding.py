"""An emulation of layers in TF32 or bf16, for machines that have neither.

A tensor core multiplies operands whose mantissas are cut to 10 bits (TF32) or 7 bits (bf16), and adds in float32. Here
the operands of every linear layer and convolution are rounded to so many bits, in the forward pass and in both products
of the backward pass, and multiplied in float32. A card's order of summation and way of rounding are not emulated.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

BITS = {"float32": None, "TF32": 10, "bf16": 7}  # of the mantissa, after its leading one
LAYERS = {F.linear, torch.conv1d, torch.conv2d}


def layers_in(precision: str) -> AbstractContextManager:
    """Emulate a precision in the layers of what runs inside."""
    bits = BITS[precision]
    return nullcontext() if bits is None else Rounded(bits)


def rounded(x: Tensor, bits: int) -> Tensor:
    """Round finite float32 numbers to so many bits after the leading one, ties to even."""
    shift = 23 - bits
    whole = x.contiguous().view(torch.int32)
    half = (1 << (shift - 1)) - 1 + ((whole >> shift) & 1)
    return ((whole + half) & -(1 << shift)).view(torch.float32)


class Rounded(TorchFunctionMode):
    """Inside, linear layers and convolutions multiply rounded operands. Biases are added in full."""

    def __init__(self, bits: int) -> None:
        """Say how many bits of the mantissa are left."""
        super().__init__()
        self.bits = bits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Round what a layer multiplies."""
        kwargs = dict(kwargs or {})
        if func not in LAYERS:
            return func(*args, **kwargs)
        x, weight, *rest = args
        bias = rest.pop(0) if rest else kwargs.pop("bias", None)
        out = func(_Operand.apply(x, self.bits), _Operand.apply(weight, self.bits), None, *rest, **kwargs)
        out = _Gradient.apply(out, self.bits)
        return out if bias is None else out + (bias if func is F.linear else bias.view(-1, *[1] * (weight.dim() - 2)))


class _Operand(torch.autograd.Function):
    """Rounds in the forward pass; the gradient passes."""

    @staticmethod
    def forward(ctx, x, bits):
        return rounded(x, bits)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class _Gradient(torch.autograd.Function):
    """Passes what comes; the gradient is rounded, and so enters both products of the backward pass."""

    @staticmethod
    def forward(ctx, x, bits):
        ctx.bits = bits
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return rounded(gradient, ctx.bits), None
