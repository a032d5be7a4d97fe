"""Which rows of a stored table can be compared with each other, and which table is shown."""

from collections.abc import Mapping, Sequence

from gradconf import sweeps
from gradconf.results import tables
from gradconf.results.figures import FIGURES
from gradconf.results.words import complete
from gradconf.sweeps.execution import FAILED, FINISHED
from gradconf.sweeps.reading import network
from gradconf.sweeps.tables import Row

VARIED = {"wrn": {"batch_norm", "skip"}, "mlp": {"activation", "init"}}  # beside the axis, the rate and the seed


def stored(sweep: str, size: str) -> tuple[tuple[Row, ...], int]:
    """Read a table.

    Args:
        sweep: of the stored tables.
        size: as well.

    Returns:
        The rows that can be compared, and how many others it has.
    """
    rows = sweeps.read_table(tables.FOLDER / f"{sweep}_{size}.jsonl")
    kept = belonging(rows, sweep=sweep, size=size, axis=FIGURES[sweep].axis)
    return tuple(kept), len(rows) - len(kept)


def belonging(rows: Sequence[Row], *, sweep: str, size: str, axis: str) -> list[Row]:
    """Keep the rows of a sweep and size that agree in everything that it does not vary.

    Args:
        rows: of a table, which may hold others.
        sweep: that a row must name.
        size: that a row must name.
        axis: what the sweep varies, beside the rate, the seed and the variant of the network.

    Returns:
        The largest group of rows that agree, the first of equal ones, in their order, the last of equal runs.
    """
    groups: dict[str, dict[str, Row]] = {}
    for row in rows:
        told = row.get("configuration") or {}
        if (row.get("sweep"), row.get("size")) != (sweep, size) or axis not in told:
            continue
        varied = {axis, "learning_rate", "seed"} | VARIED.get(str(told.get("model")), set())
        shared = {name: value for name, value in told.items() if name not in varied}
        groups.setdefault(str(sorted(shared.items())), {})[str(sorted(told.items()))] = row
    return list(max(groups.values(), key=len).values()) if groups else []


def lost(rows: Sequence[Row], best: Sequence[Row]) -> list[Row]:
    """Choose a run a seed for networks that have no rate at which all seeds finished.

    Args:
        rows: of a table.
        best: those at the rates that were chosen.

    Returns:
        Rows of runs that failed, as that leaves open how they would have ended, else that diverged.
    """
    found = {network(row) for row in best}
    ended = [row for row in complete(rows) if network(row) not in found and row["status"] != FINISHED]
    ended.sort(key=lambda row: row["status"] == FAILED)  # the last of a seed is kept
    return list({(network(row), row["configuration"]["seed"]): row for row in ended}.values())


def shared(rows: Sequence[Row], others: Mapping[str, Sequence[Row]]) -> list[str]:
    """Say which runs are also in other tables.

    Args:
        rows: of a table.
        others: rows of other tables, by name.

    Returns:
        A sentence a table that has some, which tells runs that were copied from those that were made twice.
    """
    told = []
    for name, table in others.items():
        dates = {row["key"]: _date(row) for row in table}
        both = [row for row in rows if row["key"] in dates]
        same = [row for row in both if _date(row) == dates[row["key"]]]
        if both:
            hours = sum(row["seconds"] or 0 for row in same) / 3600
            which = "all" if len(same) == len(both) else len(same)
            once = f"{which} were run once for both, so that {hours:.2g} hours are in both counts"
            how = once if same else "they were run once for each"
            told.append(f"{len(both)} of these runs are also in the {name} table (same key); {how}.")
    return told


def _date(row: Row) -> str | None:
    return (row.get("provenance") or {}).get("date")
