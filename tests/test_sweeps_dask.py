"""Sweeps on a real cluster of worker processes on this machine."""

import contextlib
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from sweeping import small, start, toml, wait_for_rows, without_time_and_place

from gradconf.sweeps import read_sweep, read_table, run

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning", "default::FutureWarning")
WORKERS = 2


@pytest.fixture(scope="module")
def cluster():
    before = children()
    with distributed.LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=":0") as cluster:
        yield cluster
    end = time.monotonic() + 30
    while left := children() - before:
        assert time.monotonic() < end, f"processes {left} are still there"
        time.sleep(0.1)


def children():
    """Return the processes of this one, but for Python's tracker of resources, which stays until the end."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if not any("resource_tracker" in word for word in child.cmdline()):
                found.add(child.pid)
    return found


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster) as client:
        client.wait_for_workers(WORKERS, timeout=60)
        yield client


def in_background(sweep, client, out):
    """Begin a sweep, and return what gives its rows once they are there."""
    return ThreadPoolExecutor(1).submit(run, sweep, client.get_executor(), out=out)


def rows_stored(out, rows, future, *, limit=60):
    end = time.monotonic() + limit
    while len(read_table(out)) < rows and not future.done():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_cluster_gives_the_same_table_as_one_process(client, tmp_path):
    sweep = small(depth=[1, 2], seed=[0, 1], learning_rate=[0.1, 1e6], epochs=1)
    alone = run(sweep, out=tmp_path / "alone.jsonl")
    spread = run(sweep, client.get_executor(), out=tmp_path / "spread.jsonl")
    assert without_time_and_place(spread) == without_time_and_place(alone)
    assert without_time_and_place(read_table(tmp_path / "spread.jsonl")) == without_time_and_place(alone)
    assert {row["status"] for row in alone} == {"finished", "diverged"}


def test_forty_runs_with_a_worker_killed_end_as_forty_rows(client, tmp_path):
    sweep, out = small(width=[2, 3, 4, 5], seed=range(10), epochs=20), tmp_path / "t.jsonl"
    future = in_background(sweep, client, out)
    rows_stored(out, 5, future)
    assert not future.done()
    victim = next(iter(client.run(os.getpid).values()))
    os.kill(victim, signal.SIGKILL)
    rows = future.result(timeout=120)
    assert len(rows) == 40
    assert {row["status"] for row in rows} == {"finished"}
    assert sorted(row["key"] for row in read_table(out)) == sorted(c.key for c in sweep.configurations)


def test_a_restart_of_the_cluster_loses_and_doubles_nothing(client, tmp_path):
    sweep, out = small(width=[2, 3, 4, 5], seed=range(10), epochs=20), tmp_path / "t.jsonl"
    future = in_background(sweep, client, out)
    rows_stored(out, 5, future)
    assert not future.done()
    client.wait_for_workers(2, timeout=60)  # the test before has killed one
    client.restart(wait_for_workers=False)  # a slow machine may take a minute for the last of them
    rows = future.result(timeout=120)
    assert {row["status"] for row in rows} == {"finished"}
    assert sorted(row["key"] for row in read_table(out)) == sorted(c.key for c in sweep.configurations)


def test_a_sweep_killed_and_started_again_on_the_same_cluster_loses_and_doubles_nothing(cluster, client, tmp_path):
    file, out = toml(tmp_path / "s.toml", width=[2, 3, 4, 5], seed=list(range(10)), epochs=20), tmp_path / "t.jsonl"
    address = cluster.scheduler_address
    process = start(file, out, "--dask", address)
    wait_for_rows(out, 5, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    stored = {row["key"]: row for row in read_table(out)}
    assert 5 <= len(stored) < 40
    rows = run(read_sweep(file), client.get_executor(), out=out)
    assert {row["key"]: row for row in rows}.items() >= stored.items()
    assert len(read_table(out)) == len(rows) == 40


def test_a_full_disk_or_an_unwritable_folder_loses_nothing(client, tmp_path):
    out, sweep = tmp_path / "t.jsonl", small(seed=range(6))
    run(small(seed=[0, 1]), client.get_executor(), out=out)
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        run(sweep, client.get_executor(), out=tmp_path / "full")
    with pytest.raises(OSError, match="cannot be written"):
        run(sweep, client.get_executor(), out=out / "below" / "t.jsonl")
    assert len(read_table(out)) == 2
    assert len(run(sweep, client.get_executor(), out=out)) == 6 == len(read_table(out))


def test_a_run_that_kills_its_worker_is_a_failed_row(cluster, client, tmp_path, monkeypatch):
    monkeypatch.setattr("gradconf.sweeps.running.execute", kill_oneself)
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    (row,) = run(small(), client.get_executor(), out=tmp_path / "t.jsonl")
    assert row["status"] == "failed"
    assert row["reason"].startswith("KilledWorker: ")
    assert read_table(tmp_path / "t.jsonl") == [row]


def kill_oneself(*args, **named):
    os.kill(os.getpid(), signal.SIGKILL)
