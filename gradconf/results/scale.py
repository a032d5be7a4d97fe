"""Networks and images nearer to the paper's size than a chapter can train: the stored tables of `gradconf.sweeps`."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd
import torch

from gradconf import sweeps
from gradconf.plots import Picture, cosine_density, curves
from gradconf.results import report
from gradconf.results.figures import FIGURES, Figure
from gradconf.results.plans import PLANS, Plan, setting
from gradconf.results.selection import lost, stored
from gradconf.results.verdicts import Claim
from gradconf.results.words import IMAGES, NAMES, SIZES, briefly, complete, variant
from gradconf.sweeps.execution import FAILED, FINISHED
from gradconf.sweeps.tables import Row


@dataclass(frozen=True)
class Scale:
    """What was run of a sweep, which a notebook shows as a table; without any runs, it says how to run it.

    Attributes:
        sweep: name of its file in `book/sweeps`.
        size: of the networks and the data, `full`, `small` or `cpu`.
        rows: of the stored table, one a run, that can be compared.
        left_out: how many other rows the table has.
    """

    sweep: str
    size: str
    rows: tuple[Row, ...] = field(repr=False)
    left_out: int = 0

    def __bool__(self) -> bool:
        """Whether anything was run."""
        return bool(self.rows)

    @property
    def figure(self) -> Figure:
        """What the paper shows of it."""
        return FIGURES[self.sweep]

    @property
    def plan(self) -> Plan:
        """What was to be run of it."""
        return PLANS[self.sweep, self.size]

    @property
    def comparable(self) -> bool:
        """Whether its runs support a verdict on each claim, or, without claims, each planned network finished."""
        if self.figure.claims:
            return all(claim.checks for claim in self.claims)
        finished = {setting(row, self.figure.axis)[:2] for row in self.rows if row["status"] == FINISHED}
        return finished >= {one[:2] for one in self.plan.settings}

    @cached_property
    def best(self) -> list[Row]:
        """The rows at the rate that was best for their network, of seeds with which all rates were run."""
        return sweeps.tuned(complete(self.rows)) if self.rows else []

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row a run at the rate that was best for its network, with its `variant`.

        Of a network without such a rate there is a row a seed, without numbers: of a run that failed, else diverged.
        """
        if not self.rows:
            return pd.DataFrame()
        shown = [*self.best, *lost(self.rows, self.best)]
        table = sweeps.frame(shown)
        for name in NAMES:
            table[name] = table[name].astype(float) if name in table else float("nan")
        return table.assign(variant=[variant(row) for row in shown])

    @cached_property
    def claims(self) -> tuple[Claim, ...]:
        """What the paper says of it, with the verdict on what was run.

        It is *not run yet* while an end of what was to be varied lacks two seeds. A failed run counts as not run.
        """
        claims = []
        runs = self.runs[self.runs.status != FAILED] if self.rows else self.runs
        for claim, comparisons in self.figure.claims.items():
            axis, values = self.figure.axis, self.plan.values
            found = [comparison.check(runs, axis, values) for comparison in comparisons if self.rows]
            checks = tuple(check for check in found if check is not None)
            told = f"{claim}: {briefly(self.rows[0], self.size) if self.rows else SIZES[self.size]}"
            facts = self._provenance() if checks and len(checks) == len(comparisons) else {}
            told += f", {self.plan.progress(self.rows, axis)}" if self.rows else ""
            seeds = tuple(sorted({row["configuration"]["seed"] for row in self.rows}))
            where = (self.figure.paper, self.figure.chapter, "at-the-papers-scale")
            claims.append(Claim(f"{self.sweep}_{self.size}", told, *where, seeds, checks if facts else (), facts, ""))
        return tuple(claims)

    def command(self, size: str | None = None) -> str:
        """Return what runs it, where the repository lies, and beside it the data that are not fetched.

        Args:
            size: another size of the same sweep.

        Returns:
            A shell command.
        """
        size = size or self.size
        data = " --data ../CIFAR-10-images" if size == "cpu" and self.figure.paper else ""
        return (
            f"python -m gradconf sweep book/sweeps/{self.sweep}.toml --size {size} "
            f"--out gradconf/results/{self.sweep}_{size}.jsonl{data}"
        )

    def curves(self, y: str = "min_cosine") -> Picture | None:
        """Draw a number at the end of training against what is varied, mean and deviation over seeds.

        Args:
            y: `train_loss`, `test_accuracy`, `min_cosine`, `q01`, `std`, `disjoint_q01` or `disjoint_std`.

        Returns:
            The picture, or None where there is nothing to draw.
        """
        table = self.runs.dropna(subset=[y]) if self.rows else self.runs
        if table.empty:
            return None
        hue = "variant" if len(set(table.variant)) > 1 else None
        return curves(table, x=self.figure.axis, y=y, hue=hue, title=self._title(), ylabel=NAMES[y])

    def learning(self) -> Picture | None:
        """Draw the training loss against the epoch, one curve a network, at the rate that was best for it.

        Returns:
            As `curves`.
        """
        if not self.best:
            return None
        names = {row["key"]: self._setting(row) for row in self.best}
        table = sweeps.histories(self.best)
        table = table.assign(network=table["key"].map(names))
        return curves(table, x="epoch", y="train_loss", hue="network", title=self._title(), ylabel=NAMES["train_loss"])

    def density(self) -> Picture | None:
        """Draw the density of the cosines at the end of training, pooled over seeds, one curve a network.

        Returns:
            As `curves`.
        """
        pooled: dict[str, list[float]] = {}
        for row in self.best:
            pooled.setdefault(self._setting(row), []).extend(row.get("cosines") or ())
        known = {name: torch.tensor(values) for name, values in pooled.items() if values}
        return cosine_density(known, title=self._title()) if known else None

    def _repr_markdown_(self) -> str:
        return report.markdown(self)

    def _provenance(self) -> dict[str, Any]:
        told = [row["provenance"] for row in self.rows if row["provenance"]]
        return max(told, key=lambda p: p["date"]) if told else {}

    def _title(self) -> str:
        images = IMAGES.get(self.rows[0]["configuration"]["dataset"], "").replace("-compressed copy", "")
        return f"{self.figure.title}, {images}".rstrip(", ")

    def _setting(self, row: Row) -> str:
        kind = variant(row)
        return f"{f'{kind}, ' if kind else ''}{self.figure.axis} {row['configuration'][self.figure.axis]}"


