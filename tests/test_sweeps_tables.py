"""Tables on disk, and sweeps that are stopped and started again."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from sweeping import ENVIRONMENT, small, start, toml, wait_for_rows, without_time_and_place

from gradconf import sweeps
from gradconf.sweeps import read_sweep, read_table, run
from gradconf.sweeps.tables import Table

# The table


def test_rows_of_other_runs_are_left_alone(tmp_path):
    out = tmp_path / "t.jsonl"
    first = run(small(seed=[0, 1]), out=out)
    second = run(small(seed=[1, 2]), out=out)
    assert second[0] == first[1]
    assert len(read_table(out)) == 3


@pytest.mark.parametrize("kept", [0, 1, 40, -1], ids=lambda kept: f"{kept} bytes")
def test_a_last_line_that_was_cut_off_is_mended(kept, tmp_path):
    out = tmp_path / "t.jsonl"
    rows = run(small(seed=[0, 1, 2]), out=out)
    lines = out.read_bytes().splitlines(keepends=True)
    torn = lines[2][:kept]
    out.write_bytes(b"".join(lines[:2]) + torn)
    assert len(read_table(out)) == (3 if kept == -1 else 2)  # -1: all but the end of the line
    again = run(small(seed=[0, 1, 2]), out=out)
    assert without_time_and_place(again) == without_time_and_place(rows)
    assert len(out.read_bytes().splitlines()) == 3
    assert again[:2] == rows[:2]


@pytest.mark.parametrize("content", ["not JSON\n", '{"some": "row"}\n'])
def test_a_line_that_is_no_row_is_refused(content, tmp_path):
    out = tmp_path / "t.jsonl"
    out.write_text(content)
    with pytest.raises(ValueError, match=r"line 1 of .* is no row of results"):
        run(small(), out=out)
    assert out.read_text() == content


def test_a_table_has_one_writer(tmp_path):
    out = tmp_path / "t.jsonl"
    with Table(out), pytest.raises(OSError, match="another process is writing"):
        run(small(), out=out)
    assert run(small(), out=out)[0]["status"] == "finished"


def test_a_folder_that_cannot_be_written_is_told_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot be written .*: choose another file"):
        run(small(), out=tmp_path / "file" / "t.jsonl")
    with pytest.raises(OSError, match=r"cannot be written .*: choose another file"):
        run(small(), out=tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_told_in_a_sentence(tmp_path):
    (tmp_path / "t.jsonl").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"a result could not be written to .* \(No space left on device\); the 0 rows"):
        run(small(), out=tmp_path / "t.jsonl")


def test_a_disk_that_fills_up_in_mid_line_loses_nothing_that_was_stored(tmp_path):
    file, out = toml(tmp_path / "s.toml", seed=[0, 1, 2, 3]), tmp_path / "t.jsonl"
    run(read_sweep(file, changes={"seed": 0}), out=out)
    room = int(out.stat().st_size * 2.5)  # for two rows and a half
    process = subprocess.run(
        [sys.executable, "-m", "gradconf", "sweep", file, "--out", out],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )
    assert process.returncode == 1
    assert "a result could not be written" in process.stderr
    assert "the 2 rows in it are whole" in process.stderr
    assert "Traceback" not in process.stderr
    assert len(out.read_bytes().splitlines()) == len(read_table(out)) == 2
    assert out.read_bytes().endswith(b"\n")
    assert len(run(read_sweep(file), out=out)) == 4 == len(read_table(out))


# Stopped and started again


def all_ended(pids, *, limit=20):
    end = time.monotonic() + limit
    while alive := [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]:
        assert time.monotonic() < end, f"processes {alive} are still there"
        time.sleep(0.1)
    return True


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["in-process", "processes"])
def test_forty_runs_killed_three_times_end_as_forty_rows(options, tmp_path):
    chance = random.Random(len(options))
    file, out = toml(tmp_path / "forty.toml", width=[2, 3, 4, 5], seed=list(range(10))), tmp_path / "t.jsonl"
    stored = {}
    for _ in range(3):
        process = start(file, out, *options)
        wait_for_rows(out, len(stored) + chance.randint(1, 8), process)
        time.sleep(chance.uniform(0, 0.2))
        children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert all_ended(children)
        rows = {row["key"]: row for row in read_table(out)}
        assert rows.items() >= stored.items()
        stored = rows
    process = start(file, out, *options)
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert "40 finished" in told
    lines = out.read_bytes().splitlines()
    rows = {json.loads(line)["key"]: json.loads(line) for line in lines}
    assert len(lines) == len(rows) == 40
    assert rows.keys() == {c.key for c in read_sweep(file).configurations}
    assert rows.items() >= stored.items()


def test_ctrl_c_stops_with_a_sentence_and_leaves_no_process(tmp_path):
    file, out = toml(tmp_path / "s.toml", seed=list(range(400))), tmp_path / "t.jsonl"
    process = start(file, out, "--workers", "2")
    wait_for_rows(out, 1, process)
    children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert told.strip().endswith("stopped; the same command goes on where it was.")
    assert "Traceback" not in told
    assert all_ended(children)
    assert read_table(out)


def test_a_process_that_dies_stops_the_sweep_with_a_sentence(tmp_path):
    file, out = toml(tmp_path / "s.toml", seed=list(range(60))), tmp_path / "t.jsonl"
    process = start(file, out, "--workers", "2")
    wait_for_rows(out, 1, process)
    worker = next(c for c in psutil.Process(process.pid).children() if "spawn_main" in " ".join(c.cmdline()))
    worker.kill()
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 1, told
    assert "a process died in mid-run, perhaps for want of memory" in told
    assert "Traceback" not in told
    stored = read_table(out)
    assert len(stored) >= 1
    assert len({row["key"] for row in stored}) == len(stored)


def test_other_executors_give_the_same_table(tmp_path):
    sweep = small(depth=[1, 2], seed=[0, 1], learning_rate=[0.1, 1e6])
    alone = run(sweep, out=tmp_path / "alone.jsonl")
    with ThreadPoolExecutor(1) as threads:
        threaded = run(sweep, threads, out=tmp_path / "threads.jsonl")
    with sweeps.pool(2, threads=1) as processes:
        pooled = run(sweep, processes, out=tmp_path / "processes.jsonl")
    assert without_time_and_place(alone) == without_time_and_place(threaded) == without_time_and_place(pooled)
    assert {row["status"] for row in alone} == {"finished", "diverged"}
    assert os.getpid() not in {child.pid for child in psutil.Process().children()}


class Losing(ThreadPoolExecutor):
    """An executor that cancels every future but those of one attempt."""

    attempts = 0

    def submit(self, fn, /, *args, **named):
        self.attempts += 1
        if self.attempts > 2:
            return super().submit(fn, *args, **named)
        future = Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        return future


def test_runs_that_an_executor_loses_are_submitted_again(tmp_path):
    with Losing(1) as executor:
        assert len(run(small(seed=[0, 1]), executor, out=tmp_path / "t.jsonl")) == 2
    with Losing(1) as executor:
        executor.attempts = -10
        with pytest.raises(RuntimeError, match="the executor lost 1 runs 3 times"):
            run(small(), executor, out=tmp_path / "u.jsonl")


def test_an_error_of_the_executor_is_a_failed_row(tmp_path):
    class Broken(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **named):
            return super().submit(int, "no number")

    with Broken(1) as executor:
        (row,) = run(small(), executor, out=tmp_path / "t.jsonl")
    assert row["status"] == "failed"
    assert row["reason"].startswith("ValueError: invalid literal")


@pytest.mark.parametrize("numbers", [(0, None), (1, 0)])
def test_a_pool_needs_workers_and_threads(numbers):
    with (
        pytest.raises(ValueError, match="workers and threads must be at least 1"),
        sweeps.pool(numbers[0], threads=numbers[1]),
    ):
        pass
