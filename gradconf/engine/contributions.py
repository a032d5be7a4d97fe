"""What one use of a parameter adds to K: gradients that are held, read from a table, or sums of outer products.

Each kind says how large gradients are, sample by sample, and forms those of some pieces of the parameter. Values are
scaled where float32 products of them could underflow or overflow.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from gradconf.engine.outer import Outer
from gradconf.engine.scaling import exponents, scaled


@dataclass
class Rows:
    """Gradients that are small enough to be held: of biases and affine norms.

    Attributes:
        gradients: shape `(N, *parameter)`.
        joins: the weights' contribution, for a bias that is the weight of one more input, which is always 1.
        axis: along which dimension of the parameter pieces are cut.
    """

    gradients: Tensor
    joins: Outer | None = None
    axis: ClassVar[int] = 0

    @cached_property
    def exponent(self) -> Tensor:
        """Exponent of the gradients, shape `(N,)`."""
        if self.joins is not None and self.joins.d.shape[-1] == 1:  # they are sums over one position
            return self.joins.d_exponent
        return exponents(self.gradients)

    @property
    def sizes(self) -> tuple[Tensor, ...]:
        """Exponents, shape `(N,)`, one of which is `LOWEST` where a sample's gradient is zero."""
        return (self.exponent if self.joins is None else self.joins.d_exponent,)

    @property
    def pieces(self) -> int:
        """Into how many pieces the parameter can be cut, along its first dimension."""
        return self.gradients.shape[1] if self.gradients.dim() > 1 else 1

    def sample(self, i: int) -> Tensor:
        """Return the gradient of one sample, of the parameter's shape."""
        return self.gradients[i].clone()

    def rows(self, low: int, high: int) -> Tensor:
        """Return gradients of pieces low to high, shape `(N, high - low, rest)`."""
        pieces = self.gradients.reshape(len(self.gradients), self.pieces, -1)
        return scaled(pieces[:, low:high], self.exponent)


@dataclass
class Lookup:
    """Gradients of a table of which each sample reads some rows: embeddings.

    Attributes:
        indices: rows read, shape `(N, T)`.
        d: output gradients, shape `(N, T, rest)`, zero where reading has no gradient.
        exponent: shape `(N,)`.
        pieces: rows of the table.
        axis: along which dimension of the parameter pieces are cut.
    """

    indices: Tensor
    d: Tensor
    exponent: Tensor
    pieces: int
    axis: ClassVar[int] = 0

    @classmethod
    def of(cls, indices: Tensor, d: Tensor, pieces: int) -> "Lookup":
        """Take indices of shape `(N, T)` and output gradients of shape `(N, T, rest)`."""
        exponent = exponents(d)
        return cls(indices, scaled(d, exponent), exponent, pieces)

    @property
    def sizes(self) -> tuple[Tensor, ...]:
        """Exponents, shape `(N,)`, one of which is `LOWEST` where a sample's gradient is zero."""
        return (self.exponent,)

    def sample(self, i: int) -> Tensor:
        """Return the gradient of one sample, shape `(pieces, rest)`."""
        d = torch.ldexp(self.d[i], self.exponent[i])
        return d.new_zeros(self.pieces, d.shape[1]).index_add_(0, self.indices[i], d)

    def rows(self, low: int, high: int) -> Tensor:
        """Return gradients of pieces low to high, shape `(N, high - low, rest)`."""
        n, _, rest = self.d.shape
        here = (self.indices >= low) & (self.indices < high)
        slots = (self.indices - low).clamp(0, high - low - 1)
        slots = slots + torch.arange(n, device=slots.device)[:, None] * (high - low)
        out = self.d.new_zeros(n * (high - low), rest)
        out.index_add_(0, slots.flatten(), (self.d * here[..., None]).reshape(-1, rest))
        return out.view(n, high - low, rest)


Contribution = Rows | Lookup | Outer  # each has `axis`, `pieces`, `exponent`, `sizes`, `rows` and `sample`


def summed(uses: list[Contribution], low: int, high: int, *, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Add the gradients of some pieces of a parameter over its uses.

    Args:
        uses: contributions of one parameter.
        low: first piece.
        high: after the last piece.
        memory: to write large gradients into, one-dimensional; else it is allocated.

    Returns:
        Gradients of shape `(N, high - low, ...)`, to be multiplied by 2^exponent, and exponents of shape `(N,)`.
    """
    if len(uses) == 1 and isinstance(uses[0], Outer):
        return uses[0].rows(low, high, memory=memory), uses[0].exponent
    if len(uses) == 1:
        return uses[0].rows(low, high), uses[0].exponent
    exponent = torch.stack([use.exponent for use in uses]).amax(0)
    parts = [scaled(use.rows(low, high), exponent - use.exponent) for use in uses]
    return torch.stack([part.reshape(parts[0].shape) for part in parts]).sum(0), exponent


def flat(gradients: Tensor) -> Tensor:
    """Return gradients of shape `(N, ...)` as `(N, columns)`, in memory order where that spares a copy."""
    return gradients.mT.flatten(1) if gradients.mT.is_contiguous() else gradients.flatten(1)
