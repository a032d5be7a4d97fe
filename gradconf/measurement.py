"""One call from a model to its confusion, and a table of what that call does."""

from collections.abc import Iterable

import pandas as pd
from torch import Tensor, nn

from gradconf.engine.plans import CONTRACT
from gradconf.engine.work import make_plan
from gradconf.grams import gram
from gradconf.problems import LossFunction, pose_alone
from gradconf.samples import Samples
from gradconf.statistics import Confusion, confusion


def measure(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Samples,
    targets: Samples,
    *,
    params: Iterable[str] | None = None,
    max_memory: int | None = None,
) -> Confusion:
    """Measure the confusion of a model's per-sample gradients: `confusion(gram(...))`.

    Args:
        model: as in `gram`.
        loss_fn: as in `gram`.
        inputs: as in `gram`.
        targets: as in `gram`; whole numbers of shape `(N,)` are taken for classes, which tell pairs within a class
            from pairs between classes.
        params: as in `gram`.
        max_memory: as in `gram`.

    Returns:
        The confusion bound, the distribution of the cosines, and related measures.

    Raises:
        TypeError: as in `gram`.
        ValueError: as in `gram`, or if there is only one sample.
        MemoryError: as in `gram`.
    """
    products = gram(model, loss_fn, inputs, targets, params=params, max_memory=max_memory)
    if isinstance(targets, Tensor) and targets.dim() == 1 and not targets.is_floating_point():
        return confusion(products, labels=targets)
    return confusion(products)


def explain(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Samples,
    targets: Samples,
    *,
    params: Iterable[str] | None = None,
) -> pd.DataFrame:
    """Show how `gram` would handle each parameter, without computing K.

    `contract` needs no per-sample gradients, `form` makes those of one parameter at a time, `fall back` makes them by
    `torch.func` or a loop, `unused` has none. Two samples decide: what only others show, such as an expert that neither
    of them takes, `gram` sees for itself.

    Args:
        model: as in `gram`.
        loss_fn: as in `gram`.
        inputs: as in `gram`.
        targets: as in `gram`.
        params: as in `gram`.

    Returns:
        A row a parameter, with the path and why it falls back, the torch function that uses it and how often,
        positions T, numbers P, the work in GFLOP (of forming or contracting, and of the matrix product), and the MiB
        held for it.

    Raises:
        TypeError: as in `gram`.
        ValueError: as in `gram`.
    """
    problem = pose_alone(model, loss_fn, inputs, targets, params=params)
    table = pd.DataFrame(
        {
            "parameter": path.name,
            "path": CONTRACT if path.joins else path.way,
            "reason": f"as one more input of {path.joins}" if path.joins else path.reason,
            "function": path.function,
            "uses": path.uses,
            "positions": path.positions,
            "numbers": path.numbers,
            "GFLOP": path.work / 1e9,
            "MiB": path.held * problem.samples * problem.dtype.itemsize / 2**20,
        }
        for path in make_plan(problem).paths.values()
    )
    return table.set_index("parameter")
