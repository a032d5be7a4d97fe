"""Run the experiments of `book/claims.yml` whose results are missing or older than their definition."""

import argparse
import hashlib
import importlib
import json
import math
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from tqdm import tqdm

from gradconf.results import tables
from gradconf.sweeps.machine import provenance

ROOT = Path(__file__).parents[1]
ENTRIES = ROOT / "book" / "claims.yml"
SEEDS = tuple(range(10))
TEXT = ("claim", "paper", "chapter", "section")
DEFINES = ("experiment", "options", "checks")
CODE = ("gradconf", "claims", "book/claims.yml")  # what results follow from


def main() -> None:
    """Measure what the command line asks for, storing after each experiment, so that it can be stopped at any time."""
    parser = argparse.ArgumentParser(prog="python -m claims.run", description=__doc__)
    parser.add_argument("ids", nargs="*", help="claims to run; all that are missing or old by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--out", type=Path, default=tables.HERE)
    parser.add_argument("--all", action="store_true", help="run again what is up to date, too")
    asked = parser.parse_args()
    torch.set_num_threads(1)  # small matrices: threads only get in each other's way
    entries, stored = read_entries(), _stored(asked.out)
    wanted = [entry for entry in entries if _is_wanted(entry, stored, asked)]
    for same in (progress := tqdm(_grouped(wanted), desc="claims", unit="experiment")):
        progress.set_postfix_str(same[0]["experiment"])
        for record in measure(same, asked.seeds):
            stored[record["id"]] = record
        _store(asked.out, entries, stored)
    _store(asked.out, entries, stored)
    print(f"{len(wanted)} claims measured, {len(entries) - len(wanted)} were up to date: {asked.out}")


def read_entries() -> list[dict[str, Any]]:
    """Return the entries of `book/claims.yml`, options filled in."""
    entries = yaml.safe_load(ENTRIES.read_text(encoding="utf-8"))
    return [{"options": {}, "section": "", "test": {}} | entry for entry in entries]


def definition(entry: dict[str, Any]) -> str:
    """Return a hash of what defines an entry, the code of its experiment included."""
    module = ROOT / "claims" / f"{entry['experiment'].split('.')[0]}.py"
    told = json.dumps({name: entry[name] for name in DEFINES}, sort_keys=True) + module.read_text(encoding="utf-8")
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def measure(entries: list[dict[str, Any]], seeds: tuple[int, ...]) -> list[dict[str, Any]]:
    """Run one experiment, and read the values of all claims that rest on it.

    Args:
        entries: claims with the same experiment and options.
        seeds: to run.

    Returns:
        One record a claim, for JSON.
    """
    start = time.perf_counter()
    table = run(entries[0]["experiment"], seeds, entries[0]["options"])
    facts = provenance(torch.device("cpu"), *CODE) | {"seconds": round(time.perf_counter() - start, 1)}
    return [
        {name: entry[name] for name in ("id", *TEXT, *DEFINES)}
        | {"checks": [check | values(check, table, seeds) for check in entry["checks"]]}
        | {"seeds": list(seeds), "hash": definition(entry), "provenance": facts}
        for entry in entries
    ]


def run(experiment: str, seeds: tuple[int, ...], options: dict[str, Any]) -> pd.DataFrame:
    """Run an experiment by name, such as `trained.width`."""
    module, name = experiment.split(".")
    options = {key: tuple(map(_tuple, v)) if isinstance(v, list) else v for key, v in options.items()}
    return getattr(importlib.import_module(f"claims.{module}"), name)(seeds, **options)


def values(check: dict[str, Any], table: pd.DataFrame, seeds: tuple[int, ...]) -> dict[str, list[float | None]]:
    """Return what a check compares, seed by seed; None where a run was lost."""

    def column(at: Any) -> list[float | None]:
        rows = table[table["at"] == at].set_index("seed")[check["metric"]].reindex(seeds)
        if not len(rows) or at not in set(table["at"]):
            raise ValueError(f"the experiment has no setting {at!r}: it has {list(table['at'].unique())}.")
        return [None if math.isnan(value) else float(f"{value:.6g}") for value in rows]

    if "at" in check:
        return {"before": [], "after": column(check["at"])}
    return {"before": column(check["from"]), "after": column(check["to"])}


def _is_wanted(entry: dict[str, Any], stored: dict[str, dict[str, Any]], asked: argparse.Namespace) -> bool:
    if asked.ids:
        return entry["id"] in asked.ids
    record = stored.get(entry["id"], {})
    old = record.get("hash") != definition(entry) or record.get("seeds") != list(asked.seeds)
    return asked.all or old


def _grouped(entries: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        groups.setdefault(json.dumps([entry["experiment"], entry["options"]], sort_keys=True), []).append(entry)
    return list(groups.values())


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _stored(path: Path) -> dict[str, dict[str, Any]]:
    return {record["id"]: record for record in json.loads(path.read_text(encoding="utf-8"))} if path.exists() else {}


def _store(path: Path, entries: list[dict[str, Any]], stored: dict[str, dict[str, Any]]) -> None:
    """Write one claim a line, in the order and with the words of the entries."""
    kept = [entry for entry in entries if entry["id"] in stored]
    records = [stored[entry["id"]] | {name: entry[name] for name in TEXT} for entry in kept]
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
