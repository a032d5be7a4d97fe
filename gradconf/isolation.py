"""Measure a model without leaving a trace on it, and notice when it is no function of its parameters."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradconf.problems import Problem


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Leave `.grad`, buffers and the random generators as they were, whatever happens inside.

    Inside, buffers are copies, gradients are enabled, and autocast and TF32 are off, so that what is
    measured is the model's own precision.

    Args:
        model: the model that is evaluated inside.

    Yields:
        Nothing.
    """
    gradients = [(p, p.grad) for p in model.parameters()]
    python_state, numpy_state = random.getstate(), np.random.get_state()
    device = gradients[0][0].device
    cards = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(cards), torch.enable_grad(), full_precision(device), copied_buffers(model):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for p, gradient in gradients:
            p.grad = gradient


@contextmanager
def copied_buffers(model: nn.Module) -> Iterator[None]:
    """Give a model copies of its buffers, and put the buffers back.

    Args:
        model: the model that is evaluated inside.

    Yields:
        Nothing.
    """
    before = [(module, dict(module._buffers)) for module in model.modules() if module._buffers]
    every = [buffer for _, held in before for buffer in held.values() if buffer is not None]
    copies = {id(buffer): buffer.detach().clone() for buffer in every}
    try:
        for module, held in before:
            module._buffers.update((name, copies.get(id(buffer))) for name, buffer in held.items())
        yield
    finally:
        for module, held in before:
            module._buffers.update(held)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Keep float32 products in float32: no autocast, no TF32, whatever was allowed before.

    Args:
        device: where the products are computed.

    Yields:
        Nothing.
    """
    with float32_products("ieee"), torch.autocast(device.type, enabled=False):
        yield


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Say how float32 products are computed, whatever was allowed before.

    Since 2.9 torch has `fp32_precision` beside `allow_tf32`, and refuses to read the old switch while the two disagree;
    the new one reflects the old, so it alone is set and put back.

    Args:
        precision: `ieee`, or `tf32` on CUDA.

    Yields:
        Nothing.
    """
    backends = torch.backends
    holders = [backends.cuda.matmul, getattr(backends.cudnn, "conv", None), getattr(backends.cudnn, "rnn", None)]
    if precision == "ieee":
        holders += [getattr(backends.mkldnn, name, None) for name in ("matmul", "conv", "rnn")]
    switches: list[tuple[Any, str, Any]] = [
        (holder, "fp32_precision", precision) for holder in holders if hasattr(holder, "fp32_precision")
    ]
    old = [(holder, "allow_tf32", precision == "tf32") for holder in (backends.cuda.matmul, backends.cudnn)]
    switches = switches or old
    before = [getattr(holder, name) for holder, name, _ in switches]
    try:
        for holder, name, value in switches:
            setattr(holder, name, value)
        yield
    finally:
        for (holder, name, _), value in zip(switches, before, strict=True):
            setattr(holder, name, value)


@contextmanager
def constant_parameters(model: nn.Module) -> Iterator[None]:
    """Put parameters back, and say so, if the model changes them while it runs.

    Args:
        model: the model that is evaluated inside.

    Yields:
        Nothing.

    Raises:
        ValueError: naming the first parameter that was changed.
    """
    before = [(name, p, p._version, p.detach().clone()) for name, p in model.named_parameters()]
    try:
        yield
    finally:
        changed = [(name, p, value) for name, p, version, value in before if p._version != version]
        with torch.no_grad():
            for _, p, value in changed:
                p.copy_(value)
    if changed:
        raise ValueError(
            f"the model changes its parameter '{changed[0][0]}' while it runs, so there is no gradient at one point: "
            f"take that step out of the forward pass. The parameter has been put back."
        )


def steady_losses(problem: Problem, rows: slice) -> Tensor:
    """Evaluate the losses of some samples together, refusing losses that random numbers change.

    Args:
        problem: what is measured, `untouched` by the caller.
        rows: which samples.

    Returns:
        Losses of shape `(n,)`, with their autograd graph.

    Raises:
        ValueError: if random numbers are drawn and a second evaluation differs, or the losses are unusable.
    """
    before = _generator_state(problem.device)
    with copied_buffers(problem.model):
        first = problem.losses(rows)
    if before == _generator_state(problem.device):
        return first
    for device in {torch.device("cpu"), problem.device}:
        torch.rand(1, device=device)  # so that other random numbers follow
    random.random(), np.random.rand()
    with copied_buffers(problem.model):
        second = problem.losses(rows)
    if not torch.equal(first, second):
        raise ValueError(
            "two evaluations of the loss differ, as the model draws random numbers: call model.eval() first, "
            "or remove the random step from the model and the loss."
        )
    return first


def _generator_state(device: torch.device) -> tuple:
    """Return the state of every global generator a model may draw from."""
    states = [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])
    _, key, *position = tuple(np.random.get_state())
    return *(state.numpy().tobytes() for state in states), random.getstate(), np.asarray(key).tobytes(), *position
