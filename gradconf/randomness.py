"""Notice that a loss draws random numbers, and say where."""

import random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from gradconf.isolation import copied_buffers
from gradconf.problems import Problem


def steady_losses(problem: Problem, rows: slice) -> Tensor:
    """Evaluate the losses of some samples together, refusing losses that draw random numbers.

    That two evaluations agree would prove nothing: what is dropped one time in a hundred is mostly there. Only a model
    that sets a seed of its own, and so leaves a generator the same wherever it was before, may draw.

    Args:
        problem: what is measured, `untouched` by the caller.
        rows: which samples.

    Returns:
        Losses of shape `(n,)`, with their autograd graph.

    Raises:
        ValueError: if random numbers are drawn, naming the first layer that does, or the losses are unusable.
    """
    before = _generators(problem.device)
    losses = _losses(problem, rows)
    after = _generators(problem.device)
    drawn = [k for k, state in enumerate(before) if state != after[k]]
    if not drawn or _has_own_seed(problem, rows, losses, {k: after[k] for k in drawn}):
        return losses
    first = "call model.eval() first, or " if any(module.training for module in problem.model.modules()) else ""
    raise ValueError(
        f"the loss draws random numbers{_where(problem, rows)}, and whether they ever change it, a call cannot tell: "
        f"{first}take the random step out of the model and the loss."
    )


def _losses(problem: Problem, rows: slice) -> Tensor:
    with copied_buffers(problem.model):
        return problem.losses(rows)


def _has_own_seed(problem: Problem, rows: slice, losses: Tensor, after: dict[int, object]) -> bool:
    """Tell whether losses, and generators, by number, are the same again after generators were moved on."""
    for device in {torch.device("cpu"), problem.device}:
        torch.rand(1, device=device)
    random.random(), np.random.rand()
    again = torch.equal(_losses(problem, rows), losses)
    now = _generators(problem.device)
    return again and all(now[k] == state for k, state in after.items())


def _where(problem: Problem, rows: slice) -> str:
    """Name the first of the innermost modules that draw, or return nothing."""
    names = {module: name for name, module in problem.model.named_modules() if name}
    entered: list[tuple] = []
    found: list[str] = []

    def enter(module: nn.Module, _: tuple) -> None:
        entered.append(_generators(problem.device))

    def leave(module: nn.Module, _: tuple, __: object) -> None:
        if entered.pop() == start and _generators(problem.device) != start and module in names:
            found.append(names[module])

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    start = _generators(problem.device)
    try:
        with torch.no_grad():
            _losses(problem, rows)
    finally:
        for hook in hooks:
            hook.remove()
    return f" in the layer '{found[0]}'" if found else ""


def _generators(device: torch.device) -> tuple:
    """Return the state of every global generator a model may draw from."""
    states = [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])
    _, key, *position = tuple(np.random.get_state())
    return *(s.numpy().tobytes() for s in states), random.getstate(), (np.asarray(key).tobytes(), *position)
