"""Measure a model without leaving a trace on it, and notice when it is no function of its parameters."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from gradconf.problems import Problem


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Leave `.grad`, buffers and the random generators as they were, whatever happens inside.

    Inside, buffers are copies, gradients are enabled and autocast is off, so that what is measured is the model's own
    precision.

    Args:
        model: the model that is evaluated inside.

    Yields:
        Nothing.
    """
    gradients = [(p, p.grad) for p in model.parameters()]
    buffers = [(module, name, buffer) for module in model.modules() for name, buffer in module._buffers.items()]
    copies = {id(buffer): buffer.detach().clone() for _, _, buffer in buffers if buffer is not None}
    python_state, numpy_state = random.getstate(), np.random.get_state()
    device = next(model.parameters()).device
    cards = [device] if device.type == "cuda" else []
    try:
        for module, name, buffer in buffers:
            module._buffers[name] = copies.get(id(buffer))
        with torch.random.fork_rng(cards), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for p, gradient in gradients:
            p.grad = gradient
        for module, name, buffer in buffers:
            module._buffers[name] = buffer


def steady_losses(problem: Problem, rows: slice) -> Tensor:
    """Evaluate the losses of some samples together, refusing losses that random numbers change.

    Args:
        problem: what is measured; it is left untouched.
        rows: which samples.

    Returns:
        Losses of shape `(n,)`, with their autograd graph.

    Raises:
        ValueError: if random numbers are drawn and a second evaluation differs, or the losses are unusable.
    """
    with untouched(problem.model):
        before = _generator_state(problem.device)
        first = problem.losses(rows)
        if before == _generator_state(problem.device):
            return first
    with untouched(problem.model):
        for device in {torch.device("cpu"), problem.device}:
            torch.rand(1, device=device)  # so that other random numbers follow
        random.random(), np.random.rand()
        second = problem.losses(rows)
    if not torch.equal(first, second):
        raise ValueError(
            "two evaluations of the loss differ, as the model draws random numbers: call model.eval() first, "
            "or remove the random step from the model and the loss."
        )
    return first


def _generator_state(device: torch.device) -> tuple:
    """Return the state of every global generator a model may draw from, in a form that compares."""
    drawn = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.empty(0)
    return torch.get_rng_state().tolist(), drawn.tolist(), random.getstate(), np.random.get_state()[1].tolist()
