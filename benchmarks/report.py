"""Turn stored results into Markdown tables and figures for the book."""

import argparse
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.contestants import CONTESTANTS
from benchmarks.models import CASES
from gradconf.plots import Picture, canvas, show
from gradconf.plots.picture import PALETTE

Row = Any  # a row of the table, as pandas names its columns
IMAGES = Path(__file__).parents[1] / "book" / "images"
MARKERS = dict(zip(CONTESTANTS, "osdv^P*X", strict=True))
COLORS = dict(
    zip(CONTESTANTS, [(0.35,) * 3, PALETTE[0], PALETTE[9], *(PALETTE[k] for k in (1, 2, 4, 5, 3))], strict=True)
)
TITLES = {
    "samples": ("More samples: MLP 64-[256]×4-10", "samples N"),
    "width": ("Wider: MLP 64-[width]×4-10, N = 128", "width"),
    "depth": ("Deeper: CNN-depth-2, N = 32", "depth"),
}


def main() -> None:
    """Write, beside the results, the tables and the figures' directives; and the figures, into the book."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "results", nargs="*", type=Path, default=sorted((Path(__file__).parent / "results").glob("*.json"))
    )
    for path in parser.parse_args().results:
        results = json.loads(path.read_text(encoding="utf-8"))
        path.with_suffix(".md").write_text(tables(results), encoding="utf-8")
        directives = []
        for name, picture in figures(results).items():
            file = IMAGES / f"benchmark_{path.stem}_{name}.png"
            file.parent.mkdir(exist_ok=True)
            picture.figure.savefig(file, dpi=160, metadata={"Software": None})
            directives.append(f"```{{image}} images/{file.name}\n:alt: {picture.alt}\n:width: 480px\n```\n")
        path.with_name(f"{path.stem}_figures.md").write_text("\n".join(directives), encoding="utf-8")


def frame(results: dict) -> pd.DataFrame:
    """Return the records as a table, with each case's label and sweep beside them."""
    table = pd.DataFrame(results["records"])
    for column in ("peak_mib", "chunk", "disagreement", "gflop", "rounds"):
        if column not in table:
            table[column] = np.nan
    for attribute in ("label", "sweep", "at"):
        table[attribute] = [getattr(CASES[name], attribute) for name in table["case"]]
    ours = table[table.contestant == "gradconf"].set_index("case").seconds
    return table.assign(times=table.seconds / table.case.map(ours))


def tables(results: dict) -> str:
    """Render time, memory and work of the cases outside the sweeps, who was left out, and where this was run."""
    table = frame(results)
    main_cases = table[table.sweep.isna()]
    parts = [_provenance(results, table.calibration_slowest.min())]
    if len(main_cases):
        rounds = int(table.rounds.max())
        parts += [
            f"**Time** of one call, best of {rounds} rounds († best of fewer, as one call takes over 5 s), and how "
            "many times gradconf's.",
            _pivot(main_cases, _time),
            "**Memory** at its peak, above what model and data take.",
            _pivot(main_cases, lambda r: "–" if pd.isna(r.peak_mib) else _size(r.peak_mib)),
            "**Work**: billions of operations (GFLOP) in matrix products, convolutions and attention, and the share "
            "of the matrix product's speed at which they were done.",
            _pivot(main_cases, lambda r: f"{_digits(r.gflop)} · {100 * r.fraction_of_peak:.0f} %"),
        ]
    parts += [_agreement(table), _left_out(table)]
    return "\n\n".join(part for part in parts if part) + "\n"


def figures(results: dict) -> dict[str, Picture]:
    """Draw time along each sweep, and memory of the cases outside the sweeps."""
    table = frame(results).dropna(subset="seconds")
    pictures = {
        sweep: sweep_figure(table[table.sweep == sweep], sweep) for sweep in TITLES if sweep in set(table.sweep)
    }
    measured = table[table.sweep.isna() & table.peak_mib.notna()]
    return pictures | ({"memory": memory_figure(measured)} if len(measured) else {})


