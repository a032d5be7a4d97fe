"""Notice that a loss draws random numbers, and say where."""

import random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from gradconf.isolation import kept_state
from gradconf.problems import Problem


def steady_losses(problem: Problem, rows: slice) -> Tensor:
    """Evaluate the losses of some samples together, refusing losses that draw random numbers.

    That two evaluations agree would prove nothing: what is dropped one time in a hundred is mostly there.

    Args:
        problem: what is measured, `untouched` by the caller.
        rows: which samples.

    Returns:
        Losses of shape `(n,)`, with their autograd graph.

    Raises:
        ValueError: if random numbers are drawn, naming the first layer that does, or the losses are unusable.
    """
    before = _generators(problem.device)
    with kept_state(problem.model):
        losses = problem.losses(rows)
    if before == _generators(problem.device):
        return losses
    raise ValueError(
        f"the loss draws random numbers{_where(problem, rows)}, so it has no single gradient: call model.eval() first, "
        f"or remove the random step from the model and the loss."
    )


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
        with kept_state(problem.model), torch.no_grad():
            problem.losses(rows)
    finally:
        for hook in hooks:
            hook.remove()
    return f" in the layer '{found[0]}'" if found else ""


def _generators(device: torch.device) -> tuple:
    """Return the state of every global generator a model may draw from."""
    states = [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])
    _, key, *position = tuple(np.random.get_state())
    return *(state.numpy().tobytes() for state in states), random.getstate(), np.asarray(key).tobytes(), *position
