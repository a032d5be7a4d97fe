"""Measure gradient confusion in the middle of training. Every other recipe calls this one."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

import gradconf

BATCH_NORM = nn.modules.batchnorm._BatchNorm  # what BatchNorm1d, 2d and 3d are made from


def confusion_row(model, loss_fn, inputs, targets) -> dict[str, float]:
    """Measure per-sample gradients in evaluation mode, and return numbers for any logger."""
    with evaluating(model):
        measured = gradconf.measure(model, loss_fn, inputs, targets)
    return {f"confusion/{name}": number for name, number in measured.row().items()}


def batch_confusion_row(model, loss_fn, batches) -> dict[str, float]:
    """Measure gradients of whole batches: batch norm in the mode it is in, all else in evaluation mode."""
    with evaluating(model, but=BATCH_NORM):
        measured = gradconf.confusion(gradconf.minibatch_gram(model, loss_fn, batches))
    return {f"batch_confusion/{name}": number for name, number in measured.row().items()}


@contextmanager
def evaluating(model: nn.Module, *, but: type | tuple = ()) -> Iterator[None]:
    """Switch modules to evaluation mode, and each back to its own: some may be kept there during training."""
    modes = {module: module.training for module in model.modules()}
    try:
        for module, training in modes.items():
            module.training = training and isinstance(module, but)
        yield
    finally:
        for module, training in modes.items():
            module.training = training
