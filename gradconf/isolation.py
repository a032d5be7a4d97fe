"""Measure a model without leaving a trace on it, and notice when it changes its parameters."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Leave `.grad`, buffers, attributes and the random generators as they were, whatever happens inside.

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
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.random.fork_rng(cards),
            full_precision(device),
            copied_buffers(model),
            kept_attributes(model),
        ):
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
def kept_attributes(model: nn.Module) -> Iterator[None]:
    """Put back whatever modules have as attributes.

    Args:
        model: the model that is evaluated inside.

    Yields:
        Nothing.
    """
    before = [(vars(module), dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for now, then in before:
            for name in now.keys() - then.keys():
                del now[name]
            now.update(then)


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
    the new one reflects the old, so it alone is set and put back. It is set from the whole to its parts, and only where
    a part still says something else: so what a part has from the whole is not written down as its own.

    Args:
        precision: `ieee`, or `tf32` on CUDA.

    Yields:
        Nothing.
    """
    cuda, cpu = torch.backends.cuda.matmul, torch.backends.mkldnn
    holders: list[Any] = [torch.backends.cudnn, cuda, *_parts(torch.backends.cudnn)]
    if precision == "ieee":
        holders = [torch.backends, *holders, cpu, *_parts(cpu)]
    switches = [(holder, "fp32_precision", precision) for holder in holders if hasattr(holder, "fp32_precision")]
    old = [(holder, "allow_tf32", precision == "tf32") for holder in (cuda, torch.backends.cudnn)]
    before: list[tuple[Any, str, Any]] = []
    try:
        for holder, name, value in switches or old:
            if (found := getattr(holder, name)) != value:
                before.append((holder, name, found))
                setattr(holder, name, value)
        yield
    finally:
        for holder, name, value in reversed(before):
            if name == "fp32_precision":
                setattr(holder, name, "none")  # it may have had it from the whole
            if getattr(holder, name) != value:
                setattr(holder, name, value)


def _parts(backend: Any) -> list[Any]:
    return [getattr(backend, name, None) for name in ("matmul", "conv", "rnn")]


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
