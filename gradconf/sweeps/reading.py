"""What a table says: as pandas frames, and at the learning rates that served best."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from gradconf.sweeps.execution import FINISHED
from gradconf.sweeps.tables import Row

RATE, SEED = "learning_rate", "seed"


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Return a row a run, with its configuration and what was measured in its last epoch.

    Args:
        rows: as `read_table` returns them.

    Returns:
        The columns are `key`, `sweep`, `size`, `status`, `reason`, those of `Configuration`, `parameters`, `seconds`,
        `peak_memory`, and the numbers of the last epoch; these are missing where a run failed or diverged.
    """
    return pd.DataFrame([_flat(row) for row in rows])


def _flat(row: Row) -> dict[str, Any]:
    facts = ("key", "sweep", "size", "status", "reason", "parameters", "seconds", "peak_memory")
    last = row["epochs"][-1] if row["status"] == FINISHED else {}
    decay = {"decay_at": tuple(row["configuration"]["decay_at"])}
    numbers = {name: value for name, value in last.items() if name != RATE}  # as it was after its decay
    return {name: row.get(name) for name in facts} | row["configuration"] | decay | numbers


def histories(rows: Iterable[Row]) -> pd.DataFrame:
    """Return a row an epoch of each run.

    Args:
        rows: as `read_table` returns them.

    Returns:
        The columns are `key` and those of the history of `gradconf.train`, measurements included.
    """
    return pd.DataFrame([{"key": row["key"]} | epoch for row in rows for epoch in row.get("epochs", ())])


def tuned(rows: Iterable[Row]) -> list[Row]:
    """Keep the rows at the learning rate that gives the smallest training loss at the end.

    For each configuration, apart from its rate and seed, the mean over seeds is compared. Rates at which a run
    diverged or failed do not count, nor do those with fewer seeds than others have.

    Args:
        rows: as `read_table` returns them.

    Returns:
        The rows, in their order; none of a configuration that diverged at every rate.

    Source: Sankararaman et al. 2020, Section 7 (the rate with the lowest training loss).
    """
    rows = list(rows)
    table = pd.DataFrame(
        {
            "network": [network(row) for row in rows],
            RATE: [row["configuration"][RATE] for row in rows],
            "loss": [row["epochs"][-1]["train_loss"] if row["status"] == FINISHED else float("nan") for row in rows],
        }
    )
    chosen: set[tuple[str, float]] = set()
    for name, runs in table.groupby("network"):
        whole = runs.groupby(RATE)["loss"].agg(["mean", "count", "size"])
        whole = whole[(whole["count"] == whole["size"]) & (whole["count"] == whole["size"].max())]
        if len(whole):
            chosen.add((str(name), float(whole["mean"].idxmin())))
    return [row for row in rows if (network(row), row["configuration"][RATE]) in chosen]


def network(row: Row) -> str:
    """Return what a run shares with those of other rates and seeds.

    Args:
        row: as `read_table` returns it.

    Returns:
        A name for comparisons, not for people.
    """
    return str({name: value for name, value in row["configuration"].items() if name not in (RATE, SEED)})
