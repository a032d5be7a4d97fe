"""Where, when and with what a run was made, and how much memory it took."""

import contextlib
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from gradconf._version import __version__

ROOT = Path(__file__).parents[2]
STORED = ("gradconf/results/*.json*", "benchmarks/results", "book/images")
STATUS = Path("/proc/self/status")


def place(device: str | None = None) -> torch.device:
    """Return where to compute.

    Args:
        device: `cpu` or `cuda`; the first GPU if there is one, else the CPU, by default.

    Returns:
        The device.

    Raises:
        ValueError: if there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no CUDA device here: leave out the device, or choose cpu.")
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def provenance(device: torch.device, *code: str) -> dict[str, Any]:
    """Collect when, where and with what this is run.

    Args:
        device: that computes.
        code: as in `commit`.

    Returns:
        Date (UTC), device, threads, versions of Python, torch and gradconf, and the commit of gradconf, None where it
        is installed without its repository.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gradconf": __version__,
        "commit": commit(*code),
    }


def commit(*code: str) -> str | None:
    """Return the commit of this package, and whether code was changed since.

    Args:
        code: files and folders of the repository; the package's own by default. Stored results are no code.

    Returns:
        Such as `2afb4c8f0a11, with changes`, or None where the package is installed without its repository.
    """
    if not (ROOT / ".git").exists():
        return None
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--", *(code or ("gradconf",)), *(f":!{path}" for path in STORED))
    return f"{head}, with changes" if head and changed else head or None


def _git(*command: str) -> str:
    try:
        return subprocess.run(["git", "-C", ROOT, *command], capture_output=True, text=True).stdout.strip()
    except OSError:  # there is no git
        return ""


def forget_peak(device: torch.device) -> None:
    """Begin to look for the largest use of memory, where the system can forget the one before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif STATUS.exists():
        with contextlib.suppress(OSError):
            STATUS.with_name("clear_refs").write_text("5")  # see proc(5)


def peak_memory(device: torch.device) -> int | None:
    """Return the most bytes in use since `forget_peak`: of the GPU as torch counts them, or of the whole process.

    Where the system cannot forget, it is the most since the process began; None where it does not count.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if STATUS.exists() and (found := re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text())):
        return int(found[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
