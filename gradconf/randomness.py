"""Notice that a loss draws random numbers, and say where."""

import random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from gradconf.isolation import copied_buffers
from gradconf.problems import Problem

TRIES = 5  # evaluations of a loss that may not be the one that draws


def steady_losses(problem: Problem, rows: slice) -> Tensor:
    """Evaluate the losses of some samples together, refusing losses that draw random numbers.

    That two evaluations agree would prove nothing: what is dropped one time in a hundred is mostly there. So a loss
    must leave the generators alone, or, with a seed of its own, always leave them the same. As other threads may draw
    as well, it gets a few tries.

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
    drawn = {k: state for k, state in enumerate(after) if state != before[k]}
    for _ in range(TRIES if drawn else 0):
        start = _moved_on(problem.device)
        same, now = torch.equal(_losses(problem, rows), losses), _generators(problem.device)
        drawn = {k: state for k, state in drawn.items() if not same or now[k] not in (start[k], state)}
        if not same or not drawn:
            break
    if not drawn:
        return losses
    first = "call model.eval() first, or " if any(module.training for module in problem.model.modules()) else ""
    raise ValueError(
        f"the loss draws random numbers{_where(problem, rows)}, and whether they ever change it, a call cannot tell: "
        f"{first}take the random step out of the model and the loss."
    )


def _losses(problem: Problem, rows: slice) -> Tensor:
    with copied_buffers(problem.model):
        return problem.losses(rows)


def _moved_on(device: torch.device) -> tuple:
    """Draw from every generator, and return their states."""
    for each in {torch.device("cpu"), device}:
        torch.rand(1, device=each)
    random.random(), np.random.rand()
    return _generators(device)


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
