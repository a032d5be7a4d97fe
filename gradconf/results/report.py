"""What a notebook shows of a stored sweep: its table, the verdicts, and how it was measured, in Markdown."""

from typing import TYPE_CHECKING

import pandas as pd

from gradconf.results import tables
from gradconf.results.figures import FIGURES
from gradconf.results.plans import PLANS, setting
from gradconf.results.selection import shared, stored
from gradconf.results.words import COLUMNS, HEADS, RATE, SIZES, complete, data, described, measured_on, outcome
from gradconf.sweeps.execution import FINISHED

if TYPE_CHECKING:
    from gradconf.results.scale import Scale

NUMBERS = ("train_loss", "test_accuracy", "min_cosine", "std", "disjoint_q01")


def markdown(scale: "Scale") -> str:
    """Tell all of it, or, where nothing was run, how it can be.

    Args:
        scale: what was run of a sweep.

    Returns:
        Markdown.
    """
    if not scale:
        return "\n".join(_how(scale))
    told, axis = described(scale.rows[0], scale.size), scale.figure.axis
    head = f"{_capital(told)}. {scale.plan.progress(scale.rows, axis)}.{_left_out(scale)}"
    folded = ["<details>", "<summary>How it was measured, and how to run it again</summary>", "", *facts(scale)]
    return "\n".join([*_table(scale), "", *_verdicts(scale), head, "", *folded, "", "</details>"])


def facts(scale: "Scale") -> list[str]:
    """List what the columns mean, where, when and with what was run, and how it is run again.

    Args:
        scale: some runs of a sweep.

    Returns:
        Lines of Markdown.
    """
    axis = scale.figure.axis
    others = {name: stored(name, scale.size)[0] for name in FIGURES if name != scale.sweep}
    tried = "" if scale.plan.tried(scale.rows, axis) else " of those tried so far"
    lacking = scale.plan.settings - {setting(row, axis) for row in scale.rows}
    lines = [
        RATE.format(tried=tried),
        COLUMNS,
        *shared(scale.rows, others),
        measured_on(scale.rows),
        data(scale.rows),
        "This runs what is missing:" if lacking else "This ran them:",
    ]
    return [*(f"- {line}" for line in lines), *_shell(scale.command())]


def _table(scale: "Scale") -> list[str]:
    axis, kinds = scale.figure.axis, any(scale.runs.variant)
    lines = [
        f"| {axis} |{' network |' if kinds else ''} {' | '.join(HEADS)} |",
        f"| --- |{' --- |' if kinds else ''}{' ---: |' * len(HEADS)}",
    ]
    for _, runs in scale.runs.groupby(["variant", axis], sort=False):
        first = runs.iloc[0]
        name = f"{first[axis]} | {first.variant}" if kinds else first[axis]
        numbers = [_spread(runs[number]) for number in NUMBERS]
        rate = f"{first.learning_rate:g}" if first.status == FINISHED else _ended(scale, first)
        lines.append(f"| {name} | {len(runs)} | {rate} | {' | '.join(numbers)} |")
    return lines


def _verdicts(scale: "Scale") -> list[str]:
    lines = []
    for claim, told in zip(scale.claims, scale.figure.claims, strict=True):
        found = "; ".join(f"{tables.MARKS[check.verdict]} {check}" for check in claim.checks)
        verdict = tables.judged(claim)
        lines += [f"*{told}* ({claim.paper}): {verdict}{f' ({found})' if found else ''}.", ""]
    return lines


def _how(scale: "Scale") -> list[str]:
    sizes = dict.fromkeys(("cpu", scale.size))  # the cheapest first
    lines = [f"**Not run yet** ({SIZES[scale.size]}).{_left_out(scale)} What can be run, the cheapest first:"]
    for size in sizes:
        lines += ["", f"{_capital(SIZES[size])} ({PLANS[scale.sweep, size].cost}):", *_shell(scale.command(size))]
    return lines


def _shell(command: str) -> list[str]:
    return ["", "```bash", command, "```"]


def _ended(scale: "Scale", first: pd.Series) -> str:
    """Say how the runs of a network ended, of which this is the first, where none is at its best rate."""
    axis = scale.figure.axis
    kind = (first.variant, first[axis])
    return outcome([row for row in complete(scale.rows) if setting(row, axis)[:2] == kind])


def _left_out(scale: "Scale") -> str:
    if not scale.left_out:
        return ""
    many = f"{scale.left_out} rows that are" if scale.left_out > 1 else "1 row that is"
    return (
        f" Left out of its table: {many} of another sweep or size, repeated, or not like most in all but "
        f"{scale.figure.axis}, variant, seed and rate."
    )


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


def _spread(values: pd.Series) -> str:
    known = values.dropna()
    if known.empty:
        return "–"
    text = f"{known.mean():.3g}" + (f" ±\N{NO-BREAK SPACE}{known.std():.1g}" if len(known) > 1 else "")
    return text.replace("-", "−")
