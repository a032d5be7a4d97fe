"""Run a command on untrusted code.

It gets limits on time, memory and files and an empty environment, and, where bubblewrap is installed, no network, no
private files and a read-only system.
"""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64")
SETTINGS = ("ld.so.cache", "alternatives", "fonts", "hosts", "nsswitch.conf")  # of /etc; hosts says what localhost is
ENVIRONMENT = {
    "PATH": f"{sys.prefix}/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "MPLBACKEND": "agg",
    "TQDM_DISABLE": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True)
class Limits:
    """What one submission may use."""

    seconds: float = 240  # wall time, everything together
    cell_seconds: int = 40  # wall time of one cell; a question's hidden test has half of it
    memory: int = 6 * 2**30  # bytes of data, each process
    file: int = 2**26  # bytes of any file it writes, of what it says, and, with bubblewrap, of its shared memory
    disk: int = 2**29  # bytes of all its files, with bubblewrap


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit status, or None when its time was up, and the end of what it said."""

    status: int | None
    said: str


def confined() -> bool:
    """Tell whether bubblewrap is installed and works."""
    if shutil.which("bwrap") is None:
        return False
    probe = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def run(command: list[str], folder: Path, *, readable: list[Path], writable: Path, limits: Limits) -> Outcome:
    """Run a command in a sandbox of its own, and leave no process behind.

    Args:
        command: what to run, with absolute paths.
        folder: an empty folder for it to work in, used where there is no bubblewrap.
        readable: files and folders that it may read besides Python and the system.
        writable: the one existing file that it may write and that outlives it.
        limits: on time, memory and files.
    """
    confine = _bubblewrap(readable, writable, limits) if confined() else []
    home = "/tmp" if confine else str(folder)
    with tempfile.TemporaryFile() as output:  # not a pipe: it would be read into memory, without a limit
        process = subprocess.Popen(
            [*confine, *command],
            cwd=folder,
            env=ENVIRONMENT | {"HOME": home, "TMPDIR": home},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: _limit(limits),
        )
        try:
            return Outcome(process.wait(timeout=limits.seconds), _end(output))
        except subprocess.TimeoutExpired:
            return Outcome(None, "")
        finally:
            _end_all(process, folder)


def _bubblewrap(readable: list[Path], writable: Path, limits: Limits) -> list[str]:
    """Return the command that shows a program Python, the system, what it may read, and nothing else."""
    shown = [*SYSTEM, *(f"/etc/{name}" for name in SETTINGS), sys.base_prefix, sys.prefix, *map(str, readable)]
    binds = [part for path in shown for part in ("--ro-bind-try", path, path)]
    private = ["--proc", "/proc", "--dev", "/dev"]
    for place, size in (("/tmp", limits.disk), ("/dev/shm", limits.file)):
        private += ["--size", str(size), "--tmpfs", place]
    closed = ["--remount-ro", "/dev", "--remount-ro", "/"]  # else one could fill the memory with files there
    alone = ["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    return ["bwrap", *alone, *private, *binds, "--bind", str(writable), str(writable), *closed, "--chdir", "/tmp"]


def _limit(limits: Limits) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored in background jobs, and cells are interrupted by it
    processor = int(limits.seconds) + 10
    for what, most in (
        (resource.RLIMIT_CPU, processor),
        (resource.RLIMIT_DATA, limits.memory),
        (resource.RLIMIT_FSIZE, limits.file),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _end_all(process: subprocess.Popen, folder: Path) -> None:
    """Kill the command, its process group, and whatever still works in its folder."""
    family = [process.pid, *_descendants(process.pid), *_working_in(folder)]
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid in family:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=5)


def _descendants(pid: int) -> list[int]:
    with contextlib.suppress(psutil.Error):
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return []


def _working_in(folder: Path) -> list[int]:
    """Return the processes whose working directory is in the folder, such as kernels whose parent is gone."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process.pid)
    return found


def _end(output: IO[bytes]) -> str:
    """Return the end of what a file holds. The process that wrote it has the same position in it."""
    output.seek(max(0, output.seek(0, os.SEEK_END) - 2000))
    return output.read(2000).decode(errors="replace").strip()
