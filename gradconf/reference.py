"""The slow, obvious versions: one backward pass a sample, or a batch.

These are the oracle. Everything faster in the package is tested against them in float64, and chapter 1 shows
them first. `K = J J^T`, where row i of J is the gradient of `f_i` with respect to all parameters in one vector.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gradconf.isolation import constant_parameters, untouched
from gradconf.problems import LossFunction, Problem, pairs, pose, pose_alone
from gradconf.randomness import steady_losses
from gradconf.refusals import refuse_dropout, refuse_infinite
from gradconf.samples import Samples


def per_sample_gradients(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Samples,
    targets: Samples,
    *,
    params: Iterable[str] | None = None,
) -> Tensor:
    """Compute the gradient of every sample's loss, one backward pass after the other.

    `J[i] = grad f_i(w)`, with `f_i = loss_fn(model(inputs[i:i+1]), targets[i:i+1])`.

    Args:
        model: float32 or float64 module.
        loss_fn: maps `(outputs, targets)` to one loss a sample, shape `(N,)`.
        inputs: samples of shape `(N, ...)`.
        targets: samples of shape `(N, ...)`.
        params: names of parameters; all trainable ones by default.

    Returns:
        J, float64, shape `(N, P)`, columns in the order of `model.named_parameters()`.

    Raises:
        TypeError: if inputs or targets hold something other than tensors.
        ValueError: if the model or the samples have no per-sample gradient.
    """
    problem = pose_alone(model, loss_fn, inputs, targets, params=params)
    with constant_parameters(model):
        return torch.stack([gradient(problem, slice(i, i + 1)) for i in range(problem.samples)])


def gram(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Samples,
    targets: Samples,
    *,
    params: Iterable[str] | None = None,
) -> Tensor:
    """Compute the Gram matrix of per-sample gradients by a loop: the oracle of `gradconf.gram`.

    `K[i, j] = <grad f_i(w), grad f_j(w)>`.

    Args:
        model: float32 or float64 module.
        loss_fn: maps `(outputs, targets)` to one loss a sample, shape `(N,)`.
        inputs: samples of shape `(N, ...)`.
        targets: samples of shape `(N, ...)`.
        params: names of parameters; all trainable ones by default.

    Returns:
        K, float64, shape `(N, N)`.

    Raises:
        TypeError: if inputs or targets hold something other than tensors.
        ValueError: if the model or the samples have no per-sample gradient.
    """
    gradients = per_sample_gradients(model, loss_fn, inputs, targets, params=params)  # (N, P)
    return refuse_infinite(gradients @ gradients.T, "sample")


def minibatch_gram(model: nn.Module, loss_fn: LossFunction, batches: Iterable[tuple[Samples, Samples]]) -> Tensor:
    """Compute the Gram matrix of mini-batch gradients by a loop: the oracle of `gradconf.minibatch_gram`.

    `K[a, b] = <grad F_a(w), grad F_b(w)>`, with `F_a` the mean loss of batch a.

    Args:
        model: float32 or float64 module, measured in the mode it is in.
        loss_fn: maps `(outputs, targets)` to one loss a sample, shape `(B,)`.
        batches: M pairs of inputs and targets, iterated once.

    Returns:
        K, float64, shape `(M, M)`.

    Raises:
        TypeError: if a batch holds something other than tensors.
        ValueError: if there is no batch, or the model or a batch cannot be measured.
    """
    refuse_dropout(model)
    gradients = []
    with constant_parameters(model):
        for inputs, targets in pairs(batches):
            problem = pose(model, loss_fn, inputs, targets)
            gradients.append(gradient(problem, slice(0, problem.samples)))
    if not gradients:
        raise ValueError("there are no batches: pass at least one pair of inputs and targets.")
    stacked = torch.stack(gradients)  # (M, P)
    return refuse_infinite(stacked @ stacked.T, "batch")


def gradient(problem: Problem, rows: slice) -> Tensor:
    """Compute the gradient of the mean loss of some samples.

    Args:
        problem: what is measured.
        rows: which samples.

    Returns:
        Gradient with respect to `problem.params`, float64, shape `(P,)`.

    Raises:
        ValueError: if the losses are unusable.
    """
    wanted = tuple(problem.params.values())
    with untouched(problem.model):
        loss = steady_losses(problem, rows).mean()
        parts = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
    return torch.cat([part.to_dense().double().reshape(-1) for part in parts])
