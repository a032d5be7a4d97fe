"""One rule a torch function: how its parameters' gradients follow from its inputs and output gradients.

Shapes are of one sample; t are positions. See `rule` for what a rule takes and returns.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradconf.engine.contributions import Lookup, Rows
from gradconf.engine.outer import Outer
from gradconf.engine.registry import Call, Contributions, rule


def _positions(values: Tensor, n: int) -> Tensor:
    """Return features of each position, `(N r, ..., features)` as `(N, 1, features, T)`."""
    return values.reshape(n, -1, values.shape[-1]).mT[:, None]


def _total(d: Tensor) -> Tensor:
    """Return the sum over positions, without a copy where there is one."""
    return d[..., 0] if d.shape[-1] == 1 else d.sum(-1)


@rule(F.linear, "input weight bias")
def _linear(call: Call, d: Tensor, n: int) -> Contributions:
    """`y_t = W a_t + b`: `dW = sum_t d_t a_t^T`, `db = sum_t d_t`."""
    outer = Outer.of(_positions(call["input"], n), _positions(d, n))
    return {"weight": outer, "bias": Rows(_total(outer.d).flatten(1), joins=outer)}


@rule(torch.addmm, "bias input weight")
def _addmm(call: Call, d: Tensor, n: int) -> Contributions:
    """`y_t = a_t W + b`: `dW = sum_t a_t d_t^T`, `db = sum_t d_t`."""
    if {"alpha", "beta"} & call.keys():
        return {}
    d = _positions(d, n)
    return {"weight": Outer.of(d, _positions(call["input"], n)), "bias": Rows(d.sum(-1).flatten(1))}


@rule(torch.matmul, "input weight")
@rule(torch.Tensor.matmul, "input weight")
@rule(torch.Tensor.__matmul__, "input weight")
def _matmul(call: Call, d: Tensor, n: int) -> Contributions:
    """`y_t = a_t W`: `dW = sum_t a_t d_t^T`."""
    return {"weight": Outer.of(_positions(d, n), _positions(call["input"], n))}


def _convolution(call: Call, d: Tensor, n: int) -> Contributions:
    """`y_t = W a_t + b` with `a_t` the window of the input at position t."""
    x, kernel, groups = call["input"], call["weight"].shape[2:], call.get("groups", 1)
    stride, padding, dilation = _geometry(call, len(kernel))
    if call.get("padding") == "same":
        total = [a * (k - 1) for a, k in zip(dilation, kernel, strict=True)]
        sides = [(t // 2, t - t // 2) for t in total]
    else:
        sides = [(p, p) for p in padding]
    a = _windows(_pad(x, sides), kernel, d.shape[2:], stride, dilation, groups)
    outer = Outer.of(a, d.reshape(n, groups, -1, d[0, 0].numel()), values=x)
    return {"weight": outer, "bias": Rows(d.flatten(2).sum(-1), joins=outer if groups == 1 else None)}


def _transposed_convolution(call: Call, d: Tensor, n: int) -> Contributions:
    """The input at t is spread over a window of the output: `dW = sum_t a_t (window of d at t)^T`."""
    x, kernel, groups = call["input"], call["weight"].shape[2:], call.get("groups", 1)
    stride, padding, dilation = _geometry(call, len(kernel))
    windows = _windows(_pad(d, [(p, p) for p in padding]), kernel, x.shape[2:], stride, dilation, groups)
    inputs = x.reshape(n, groups, -1, x[0, 0].numel())
    return {"weight": Outer.of(windows, inputs, values=d), "bias": Rows(d.flatten(2).sum(-1))}


_function: Callable
for _function in (torch.conv1d, torch.conv2d, torch.conv3d):
    rule(_function, "input weight bias stride padding dilation groups")(_convolution)
for _function in (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d):
    rule(_function, "input weight bias stride padding output_padding groups dilation")(_transposed_convolution)


@rule(F.embedding, "input weight padding_idx max_norm norm_type scale_grad_by_freq sparse")
def _embedding(call: Call, d: Tensor, n: int) -> Contributions:
    """`y_t = W[index_t]`: row v of `dW` is the sum of `d_t` over `index_t = v`, none for the padding index."""
    if call.get("scale_grad_by_freq"):
        return {}
    indices, padding, table = call["input"].reshape(n, -1), call.get("padding_idx"), call["weight"]
    d = d.reshape(n, -1, d.shape[-1])
    if padding is not None:
        d = d * (indices != padding % len(table))[..., None]
    return {"weight": Lookup.of(indices, d, len(table))}


@rule(F.batch_norm, "input running_mean running_var weight bias training momentum eps")
def _batch_norm(call: Call, d: Tensor, n: int) -> Contributions:
    """`y = w (x - mean) / sqrt(var + eps) + b` with running statistics: `dw = sum_t d_t y_t`, `db = sum_t d_t`."""
    if call.get("training"):
        return {}
    d = d.reshape(n, d.shape[1], -1)  # (N, C, T)
    centred = call["input"].reshape(d.shape) - call["running_mean"][:, None]
    dw = centred.mul_(d).sum(-1) / (call["running_var"] + call.get("eps", 1e-5)).sqrt()
    return {"weight": Rows(dw), "bias": Rows(d.sum(-1))}


def _affine(d: Tensor, n: int, z: Tensor, axes: int) -> Contributions:
    """`y = w z + b`, w over the last `axes` dimensions: `dw = sum_t d_t z_t`, `db = sum_t d_t`."""
    shape = (n, -1, *d.shape[d.dim() - axes :])
    d = d.reshape(shape)
    return {"weight": Rows((z.reshape(shape) * d).sum(1)), "bias": Rows(d.sum(1))}


@rule(F.layer_norm, "input normalized_shape weight bias eps")
def _layer_norm(call: Call, d: Tensor, n: int) -> Contributions:
    """`y = w z + b` with z the input normalised over its last dimensions."""
    shape = tuple(call["normalized_shape"])
    return _affine(d, n, F.layer_norm(call["input"], shape, None, None, call.get("eps", 1e-5)), len(shape))


@rule(F.rms_norm, "input normalized_shape weight eps")
def _rms_norm(call: Call, d: Tensor, n: int) -> Contributions:
    """`y = w z` with z the input divided by its root mean square."""
    shape = tuple(call["normalized_shape"])
    return _affine(d, n, F.rms_norm(call["input"], shape, None, call.get("eps")), len(shape))


@rule(F.group_norm, "input num_groups weight bias eps")
def _group_norm(call: Call, d: Tensor, n: int) -> Contributions:
    """`y = w z + b` with z the input normalised over groups of channels."""
    z = F.group_norm(call["input"], call["num_groups"], None, None, call.get("eps", 1e-5))
    return _affine(d.movedim(1, -1), n, z.movedim(1, -1), 1)


@rule(F.instance_norm, "input running_mean running_var weight bias use_input_stats momentum eps")
def _instance_norm(call: Call, d: Tensor, n: int) -> Contributions:
    """`y = w z + b` with z the input normalised over the positions of each channel."""
    if not call.get("use_input_stats", True):
        return {}
    z = F.instance_norm(call["input"], eps=call.get("eps", 1e-5))
    return _affine(d.movedim(1, -1), n, z.movedim(1, -1), 1)


@rule(torch.prelu, "input weight")
def _prelu(call: Call, d: Tensor, n: int) -> Contributions:
    """`y = max(x, 0) + w min(x, 0)`, w of each channel or of all: `dw = sum_t d_t min(x_t, 0)`."""
    channels = call["weight"].numel()
    return {"weight": Rows((d * call["input"].clamp(max=0)).reshape(n, channels, -1).sum(-1))}


def _spread(call: Call, d: Tensor, n: int) -> Contributions:
    """`y = x + p` with p broadcast: `dp` is the sum of d over what p was spread over."""
    if "alpha" in call:
        return {}
    (role,) = call["parameters"]
    shape = tuple(call[role].shape)
    padded = (1,) * (d.dim() - len(shape)) + shape
    axes = [k + 1 for k in range(1, d.dim()) if padded[k] == 1 and d.shape[k] != 1]
    summed = d.reshape(n, -1, *d.shape[1:]).sum([1, *axes])
    return {role: Rows(summed.reshape(n, *shape))}


rule(torch.Tensor.expand, "input")(_spread)  # of a class token, say


def _multiply(call: Call, d: Tensor, n: int) -> Contributions:
    """`y = x p` with p broadcast: `dp` is the sum of `d x` over what p was spread over."""
    (other,) = {"input", "other"} - call["parameters"]
    return _spread(call, d * call[other], n)


for _function in (torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__):
    rule(_function, "input other")(_spread)
for _function in (torch.mul, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__):
    rule(_function, "input other")(_multiply)


def _geometry(call: Call, dims: int) -> Iterator[list[int]]:
    """Return stride, padding and dilation, one number a dimension; 0 for padding given by name."""
    for name, default in (("stride", 1), ("padding", 0), ("dilation", 1)):
        value = call.get(name, default)
        values = [0] if isinstance(value, str) else [value] if isinstance(value, int) else list(value)
        yield values * dims if len(values) == 1 else values


def _pad(x: Tensor, sides: list[tuple[int, int]]) -> Tensor:
    flat = [amount for pair in reversed(sides) for amount in pair]
    return F.pad(x, flat) if any(flat) else x.contiguous()


def _windows(x: Tensor, kernel: Any, out: Any, stride: list[int], dilation: list[int], groups: int) -> Tensor:
    """Return a view of padded inputs `(N, C, length...)` of shape `(N, groups, C / groups, kernel..., out...)`."""
    n, channels = x.shape[:2]
    if math.prod(kernel) == 1 and x.shape[2:] == out:
        return x.reshape(n, groups, channels // groups, -1)
    s_n, (s_c, *s) = x[0].numel(), x.stride()[1:]
    view = (n, groups, channels // groups, *kernel, *out)
    taps = [step * a for step, a in zip(s, dilation, strict=True)]
    moves = [step * a for step, a in zip(s, stride, strict=True)]
    return x.as_strided(view, (s_n, s_c * (channels // groups), s_c, *taps, *moves), x.storage_offset())
