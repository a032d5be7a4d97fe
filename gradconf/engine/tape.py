"""The tape: sees every torch function that receives a parameter while a model runs.

Parameters reach their functions detached, so autograd never forms the batch's own weight gradients. What is recorded
is the call and, during the backward pass, its output's gradient, from which a rule derives what the use contributes.
Keyed by function, not by module, so that tied weights and functional calls are seen too.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gradconf.engine.places import SEQUENCES, flat, may_move
from gradconf.engine.registry import bind

DETACHING = (torch.Tensor.detach, torch.detach, torch.Tensor.data.__get__)  # type: ignore[attr-defined]


@dataclass(eq=False)
class Use:
    """One call of a torch function that has a rule, with parameters among its arguments.

    Attributes:
        position: 0 for the first on the tape.
        function: what was called.
        call: its arguments by name, parameters detached.
        roles: names of the parameters by argument name.
        version: of the inputs when they were used, to notice that they were changed in place after.
        shape: of the output.
        edge: where the gradient of the output passes in the backward pass.
    """

    position: int
    function: Callable
    call: dict[str, Any]
    roles: dict[str, str]
    version: int
    shape: torch.Size
    edge: Any = None

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors among the arguments that are not parameters."""
        return [v for role, v in self.call.items() if isinstance(v, Tensor) and role not in self.roles]


@dataclass(eq=False)
class Tape(TorchFunctionMode):
    """Record the uses of parameters while active.

    Attributes:
        names: parameter names by `id`.
        samples: how many run together.
        seen: called in the backward pass with each use and the gradient of its output.
        uses: all uses with a rule that a gradient can reach, in order.
        others: names of parameters that no rule can handle: the function that they reached, and why.
        leaves: where the backward pass ends.
        moves: whether the model called something by which samples may have changed places.
    """

    names: dict[int, str]
    samples: int
    seen: Callable[[Use, Tensor], None] | None = None
    uses: list[Use] = field(default_factory=list)
    others: dict[str, tuple[str, str]] = field(default_factory=dict)
    leaves: list[Tensor] = field(default_factory=list)
    moves: bool = False

    def __post_init__(self) -> None:
        """Set up the mode below the dataclass."""
        super().__init__()

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run a torch function, with parameters detached, and record it if it has some."""
        kwargs = kwargs or {}
        found = {self.names[id(v)]: v for v in flat((args, kwargs)) if id(v) in self.names}
        if not found or not torch.is_grad_enabled():
            self.moves = self.moves or (not found and may_move(func, args, kwargs, self.samples))
            return func(*args, **kwargs)
        transformed = torch._C._functorch.peek_interpreter_stack() is not None  # by vmap, grad, ... inside the model
        call = None if transformed else bind(func, args, kwargs)
        roles = {role: self.names[id(v)] for role, v in (call or {}).items() if id(v) in self.names}
        if set(roles.values()) != set(found):
            name = "torch.func" if transformed else getattr(func, "__name__", str(func))
            return self._other(func, name, found, func(*args, **kwargs))
        alone = {id(p): p.detach() for p in found.values()}
        output = func(*_replaced(args, alone), **_replaced(kwargs, alone))
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return output
        return self._record(func, _replaced(call, alone), roles, output)

    def _other(self, func: Callable, name: str, found: dict[str, Tensor], output: Any) -> Any:
        """Note the parameters of a function without a rule, save where it computes nothing with them."""
        computed = any(isinstance(v, Tensor) and v.is_floating_point() for v in flat(output))
        nothing_done = any(output is p for p in found.values())  # .to(), .contiguous() and the like
        if computed and not nothing_done and func not in DETACHING:
            self.others |= dict.fromkeys(found, (name, f"{name} has no rule"))
        return output

    def _record(self, func: Callable, call: dict[str, Any], roles: dict[str, str], output: Tensor) -> Tensor:
        if func is F.embedding and self._is_shared(call["input"]):
            axis = call["input"].dim() - 1
            call["input"], output = (t.expand(self.samples, *t.shape[axis:]) for t in (call["input"], output))
        use = Use(len(self.uses), func, call, roles, 0, output.shape)
        use.version = sum(v._version for v in use.inputs)
        self.uses.append(use)
        if not output.requires_grad:
            leaf = output.detach().requires_grad_()
            self.leaves.append(leaf)
            output = torch.ops.aten._unsafe_view(leaf, leaf.shape)  # an in-place activation may follow
            leaf.data = leaf.new_empty(0)  # it only marks the end; the view alone holds the values
        elif output._is_view():  # the same
            of_own = func is F.linear  # a view of what nobody else holds
            output = torch.ops.aten._unsafe_view(output, output.shape) if of_own else output.clone()
        use.edge = torch.autograd.graph.get_gradient_edge(output)
        tape, position = weakref.ref(self), use.position  # held here, the graph would keep itself alive
        output.register_hook(lambda d: tape()._reached(position, d))  # type: ignore[union-attr]
        return output

    def _is_shared(self, indices: Tensor) -> bool:
        """Tell whether these are positions that all samples share, of shape `(1, T)` or `(T,)`."""
        if indices.dim() == 1 and len(indices) != self.samples:
            return torch.equal(indices, torch.arange(len(indices), device=indices.device))
        return indices.dim() == 2 and len(indices) == 1 < self.samples

    def _reached(self, position: int, d: Tensor) -> None:
        use = self.uses[position]
        if self.seen is not None:
            self.seen(use, d)
        elif torch.is_grad_enabled():  # the model takes a gradient, of which the loss takes another one
            self.others |= dict.fromkeys(use.roles.values(), ("autograd.grad", "autograd.grad has no rule"))


def _replaced(values: Any, others: dict[int, Tensor]) -> Any:
    if isinstance(values, dict):
        return {k: _replaced(v, others) for k, v in values.items()}
    if isinstance(values, SEQUENCES) and not hasattr(values, "_fields"):
        return type(values)(_replaced(v, others) for v in values)
    return others.get(id(values), values)
