"""The rule that turns measured values into a verdict.

A claim has one or more checks. A check compares two settings seed by seed, or one setting with a limit:

| direction | effect in one seed | reproduced if | contradicted if |
| --- | --- | --- | --- |
| rises | `to - from` | `mean - 2 e > 0` and `mean >= tolerance` | the same of minus the effect |
| falls | `from - to` | `mean - 2 e > 0` and `mean >= tolerance` | the same of minus the effect |
| at most | `tolerance - at` | not negative in any seed | negative in every seed |
| at least | `at - tolerance` | not negative in any seed | negative in every seed |
| stays | `to - from` | `abs(mean) + 2 e <= tolerance` | `abs(mean) - 2 e > tolerance` |
| does not rise | `to - from` | `mean + 2 e <= tolerance` | `mean - 2 e > tolerance` |
| does not fall | `from - to` | `mean + 2 e <= tolerance` | `mean - 2 e > tolerance` |

with e the standard error of the mean. Else a check is undecided. A seed whose run diverged before it could be measured
counts for nothing, so that nothing is decided with it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat

import numpy as np

REPRODUCED, PARTLY, OPEN, CONTRADICTED = "reproduced", "partly", "not at this scale", "contradicted"
NOT_RUN = "not run yet"


@dataclass(frozen=True)
class Check:
    """One comparison, with what was measured.

    Attributes:
        what: is compared, in words.
        direction: `rises`, `falls`, `stays`, `does not rise`, `does not fall`, `at most` or `at least`.
        tolerance: the smallest effect that counts, or the limit.
        before: values at the first setting, one a seed; empty where one setting is compared with a limit.
        after: values at the second setting, one a seed, nan where there is none.
    """

    what: str
    direction: str
    tolerance: float
    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def effects(self) -> np.ndarray:
        """The effect in each seed, shape `(seeds,)`, by the table above."""
        after = np.array(self.after, dtype=float)
        before = np.array(self.before, dtype=float) if self.before else None
        if self.direction == "at most":
            return self.tolerance - after
        if self.direction == "at least":
            return after - self.tolerance
        return before - after if self.direction in ("falls", "does not fall") else after - before

    @property
    def verdict(self) -> str:
        """`reproduced`, `contradicted` or, undecided, `not at this scale`."""
        effects = self.effects
        if self.direction in ("at most", "at least"):
            return REPRODUCED if (effects >= 0).all() else CONTRADICTED if (effects < 0).all() else OPEN
        mean, error = effects.mean(), effects.std(ddof=1) / math.sqrt(len(effects))
        if self.direction in ("stays", "does not rise", "does not fall"):
            mean = abs(mean) if self.direction == "stays" else mean
            near, far = mean + 2 * error <= self.tolerance, mean - 2 * error > self.tolerance
            return REPRODUCED if near else CONTRADICTED if far else OPEN
        clear = abs(mean) > 2 * error and abs(mean) >= self.tolerance
        return OPEN if not clear else REPRODUCED if mean > 0 else CONTRADICTED

    def __str__(self) -> str:
        """Return what was measured, in words, means over seeds."""
        after, lost = np.array(self.after, dtype=float), int(np.isnan(self.after).sum())
        note = f" ({lost} of {len(after)} diverged)" if lost else ""
        if lost == len(after):
            return f"{self.what}: all {lost} runs diverged"
        if not self.before:
            spread = "" if self.direction in ("at most", "at least") else f" ± {_number(np.nanstd(after, ddof=1))}"
            value = np.nanmax(after) if self.direction == "at most" else np.nanmin(after)
            return f"{self.what}: {_number(value)}{spread}{note}"
        gaps = after - np.array(self.before, dtype=float)
        return (
            f"{self.what}: {_number(np.nanmean(self.before))} → {_number(np.nanmean(after))}, "
            f"change {_number(np.nanmean(gaps), sign=True)} ± {_number(np.nanstd(gaps, ddof=1))}{note}"
        )


@dataclass(frozen=True)
class Claim:
    """A claim, and what was measured of it.

    Attributes:
        id: its name in `book/claims.yml`.
        claim: in our words.
        paper: where the paper makes it.
        chapter: the notebook that treats it, without extension.
        section: heading there.
        seeds: that were measured.
        checks: what was measured.
        provenance: when, where and with what; empty if it was not run yet.
        hash: of its definition when it was run.
    """

    id: str
    claim: str
    paper: str
    chapter: str
    section: str
    seeds: tuple[int, ...]
    checks: tuple[Check, ...]
    provenance: dict[str, Any]
    hash: str

    @property
    def counted(self) -> str:
        """With how many seeds every check was measured, in words; empty if it was not run yet."""
        return f"{min(len(check.after) for check in self.checks)} seeds" if self.checks else ""

    @property
    def verdict(self) -> str:
        """`reproduced` if all checks are, `partly` if some are, else `contradicted` if one is, else undecided."""
        verdicts = [check.verdict for check in self.checks]
        if not verdicts:
            return NOT_RUN
        if all(verdict == REPRODUCED for verdict in verdicts):
            return REPRODUCED
        if REPRODUCED in verdicts:
            return PARTLY
        return CONTRADICTED if CONTRADICTED in verdicts else OPEN


def read(record: dict[str, Any]) -> Claim:
    """Make a claim of what a file holds of it.

    Args:
        record: as `python -m claims.run` writes it.

    Returns:
        The claim.
    """
    checks = tuple(
        Check(c["what"], c["direction"], c["tolerance"], _values(c["before"]), _values(c["after"]))
        for c in record["checks"]
    )
    told = {name: record[name] for name in ("id", "claim", "paper", "chapter", "section", "provenance", "hash")}
    return Claim(**told, seeds=tuple(record["seeds"]), checks=checks)


def _values(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else value for value in values)


def _number(value: SupportsFloat, *, sign: bool = False) -> str:
    number = float(value)
    text = f"{number:+.2g}" if sign else f"{number:.2g}"
    return text.replace("-", "−") if abs(number) >= 1e-12 else "0"