def at_scale(sweep: str, *, size: str | None = None) -> Scale:
    """Return what was run of a sweep nearer to the paper's size than a chapter can.

    Args:
        sweep: `depth`, `width` or `bn_skip`, the paper's Figures 2 to 4, or our own `mlp_depth` or `mlp_width`.
        size: `full`, `small` or `cpu`; by default the largest whose runs support a verdict on each claim, and if none
            do, the one with the most finished runs.

    Returns:
        The runs, perhaps none, which are the rows of the stored table that name this sweep and size and agree in all
        that it does not vary; of several such groups the largest.

    Raises:
        ValueError: if there is no such sweep or size.

    Source: Sankararaman et al. 2020, Section 7.
    """
    if sweep not in FIGURES:
        raise ValueError(f"there is no sweep '{sweep}': choose one of {', '.join(FIGURES)}.")
    if size is not None and size not in SIZES:
        raise ValueError(f"there is no size '{size}': choose one of {', '.join(SIZES)}.")
    found = [Scale(sweep, one, *stored(sweep, one)) for one in ([size] if size else SIZES)]
    some = [one for one in found if one] or found[:1]
    finished = [sum(row["status"] == FINISHED for row in one.rows) for one in some]
    most = some[finished.index(max(finished))]
    return next((one for one in some if one and one.comparable), most)
