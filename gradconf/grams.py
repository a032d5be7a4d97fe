"""Gram matrices of gradients, `K[i, j] = <grad f_i, grad f_j>`: everything the course measures comes from them."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gradconf.engine.plans import Key
from gradconf.engine.work import grams_by_key
from gradconf.memory import allowed, free, size
from gradconf.problems import LossFunction, Problem, pose_alone
from gradconf.refusals import refuse_infinite
from gradconf.samples import Samples, count, join


def gram(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Samples,
    targets: Samples,
    *,
    params: Iterable[str] | None = None,
    max_memory: int | None = None,
) -> Tensor:
    """Compute the exact Gram matrix of per-sample gradients.

    `K[i, j] = <grad f_i(w), grad f_j(w)>`, with `f_i = loss_fn(model(inputs), targets)[i]`. Losses are neither
    averaged nor summed, so K does not change when other samples join. K is float64 whatever the model is, as
    products of small float32 gradients would underflow. The model is left as it was. `explain` shows how each
    parameter is handled.

    Args:
        model: float32 or float64 module in which samples do not influence each other.
        loss_fn: maps `(outputs, targets)` to one loss a sample, shape `(N,)`, e.g. with `reduction="none"`.
        inputs: a tensor for `model(x)`, a tuple or list for `model(*x)`, a dict for `model(**x)`; each of shape
            `(N, ...)`. Tensors on the CPU are moved to the model.
        targets: a tensor or such a structure of shape `(N, ...)`.
        params: names from `model.named_parameters()`; all trainable ones by default.
        max_memory: bytes of activations and gradients to hold at a time, beside the model, K, and the gradient of one
            sample; half of what the device has free by default. Less makes it slower, not less exact.

    Returns:
        K, float64, shape `(N, N)`, symmetric, on the model's device.

    Raises:
        TypeError: if inputs or targets hold something other than tensors.
        ValueError: if the model or the samples have no per-sample gradient, with the reason and the way out.
        MemoryError: if `max_memory` is too small, saying what would do.

    Source: Sankararaman et al. 2020, Definition 2.1.

    Example:
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> squared = lambda outputs, targets: (outputs - targets).square().sum(1) / 2
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> gram(model, squared, torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[1.0], [-1.0]]))
        tensor([[ 1., -1.],
                [-1.,  2.]], dtype=torch.float64)
    """
    problem = pose_alone(model, loss_fn, inputs, targets, params=params)
    return _grams(problem, lambda name: "", max_memory)[""]


def layer_grams(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Samples,
    targets: Samples,
    *,
    params: Iterable[str] | None = None,
    max_memory: int | None = None,
) -> dict[str, Tensor]:
    """Compute one Gram matrix a layer; they add up to `gram`.

    `K = sum_k K^(k)`, `K^(k)[i, j] = <grad_k f_i(w), grad_k f_j(w)>` with the gradient in the parameters of layer k. A
    parameter that several layers share makes them one layer, as cross terms belong to no single one.

    Args:
        model: as in `gram`.
        loss_fn: as in `gram`.
        inputs: as in `gram`.
        targets: as in `gram`.
        params: as in `gram`.
        max_memory: as in `gram`.

    Returns:
        Matrices by module name, those of shared layers joined by " + ", that of the model's own parameters under "",
        each float64 of shape `(N, N)`.

    Raises:
        TypeError: as in `gram`.
        ValueError: as in `gram`.
        MemoryError: as in `gram`.
    """
    problem = pose_alone(model, loss_fn, inputs, targets, params=params)
    layers = _layers(model)
    found = _grams(problem, lambda name: layers[name], max_memory)
    return {layer: found[layer] for layer in dict.fromkeys(layers[name] for name in problem.params)}


def cross_gram(
    model: nn.Module,
    loss_fn: LossFunction,
    first: tuple[Samples, Samples],
    second: tuple[Samples, Samples],
    *,
    params: Iterable[str] | None = None,
    max_memory: int | None = None,
) -> Tensor:
    """Compute the inner products of the gradients of two sets of samples, e.g. of training and validation.

    `K[i, j] = <grad f_i(w), grad h_j(w)>` with f the losses of the first set and h those of the second: a block of the
    Gram matrix of both sets together, and computed as such.

    Args:
        model: as in `gram`.
        loss_fn: as in `gram`.
        first: inputs and targets of shape `(N_a, ...)`.
        second: inputs and targets of shape `(N_b, ...)`, of the same structure.
        params: as in `gram`.
        max_memory: as in `gram`.

    Returns:
        Matrix of shape `(N_a, N_b)`, float64.

    Raises:
        TypeError: as in `gram`.
        ValueError: as in `gram`, or if the two sets cannot be joined.
        MemoryError: as in `gram`.
    """
    rows = count(*first)
    inputs, targets = (join(a, b) for a, b in zip(first, second, strict=True))
    return gram(model, loss_fn, inputs, targets, params=params, max_memory=max_memory)[:rows, rows:].clone()


def _grams(problem: Problem, key: Key, max_memory: int | None) -> dict[str, Tensor]:
    """Return one matrix a key."""
    _refuse_too_many(problem, len({key(name) for name in problem.params}))
    found = grams_by_key(problem, key, max_memory=allowed(max_memory, problem.device))
    for name in {key(name) for name in problem.params} - found.keys():  # of parameters that no loss depends on
        found[name] = torch.zeros(problem.samples, problem.samples, dtype=torch.float64, device=problem.device)
    return {name: refuse_infinite(products, "sample") for name, products in found.items()}


def _refuse_too_many(problem: Problem, matrices: int) -> None:
    needed = 8 * (matrices + 1) * problem.samples**2  # and products on the way
    if needed > free(problem.device):
        raise MemoryError(
            f"{matrices} matrices of {problem.samples} x {problem.samples} numbers take {size(needed)} on the way, and "
            f"{size(free(problem.device))} are free: measure fewer samples. The minimum over a random subset of the "
            f"samples is only an upper bound of the minimum over all."
        )


def _layers(model: nn.Module) -> dict[str, str]:
    """Return the layer of each parameter: its module, joined with those that share a parameter with it."""
    owners: dict[int, set[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(p), set()).add(name.rpartition(".")[0])
    groups: list[set[str]] = []
    for modules in owners.values():
        touching = [group for group in groups if group & modules]
        groups = [group for group in groups if not group & modules] + [modules.union(*touching)]
    order = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in model.named_parameters(remove_duplicate=False)))
    title = {module: " + ".join(m for m in order if m in group) for group in groups for module in group}
    return {name: title[name.rpartition(".")[0]] for name, _ in model.named_parameters(remove_duplicate=False)}
