"""Where a notebook runs, how long, and in how much memory."""

import platform
import sys
import time
from datetime import UTC, datetime

import torch

from gradconf._version import __version__

_started = time.perf_counter()


def setup(*, seed: int = 0) -> torch.device:
    """Choose a device, seed torch, and print what the numbers below were computed with.

    Without a GPU a second line says that none is needed, and how to get one.

    Args:
        seed: seed of torch's global generators.

    Returns:
        The first CUDA device when there is one, else the CPU.

    Example:
        >>> device = setup(seed=0)  # doctest: +ELLIPSIS
        gradconf ... · Python ... · torch ... · ... · seed 0...
    """
    global _started
    _started = time.perf_counter()
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    torch.manual_seed(seed)
    hardware = _hardware()
    versions = f"gradconf {__version__} · Python {platform.python_version()} · torch {torch.__version__}"
    print(f"{versions} · {hardware} · seed {seed}")
    if device.type == "cpu":
        print(_without_gpu())
    return device


def spent() -> None:
    """Print in one line how long it took since `setup`, the most memory that was in use, and the date (UTC).

    Memory is that of the whole process since it began, and on a GPU also what torch had allocated there.

    Example:
        >>> spent()  # doctest: +ELLIPSIS
        This took ... s...
    """
    parts = [f"This took {time.perf_counter() - _started:.0f} s"]
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        parts.append(f"at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.1f} GB of memory")
    if torch.cuda.is_available():
        parts.append(f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB of the GPU's")
    print(f"{', '.join(parts)}, on {_hardware()}, on {datetime.now(UTC):%Y-%m-%d}.")


def _without_gpu() -> str:
    if "google.colab" in sys.modules:
        how = "in the menu, Runtime > Change runtime type > T4 GPU, then Runtime > Run all"
    else:
        how = "run this where PyTorch finds a CUDA device"
    return f"No GPU, and the sizes given here need none. For larger ones: {how}."


def _hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
