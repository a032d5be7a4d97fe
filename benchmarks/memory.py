"""Peak memory of one call, above what model and data take; on a CPU each is measured in a fresh process."""

import argparse
import ctypes
import gc
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import models
from benchmarks.contestants import MIB, fair_surroundings, prepare

RESET = Path("/proc/self/clear_refs")


def peak_mib(case: str, contestant: str, device: torch.device, *, chunk: int | None = None) -> float | None:
    """Measure in a fresh process; None where the system does not tell, as outside Linux.

    On a GPU torch counts what is allocated, whatever the process did before, and a fresh one would tell nothing more.
    """
    if device.type == "cuda":
        return measure(case, contestant, device, chunk)
    if not RESET.exists():
        return None
    command = [sys.executable, "-m", "benchmarks.memory", case, contestant, str(device), str(chunk or 0)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {contestant} at {case} failed: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(case: str, contestant: str, device: torch.device, chunk: int | None) -> float:
    """Measure here: after a call with 2 samples, how much one call takes at its peak, in MiB."""
    problem = models.pose(models.CASES[case], device)
    warm = models.Problem(problem.model, problem.loss_fn, problem.inputs[:2], problem.targets[:2])
    prepare(contestant, warm, chunk)()
    call = prepare(contestant, problem, chunk)
    return (_cuda if device.type == "cuda" else _resident)(call)


def _cuda(call: Callable[[], object]) -> float:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return (torch.cuda.max_memory_allocated() - before) / MIB


def _resident(call: Callable[[], object]) -> float:
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # else the call would use memory that counts as taken before
    RESET.write_text("5")  # sets the highest resident size to the present one
    before = _status("VmRSS")
    call()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("case", "contestant", "device", "chunk"):
        parser.add_argument(name)
    asked = parser.parse_args()
    fair_surroundings()
    print(json.dumps(measure(asked.case, asked.contestant, torch.device(asked.device), int(asked.chunk) or None)))
