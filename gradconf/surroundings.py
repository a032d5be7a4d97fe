"""Where a notebook runs."""

import platform

import torch

from gradconf._version import __version__


def setup(*, seed: int = 0) -> torch.device:
    """Choose a device, seed torch, and print one line that says what the numbers below were computed with.

    Args:
        seed: seed of torch's global generators.

    Returns:
        The first CUDA device when there is one, else the CPU.

    Example:
        >>> device = setup(seed=0)  # doctest: +ELLIPSIS
        gradconf ... · Python ... · torch ... · ... · seed 0
    """
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    torch.manual_seed(seed)
    hardware = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    )
    versions = f"gradconf {__version__} · Python {platform.python_version()} · torch {torch.__version__}"
    print(f"{versions} · {hardware} · seed {seed}")
    return device
