"""`python -m gradconf sweep FILE`: run a sweep file, or say what it would cost."""

import argparse
import tomllib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gradconf.sweeps.costs import speed
from gradconf.sweeps.execution import FAILED
from gradconf.sweeps.grids import Sweep, read_sweep
from gradconf.sweeps.machine import place
from gradconf.sweeps.processes import pool
from gradconf.sweeps.running import check_place, estimate, run
from gradconf.sweeps.tables import read_table


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of `python -m gradconf`.

    Args:
        commands: where to add it.
    """
    parser = commands.add_parser("sweep", help="run a sweep file, storing each result", description=__doc__)
    parser.add_argument("file", type=Path, help="such as book/sweeps/width.toml")
    parser.add_argument("--size", help="which table of the file to run; its first by default")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="such as dataset=cifar10_jpeg or seed=[0,1]"
    )
    parser.add_argument("--out", type=Path, help="table of results; FILE_SIZE.jsonl in this folder by default")
    parser.add_argument("--data", help="folder with the data set's files; fetched and cached by default")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="a GPU if there is one, by default")
    parser.add_argument("--retry", action="store_true", help="run again what failed")
    parser.add_argument("--dry-run", action="store_true", help="print the runs and what they would cost")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, metavar="N", help="run N at a time, in processes of this machine")
    where.add_argument("--dask", metavar="ADDRESS", help="run on a Dask cluster, such as tcp://head:8786")
    parser.set_defaults(command=command, parser=parser)


def command(asked: argparse.Namespace) -> None:
    """Do what the command line asks for; what is wrong with it is said in a sentence.

    Args:
        asked: parsed by the parser of `add_parser`.
    """
    try:
        sweep = read_sweep(asked.file, size=asked.size, changes=dict(map(assignment, asked.set)))
        out = asked.out or Path(f"{sweep.name}_{sweep.size}.jsonl")
        if not asked.dask:
            check_place(sweep, asked.device)
        if asked.dry_run:
            print("\n".join(plan(sweep, out, folder=asked.data, device=asked.device)))
            return
        with _executor(asked) as executor:
            rows = run(sweep, executor, out=out, folder=asked.data, device=asked.device, retry=asked.retry)
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        asked.parser.exit(1, f"{asked.parser.prog}: {error}\n")
    except KeyboardInterrupt:
        asked.parser.exit(130, f"\n{asked.parser.prog}: stopped; the same command goes on where it was.\n")
    counts = Counter(row["status"] for row in rows)
    print(f"{out}: {', '.join(f'{number} {status}' for status, number in counts.items())}")
    for row in rows:
        if row["status"] == FAILED:
            print(f"{row['key']}: {row['reason']}")
    if counts[FAILED]:
        asked.parser.exit(1)


def assignment(text: str) -> tuple[str, Any]:
    """Read `NAME=VALUE`, the value as in TOML; what is none is a string.

    Args:
        text: from the command line.

    Returns:
        Name and value.

    Raises:
        ValueError: if there is no `=`.

    Example:
        >>> assignment("seed=[0, 1]"), assignment("dataset=mnist1d")
        (('seed', [0, 1]), ('dataset', 'mnist1d'))
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set takes NAME=VALUE, not '{text}'.")
    try:
        read = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()
    if len(read) > 1:
        raise ValueError(f"--set takes one value, not '{text}': repeat it for more.")
    return name.strip(), read["value"]


def plan(sweep: Sweep, out: Path, *, folder: str | None = None, device: str | None = None) -> Iterator[str]:
    """Say what a sweep would run and cost.

    Args:
        sweep: to run.
        out: table of results.
        folder: where the files of the data set are.
        device: to run on.

    Yields:
        Lines: one a run, with its key, and the total.
    """
    costs = estimate(sweep, folder)
    stored = {row["key"]: row["status"] for row in read_table(out)}
    varied = [
        name for name in vars(sweep.configurations[0]) if len({getattr(c, name) for c in sweep.configurations}) > 1
    ]
    for c in sweep.configurations:
        values = " ".join(f"{name}={getattr(c, name)}" for name in varied)
        yield f"{c.key}  {values}  {costs[c.key] / 1e12:.3g} TFLOP  {stored.get(c.key, 'to run')}"
    yield total(sweep, costs, stored, folder=folder, device=device)


def total(
    sweep: Sweep, costs: dict[str, float], stored: dict[str, str], *, folder: str | None, device: str | None
) -> str:
    """Say how long all would take, by the speed of the network that costs least."""
    where = place(device)
    left = sum(value for key, value in costs.items() if key not in stored)
    lightest = min(sweep.configurations, key=lambda c: costs[c.key])
    rate = speed(lightest, lightest.load(folder), where)
    threads = f", {torch.get_num_threads()} threads" if where.type == "cpu" else ""
    return (
        f"{sweep.name}, size {sweep.size} (of {', '.join(sweep.sizes)}): {len(costs)} runs, "
        f"{len(costs.keys() - stored.keys())} to run, {left / 1e12:.3g} TFLOP; about {left / rate / 3600:.2g} h, one "
        f"after the other, at the {rate / 1e9:.3g} GFLOP/s of the smallest network here ({where}{threads})."
    )


@contextmanager
def _executor(asked: argparse.Namespace) -> Iterator[Executor | None]:
    if asked.workers is not None:
        with pool(asked.workers) as executor:
            yield executor
    elif asked.dask:
        try:
            from distributed import Client
        except ImportError:
            raise ImportError("--dask needs the package distributed: pip install distributed.") from None
        with Client(asked.dask) as client:
            yield client.get_executor()
    else:
        yield None
