"""What the files in `book/sweeps` ask for, as the package does not hold them: so that a part is not taken for all."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from gradconf.results.words import variant
from gradconf.sweeps.tables import Row

Setting = tuple[str, int, int, float]  # variant, value of what is varied, seed, rate


@dataclass(frozen=True)
class Plan:
    """The runs of one size of a sweep, every combination of these values.

    Attributes:
        values: of what is varied, from the smallest to the largest.
        seeds: how many, counted from 0.
        rates: learning rates.
        work: of all runs, in 10^15 floating point operations, as `--dry-run` counts it.
        variants: of the network.
    """

    values: tuple[int, ...]
    seeds: int
    rates: tuple[float, ...]
    work: float
    variants: tuple[str, ...] = ("",)

    @property
    def settings(self) -> frozenset[Setting]:
        """All planned runs."""
        return frozenset(product(self.variants, self.values, range(self.seeds), self.rates))

    @property
    def cost(self) -> str:
        """How many runs there are, and their work, in words."""
        return f"{len(self.settings):,} runs, {self.work:,g} × 10¹⁵ floating point operations"

    def tried(self, rows: Sequence[Row], axis: str) -> bool:
        """Return whether each network of which there are rows was run at all planned rates.

        Args:
            rows: of its table.
            axis: what is varied.
        """
        found: dict[tuple[str, int], set[float]] = {}
        for row in rows:
            told = setting(row, axis)
            found.setdefault(told[:2], set()).add(told[3])
        return all(rates >= set(self.rates) for rates in found.values())

    def progress(self, rows: Sequence[Row], axis: str) -> str:
        """Say how much of it was run, and what was not.

        Args:
            rows: of its table.
            axis: what is varied.

        Returns:
            Such as `8 of 18 planned runs; not run yet: width 3, seed 2`.
        """
        found, planned = {setting(row, axis) for row in rows}, self.settings
        lacking = planned - found
        heads = ("{}", f"{axis} {{}}", "seed {}", "rate {:g}")
        absent = [  # values of which there is no run at all
            (place, value)
            for place in range(len(heads))
            for value in sorted({one[place] for one in planned} - {one[place] for one in found & planned})
        ]
        rest = [one for one in lacking if all(one[place] != value for place, value in absent)]
        alike = [heads[place].format(*seen) for place in range(1, 4) if len(seen := {one[place] for one in rest}) == 1]
        which = f" ({', '.join(alike)})" if alike else ""
        told = [heads[place].format(value) for place, value in absent]
        told += [f"{len(rest)} {'others' if told else 'of them'}{which}"] if rest else []
        more = f", beside {len(found - planned)} not planned" if found - planned else ""
        text = f"{len(planned & found)} of {len(planned)} planned runs{more}"
        return f"{text}; not run yet: {', '.join(told)}" if told else text


def setting(row: Row, axis: str) -> Setting:
    """Return which run of a sweep a row is.

    Args:
        row: of a table of `gradconf.sweeps`.
        axis: what is varied.

    Returns:
        Variant, value of what is varied, seed and rate.
    """
    told = row["configuration"]
    return variant(row), told[axis], told["seed"], told["learning_rate"]


_EIGHT = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
_LAYERS = ("plain", "batch norm", "skip", "both")
_TANH = ("tanh, glorot", "tanh, orthogonal")
_BOTH = (*_TANH, "identity, glorot", "identity, orthogonal")
PLANS = {
    ("depth", "full"): Plan((16, 22, 28, 34, 40), 5, _EIGHT[1:7], 3800),
    ("depth", "small"): Plan((16, 28, 40), 3, (0.1, 0.03, 0.01), 28),
    ("depth", "cpu"): Plan((10, 16, 22), 3, (0.1, 0.03), 0.04),
    ("width", "full"): Plan((2, 3, 4, 5, 6), 5, _EIGHT[1:7], 7800),
    ("width", "small"): Plan((2, 4, 6), 3, (0.1, 0.03, 0.01), 60),
    ("width", "cpu"): Plan((1, 2, 3), 3, (0.1, 0.03), 0.07),
    ("bn_skip", "full"): Plan((16, 22, 28, 34, 40, 52, 76, 100), 5, _EIGHT, 59000, _LAYERS),
    ("bn_skip", "small"): Plan((16, 40), 2, (0.3, 0.03, 0.003), 51, _LAYERS),
    ("bn_skip", "cpu"): Plan((10, 22), 3, (0.1, 0.03), 0.1, _LAYERS),
    ("mlp_depth", "full"): Plan((3, 10, 30, 100, 300), 5, _EIGHT[1:], 31, _BOTH),
    ("mlp_depth", "small"): Plan((3, 10, 30, 100), 3, _EIGHT[2:6], 0.9, _BOTH),
    ("mlp_depth", "cpu"): Plan((3, 10, 30), 3, (0.3, 0.1, 0.03), 0.006, _TANH),
    ("mlp_width", "full"): Plan((10, 30, 100, 300, 1000), 5, _EIGHT[1:], 210, _BOTH),
    ("mlp_width", "small"): Plan((10, 30, 100, 300), 3, _EIGHT[2:6], 1.7, _BOTH),
    ("mlp_width", "cpu"): Plan((10, 30, 100), 3, (0.3, 0.1, 0.03), 0.002, _TANH),
}
