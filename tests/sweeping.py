"""Small sweeps for the tests, and a process that runs one and can be killed."""

import os
import subprocess
import sys
import time

from gradconf.sweeps import Sweep, expand, read_table

SMALL = {
    "model": "mlp",
    "depth": 1,
    "width": 4,
    "dataset": "digits",
    "train_size": 80,
    "test_size": 20,
    "epochs": 2,
    "pairs": 3,
    "pair_size": 16,
    "measure_every": 0,
    "learning_rate": 0.1,
}
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def small(name="small", **axes):
    return Sweep(name, expand(SMALL | axes))


def toml(path, **axes):
    values = {"true": True, "false": False}
    lines = []
    for key, value in (SMALL | axes).items():
        text = {v: k for k, v in values.items()}.get(value) if isinstance(value, bool) else repr(value)
        lines.append(f"{key} = {text}")
    path.write_text("[tiny]\n" + "\n".join(lines) + "\n")
    return path


def start(file, out, *options):
    """Run a sweep file in a process of its own."""
    command = [sys.executable, "-m", "gradconf", "sweep", str(file), "--out", str(out), *options]
    return subprocess.Popen(
        command, env=ENVIRONMENT, cwd=out.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_rows(out, rows, process, *, limit=120):
    """Return when the table has so many rows, or the process has ended."""
    end = time.monotonic() + limit
    while len(read_table(out)) < rows and process.poll() is None:
        assert time.monotonic() < end, f"{out} has no {rows} rows after {limit} s"
        time.sleep(0.02)


def without_time_and_place(rows):
    """Return what must not depend on where and when it was run, by key."""
    kept = [
        {name: row.get(name) for name in ("key", "configuration", "status", "reason", "epochs", "cosines")}
        for row in rows
    ]
    return sorted(kept, key=lambda row: row["key"])
