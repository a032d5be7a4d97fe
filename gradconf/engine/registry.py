"""The register of rules, by torch function: how to teach the engine a function of your own.

A rule takes the call's arguments by name (and under `"parameters"` the names of those that are parameters), the
gradient `d` of the call's output, shape `(N r, ...)`, and the number of samples N; it returns a contribution for each
parameter that it knows how to handle. At each measurement one sample's gradients are compared with those of a plain
backward pass, and a rule that is wrong for it is not used; compare a rule of your own with `gradconf.reference.gram`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from gradconf.engine.contributions import Contribution

Call = Mapping[str, Any]
Contributions = dict[str, Contribution]
Rule = Callable[[Call, Tensor, int], Contributions]
RULES: dict[Callable, tuple[tuple[str, ...], Rule]] = {}


def rule(function: Callable, names: str) -> Callable[[Rule], Rule]:
    """Register the rule of a torch function.

    Args:
        function: as called in a model's forward pass, e.g. `torch.nn.functional.linear`; one of your own is made
            visible by `torch.overrides.wrap_torch_function`.
        names: names of its positional arguments, separated by spaces.

    Returns:
        A decorator for the rule.

    Example:
        >>> import torch
        >>> from gradconf.engine import Rows, rule
        >>> @torch.overrides.wrap_torch_function(lambda x, scale: (x, scale))
        ... def amplify(x, scale):  # (N, C), (C,)
        ...     return x * scale.exp()
        >>> @rule(amplify, "x scale")
        ... def _amplify(call, d, n):
        ...     return {"scale": Rows(d * call["x"] * call["scale"].exp())}
    """

    def register(it: Rule) -> Rule:
        RULES[function] = (tuple(names.split()), it)
        return it

    return register


def bind(function: Callable, args: tuple, kwargs: dict) -> dict[str, Any] | None:
    """Name the arguments of a call, or return None where the function has no rule."""
    if function not in RULES:
        return None
    return dict(zip(RULES[function][0], args, strict=False)) | kwargs
