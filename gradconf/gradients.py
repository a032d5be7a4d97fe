"""Whole per-sample gradients by `vmap`, for what the engine has no rule for."""

import sys
import warnings

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from gradconf import reference
from gradconf.isolation import kept_attributes, untouched
from gradconf.mixing import JOINT_SAMPLES, refuse_mixing
from gradconf.problems import Problem
from gradconf.randomness import steady_losses
from gradconf.samples import Samples, call, map_tensors

BLOCK_NUMBERS = 2**25  # gradient entries computed at a time: 128 MiB in float32


def per_sample_gradients(problem: Problem, *, at_once: int = JOINT_SAMPLES) -> Tensor:
    """Compute the gradient of every sample's loss, block of samples by block.

    What `vmap` cannot do, or does without seeing every use of a parameter, is done by the loop of
    `gradconf.reference`, with a warning.

    Args:
        problem: what is measured, `untouched` by the caller.
        at_once: most samples to run together.

    Returns:
        J in the parameters' precision, shape `(N, P)`.

    Raises:
        ValueError: if samples influence each other or the losses are unusable.
    """
    together = _joint_losses(problem, max(at_once, 2))
    size = sum(p.numel() for p in problem.params.values())
    step = max(1, min(problem.samples, BLOCK_NUMBERS // max(size, 1), at_once))
    starts = range(0, problem.samples, step)
    return torch.cat([_block(problem, slice(start, min(start + step, problem.samples)), together) for start in starts])


def _joint_losses(problem: Problem, step: int) -> Tensor:
    """Return the losses of all samples, each evaluated with others beside it, shape `(N,)`."""
    n, parts = problem.samples, []
    for start in range(0, n, step):
        stop = min(start + step, n)
        losses = steady_losses(problem, slice(max(0, stop - step), stop)).detach()
        parts.append(losses[start - stop :])
    return torch.cat(parts)


def _block(problem: Problem, rows: slice, together: Tensor) -> Tensor:
    """Return the gradients of one block, shape `(n, P)`."""
    with untouched(problem.model):
        try:
            with kept_attributes(problem.model):  # a tensor that is kept in an attribute must not outlive vmap
                gradients, alone = _vectorised(problem, rows)
            complaint = "torch.func does not see every use of a parameter" if _uses_hidden(problem, rows) else None
        except (RuntimeError, NotImplementedError) as error:
            complaint = (str(error) or type(error).__name__).splitlines()[0]
        if complaint is not None:
            gradients, alone = _looped(problem, rows)
    refuse_mixing(problem, alone, together[rows], rows.start)
    if complaint is not None:
        warnings.warn(f"one backward() a sample, which is slow but exact: {complaint}", stacklevel=_caller())
    return gradients


def _caller() -> int:
    """Return the stack level of the first frame outside the package."""
    level = 1
    while sys._getframe(level).f_globals.get("__name__", "").startswith("gradconf"):
        level += 1
    return level


def _vectorised(problem: Problem, rows: slice) -> tuple[Tensor, Tensor]:
    """Return gradients `(n, P)` and losses `(n,)`, each sample in a batch of its own."""
    parameters = _stand_ins(problem)
    chosen = {name: parameters.pop(name) for name in problem.params}

    def loss(params: dict[str, Tensor], inputs: Samples, targets: Samples) -> Tensor:
        one_input, one_target = (map_tensors(lambda t: t.unsqueeze(0), s) for s in (inputs, targets))
        return _functional_losses(problem, parameters | params, one_input, one_target).sum()

    each = vmap(grad_and_value(loss), in_dims=(None, 0, 0), randomness="different")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # torch's note to itself
        gradients, losses = each(chosen, *problem.take(rows))
    return torch.cat([g.to(problem.dtype).reshape(len(g), -1) for g in gradients.values()], dim=1), losses


def _uses_hidden(problem: Problem, rows: slice) -> bool:
    """Tell whether the losses still depend on the parameters when others stand in for all of them."""
    losses = _functional_losses(problem, _stand_ins(problem), *problem.take(rows))
    if not losses.requires_grad:
        return False
    found = torch.autograd.grad(losses.sum(), tuple(problem.params.values()), allow_unused=True)
    return any(g is not None for g in found)


def _stand_ins(problem: Problem) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in problem.model.named_parameters()}


def _functional_losses(problem: Problem, parameters: dict[str, Tensor], inputs: Samples, targets: Samples) -> Tensor:
    every = _everywhere(problem.model, parameters)
    # torch's own tie_weights=True would put the stand-ins into a module of two names for good
    outputs = call(lambda *a, **k: functional_call(problem.model, every, a, k, tie_weights=False), inputs)
    return problem.loss_fn(outputs, targets)


def _everywhere(model: nn.Module, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what stands in for parameters and, copied, for buffers, naming each place that holds one once."""
    first = {id(p): parameters[name] for name, p in model.named_parameters()}
    first |= {id(buffer): buffer.clone() for buffer in model.buffers()}
    return {
        f"{prefix}.{name}".lstrip("."): first[id(value)]
        for prefix, module in model.named_modules()
        for name, value in [*module._parameters.items(), *module._buffers.items()]
        if value is not None
    }


def _looped(problem: Problem, rows: slice) -> tuple[Tensor, Tensor]:
    singles = [slice(i, i + 1) for i in range(rows.start, rows.stop)]
    gradients = torch.stack([reference.gradient(problem, single) for single in singles])
    losses = torch.cat([steady_losses(problem, single).detach() for single in singles])
    return gradients.to(problem.dtype), losses
