"""How fast networks train: images a second, and the share of the machine's own peak at which they do."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Generator, nn

from benchmarks import timing
from benchmarks.report import cores
from benchmarks.run import provenance, store
from gradconf.datasets import Dataset
from gradconf.ensembles import _Ensemble, _Member
from gradconf.isolation import float32_products
from gradconf.models import cnn, mlp, wrn

RESULTS = Path(__file__).parent / "results" / "training"
BATCH = 128
cross_entropy = nn.CrossEntropyLoss(reduction="none")
Step = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """A network of the paper, or a smaller one.

    Attributes:
        label: for the table.
        build: makes the network from a generator.
        shape: of one input.
    """

    label: str
    build: Callable[[Generator], nn.Module]
    shape: tuple[int, ...] = (3, 32, 32)


CASES = {
    "mlp": Case("MLP 784-[100]×3-10", lambda g: mlp(3, 100, in_features=784, out_features=10, generator=g), (784,)),
    "cnn10_1": Case("CNN-10-1", lambda g: cnn(10, 1, generator=g)),
    "cnn16_2": Case("CNN-16-2", lambda g: cnn(16, 2, generator=g)),
    "wrn16_2": Case("WRN-16-2", lambda g: wrn(16, 2, generator=g)),
    "cnn40_2": Case("CNN-40-2", lambda g: cnn(40, 2, generator=g)),
    "cnn16_6": Case("CNN-16-6", lambda g: cnn(16, 6, generator=g)),
}
WAYS = ("float32", "channels last", "TF32", "TF32, channels last", "compiled", "eight at once")
MANY = 8
PATIENCE = 3e10  # operations: on a CPU a step of more is not taken eight times


class LeftOut(Exception):
    """Why a way of training is not measured."""


def main() -> None:
    """Measure what the command line asks for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="all of them by default")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="a JSON file, overwritten; its table lies beside it")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    facts = provenance(device) | {"command": " ".join(["python -m benchmarks.training", *sys.argv[1:]])}
    out, records = asked.out or RESULTS / f"{device.type}.json", []
    for name in asked.cases:
        records += measure(name, CASES[name], device, asked.ways, asked.rounds)
        store(out, facts, records)
        out.with_suffix(".md").write_text(table(json.loads(out.read_text(encoding="utf-8"))), encoding="utf-8")


def measure(name: str, case: Case, device: torch.device, ways: list[str], rounds: int) -> list[dict]:
    """Time one SGD step each way, all in turn, beside a matrix product of the same precision."""
    operations = count(steps(case, "float32", device))
    ready, left_out = {}, {}
    for way in ways:
        try:
            refuse(case, way, device, operations)
            ready[way] = steps(case, way, device)
            with switched(way):
                ready[way]()  # compiles, and lets cuDNN choose
        except LeftOut as reason:
            left_out[way] = str(reason)
    product, of_product = timing.calibration(device)
    taken, peak = ({way: [] for way in ready} for _ in range(2))
    for _ in range(rounds):
        for way, step in ready.items():
            with switched(way):
                taken[way].append(timing.seconds(step, device))
                peak[way].append(of_product / timing.seconds(product, device))
    shared = {"case": name, "batch": BATCH, "gflop": operations / 1e9}
    speeds = {way: _speed(operations, MANY if way == "eight at once" else 1, taken[way], peak[way]) for way in ready}
    reasons = {way: {"left_out": reason} for way, reason in left_out.items()}
    return [shared | {"way": way} | (speeds | reasons)[way] for way in ways]


def refuse(case: Case, way: str, device: torch.device, operations: int) -> None:
    """Leave out what the device or the network does not have, or what would take long on a CPU."""
    if "TF32" in way and (device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)):
        raise LeftOut("needs a GPU with TF32")
    if "channels last" in way and len(case.shape) == 1:
        raise LeftOut("has no channels")
    if way == "eight at once" and device.type == "cpu" and operations > PATIENCE:
        raise LeftOut("takes long on a CPU")


