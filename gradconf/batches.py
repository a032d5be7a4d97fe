"""Mini-batches drawn for measuring, with a generator of their own."""

import torch
from torch import Generator

from gradconf.samples import Samples, count, select

Batch = tuple[Samples, Samples]


def minibatches(
    inputs: Samples, targets: Samples, *, batch_size: int = 128, generator: Generator | None = None
) -> list[Batch]:
    """Cut the samples, in random order, into disjoint mini-batches of equal size.

    Args:
        inputs: samples of shape `(N, ...)`.
        targets: samples of shape `(N, ...)`.
        batch_size: samples a batch, B; what is left over is dropped.
        generator: CPU generator for the order; the global one by default.

    Returns:
        `N // B` pairs of inputs and targets. Whatever their number M, all `M (M - 1) / 2` pairs of their gradients
        can be compared with `confusion`.

    Raises:
        ValueError: if there are fewer than `batch_size` samples.
    """
    samples = _enough(inputs, targets, batch_size, 1)
    order = torch.randperm(samples, generator=generator)
    chunks = order[: samples // batch_size * batch_size].split(batch_size)
    return [_batch(inputs, targets, rows) for rows in chunks]


def minibatch_pairs(
    inputs: Samples,
    targets: Samples,
    *,
    pairs: int = 100,
    batch_size: int = 128,
    generator: Generator | None = None,
) -> list[Batch]:
    """Draw random pairs of mini-batches, the paper's protocol.

    The two batches of a pair share no sample; different pairs are drawn independently.

    Args:
        inputs: samples of shape `(N, ...)`.
        targets: samples of shape `(N, ...)`.
        pairs: number of pairs.
        batch_size: samples a batch, B.
        generator: CPU generator for the draw; the global one by default.

    Returns:
        `2 pairs` batches, the partners next to each other, for `minibatch_gram` and `paired_confusion`.

    Raises:
        ValueError: if there are fewer than `2 batch_size` samples.

    Source: Sankararaman et al. 2020, Section 7 (100 pairs, B = 128; whether a pair's batches are disjoint is not
    said there).
    """
    samples = _enough(inputs, targets, batch_size, 2)
    if pairs < 1:
        raise ValueError(f"pairs must be at least 1, not {pairs}.")
    rows = [torch.randperm(samples, generator=generator)[: 2 * batch_size].split(batch_size) for _ in range(pairs)]
    return [_batch(inputs, targets, half) for pair in rows for half in pair]


def _enough(inputs: Samples, targets: Samples, batch_size: int, batches: int) -> int:
    samples = count(inputs, targets)
    if batch_size < 1 or samples < batches * batch_size:
        raise ValueError(
            f"{batches} batch(es) of {batch_size} need at least {max(1, batches * batch_size)} samples and a size of "
            f"1 or more, but there are {samples}: choose another batch_size."
        )
    return samples


def _batch(inputs: Samples, targets: Samples, rows: torch.Tensor) -> Batch:
    return select(inputs, rows), select(targets, rows)