def sweep_figure(table: pd.DataFrame, sweep: str) -> Picture:
    """Draw seconds against samples, width or depth, one line a contestant, labelled at its end."""
    title, xlabel = TITLES[sweep]
    table = table.astype({"at": int}).sort_values("at")
    lines = {name: table[table.contestant == name] for name in CONTESTANTS if name in set(table.contestant)}
    with canvas(width=4.8, height=4.2) as (figure, (axes,)):
        axes.set(xscale="log", yscale="log", xlabel=xlabel, ylabel="time of one call")
        axes.set_title(title, pad=20)  # the label of the slowest may lie above the axes
        for name, line in lines.items():
            width = 3 if name == "gradconf" else 1.5
            axes.plot(line["at"], line.seconds, color=COLORS[name], marker=MARKERS[name], linewidth=width, markersize=5)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: duration(y)))
        ticks = sorted(set(table["at"]))
        axes.set_xticks(ticks[:: 1 + len(ticks) // 6], ticks[:: 1 + len(ticks) // 6])
        axes.minorticks_off()
        axes.margins(y=0.1)
        _label_ends(axes, lines)
    spans = [
        f"{CONTESTANTS[name].label} from {duration(line.seconds.iloc[0])} at {line['at'].iloc[0]} "
        f"to {duration(line.seconds.iloc[-1])} at {line['at'].iloc[-1]}"
        for name, line in lines.items()
    ]
    return show(figure, alt=f"{title}. Time of one call against {xlabel}, both axes logarithmic: {'; '.join(spans)}.")


def memory_figure(table: pd.DataFrame) -> Picture:
    """Draw peak memory, one row a case, one mark a contestant."""
    cases = list(dict.fromkeys(table.case))
    with canvas(width=4.8, height=1.9 + 0.5 * len(cases)) as (figure, (axes,)):
        for name in dict.fromkeys(table.contestant):
            part = table[table.contestant == name]
            rows = [-cases.index(case) for case in part.case]
            style = {"color": COLORS[name], "marker": MARKERS[name], "linestyle": "none"}
            axes.plot(part.peak_mib, rows, label=CONTESTANTS[name].label, markersize=8, **style)
        rows = [_row(table[table.case == case].iloc[0]).replace(", N", ",\nN") for case in cases]
        axes.set_yticks([-k for k in range(len(cases))], rows)
        axes.set(xscale="log", xlabel="peak memory", ylim=(0.5 - len(cases), 0.5))
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _size(x)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        figure.legend(loc="outside upper center", ncols=2, fontsize=10, frameon=False)
    values = [f"{_row(r)}: {CONTESTANTS[r.contestant].label} {_size(r.peak_mib)}" for r in table.itertuples()]
    return show(figure, alt=f"Peak memory of one call above model and data. {'; '.join(values)}.")


def spread(heights: np.ndarray, *, gap: float) -> np.ndarray:
    """Move heights apart to at least `gap`, in their order and about where they were."""
    order = np.argsort(heights)
    placed = np.array(heights, dtype=float)[order]
    for _ in range(200):
        for low, high in pairwise(range(len(placed))):
            lacking = gap - (placed[high] - placed[low])
            if lacking > 0:
                placed[low] -= lacking / 2
                placed[high] += lacking / 2
    out = np.empty_like(placed)
    out[order] = placed
    return out


def duration(seconds: float) -> str:
    """Write a time with two or three digits."""
    return f"{_digits(seconds)} s" if seconds >= 1 else f"{_digits(1000 * seconds)} ms"


def _label_ends(axes: Axes, lines: dict[str, pd.DataFrame]) -> None:
    ends = {name: (line["at"].iloc[-1], line.seconds.iloc[-1]) for name, line in lines.items()}
    heights = np.log10([y for _, y in ends.values()])
    heights = spread(heights, gap=0.062 * np.ptp(np.log10(axes.get_ylim())))
    for (name, end), height in zip(ends.items(), heights, strict=True):
        axes.annotate(
            CONTESTANTS[name].label,
            end,
            (1.03, 10**height),
            textcoords=axes.get_yaxis_transform(),
            color=[0.7 * part for part in COLORS[name]],  # darker, as letters are thin
            va="center",
            weight="bold" if name == "gradconf" else "normal",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": COLORS[name], "linewidth": 0.5},
        )


def _digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}" if number < 1 else f"{number:.3g}"


def _size(mib: float) -> str:
    return f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"


def _time(r: Row) -> str:
    text = duration(r.seconds) + ("†" if r.rounds < r.most_rounds else "")
    text += "" if r.contestant == "gradconf" else f" · {_digits(r.times)}×"
    return text if pd.isna(r.chunk) else f"{text} · {r.chunk:.0f} at a time"


def _row(r: Row) -> str:
    return f"{r.label}, N = {r.samples}"


def _pivot(table: pd.DataFrame, cell: Callable[[Row], str]) -> str:
    table = table.assign(most_rounds=table.rounds.max())
    names = [name for name in CONTESTANTS if name in set(table.contestant)]
    lines = ["| | " + " | ".join(CONTESTANTS[name].label for name in names) + " |", "| --- |" + " ---: |" * len(names)]
    for _, case in table.groupby("case", sort=False):
        known = {r.contestant: cell(r) if pd.notna(r.seconds) else "left out" for r in case.itertuples()}
        lines.append(f"| {_row(case.iloc[0])} | " + " | ".join(known.get(name, "") for name in names) + " |")
    return "\n".join(lines)


def _agreement(table: pd.DataFrame) -> str:
    peers = table[(table.contestant != "gradconf") & table.disagreement.notna()]
    if peers.empty:
        return ""
    worst = peers.loc[peers.disagreement.idxmax()]
    return (
        "**Agreement**: |K'ᵢⱼ − Kᵢⱼ| / √(Kᵢᵢ Kⱼⱼ), the difference from gradconf's matrix on the scale of a cosine, is "
        f"at most {worst.disagreement:.0e} ({CONTESTANTS[worst.contestant].label} at {_row(worst)}); its median "
        f"over cases and contestants is {peers.disagreement.median():.0e}."
    )


def _left_out(table: pd.DataFrame) -> str:
    absent = table[table.left_out.notna()]
    if absent.empty:
        return ""
    lines = []
    for (name, reason), part in absent.groupby(["contestant", "left_out"], sort=False):
        where = "; ".join(dict.fromkeys(_row(r) for r in part.itertuples()))
        lines.append(f"- {CONTESTANTS[name].label} at {where}: {reason}.")
    return "**Left out**, and why:\n\n" + "\n".join(lines)


def cores(facts: dict) -> str:
    """Say how many of the machine's cores were used."""
    return f"{facts['threads']} thread{'s' * (facts['threads'] != 1)} of {facts['cores']} cores"


def _commits(results: dict) -> str:
    """Say which commit was measured, and which cases were when."""
    earlier = {f"{_commit(r)} of {r['date'][:10]}" for r in results["records"] if "commit" in r}
    if not earlier:
        return _commit(results["provenance"])
    new = dict.fromkeys(r["case"] for r in results["records"] if "commit" not in r)
    labels = "; ".join(f"{CASES[name].label}, N = {CASES[name].samples}" for name in new)
    return f"{_commit(results['provenance'])} for {labels}; else {', '.join(sorted(earlier))}"


def _commit(facts: dict) -> str:
    commit, *changes = facts["commit"].partition(",")
    return f"commit {commit[:12]}{''.join(changes)}"


def _provenance(results: dict, slowest: float) -> str:
    facts = results["provenance"]
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items() if version)
    return (
        f"Measured on {facts['date'][:10]}: {facts['device']}, {cores(facts)}, "
        f"{facts['system']}; {packages}; {_commits(results)}; float32. A matrix "
        f"product made in every round ran at {slowest:.0f} to {facts['peak_gflops']:.0f} GFLOP/s, which tells how "
        "quiet the machine was. Repeat it with `make bench`."
    )


if __name__ == "__main__":
    main()