def steps(case: Case, way: str, device: torch.device) -> Step:
    """Return one step of SGD, as `gradconf.train` or `gradconf.train_many` takes it, on a batch of random images."""
    generator = Generator().manual_seed(0)
    layout = torch.channels_last if "channels last" in way else torch.contiguous_format
    models = [
        case.build(generator).to(device, memory_format=layout) for _ in range(MANY if way == "eight at once" else 1)
    ]
    x = torch.randn(BATCH, *case.shape, generator=generator).to(device)
    y = (torch.arange(BATCH) % 10).to(device)
    if way == "eight at once":
        together = _Ensemble([_Member(model, 1e-3, seed) for seed, model in enumerate(models)], cross_entropy)
        data = Dataset("random", x, y, x, y, classes=10, provenance="random")
        return lambda: together.epoch(data, BATCH, 1.0)
    optimizer = torch.optim.SGD(models[0].parameters(), lr=1e-3)
    network = torch.compile(models[0]) if way == "compiled" else models[0]
    x = x.to(memory_format=layout) if len(case.shape) == 3 else x

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(network(x), y).mean().backward()
        optimizer.step()

    return step


@contextmanager
def switched(way: str) -> Iterator[None]:
    """Allow TF32 where the way says so, and nowhere else."""
    with float32_products("tf32" if "TF32" in way else "ieee"):
        yield


def count(step: Step) -> int:
    """Count the operations of one step, two a multiplication, in matrix products and convolutions."""
    with timing.Operations() as counted:
        step()
    return counted.total


def table(results: dict) -> str:
    """Render images a second and the share of the peak, a row a network and a column a way."""
    facts, rows = results["provenance"], pd.DataFrame(results["records"])
    for column in ("images_per_second", "left_out"):
        if column not in rows:
            rows[column] = None
    rows["share"] = rows.gflops / rows.groupby(rows.way.str.contains("TF32")).peak_gflops.transform("max")
    ways = [way for way in WAYS if rows.images_per_second[rows.way == way].notna().any()]
    lines = [
        f"Measured on {facts['date'][:10]}: {facts['device']}, {cores(facts)}, torch "
        f"{facts['packages']['torch']}, commit {facts['commit'][:12]}; mini-batches of {BATCH}. {_peaks(rows)} "
        f"Repeat it with `{facts['command']}`.",
        "",
        f"| network | GFLOP an image | {' | '.join(ways)} |",
        f"| --- | ---: |{' ---: |' * len(ways)}",
    ]
    for name, of_case in rows.groupby("case", sort=False):
        cells = [_cell(of_case[of_case.way == way]) for way in ways]
        gflop = of_case.gflop.iloc[0] / BATCH
        lines.append(f"| {CASES[name].label} | {gflop:.2g} | {' | '.join(cells)} |")
    reasons: dict[str, list[str]] = {}
    for row in rows.dropna(subset="left_out").drop_duplicates(["way", "left_out"]).itertuples():
        reasons.setdefault(str(row.left_out), []).append(f"*{row.way}*")
    told = [f"- {', '.join(dict.fromkeys(left))}: {reason}" for reason, left in reasons.items()]
    return "\n".join([*lines, *(["", "Left out:", "", *told] if told else [])]) + "\n"


def _peaks(rows: pd.DataFrame) -> str:
    with_tf32 = rows.way.str.contains("TF32") & rows.peak_gflops.notna()
    peaks = rows.peak_gflops[~with_tf32].dropna()
    told = f"A matrix product ran at {peaks.min():.0f} to {peaks.max():.0f} GFLOP/s, the faster of which is the peak"
    if with_tf32.any():
        told += f"; that of TF32 is {rows.peak_gflops[with_tf32].max():.0f} GFLOP/s"
    return told + "."


def _cell(rows: pd.DataFrame) -> str:
    if rows.empty or pd.isna(rows.images_per_second.iloc[0]):
        return ""
    return f"{rows.images_per_second.iloc[0]:,.0f} · {100 * rows.share.iloc[0]:.0f} %"


def _speed(operations: int, networks: int, seconds: list[float], speeds: list[float]) -> dict[str, float]:
    numbers = {
        "images_per_second": networks * BATCH / min(seconds),
        "gflops": networks * operations / min(seconds) / 1e9,
        "peak_gflops": max(speeds) / 1e9,
    }
    return {name: float(f"{value:.4g}") for name, value in numbers.items()}


if __name__ == "__main__":
    main()
