"""How far cosines move when layers compute in TF32 or bf16, emulated on the CPU by `benchmarks.rounding`."""

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Generator, Tensor, nn

import gradconf
from benchmarks.models import has_batch_norm
from benchmarks.rounding import BITS, layers_in
from benchmarks.run import provenance, store
from gradconf.datasets import Dataset, load
from gradconf.models import for_dataset

RESULTS = Path(__file__).parent / "results" / "precision" / "cpu.json"
SAMPLES, PAIRS, BATCH = 100, 100, 128
cross_entropy = nn.CrossEntropyLoss(reduction="none")


@dataclass(frozen=True)
class Case:
    """A network and how it is trained.

    Attributes:
        label: for the tables.
        build: makes the network from a data set and a generator.
        data: name of the data set.
        rate: alpha, decayed by 10 at 40% and 80% of the epochs.
        epochs: of training.
    """

    label: str
    build: Callable[[Dataset, Generator], nn.Module]
    data: str
    rate: float
    epochs: int = 20


def _builder(kind: str, depth: int, width: int) -> Callable[[Dataset, Generator], nn.Module]:
    return lambda data, generator: for_dataset(kind, data)(depth, width, generator=generator)


CASES = {
    "mlp": Case("MLP-3-64, MNIST-1D", _builder("mlp", 3, 64), "mnist1d", 0.3),
    "cnn": Case("CNN-10-1, digits", _builder("cnn", 10, 1), "digits", 0.1),
    "wrn": Case("WRN-10-1, digits", _builder("wrn", 10, 1), "digits", 0.1),
}


def main() -> None:
    """Measure what the command line asks for, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="all of them by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(4)))
    parser.add_argument("--out", type=Path, default=RESULTS, help="a JSON file, overwritten; tables lie beside it")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    facts, start = provenance(torch.device("cpu")), time.perf_counter()
    facts |= {"command": " ".join(["python -m benchmarks.precision", *sys.argv[1:]]), "seeds": asked.seeds}
    records = [
        {"case": name} | record for name in asked.cases for seed in asked.seeds for record in measure(CASES[name], seed)
    ]
    facts["took_minutes"] = round((time.perf_counter() - start) / 60, 1)
    store(asked.out, facts, records)
    asked.out.with_suffix(".md").write_text(tables(json.loads(asked.out.read_text(encoding="utf-8"))), encoding="utf-8")


def measure(case: Case, seed: int) -> list[dict]:
    """Train in each precision, and compare the cosines of the network that was trained in float32 in all of them."""
    data = load(case.data, train_size=2000 if case.data == "mnist1d" else None)
    records = []
    for precision in BITS:
        model = case.build(data, Generator().manual_seed(seed))
        with layers_in(precision):
            run = gradconf.train(
                model, cross_entropy, data, learning_rate=case.rate, epochs=case.epochs, batch_size=BATCH, seed=seed
            )
        if precision == "float32":
            records += [{"trained_in": "float32"} | record for record in changes(model, data)]
        facts = {"train_loss": run.history.train_loss.iloc[-1], "min": cosines(model, data)["mini-batches"].min()}
        records.append({"trained_in": precision, "precision": "float32", "of": "mini-batches"} | _numbers(facts))
    return [{"seed": seed} | record for record in records]


def changes(model: nn.Module, data: Dataset) -> list[dict]:
    """Compare the cosines in every precision with those in float64: one record a precision and kind of gradient."""
    exact = cosines(copy.deepcopy(model).double(), data)
    records = []
    for precision in BITS:
        with layers_in(precision):
            measured = cosines(copy.deepcopy(model), data)
        for kind, values in measured.items():
            off = (values - exact[kind]).abs()
            numbers = {"largest": off.max(), "rms": off.square().mean().sqrt(), "min": values.min()}
            numbers |= {"min_change": values.min() - exact[kind].min()}
            records.append({"precision": precision, "of": kind} | _numbers(numbers))
    return records


def cosines(model: nn.Module, data: Dataset) -> dict[str, Tensor]:
    """Return the cosines of the paper's 100 pairs of mini-batches, and without batch norm of all pairs of 100 samples.

    Both come from one backward pass a gradient, which the emulation sees whole, and are multiplied in float64.
    """
    inputs = data.train_inputs.to(next(model.parameters()).dtype)
    batches = gradconf.minibatch_pairs(
        inputs, data.train_targets, pairs=PAIRS, batch_size=BATCH, generator=Generator().manual_seed(0)
    )
    first = torch.arange(0, 2 * PAIRS, 2)
    of_batches = gradconf.cosine(gradconf.reference.minibatch_gram(model.train(), cross_entropy, batches))
    found = {"mini-batches": of_batches[first, first + 1]}
    if not has_batch_norm(model):
        rows = torch.randperm(len(inputs), generator=Generator().manual_seed(0))[:SAMPLES]
        of_samples = gradconf.cosine(
            gradconf.reference.gram(model, cross_entropy, inputs[rows], data.train_targets[rows])
        )
        found["samples"] = of_samples[tuple(torch.triu_indices(SAMPLES, SAMPLES, 1))]
    return found


def tables(results: dict) -> str:
    """Render how far cosines move, and how training ends, with where this was run."""
    table, facts = pd.DataFrame(results["records"]), results["provenance"]
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items() if version)
    lines = [
        f"Emulated on {facts['date'][:10]}: {facts['device']}, {packages}, commit {facts['commit'][:12]}, "
        f"{len(facts['seeds'])} seeds, in {facts['took_minutes']:.0f} minutes, with `{facts['command']}`.",
        "",
        "| network | gradients of | layers in | cosines: largest change | rms | minimum: largest change |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for (case, of, precision), rows in table.dropna(subset="rms").groupby(["case", "of", "precision"], sort=False):
        lines.append(
            f"| {CASES[case].label} | {of} | {precision} | {rows.largest.max():.1g} | {rows.rms.mean():.1g} | "
            f"{rows.min_change.abs().max():.1g} |"
        )
    lines += ["", "| network | layers in training | training loss | smallest cosine |", "| --- | --- | ---: | ---: |"]
    for (case, precision), rows in table.dropna(subset="train_loss").groupby(["case", "trained_in"], sort=False):
        values = (f"{rows[name].mean():.3g} ± {rows[name].std():.1g}" for name in ("train_loss", "min"))
        lines.append(f"| {CASES[case].label} | {precision} | {' | '.join(values)} |".replace("| -", "| −"))
    return "\n".join(lines) + "\n"


def _numbers(values: dict) -> dict[str, float]:
    return {name: float(f"{float(value):.4g}") for name, value in values.items()}


if __name__ == "__main__":
    main()
