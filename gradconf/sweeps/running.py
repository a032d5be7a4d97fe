"""A sweep from beginning to end, on any executor, resumed where it stopped."""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, as_completed
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from gradconf.sweeps.configurations import Configuration
from gradconf.sweeps.costs import cost
from gradconf.sweeps.execution import FAILED, check_precision, execute, failure
from gradconf.sweeps.grids import Sweep
from gradconf.sweeps.machine import place
from gradconf.sweeps.tables import Row, Table

ATTEMPTS = 3  # at runs that an executor loses again and again


def run(
    sweep: Sweep,
    executor: Executor | None = None,
    *,
    out: str | Path,
    folder: str | None = None,
    device: str | None = None,
    retry: bool = False,
) -> list[Row]:
    """Run what a table lacks of a sweep, and store each result as soon as it is there.

    Killed at any moment and called again, it loses no stored run and repeats none. Only this process writes the table.

    Args:
        sweep: what to run.
        executor: that runs it, such as `gradconf.sweeps.pool(4)`, or Dask's `client.get_executor()`; this process, a
            run after the other, by default.
        out: the table, JSON lines; rows of other runs in it are left alone.
        folder: where the files of the data set are, here and on every machine that runs something.
        device: as in `execute`.
        retry: whether to run again what failed.

    Returns:
        The sweep's rows, in its order.

    Raises:
        ValueError: if the sweep has no runs, a network cannot be built, or there is no such device or precision here,
            before anything is run.
        FileNotFoundError: if the data are missing, before anything is run.
        OSError: if the table cannot be written.
        RuntimeError: if the executor breaks; what is stored stays.
    """
    if executor is None:
        check_place(sweep, device)
    costs = estimate(sweep, folder)
    with Table(out) as table:
        again = {row["key"] for row in table.rows if retry and row["status"] == FAILED} & costs.keys()
        if again:
            table.keep([row for row in table.rows if row["key"] not in again])
        stored = {row["key"] for row in table.rows}
        waiting = {c.key: c for c in sweep.configurations if c.key not in stored}
        results = _results(list(waiting.values()), executor, folder, device, table)
        with _bar(sweep, costs, waiting) as bar, closing(results):
            for row in results:
                table.append(row | {"sweep": sweep.name, "size": sweep.size})
                del waiting[row["key"]]
                bar.update(costs[row["key"]])
                bar.set_postfix_str(_told(sweep, waiting))
        rows = {row["key"]: row for row in table.rows}
    return [rows[c.key] for c in sweep.configurations]


def check_place(sweep: Sweep, device: str | None = None) -> None:
    """Refuse a sweep that this machine cannot run.

    Args:
        sweep: to run here.
        device: as in `execute`.

    Raises:
        ValueError: if there is no such device, or it does not have a precision.
    """
    where = place(device)
    for configuration in sweep.configurations:
        check_precision(configuration, where)


def estimate(sweep: Sweep, folder: str | None = None) -> dict[str, float]:
    """Return the FLOP of each run of a sweep by its key, having seen that all can begin.

    Args:
        sweep: what to run.
        folder: where the files of the data set are.

    Returns:
        See `cost`.

    Raises:
        ValueError: if there are no runs or a network cannot be built.
        FileNotFoundError: if the data are missing.
    """
    if not sweep.configurations:
        raise ValueError(f"the sweep {sweep.name} has no runs.")
    alike = {c: replace(c, seed=0, learning_rate=1.0) for c in sweep.configurations}
    costs = {c: cost(c, c.load(folder)) for c in dict.fromkeys(alike.values())}
    return {c.key: costs[alike[c]] for c in sweep.configurations}


def _results(
    waiting: Sequence[Configuration], executor: Executor | None, folder: str | None, device: str | None, table: Table
) -> Generator[Row, None, None]:
    """Yield a row for each configuration, in the order in which they end."""
    if executor is None:
        for configuration in waiting:
            yield execute(configuration, folder=folder, device=device, progress=True)
        return
    left = {c.key: c for c in waiting}
    lost = 0
    while left and lost < ATTEMPTS:
        before = len(left)
        for row in _submitted(list(left.values()), executor, folder, device):
            del left[row["key"]]
            yield row
        lost = lost + 1 if len(left) == before else 0
    if left:
        raise RuntimeError(
            f"the executor lost {len(left)} runs {ATTEMPTS} times without saying why; {len(table.rows)} rows are whole "
            f"in {table.path}: see to the workers and start again."
        )


def _submitted(
    waiting: Sequence[Configuration], executor: Executor, folder: str | None, device: str | None
) -> Iterator[Row]:
    """Yield a row for each configuration that an executor does not lose."""
    submit: Callable = executor.submit
    futures: dict[Future, Configuration] = {}
    try:
        for c in waiting:
            futures[submit(execute, c, folder=folder, device=device)] = c
        for future in as_completed(futures):
            configuration = futures[future]
            try:
                yield future.result()
            except CancelledError:
                continue  # by someone else, such as a restart of the cluster
            except BrokenExecutor:
                raise
            except Exception as error:  # of the executor, as execute reports its own
                told = {"key": configuration.key, "configuration": configuration.as_dict()}
                yield told | failure(error) | {"provenance": None, "seconds": None, "peak_memory": None}
    except BrokenExecutor as error:
        raise RuntimeError(
            "a process died in mid-run, perhaps for want of memory: start again, with fewer workers."
        ) from error
    finally:
        for future in futures:
            future.cancel()


def _bar(sweep: Sweep, costs: dict[str, float], waiting: dict[str, Configuration]) -> tqdm:
    """Return a bar over the work, from which the time left is told, as runs differ a hundredfold."""
    left = sum(costs[key] for key in waiting)
    return tqdm(
        total=sum(costs.values()),
        initial=sum(costs.values()) - left,
        desc=f"{sweep.name} {sweep.size}".rstrip(),
        unit="FLOP",
        unit_scale=True,
        postfix=_told(sweep, waiting),
    )


def _told(sweep: Sweep, waiting: dict[str, Configuration]) -> str:
    return f"{len(sweep.configurations) - len(waiting)} of {len(sweep.configurations)} runs"
