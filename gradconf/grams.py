"""Gram matrices of gradients, `K[i, j] = <grad f_i, grad f_j>`: everything the course measures comes from them."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gradconf.gradients import batch_gradient, per_sample_gradients
from gradconf.isolation import constant_parameters
from gradconf.problems import LossFunction, pairs, pose, refuse_batch_statistics, refuse_dropout, refuse_infinite
from gradconf.samples import Samples

PANEL_COLUMNS = 2**13  # gradient columns turned into float64 at a time


def gram(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Samples,
    targets: Samples,
    *,
    params: Iterable[str] | None = None,
) -> Tensor:
    """Compute the exact Gram matrix of per-sample gradients.

    `K[i, j] = <grad f_i(w), grad f_j(w)>`, with `f_i = loss_fn(model(inputs), targets)[i]`. Losses are neither
    averaged nor summed, so K does not change when other samples join. K is float64 whatever the model is, as
    products of small float32 gradients would underflow. The model is left as it was.

    Args:
        model: float32 or float64 module in which samples do not influence each other.
        loss_fn: maps `(outputs, targets)` to one loss a sample, shape `(N,)`, e.g. with `reduction="none"`.
        inputs: a tensor for `model(x)`, a tuple or list for `model(*x)`, a dict for `model(**x)`; each of shape
            `(N, ...)`. Tensors on the CPU are moved to the model.
        targets: a tensor or such a structure of shape `(N, ...)`.
        params: names from `model.named_parameters()`; all trainable ones by default.

    Returns:
        K, float64, shape `(N, N)`, symmetric, on the model's device.

    Raises:
        TypeError: if inputs or targets hold something other than tensors.
        ValueError: if the model or the samples have no per-sample gradient, with the reason and the way out.

    Source: Sankararaman et al. 2020, Definition 2.1.

    Example:
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> squared = lambda outputs, targets: (outputs - targets).square().sum(1) / 2
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> gram(model, squared, torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[1.0], [-1.0]]))
        tensor([[ 1., -1.],
                [-1.,  2.]], dtype=torch.float64)
    """
    refuse_batch_statistics(model)
    refuse_dropout(model)
    problem = pose(model, loss_fn, inputs, targets, params=params)
    with constant_parameters(model):
        gradients = per_sample_gradients(problem)
    return _products(gradients, "sample")


def minibatch_gram(model: nn.Module, loss_fn: LossFunction, batches: Iterable[tuple[Samples, Samples]]) -> Tensor:
    """Compute the exact Gram matrix of mini-batch gradients.

    `K[a, b] = <grad F_a(w), grad F_b(w)>`, with `F_a` the mean loss of batch a. The model is measured in the mode
    it is in: train-mode batch norm is allowed, sees each batch as a whole, and its running statistics are restored.

    Args:
        model: float32 or float64 module without active dropout.
        loss_fn: maps `(outputs, targets)` to one loss a sample, shape `(B,)`; the mean is taken here.
        batches: M pairs of inputs and targets, iterated exactly once. A `DataLoader` will do, and
            `gradconf.minibatches` or `gradconf.minibatch_pairs` for the paper's protocol.

    Returns:
        K, float64, shape `(M, M)`, symmetric, on the model's device.

    Raises:
        TypeError: if a batch holds something other than tensors.
        ValueError: if there is no batch, or the model or a batch cannot be measured.

    Source: Sankararaman et al. 2020, Section 7 (the cosines of its figures are of mini-batch gradients).
    """
    refuse_dropout(model)
    with constant_parameters(model):
        rows = [batch_gradient(pose(model, loss_fn, inputs, targets)) for inputs, targets in pairs(batches)]
    if not rows:
        raise ValueError("there are no batches: pass at least one pair of inputs and targets.")
    return _products(torch.stack(rows), "batch")


def _products(gradients: Tensor, what: str) -> Tensor:
    """Return `J J^T` in float64, shape `(N, N)`, turning a panel of columns into float64 at a time."""
    n, size = gradients.shape
    products = gradients.new_zeros(n, n, dtype=torch.float64)
    for start in range(0, size, PANEL_COLUMNS):
        panel = gradients[:, start : start + PANEL_COLUMNS].double()
        products.addmm_(panel, panel.T)
    refuse_infinite(products, what)
    return products.triu() + products.triu(1).T
