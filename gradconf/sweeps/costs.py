"""What a run costs, before it is run."""

import math
import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gradconf.datasets import Dataset
from gradconf.sweeps.configurations import Configuration
from gradconf.sweeps.protocol import batches_measured

BACKWARD = 3  # a forward and a backward pass cost three times the forward pass


def cost(configuration: Configuration, data: Dataset) -> float:
    """Estimate the work of a run from the products that its network computes.

    `phi (3 E N + (E + 1) (N + N_test) + 3 M B)` for E epochs, N samples, M mini-batch gradients of B samples measured
    in all, and phi for a forward pass of one sample.

    Args:
        configuration: of the run.
        data: its data set.

    Returns:
        FLOP, a multiplication and an addition counting as two.

    Raises:
        ValueError: if the network cannot be built, or the data have too few samples to measure.
    """
    c, samples, tests = configuration, len(data.train_targets), len(data.test_targets)
    if samples < 2 * c.pair_size:
        raise ValueError(
            f"pairs of mini-batches of {c.pair_size} need {2 * c.pair_size} training samples, but there are {samples}."
        )
    times = 1 if c.measure_every == 0 else 1 + math.ceil(c.epochs / c.measure_every)
    measured = times * batches_measured(samples, pairs=c.pairs, batch_size=c.pair_size) * c.pair_size
    passes = BACKWARD * (c.epochs * samples + measured) + (c.epochs + 1) * (samples + tests)
    return float(passes * forward_cost(c, data))


def forward_cost(configuration: Configuration, data: Dataset) -> float:
    """Return the FLOP of a forward pass of one sample."""
    model = configuration.build(data).to("meta")
    two = torch.empty(2, *data.train_inputs.shape[1:], device="meta")  # batch norm needs two
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(two)
    return counter.get_total_flops() / 2


def speed(configuration: Configuration, data: Dataset, device: torch.device) -> float:
    """Time three steps of training on random numbers.

    Args:
        configuration: of a run.
        data: its data set, for its shapes.
        device: that computes.

    Returns:
        FLOP a second, of the fastest step.
    """
    model = configuration.build(data).to(device)
    inputs = torch.randn(configuration.batch_size, *data.train_inputs.shape[1:], device=device)
    targets = torch.zeros(configuration.batch_size, dtype=torch.long, device=device)
    best = min(_seconds(model, inputs, targets) for _ in range(3))
    return BACKWARD * configuration.batch_size * forward_cost(configuration, data) / best


def _seconds(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> float:
    start = time.perf_counter()
    loss = nn.functional.cross_entropy(model(inputs), targets)
    loss.backward()
    loss.item()  # waits for a GPU
    if inputs.device.type == "cuda":
        torch.cuda.synchronize(inputs.device)
    return time.perf_counter() - start
