"""Networks and images nearer to the paper's size than a chapter can train: the stored tables of `gradconf.sweeps`."""

from collections import Counter
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

SIZES = {"full": "the paper's size", "small": "smaller than the paper's", "cpu": "a reduced set, for one CPU core"}
VARIANTS = {(False, False): "plain", (True, False): "batch norm", (False, True): "skip", (True, True): "both"}
NAMES = {
    "train_loss": "training loss",
    "test_accuracy": "test accuracy",
    "min_cosine": "smallest cosine of mini-batches",
    "std": "standard deviation of the cosines",
    "q01": "1% quantile of the cosines",
}
DATA = {"cifar10_jpeg": "CIFAR-10 (JPEG-compressed copy)", "cifar10": "CIFAR-10", "fashion_mnist": "Fashion-MNIST"}


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
    rows: tuple[dict[str, Any], ...] = field(repr=False)

    def __bool__(self) -> bool:
        """Whether anything was run."""
        return bool(self.rows)

    @property
    def figure(self) -> Figure:
        """What the paper shows of it."""
        return FIGURES[self.sweep]

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row a run at the rate that was best for its network, with its `variant`; diverged ones have no numbers."""
        if not self.rows:
            return pd.DataFrame()
        best = sweeps.tuned(self.rows)
        lost = {_network(row) for row in self.rows} - {_network(row) for row in best}
        seeds = {(_network(row), row["configuration"]["seed"]): row for row in self.rows if _network(row) in lost}
        table = sweeps.frame([*best, *seeds.values()])
        for name in NAMES:
            table[name] = table[name].astype(float) if name in table else float("nan")
        return table.assign(variant=[_variant(row) for row in (*best, *seeds.values())])

    @property
    def claims(self) -> tuple[Claim, ...]:
        """What the paper says of it, with the verdict on what was run; not run yet where too little was."""
        claims = []
        for claim, comparisons in self.figure.claims.items():
            found = [comparison.check(self.runs, self.figure.axis) for comparison in comparisons if self.rows]
            checks = tuple(check for check in found if check is not None)
            told = f"{claim}: {self.described if self.rows else SIZES[self.size]}"
            facts = self._provenance() if checks and len(checks) == len(comparisons) else {}
            seeds = tuple(sorted({row["configuration"]["seed"] for row in self.rows}))
            where = (self.figure.paper, self.figure.chapter, "at-the-papers-scale")
            claims.append(Claim(f"{self.sweep}_{self.size}", told, *where, seeds, checks if facts else (), facts, ""))
        return tuple(claims)

    @property
    def described(self) -> str:
        """Say in some words what was trained on what."""
        first = self.rows[0]["configuration"]
        size = f"{first['train_size']:,} images" if first["train_size"] else "all images"
        pixels = f", averaged over {first['pool']} × {first['pool']} pixels" if first["pool"] > 1 else ""
        data = DATA.get(first["dataset"], first["dataset"])
        return f"{SIZES[self.size]}, {size} of {data}{pixels}, {first['epochs']} epochs"

    @property
    def command(self) -> str:
        """What runs it, where the repository lies; a folder for the data may follow after `--data`."""
        return (
            f"python -m gradconf sweep book/sweeps/{self.sweep}.toml --size {self.size} "
            f"--out gradconf/results/{self.sweep}_{self.size}.jsonl"
        )

    def curves(self, y: str = "min_cosine") -> "Picture | Scale":
        """Draw a number at the end of training against what is varied, mean and deviation over seeds.

        Args:
            y: `min_cosine`, `train_loss`, `test_accuracy`, `std` or `q01`.

        Returns:
            The picture; where there is nothing to draw, this, which says how to run it.
        """
        table = self.runs.dropna(subset=[y]) if self.rows else self.runs
        if table.empty:
            return self
        hue = "variant" if len(set(table.variant)) > 1 else None
        return curves(table, x=self.figure.axis, y=y, hue=hue, title=self._title(), ylabel=NAMES[y])

    def learning(self) -> "Picture | Scale":
        """Draw the training loss against the epoch, one curve a network, at the rate that was best for it.

        Returns:
            As `curves`.
        """
        best = [row for row in sweeps.tuned(self.rows) if row["status"] == "finished"] if self.rows else []
        if not best:
            return self
        names = {row["key"]: self._setting(row) for row in best}
        table = sweeps.histories(best)
        table = table.assign(network=table["key"].map(names))
        return curves(
            table, x="epoch", y="train_loss", hue="network", log_y=True, title=self._title(), ylabel=NAMES["train_loss"]
        )

    def density(self) -> "Picture | Scale":
        """Draw the density of the cosines at the end of training, pooled over seeds, one curve a network.

        Returns:
            As `curves`.
        """
        pooled: dict[str, list[float]] = {}
        for row in sweeps.tuned(self.rows) if self.rows else ():
            pooled.setdefault(self._setting(row), []).extend(row.get("cosines") or ())
        known = {name: torch.tensor(values) for name, values in pooled.items() if values}
        return cosine_density(known, title=self._title()) if known else self

    def _repr_markdown_(self) -> str:
        if not self.rows:
            return f"**Not run yet** ({SIZES[self.size]}): `{self.command}`"
        lines = [
            f"| {self.figure.axis} | runs | rate | training loss | test accuracy | smallest cosine | deviation |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        for (_, _), runs in self.runs.groupby(["variant", self.figure.axis], sort=False):
            first = runs.iloc[0]
            name = f"{first[self.figure.axis]}{f', {first.variant}' if first.variant else ''}"
            trained = runs.train_loss.notna().any()
            numbers = [_spread(runs[n]) for n in ("train_loss", "test_accuracy", "min_cosine", "std")]
            rate = f"{first.learning_rate:g}" if trained else "diverged at every rate"
            lines.append(f"| {name} | {len(runs)} | {rate} | {' | '.join(numbers)} |")
        return "\n".join([*lines, "", self.measured_on()])

    def measured_on(self) -> str:
        """Say in some sentences what was run, where, with what, and how it is run again."""
        statuses = Counter(row["status"] for row in self.rows)
        seconds = sum(row["seconds"] or 0 for row in self.rows)
        where = Counter(
            f"{p['device']}, {p['threads']} thread{'s' if p['threads'] > 1 else ''}, torch {p['torch']}, gradconf "
            f"{p['gradconf']} ({(p['commit'] or 'no commit')[:12]}), {p['date'][:10]}"
            for row in self.rows
            if (p := row["provenance"])
        )
        counted = ", ".join(f"{number} {status}" for status, number in statuses.items())
        data = next((row["data"] for row in self.rows if row.get("data")), "")
        return (
            f"{self.described[0].upper()}{self.described[1:]}; each network at the rate with the smallest training "
            f"loss; means ± standard deviations over seeds. Runs: {counted}, {seconds / 3600:.1g} hours in all, on "
            f"{'; '.join(where)}. Data: {data}. `{self.command}` runs what is missing."
        )

    def _provenance(self) -> dict[str, Any]:
        told = [row["provenance"] for row in self.rows if row["provenance"]]
        return max(told, key=lambda p: p["date"]) if told else {}

    def _title(self) -> str:
        return f"{self.figure.title}, {DATA.get(self.rows[0]['configuration']['dataset'], '')}".rstrip(", ")

    def _setting(self, row: dict[str, Any]) -> str:
        variant = _variant(row)
        return f"{f'{variant}, ' if variant else ''}{self.figure.axis} {row['configuration'][self.figure.axis]}"


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


def _network(row: dict[str, Any]) -> str:
    return str({name: value for name, value in row["configuration"].items() if name not in ("learning_rate", "seed")})


def _variant(row: dict[str, Any]) -> str:
    told = row["configuration"]
    if told["model"] == "wrn":
        return VARIANTS[told["batch_norm"], told["skip"]]
    return f"{told['activation']}, {told['init']}" if told["model"] == "mlp" else ""


def _spread(values: pd.Series) -> str:
    known = values.dropna()
    if known.empty:
        return "–"
    text = f"{known.mean():.3g}" + (f" ± {known.std():.1g}" if len(known) > 1 else "")
    return text.replace("-", "−")
