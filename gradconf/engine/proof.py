"""The proof that rules hold for a model: what they give for one sample is the gradient that it has alone.

The sample runs alone, by a plain backward pass. So a rule that does not fit, or samples that are not where the rules
look for them, show, unless the gradient is zero: then another sample has to tell.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gradconf.engine.contributions import Contribution
from gradconf.engine.outer import Outer
from gradconf.engine.scaling import LOWEST, MILD

PART = 2**17  # numbers of a gradient to form at a time
SHORT = 2**12  # numbers that float32 sums well enough for a check
BEYOND = 8  # exponent by which a gradient has to be larger than one that is all rounding
OTHER_GRADIENT = "rules give another gradient than a plain backward pass"
ZERO_GRADIENT = "the gradient of the sample to check it on is zero"


@dataclass(frozen=True)
class Claim:
    """What rules say of one parameter, to be judged when all have spoken, so that a GPU waits once.

    Attributes:
        name: of the parameter.
        row: where the sample is among those that contribute.
        in_rows: whether the samples are certain to be where rules look for them.
        given: the sample's gradient by the rules, or, where they are smaller, `(d, a)` of which it is `d a^T`.
        sizes: for each use, exponents of shape `(n,)`, one of which is `LOWEST` where it gives zero.
    """

    name: str
    row: int
    in_rows: bool
    given: tuple[Tensor, ...]
    sizes: list[tuple[Tensor, ...]]

    @classmethod
    def of(cls, name: str, taken: list[Contribution], row: int, *, in_rows: bool, numbers: int) -> "Claim":
        """Take what all uses of a parameter with so many numbers contribute, and where the sample is among the rows."""
        sizes = [one.sizes for one in taken]
        if len(taken) == 1 and isinstance(taken[0], Outer) and taken[0].is_dense(numbers):
            d, a = taken[0].d[row, 0], taken[0].a[row, 0]
            if d.numel() + a.numel() < numbers:
                return cls(name, row, in_rows, (d.clone(), a.clone()), sizes)
        formed = taken[0].sample(row)
        for other in taken[1:]:
            formed += other.sample(row).reshape(formed.shape)
        return cls(name, row, in_rows, (formed,), sizes)

    def silent(self, *, norm: float, nothing: float) -> dict[int, int]:
        """Return the uses of which the sample says nothing, and from what size on another one does."""
        if norm == 0:
            return dict.fromkeys(range(len(self.sizes)), LOWEST)
        if norm > nothing and len(self.sizes) == 1:
            return {}
        here = torch.stack([torch.stack(use)[:, self.row].amin() for use in self.sizes]).tolist()
        if norm <= nothing:
            return {k: max(LOWEST, e + BEYOND) for k, e in enumerate(here)}
        return {k: e for k, e in enumerate(here) if e <= LOWEST}


def witness(sizes: tuple[Tensor, ...], above: int, known: Iterable[int]) -> int | None:
    """Return a row where a use gives more than 2^above, a known one if possible; None if there is none."""
    least = torch.stack(sizes).amin(0)
    return next((row for row in (*known, int(least.argmax())) if least[row] > above), None)


def judged(
    claims: list[Claim], gradients: Mapping[str, Tensor | None], dtype: torch.dtype
) -> Iterator[tuple[Claim, float, float, str]]:
    """Judge whether rules give the gradients of the sample alone.

    Args:
        claims: of all parameters that rules are to handle.
        gradients: of the sample alone, by parameter name; None for zero.
        dtype: of the measurement.

    Yields:
        Each claim, the norm of the gradient, the norm of rounding, and why rules are not to be trusted, else nothing.
    """
    pairs = [difference(gradients[claim.name], *claim.given, dtype=dtype) for claim in claims]
    found = torch.stack([x for pair in pairs for x in pair]).tolist() if pairs else []
    near, nothing = (2e-3, 1e-6) if dtype == torch.float32 else (1e-7, 1e-13)
    whole = math.hypot(*found[1::2])
    for claim, error, length in zip(claims, found[::2], found[1::2], strict=True):
        # rounding may be all there is of a gradient, such as that of a bias that a softmax does not feel
        right = error <= near * length or error <= nothing * whole
        lost = length == 0 and not claim.in_rows
        yield claim, length, nothing * whole, OTHER_GRADIENT if not right else ZERO_GRADIENT if lost else ""


def difference(gradient: Tensor | None, *given: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Compare a gradient with what rules give.

    Args:
        gradient: of any shape; None for zero.
        given: a gradient of as many numbers, or `d` of shape `(C, T)` and `a` of shape `(K, T)` for `d a^T`.
        dtype: of the measurement.

    Returns:
        Norm of the difference, infinite where the numbers are not as many, and norm of the gradient.
    """
    if len(given) == 1:
        (formed,) = given
        truth = torch.zeros_like(formed) if gradient is None else gradient
        if truth.numel() != formed.numel():
            return torch.full_like(norm(truth), math.inf), norm(truth)
        return apart(truth.reshape(-1), formed.reshape(-1)), norm(truth)
    d, a = given
    truth = d.new_zeros(len(d), len(a)) if gradient is None else gradient.view(len(d), len(a))
    length = norm(truth)
    if dtype == torch.float32 and a.shape[1] == 1 and min(truth.shape) <= SHORT:
        return rank_one_difference(truth, length, a[:, 0], d[:, 0]), length
    return dense_difference(truth, a, d), length


