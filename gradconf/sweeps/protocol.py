"""What is measured of a network in a sweep: the paper's pairs of mini-batches, and steadier numbers beside them."""

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from gradconf.batch_grams import minibatch_gram
from gradconf.batches import minibatch_pairs, minibatches
from gradconf.datasets import Dataset
from gradconf.problems import LossFunction
from gradconf.statistics import Confusion, confusion, cosine, paired_confusion

DISJOINT = 32  # mini-batches of which all pairs are taken
PAIRED = ("eta", "min_cosine", "q01", "q05", "median", "mean", "std", "negative_fraction", "pairs", "zero_gradients")
ALL = ("min_cosine", "q01", "median", "mean", "std", "negative_fraction", "pairs", "noise_scale")


def measure_batches(
    model: nn.Module, loss_fn: LossFunction, data: Dataset, *, pairs: int, batch_size: int, seed: int
) -> tuple[dict[str, float], list[float]]:
    """Measure mini-batch gradients in the mode that the model is in.

    Args:
        model: as it stands in training.
        loss_fn: one loss a sample.
        data: its training set is measured.
        pairs: random pairs of mini-batches, the paper's protocol.
        batch_size: samples a mini-batch, B.
        seed: of the mini-batches.

    Returns:
        Statistics by name, and the cosines of the pairs. `min_cosine`, `q01`, `std` and so on are those of the random
        pairs; those that begin with `disjoint_` are of all pairs of up to 32 mini-batches that share no sample, which
        are more. `disjoint_noise_scale` is in samples.

    Source: Sankararaman et al. 2020, Section 7.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = data.train_inputs, data.train_targets
    drawn = minibatch_pairs(inputs, targets, pairs=pairs, batch_size=batch_size, generator=generator)
    gram = minibatch_gram(model, loss_fn, drawn)  # (2 pairs, 2 pairs)
    first = torch.arange(0, 2 * pairs, 2)
    numbers = _chosen(paired_confusion(gram), PAIRED)
    apart = minibatches(inputs, targets, batch_size=batch_size, generator=generator)[:DISJOINT]
    if len(apart) > 1:
        among_all = confusion(minibatch_gram(model, loss_fn, apart))
        numbers |= {f"disjoint_{name}": value for name, value in _chosen(among_all, ALL).items()}
        numbers["disjoint_noise_scale"] *= batch_size
    return numbers, cosine(gram).cpu()[first, first + 1].tolist()


def batches_measured(samples: int, *, pairs: int, batch_size: int) -> int:
    """Return how many mini-batch gradients one measurement takes."""
    apart = min(DISJOINT, samples // batch_size)
    return 2 * pairs + (apart if apart > 1 else 0)


def _chosen(measured: Confusion, names: tuple[str, ...]) -> dict[str, Any]:
    values = asdict(measured)
    return {name: values[name] for name in names}
