"""Gradients that are sums of outer products, and their inner products with or without forming them.

A use with inputs `a_it` and output gradients `d_it` at positions t = 1..T has the per-sample gradients

    G_i = sum_t d_it a_it^T    (C, K),    so that    <G_i, G_j> = sum_ts (d_it . d_js) (a_it . a_js).

The left side is one matrix product after another ("form"), the right side needs no gradient ("contract").
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from gradconf.engine.scaling import LOWEST, added, exponents, factors, panel, plain, scaled

CACHE = 2**20  # bytes of unfolded inputs at a time: what a processor's cache holds
CUDA_CACHE = 2**28
PRODUCTS = 2**24  # bytes of products between positions at a time


@dataclass
class Outer:
    """Gradients that are sums of outer products: linear layers and convolutions.

    Attributes:
        a: inputs of shape `(N, groups, K, T)`, or, for convolutions, a view of shape `(N, groups, K..., T...)` of the
            padded inputs, unfolded a few samples at a time.
        d: output gradients of shape `(N, groups, C, T)`.
        a_exponent: shape `(N,)`.
        d_exponent: shape `(N,)`.
        bias: whether `contract` adds the bias, the weight of one more input, which is always 1.
    """

    a: Tensor
    d: Tensor
    a_exponent: Tensor
    d_exponent: Tensor
    bias: bool = False

    @classmethod
    def of(cls, a: Tensor, d: Tensor, *, values: Tensor | None = None) -> "Outer":
        """Take inputs and output gradients of the shapes above, `values` being what `a` is a view of."""
        return cls(a, d, exponents(a if values is None else values), exponents(d))

    @property
    def sizes(self) -> tuple[Tensor, ...]:
        """Exponents, shape `(N,)`, one of which is `LOWEST` where a sample's gradient is zero."""
        return self.a_exponent, self.d_exponent

    @property
    def inputs(self) -> int:
        """How many numbers a sample's inputs are, each counted once: what windows are views of."""
        return self.a[0].numel() if self.a.dim() == 4 else self.a.stride(0)

    def packed(self) -> Tensor:
        """Return the inputs with each number once, shape `(N, inputs)`."""
        a, n = self.a, len(self.a)
        return a.reshape(n, -1) if a.dim() == 4 else a.as_strided((n, self.inputs), (self.inputs, 1))

    def sample(self, i: int) -> Tensor:
        """Return the gradient of one sample, shape `(groups, C, K)`."""
        return self.d[i] @ self.a[i].reshape(self.d.shape[1], self.inner, -1).mT

    def is_dense(self, numbers: int) -> bool:
        """Tell whether gradients are plain sums of outer products with so many numbers, with nothing to unfold."""
        return self.a.dim() == 4 and self.d.shape[1] == 1 and self.a.shape[2] * self.d.shape[2] == numbers

    def with_bias(self) -> "Outer":
        """Return the contribution of weights and bias together, to be contracted."""
        exponent = self.a_exponent if plain(self.a_exponent) else self.a_exponent.clamp(min=1)
        return replace(self, a_exponent=exponent, bias=True)

    @cached_property
    def exponent(self) -> Tensor:
        """Exponent of the gradients, shape `(N,)`."""
        exponent = added(self.a_exponent, self.d_exponent)
        return exponent if plain(exponent) else exponent.clamp(LOWEST, -LOWEST)

    @property
    def inner(self) -> int:
        """K, inputs a group."""
        return math.prod(self.a.shape[2:]) // self.d.shape[-1]

    @property
    def axis(self) -> int:
        """Cut inputs if they have to be unfolded, as each piece then unfolds its own alone, else outputs or groups."""
        unfolds = self.inner > self.a.shape[2]
        return int(unfolds and self.d.shape[1] == 1 and 2 * self.a.shape[2] >= self.d.shape[2])

    @property
    def pieces(self) -> int:
        """Into how many pieces the parameter can be cut: groups, or outputs or inputs where there is one group."""
        return self.d.shape[1] if self.d.shape[1] > 1 else self.a.shape[2] if self.axis else self.d.shape[2]

    def rows(self, low: int, high: int, *, memory: Tensor | None = None) -> Tensor:
        """Return gradients of pieces low to high, a view of shape `(N, groups, C, K)` in the memory order of its mT.

        Args:
            low: first piece.
            high: after the last piece.
            memory: to write them into, one-dimensional.
        """
        some = (slice(None), slice(low, high)) if self.d.shape[1] > 1 else (slice(None), slice(None), slice(low, high))
        a = self.a[some] if self.axis or self.d.shape[1] > 1 else self.a
        d = self.d if self.axis else self.d[some]
        n, groups, outer, positions = d.shape
        inner, exponent = math.prod(a.shape[2:]) // positions, self.exponent
        numbers = n * groups * inner * outer
        out = (d.new_empty(numbers) if memory is None else memory[:numbers]).view(n, groups, inner, outer)
        step = self._samples_at_once()
        for k in range(0, n, step):
            unfolded = a[k : k + step].reshape(-1, inner, positions)
            outputs = scaled(d[k : k + step], exponent[k : k + step]).flatten(0, 1)
            torch.bmm(unfolded, outputs.mT, out=out[k : k + step].flatten(0, 1))
        return out.mT

    def contract(self, *, memory: Tensor | None = None) -> Iterator[tuple[int, Tensor]]:
        """Compute `sum_ts (d_it . d_js) (a_it . a_js)` for j >= i, in panels of rows; with a bias, `a_it . a_js + 1`.

        Args:
            memory: to write scaled values into, `numbers` of them, one-dimensional.

        Yields:
            First row k of a panel and its values from column k on, shape `(m, N - k)`, scaled by both exponents.
        """
        n, groups, _, positions = self.d.shape
        memory = self.d.new_empty(self.numbers) if memory is None else memory
        a = _laid_out(self.a.reshape(n, groups, self.inner, positions), self.a_exponent, memory)
        d = _laid_out(self.d, self.d_exponent, memory[a.numel() :])
        each = list(zip(a, d, strict=True))  # of shape (N T, K) and (N T, C), a group
        ones = None  # (N T,)
        if self.bias and not plain(self.a_exponent):
            ones = factors(self.a_exponent, d[0, :n, 0]).repeat_interleave(positions)
        step = min(panel(n, d.device), max(1, PRODUCTS // (n * positions**2 * d.element_size())))
        for k in range(0, n, step):
            rows, columns = slice(k * positions, min(k + step, n) * positions), slice(k * positions, None)
            parts = []
            for x, y in each:
                inner, outer = x[rows] @ x[columns].T, y[rows] @ y[columns].T
                if ones is not None:
                    inner.addr_(ones[rows], ones[columns])
                elif self.bias:
                    inner.add_(1)
                parts.append(outer.mul_(inner))
            product = parts[0] if groups == 1 else sum(parts)
            if positions > 1:
                product = product.view(-1, positions, n - k, positions).sum((1, 3))
            yield k, product

    @property
    def numbers(self) -> int:
        """How many numbers `contract` works on: all inputs and output gradients."""
        return self.a.numel() + self.d.numel()

    def _samples_at_once(self) -> int:
        each = (math.prod(self.a.shape[1:]) + self.d[0].numel()) * self.a.element_size()
        return max(1, (CUDA_CACHE if self.a.is_cuda else CACHE) // each)


def _laid_out(values: Tensor, exponent: Tensor, memory: Tensor) -> Tensor:
    """Write values of shape `(N, groups, features, T)`, scaled, into memory as `(groups, N T, features)`.

    They stay where they are if they lie there like that and need no scaling.
    """
    n, groups, features, positions = values.shape
    if plain(exponent) and groups == 1 and values.mT.is_contiguous():
        return values.mT.reshape(1, -1, features)
    out = memory[: values.numel()].view(groups, n, positions, features)
    torch.mul(values, factors(exponent, values), out=out.permute(1, 0, 3, 2))
    return out.flatten(1, 2)