def norm(values: Tensor) -> Tensor:
    """Return `|values|` in float64: squares of tiny numbers would be zero in float32.

    Ordinary numbers on a CPU are summed row by row, and others part by part, as torch would first copy all of them to
    float64.
    """
    if values.dim() > 1 and not values.is_cuda:
        rows = torch.linalg.vector_norm(values.flatten(1), dim=1)
        whole = torch.linalg.vector_norm(rows, dtype=torch.float64)
        if 1 / MILD < whole.item() < MILD:
            return whole
    parts = [torch.linalg.vector_norm(part, dtype=torch.float64) for part in in_parts(values.reshape(-1))]
    return torch.linalg.vector_norm(torch.stack(parts))


def apart(values: Tensor, others: Tensor) -> Tensor:
    """Return `|values - others|`, for `(P,)`, some at a time."""
    parts = zip(in_parts(values), in_parts(others), strict=True)
    return torch.linalg.vector_norm(torch.stack([norm(value - other) for value, other in parts]))


def in_parts(values: Tensor) -> tuple[Tensor, ...]:
    """Cut `(P,)` into what a processor's cache holds; a GPU would rather have it whole."""
    return values.split(max(1, values.numel()) if values.is_cuda else PART)


def rank_one_difference(gradient: Tensor, whole: Tensor, a: Tensor, d: Tensor) -> Tensor:
    """Return `|G - d a^T|` from `|G|^2 - 2 d^T G a + |d|^2 |a|^2`, good to 1e-3 |G|, for `(K,)` and `(C,)`."""
    lengths = [torch.linalg.vector_norm(v, dtype=torch.float64) for v in (a, d)]
    x, y = (
        (v / length.clamp(min=torch.finfo(length.dtype).tiny)).to(v.dtype)
        for v, length in zip((a, d), lengths, strict=True)
    )
    product, other = (y @ gradient, x) if len(d) < len(a) else (gradient @ x, y)  # the shorter sum in float32
    formed = lengths[0] * lengths[1]
    return (whole * whole - 2 * formed * (product.double() @ other.double()) + formed * formed).abs_().sqrt_()


def dense_difference(gradient: Tensor, a: Tensor, d: Tensor) -> Tensor:
    """Return `|G - d a^T|`, formed some rows at a time, for `(K, T)` and `(C, T)`."""
    step = max(1, PART // len(a))
    parts = zip(gradient.split(step), d.split(step), strict=True)
    return torch.linalg.vector_norm(torch.stack([norm(torch.addmm(g, x, a.T, alpha=-1)) for g, x in parts]))
