"""The proof that rules hold for a model: what they give for one sample is the gradient that it has alone.

The sample runs alone, by a plain backward pass. So a use that nobody saw, a rule that does not fit, or samples that are
not where the rules look for them cannot go unnoticed, unless the gradient is zero: then another sample has to tell.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradconf.engine.contributions import Contribution, Outer
from gradconf.engine.scaling import LOWEST, MILD

PART = 2**17  # numbers of a gradient to form at a time
SHORT = 2**12  # numbers that float32 sums well enough for a check
OTHER_GRADIENT = "rules give another gradient than a plain backward pass"
ZERO_GRADIENT = "the gradient of the sample to check it on is zero"


@dataclass(frozen=True)
class Check:
    """What is known of one parameter, to be judged when all are there, so that a GPU waits once.

    Attributes:
        name: of the parameter.
        in_rows: whether the samples are certain to be where rules look for them.
        error: norm of the difference between the sample's gradient and what rules give.
        norm: of the gradient.
        sizes: exponents of shape `(n,)` for each use; where one of a use is `LOWEST`, it gives zero.
    """

    name: str
    in_rows: bool
    error: Tensor
    norm: Tensor
    sizes: list[tuple[Tensor, ...]]

    def witness(self, known: Iterable[int] = ()) -> int | None:
        """Return a row whose gradient is not zero by the rules, a known one if possible; None if all are zero."""
        least = torch.stack([torch.stack(use).amin(0) for use in self.sizes]).amax(0)
        rows = [*known, int(least.argmax())]
        return next((row for row in rows if least[row] > LOWEST), None)


def check(
    name: str, taken: list[Contribution], gradient: Tensor | None, row: int, *, in_rows: bool, dtype: torch.dtype
) -> Check:
    """Compare a gradient with what contributions give.

    Args:
        name: of the parameter.
        taken: what all its uses contribute.
        gradient: of the sample alone; None for zero.
        row: where the sample is among those that contribute.
        in_rows: whether the samples are certain to be where rules look for them.
        dtype: of the measurement.

    Returns:
        What is to be judged.
    """
    rest = torch.zeros_like(taken[0].sample(row)) if gradient is None else gradient
    size, sizes = norm(rest), [one.sizes for one in taken]
    if len(taken) == 1 and isinstance(taken[0], Outer) and taken[0].dense(rest.numel()):
        a, d = taken[0].a[row, 0], taken[0].d[row, 0]
        rest = rest.view(len(d), len(a))
        roughly = dtype == torch.float32 and a.shape[1] == 1 and min(rest.shape) <= SHORT
        error = rank_one_difference(rest, size, a[:, 0], d[:, 0]) if roughly else dense_difference(rest, a, d)
        return Check(name, in_rows, error, size, sizes)
    for contribution in taken:
        formed = contribution.sample(row)
        if formed.numel() != rest.numel():
            return Check(name, in_rows, torch.full_like(size, math.inf), size, sizes)
        rest = rest - formed.reshape(rest.shape)
    return Check(name, in_rows, norm(rest), size, sizes)


def judged(checks: list[Check], dtype: torch.dtype) -> Iterator[tuple[Check, float, str]]:
    """Judge whether rules give the gradients of the sample alone.

    Args:
        checks: of all parameters that rules are to handle.
        dtype: of the measurement.

    Yields:
        Each check, the norm of its gradient, and why rules are not to be trusted there, else nothing.
    """
    found = torch.stack([x for one in checks for x in (one.error, one.norm)]).tolist() if checks else []
    near, nothing = (1e-2, 1e-6) if dtype == torch.float32 else (1e-7, 1e-13)
    whole = math.hypot(*found[1::2])
    for one, error, size in zip(checks, found[::2], found[1::2], strict=True):
        # rounding may be all there is of a gradient, such as that of a bias that a softmax does not feel
        right = error <= near * size or error <= nothing * whole
        yield one, size, OTHER_GRADIENT if not right else ZERO_GRADIENT if size == 0 and not one.in_rows else ""


def norm(values: Tensor) -> Tensor:
    """Return `|values|` in float64: squares of tiny numbers would be zero in float32.

    Ordinary numbers on a CPU are summed row by row, as torch would first copy all of them to float64.
    """
    if values.dim() > 1 and not values.is_cuda:
        rows = torch.linalg.vector_norm(values.flatten(1), dim=1)
        whole = torch.linalg.vector_norm(rows, dtype=torch.float64)
        if 1 / MILD < whole.item() < MILD:
            return whole
    return torch.linalg.vector_norm(values, dtype=torch.float64)


def rank_one_difference(gradient: Tensor, size: Tensor, a: Tensor, d: Tensor) -> Tensor:
    """Return `|G - d a^T|` from `|G|^2 - 2 d^T G a + |d|^2 |a|^2`, good to 1e-3 |G|, for `(K,)` and `(C,)`."""
    lengths = [torch.linalg.vector_norm(v, dtype=torch.float64) for v in (a, d)]
    x, y = (
        (v / length.clamp(min=torch.finfo(length.dtype).tiny)).to(v.dtype)
        for v, length in zip((a, d), lengths, strict=True)
    )
    product, other = (y @ gradient, x) if len(d) < len(a) else (gradient @ x, y)  # the shorter sum in float32
    formed = lengths[0] * lengths[1]
    return (size * size - 2 * formed * (product.double() @ other.double()) + formed * formed).abs_().sqrt_()


def dense_difference(gradient: Tensor, a: Tensor, d: Tensor) -> Tensor:
    """Return `|G - d a^T|`, formed some rows at a time, for `(K, T)` and `(C, T)`."""
    step = max(1, PART // len(a))
    parts = zip(gradient.split(step), d.split(step), strict=True)
    return torch.linalg.vector_norm(torch.stack([norm(torch.addmm(g, x, a.T, alpha=-1)) for g, x in parts]))
