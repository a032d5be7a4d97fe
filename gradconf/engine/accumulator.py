"""Sums of `rows rows^T` in float64, from products in the model's precision."""

from collections.abc import Iterable

import torch
from torch import Tensor

from gradconf.engine.scaling import panel, plain, scaled

COLUMNS = 2**15  # summed in the model's precision before they join the float64 sum
NARROW = 2**11  # fewer columns than this wait for others


class Accumulator:
    """One float64 matrix `(N, N)` a key, of which only the upper triangle is computed."""

    def __init__(self, n: int, device: torch.device) -> None:
        """Start with nothing; N samples."""
        self.n, self.device = n, device
        self.sums: dict[str, Tensor] = {}
        self.waiting: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def rows(self, key: str, rows: Tensor, exponent: Tensor) -> None:
        """Add `rows rows^T`.

        Args:
            key: which matrix.
            rows: shape `(N, columns)`, true values `rows_i * 2^exponent_i`.
            exponent: shape `(N,)`.
        """
        if rows.shape[1] >= NARROW:
            self._add(key, rows, exponent)
            return
        waiting = self.waiting.setdefault(key, [])
        waiting.append((rows, exponent))
        if sum(r.shape[1] for r, _ in waiting) >= NARROW:
            self._flush(key)

    def panels(self, key: str, panels: Iterable[tuple[int, Tensor]], exponent: Tensor) -> None:
        """Add the upper triangle of a symmetric matrix.

        Args:
            key: which matrix.
            panels: first row k and values from column k on, shape `(m, N - k)`.
            exponent: shape `(N,)`; true values are `values_ij * 2^(exponent_i + exponent_j)`.
        """
        power = None if plain(exponent) else torch.pow(2.0, exponent.double())
        first = key not in self.sums
        if first:
            self.sums[key] = torch.empty(self.n, self.n, dtype=torch.float64, device=self.device)
        for k, values in panels:
            rows = slice(k, k + len(values))
            if power is not None:
                values = values.double().mul_(power[rows, None]).mul_(power[k:])
            total = self.sums[key][rows, k:]
            total.copy_(values) if first else total.add_(values)

    def entry(self, i: int) -> float:
        """Return what the matrices so far add up to at `(i, i)`."""
        for key in list(self.waiting):
            self._flush(key)
        return sum(total[i, i].item() for total in self.sums.values())

    def result(self) -> dict[str, Tensor]:
        """Return the sums, symmetric, float64, shape `(N, N)`."""
        for key in list(self.waiting):
            self._flush(key)
        step = panel(self.n, self.device)
        for total in self.sums.values():
            for k in range(0, self.n, step):
                square = total[k : k + step, k : k + step]  # of which products filled both triangles
                square.triu_().add_(square.triu(1).T.contiguous())
                total[k + step :, k : k + step] = total[k : k + step, k + step :].T
        return self.sums

    def _flush(self, key: str) -> None:
        waiting = self.waiting.pop(key)
        largest = torch.stack([e for _, e in waiting]).amax(0)
        self._add(key, torch.cat([scaled(r, largest - e) for r, e in waiting], dim=1), largest)

    def _add(self, key: str, rows: Tensor, exponent: Tensor) -> None:
        step = panel(self.n, self.device)
        for low in range(0, rows.shape[1], COLUMNS):
            part = rows[:, low : low + COLUMNS]
            self.panels(key, ((k, part[k : k + step] @ part[k:].T) for k in range(0, self.n, step)), exponent)
