"""Bytes: how many are free, how to say so, and what fits."""

import math
import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch


def free(device: torch.device) -> int:
    """Return the bytes that are free on a device, or 4 GiB where nobody knows.

    Args:
        device: CPU or an accelerator.

    Returns:
        Bytes.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**32


def allowed(max_memory: int | None, device: torch.device) -> int:
    """Return the bytes that a measurement may hold.

    Args:
        max_memory: as the caller said; half of what the device has free by default.
        device: CPU or an accelerator.

    Returns:
        Bytes.

    Raises:
        ValueError: if `max_memory` is no positive number of bytes.
    """
    if max_memory is None:
        return free(device) // 2
    if isinstance(max_memory, bool) or not isinstance(max_memory, int | float) or not 0 < max_memory < math.inf:
        raise ValueError(f"max_memory must be a positive number of bytes, such as 2**30, not {max_memory!r}.")
    return int(max_memory)


def keep_freed() -> None:
    """Let the system's allocator keep memory that is freed, as fetching it again can take longer than a layer.

    glibc hands back what is free beyond twice the largest block that was freed so far. After one of 8 MiB it keeps what
    small networks use; a larger one would keep the blocks of large networks too, in a heap that they fragment.
    """
    torch.empty(2**23 - 2**13, dtype=torch.uint8)


def size(number: float) -> str:
    """Write a number of bytes in a unit that suits it, rounded up.

    Args:
        number: bytes.

    Returns:
        E.g. `"3.2 MiB"`.

    Example:
        >>> size(3.21 * 2**20), size(7)
        ('3.3 MiB', '7 bytes')
    """
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= unit:
            return f"{-(-number * 10 // unit) / 10:g} {name}"
    return f"{number:.0f} bytes"


def bundles(items: Iterable[tuple[Any, float]], budget: float) -> Iterator[list]:
    """Put things together, in order, as long as they fit.

    Args:
        items: things and their sizes in bytes.
        budget: bytes that a list may take; a single thing may take more.

    Yields:
        Lists of things.

    Example:
        >>> list(bundles([("a", 2), ("b", 2), ("c", 3)], 4))
        [['a', 'b'], ['c']]
    """
    bundle: list[Any] = []
    total = 0.0
    for item, more in items:
        if bundle and total + more > budget:
            yield bundle
            bundle, total = [], 0.0
        bundle.append(item)
        total += more
    if bundle:
        yield bundle
