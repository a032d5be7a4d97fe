"""Notice that samples influence each other, and say where."""

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook

from gradconf.isolation import untouched
from gradconf.problems import Problem

JOINT_SAMPLES = 256  # samples evaluated together, to notice whether they influence each other


def refuse_mixing(problem: Problem, alone: Tensor, together: Tensor, first: int) -> None:
    """Refuse samples whose losses change with the samples beside them.

    Where float32 disagrees, float64 decides: losses that are small differences of large numbers lose digits.

    Args:
        problem: what is measured.
        alone: losses of samples evaluated alone, shape `(n,)`.
        together: losses of the same samples evaluated with others, shape `(n,)`.
        first: the first of these samples.

    Raises:
        ValueError: naming such a sample and, if it can be told, the first layer that mixes.
    """
    relative, absolute = (1e-6, 1e-10) if alone.dtype == torch.float64 else (2e-5, 3e-6)
    if torch.allclose(alone, together, rtol=relative, atol=absolute):
        return
    worst = int((alone - together).abs().argmax()) + first
    exact = problem if alone.dtype == torch.float64 else problem.double()
    start = max(0, min(worst, problem.samples - JOINT_SAMPLES))
    with untouched(exact.model), torch.no_grad():
        single, found_alone = _outputs(exact, slice(worst, worst + 1))
        joint, found_together = _outputs(exact, slice(start, start + JOINT_SAMPLES))
    if alone.dtype == torch.float64 or not torch.allclose(single[0], joint[worst - start], rtol=1e-6, atol=1e-10):
        where = _first_difference(found_alone, found_together, worst - start, len(joint))
        raise ValueError(
            f"the loss of sample {worst} changes with the samples beside it{where}, so a per-sample gradient does not "
            f"exist: take out what mixes samples, or measure whole batches with minibatch_gram."
        )


def _outputs(problem: Problem, rows: slice) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the losses of some samples, and what each module returned, by name in the order of completion."""
    names = {module: name for name, module in problem.model.named_modules() if name}
    found: dict[str, Tensor] = {}

    def note(module: torch.nn.Module, _: tuple, output: Tensor) -> None:
        if module in names and isinstance(output, Tensor):
            found.setdefault(names[module], output.clone())

    hook = register_module_forward_hook(note)
    try:
        return problem.losses(rows), found
    finally:
        hook.remove()


def _first_difference(alone: dict[str, Tensor], together: dict[str, Tensor], row: int, n: int) -> str:
    for name, one in alone.items():
        many = together.get(name)
        if many is None or one.shape[:1] != (1,) or many.shape != (n, *one.shape[1:]):
            continue  # not comparable
        if not torch.allclose(one[0], many[row], rtol=1e-6, atol=1e-10):
            return f", from the layer '{name}' on"
    return ""
