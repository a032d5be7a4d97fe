"""Measure a model without leaving a trace on it, and notice when it is no function of its parameters."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Leave `.grad`, buffers and the random generators as they were, whatever happens inside.

    Inside, gradients are enabled and autocast is off, so that what is measured is the model's own precision.

    Args:
        model: the model that is evaluated inside.

    Yields:
        Nothing.
    """
    gradients = [(p, p.grad) for p in model.parameters()]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    device = next(model.parameters()).device
    cards = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(cards), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for p, gradient in gradients:
            p.grad = gradient
        for module, name, buffer, value in buffers:
            module._buffers[name] = buffer
            with torch.no_grad():
                buffer.copy_(value)


def refuse_randomness(losses: Callable[[], Tensor], device: torch.device) -> None:
    """Refuse losses that change from one evaluation to the next because random numbers enter them.

    Args:
        losses: evaluates the losses, shape `(n,)`.
        device: where the model is.

    Raises:
        ValueError: if two evaluations that draw random numbers differ.
    """
    before = _generator_state(device)
    with torch.no_grad():
        first = losses()
        if torch.equal(before, _generator_state(device)):
            return
        second = losses()
    if not torch.equal(first, second):
        raise ValueError(
            "two evaluations of the loss differ, as the model draws random numbers: call model.eval() first, "
            "or remove the random step from the model and the loss."
        )


def _generator_state(device: torch.device) -> Tensor:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return torch.cat(states)
