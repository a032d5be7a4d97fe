"""Gram matrices of gradients, `K[i, j] = <grad f_i, grad f_j>`: everything the course measures comes from them."""

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from gradconf import reference
from gradconf.isolation import refuse_randomness, untouched
from gradconf.problems import LossFunction, Problem, pose, refuse_batch_statistics, refuse_dropout
from gradconf.samples import Samples, call, map_tensors

BLOCK_NUMBERS = 2**25  # gradient entries computed at a time: 128 MiB in float32
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
    with untouched(model):
        refuse_randomness(lambda: problem.losses(slice(0, 1)), problem.device)
        gradients = _per_sample_gradients(problem)
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
    rows = [_batch_gradient(pose(model, loss_fn, inputs, targets)) for inputs, targets in batches]
    if not rows:
        raise ValueError("there are no batches: pass at least one pair of inputs and targets.")
    return _products(torch.stack(rows), "batch")


def _batch_gradient(problem: Problem) -> Tensor:
    """Return the gradient of the mean loss of all samples, shape `(P,)`."""
    everything = slice(0, problem.samples)
    with untouched(problem.model):
        refuse_randomness(lambda: problem.losses(everything), problem.device)
        return _flat_gradient(problem, problem.losses(everything).mean())


def _flat_gradient(problem: Problem, loss: Tensor) -> Tensor:
    wanted = tuple(problem.params.values())
    parts = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
    return torch.cat([part.to_dense().to(problem.dtype).reshape(-1) for part in parts])


def _per_sample_gradients(problem: Problem) -> Tensor:
    """Return J, shape `(N, P)`, block of samples by block."""
    size = sum(p.numel() for p in problem.params.values())
    step = max(1, min(problem.samples, BLOCK_NUMBERS // max(size, 1), 256))
    blocks = [slice(i, min(i + step, problem.samples)) for i in range(0, problem.samples, step)]
    return torch.cat([_block(problem, rows) for rows in blocks])


def _block(problem: Problem, rows: slice) -> Tensor:
    """Return the gradients of one block, shape `(n, P)`, by `vmap`, or by a loop where `vmap` cannot."""
    together = problem.losses(rows)  # (n,)
    total = _flat_gradient(problem, together.sum())  # (P,)
    try:
        gradients, alone = _vectorised(problem, rows)
        complaint = None if _complete(gradients, total) else "torch.func misses a use of a parameter"
    except (RuntimeError, NotImplementedError) as error:
        complaint = str(error).splitlines()[0]
    if complaint is not None:
        warnings.warn(f"one backward() a sample, which is slow but exact: {complaint}", stacklevel=4)
        gradients, alone = _looped(problem, rows)
    tolerance = 1e-6 if problem.dtype == torch.float64 else 1e-3
    if not torch.allclose(alone, together.detach(), rtol=tolerance, atol=tolerance):
        worst = (alone - together).abs().argmax().item() + (rows.start or 0)
        raise ValueError(
            f"the loss of sample {worst} changes with the samples beside it, so a per-sample gradient does not "
            f"exist: find the layer that mixes samples, or measure whole batches with minibatch_gram."
        )
    return gradients


def _vectorised(problem: Problem, rows: slice) -> tuple[Tensor, Tensor]:
    """Return gradients `(n, P)` and losses `(n,)`, each sample in a batch of its own."""
    buffers = {name: buffer.clone() for name, buffer in problem.model.named_buffers()}

    def loss(params: dict[str, Tensor], inputs: Samples, targets: Samples) -> Tensor:
        one_input, one_target = (map_tensors(lambda t: t.unsqueeze(0), s) for s in (inputs, targets))
        outputs = call(lambda *a, **k: functional_call(problem.model, (params, buffers), a, k), one_input)
        return problem.loss_fn(outputs, one_target).sum()

    detached = {name: p.detach() for name, p in problem.params.items()}
    each = vmap(grad_and_value(loss), in_dims=(None, 0, 0), randomness="different")
    gradients, losses = each(detached, *problem.take(rows))
    return torch.cat([g.to(problem.dtype).flatten(1) for g in gradients.values()], dim=1), losses


def _looped(problem: Problem, rows: slice) -> tuple[Tensor, Tensor]:
    singles = [slice(i, i + 1) for i in range(rows.start, rows.stop)]
    gradients = torch.stack([reference._gradient(problem, single) for single in singles])
    losses = torch.cat([problem.losses(single).detach() for single in singles])
    return gradients.to(problem.dtype), losses


def _complete(gradients: Tensor, total: Tensor) -> bool:
    """Tell whether per-sample gradients `(n, P)` add up to the batch's `(P,)`, as they must."""
    scale = gradients.norm(dim=1).sum() + total.norm()
    return not bool((gradients.sum(0) - total).norm() > 1e-2 * scale)  # NaN passes here: _products names it


def _products(gradients: Tensor, what: str) -> Tensor:
    """Return `J J^T` in float64, shape `(N, N)`, turning a panel of columns into float64 at a time."""
    n, size = gradients.shape
    products = gradients.new_zeros(n, n, dtype=torch.float64)
    for start in range(0, size, PANEL_COLUMNS):
        panel = gradients[:, start : start + PANEL_COLUMNS].double()
        products.addmm_(panel, panel.T)
    if not bool(torch.isfinite(products).all()):
        bad = (~torch.isfinite(products.diagonal())).nonzero()
        raise ValueError(
            f"the gradient of {what} {bad[0].item() if len(bad) else 0} is NaN or infinite although its loss is not: "
            f"look for a square root, logarithm or division at zero."
        )
    return products.triu() + products.triu(1).T
