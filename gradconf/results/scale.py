"""Networks and images nearer to the paper's size than a chapter can train: the stored tables of `gradconf.sweeps`."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd
import torch

from gradconf import sweeps
from gradconf.plots import Picture, cosine_density, curves
from gradconf.results import tables
from gradconf.results.figures import FIGURES, Figure
from gradconf.results.verdicts import Claim
from gradconf.results.words import (
    DATA,
    HEADS,
    NAMES,
    NOTE,
    SIZES,
    Row,
    briefly,
    complete,
    described,
    measured_on,
    network,
    variant,
)


@dataclass(frozen=True)
class Scale:
    """What was run of a sweep, which a notebook shows as a table; without any runs, it says how to run it.

    Attributes:
        sweep: name of its file in `book/sweeps`.
        size: of the networks and the data, `full`, `small` or `cpu`.
        rows: of the stored table, one a run.
    """

    sweep: str
    size: str
    rows: tuple[Row, ...] = field(repr=False)

    def __bool__(self) -> bool:
        """Whether anything was run."""
        return bool(self.rows)

    @property
    def figure(self) -> Figure:
        """What the paper shows of it."""
        return FIGURES[self.sweep]

    @cached_property
    def best(self) -> list[Row]:
        """The rows at the rate that was best for their network, of seeds with which all rates were run."""
        return sweeps.tuned(complete(self.rows)) if self.rows else []

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row a run at the rate that was best for its network, with its `variant`; diverged ones have no numbers."""
        if not self.rows:
            return pd.DataFrame()
        best, rows = self.best, complete(self.rows)
        lost = {network(row) for row in rows} - {network(row) for row in best}
        seeds = {(network(row), row["configuration"]["seed"]): row for row in rows if network(row) in lost}
        table = sweeps.frame([*best, *seeds.values()])
        for name in NAMES:
            table[name] = table[name].astype(float) if name in table else float("nan")
        return table.assign(variant=[variant(row) for row in (*best, *seeds.values())])

    @property
    def claims(self) -> tuple[Claim, ...]:
        """What the paper says of it, with the verdict on what was run; not run yet where too little was."""
        claims = []
        for claim, comparisons in self.figure.claims.items():
            found = [comparison.check(self.runs, self.figure.axis) for comparison in comparisons if self.rows]
            checks = tuple(check for check in found if check is not None)
            told = f"{claim}: {briefly(self.rows[0], self.size) if self.rows else SIZES[self.size]}"
            facts = self._provenance() if checks and len(checks) == len(comparisons) else {}
            told += f", {min(len(check.after) for check in checks)} seeds" if facts else ""
            seeds = tuple(sorted({row["configuration"]["seed"] for row in self.rows}))
            where = (self.figure.paper, self.figure.chapter, "at-the-papers-scale")
            claims.append(Claim(f"{self.sweep}_{self.size}", told, *where, seeds, checks if facts else (), facts, ""))
        return tuple(claims)

    @property
    def command(self) -> str:
        """What runs it, where the repository lies, and beside it the data that are not fetched."""
        data = " --data ../CIFAR-10-images" if self.size == "cpu" and self.figure.paper else ""
        return (
            f"python -m gradconf sweep book/sweeps/{self.sweep}.toml --size {self.size} "
            f"--out gradconf/results/{self.sweep}_{self.size}.jsonl{data}"
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
        if not self.rows:
            return f"**Not run yet** ({SIZES[self.size]}): `{self.command}`"
        lines = [f"| {self.figure.axis} | {' | '.join(HEADS)} |", f"| --- |{' ---: |' * len(HEADS)}"]
        for (_, _), runs in self.runs.groupby(["variant", self.figure.axis], sort=False):
            first = runs.iloc[0]
            name = f"{first[self.figure.axis]}{f', {first.variant}' if first.variant else ''}"
            trained = runs.train_loss.notna().any()
            numbers = [_spread(runs[n]) for n in ("train_loss", "test_accuracy", "min_cosine", "std", "disjoint_q01")]
            rate = f"{first.learning_rate:g}" if trained else "diverged at every rate"
            lines.append(f"| {name} | {len(runs)} | {rate} | {' | '.join(numbers)} |")
        return "\n".join([*lines, "", *self._verdicts(), self.measured_on()])

    def _verdicts(self) -> list[str]:
        lines = []
        for claim, told in zip(self.claims, self.figure.claims, strict=True):
            found = "; ".join(f"{tables.MARKS[check.verdict]} {check}" for check in claim.checks)
            verdict = f"{tables.MARKS[claim.verdict]} **{claim.verdict}**"
            lines += [f"*{told}* ({claim.paper}): {verdict}{f' ({found})' if found else ''}.", ""]
        return lines

    def measured_on(self) -> str:
        """Say in some sentences what was run, where, with what, and how it is run again."""
        told = described(self.rows[0], self.size)
        return f"{told[0].upper()}{told[1:]}; {NOTE} {measured_on(self.rows)} `{self.command}` runs what is missing."

    def _provenance(self) -> dict[str, Any]:
        told = [row["provenance"] for row in self.rows if row["provenance"]]
        return max(told, key=lambda p: p["date"]) if told else {}

    def _title(self) -> str:
        return f"{self.figure.title}, {DATA.get(self.rows[0]['configuration']['dataset'], '')}".rstrip(", ")

    def _setting(self, row: Row) -> str:
        kind = variant(row)
        return f"{f'{kind}, ' if kind else ''}{self.figure.axis} {row['configuration'][self.figure.axis]}"


def at_scale(sweep: str, *, size: str | None = None) -> Scale:
    """Return what was run of a sweep nearer to the paper's size than a chapter can.

    Args:
        sweep: `depth`, `width` or `bn_skip`, the paper's Figures 2 to 4, or our own `mlp_depth` or `mlp_width`.
        size: `full`, `small` or `cpu`; the largest of which there are runs by default.

    Returns:
        The runs, perhaps none.

    Raises:
        ValueError: if there is no such sweep or size.

    Source: Sankararaman et al. 2020, Section 7.
    """
    if sweep not in FIGURES:
        raise ValueError(f"there is no sweep '{sweep}': choose one of {', '.join(FIGURES)}.")
    if size is not None and size not in SIZES:
        raise ValueError(f"there is no size '{size}': choose one of {', '.join(SIZES)}.")
    found = [
        Scale(sweep, one, tuple(sweeps.read_table(tables.FOLDER / f"{sweep}_{one}.jsonl")))
        for one in ([size] if size else SIZES)
    ]
    return next(filter(None, found), found[0])


def _spread(values: pd.Series) -> str:
    known = values.dropna()
    if known.empty:
        return "–"
    text = f"{known.mean():.3g}" + (f" ± {known.std():.1g}" if len(known) > 1 else "")
    return text.replace("-", "−")
