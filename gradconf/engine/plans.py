"""The plan: what is known of a model and its samples, and which path each parameter takes."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradconf.engine import proof
from gradconf.isolation import constant_parameters
from gradconf.problems import Problem
from gradconf.randomness import steady_losses

Key = Callable[[str], str]  # maps a parameter's name to the name of the matrix that it joins
CONTRACT, FORM, FALL_BACK, UNUSED = "contract", "form", "fall back", "unused"


class OtherWay(RuntimeError):
    """The model does not do what it did before, so the plan does not hold.

    Attributes:
        refuted: why rules do not hold for parameters, by name; empty if it is not known for which.
    """

    def __init__(self, reason: str, refuted: dict[str, str] | None = None) -> None:
        """Say why, and for which parameters if that is known."""
        super().__init__(reason)
        self.refuted = refuted or {}


@dataclass
class Path:
    """How one parameter's gradients are handled.

    Attributes:
        name: of the parameter.
        numbers: P of this parameter.
        way: `contract`, `form`, `fall back` or `unused`.
        reason: why, for those that fall back.
        function: the torch function that uses it.
        uses: how many times it is used.
        positions: T.
        pieces: into how many pieces it can be cut.
        held: numbers a sample that its path holds.
        raw: numbers a sample of inputs and output gradients, from which they can be formed later; 0 if they cannot.
        work: operations of its path.
        joins: for a bias that is the weight of one more input, which is always 1: the weights' name.
    """

    name: str
    numbers: int
    way: str = UNUSED
    reason: str = ""
    function: str = ""
    uses: int = 0
    positions: int = 1
    pieces: int = 1
    held: int = 0
    raw: int = 0
    work: float = 0
    joins: str = ""

    @property
    def fast(self) -> bool:
        """Whether rules handle it."""
        return self.way in (CONTRACT, FORM)

    def joined(self, key: Key) -> bool:
        """Tell whether it is a bias that is handled with its weights."""
        return self.joins != "" and key(self.joins) == key(self.name)

    def fall_back(self, reason: str) -> None:
        """Leave it to `torch.func` or a loop."""
        self.way, self.reason, self.held, self.joins = FALL_BACK, reason, self.numbers, ""


@dataclass
class Plan:
    """What is known of a model and its samples.

    Attributes:
        paths: by parameter name.
        samples: N.
        dtype: of the measurement.
        sample: the one that was run alone.
        alone: its loss, with the graph of its gradients, until they have been compared.
        undecided: parameters of which the path is not chosen yet, in order.
        losses: of it and of another sample, each alone, by their number.
        activations: bytes a sample that forward and backward hold.
        claims: what rules say of the gradients of the sample, to be judged.
        hidden: parameters that got a gradient out of the tape's sight.
        silent: uses, by parameter name and number, of which the sample says nothing, and from what size on one does.
        unproven: samples that have to tell of these, by parameter name.
        squares: the squared norms of its gradients, by parameter name.
        calls: signatures of the uses, in order; every later run must have the same.
        others: which parameters no rule can handle: that function's name, and why.
    """

    paths: dict[str, Path]
    samples: int
    dtype: torch.dtype
    sample: int
    alone: Tensor | None
    losses: dict[int, float]
    activations: int
    undecided: dict[str, None] = field(default_factory=dict)
    claims: list[proof.Claim] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)
    silent: dict[tuple[str, int], int] = field(default_factory=dict)
    unproven: dict[str, set[int]] = field(default_factory=dict)
    squares: dict[str, float] = field(default_factory=dict)
    calls: list[tuple] = field(default_factory=list)
    others: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def unused(self) -> set[str]:
        """Parameters that have got no gradient so far."""
        return {name for name, path in self.paths.items() if path.way == UNUSED} - self.undecided.keys()

    def has_loss(self, sample: int, loss: Tensor) -> bool:
        """Tell whether the loss of a sample is the one that it has alone, as far as rounding lets it."""
        relative, absolute = (1e-7, 1e-13) if loss.dtype == torch.float64 else (2e-5, 3e-6)
        if loss.dtype != self.dtype:  # float64 has found that more than this is rounding
            relative = 1e-2
        alone = self.losses[sample]
        return abs(loss.item() - alone) <= relative * abs(alone) + absolute

    @property
    def fallen(self) -> set[str]:
        """Parameters that are left to `torch.func` or a loop."""
        return {name for name, path in self.paths.items() if path.way == FALL_BACK}

    def fall_back(self, reason: str, *names: str) -> None:
        """Leave some parameters to `torch.func` or a loop, and with no names every one."""
        if not names:
            self.alone, self.undecided = None, {}
        for name in names or self.paths:
            self.paths[name].fall_back(reason)
        for path in self.paths.values():
            if path.joins and self.paths[path.joins].way != CONTRACT:
                path.joins = ""  # its weights fall back, so it stands alone


def begin(problem: Problem) -> Plan:
    """Run one sample alone, and another one.

    Args:
        problem: what is measured, `untouched` by the caller.

    Returns:
        A plan in which no path has been decided.

    Raises:
        ValueError: if the model changes its parameters, draws random numbers, or its losses are unusable.
    """
    last = problem.samples - 1
    one = min((problem.samples + 1) // 2, last)  # not the middle one, which stays in place where all are reversed
    with constant_parameters(problem.model):
        losses = {row: steady_losses(problem, slice(row, row + 1)).item() for row in {last} - {one}}
        loss, activations = _weighed(problem, slice(one, one + 1))
    paths = {name: Path(name, p.numel()) for name, p in problem.params.items()}
    losses[one] = loss.item()
    return Plan(paths, problem.samples, problem.dtype, one, loss, losses, activations, undecided=dict.fromkeys(paths))


def _weighed(problem: Problem, row: slice) -> tuple[Tensor, int]:
    """Return the loss of one sample, and the bytes that its backward pass holds, parameters left out."""
    parameters = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in problem.model.parameters()}
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # the tensor itself would be a reference cycle

    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = steady_losses(problem, row)
    except RuntimeError:  # torch.func inside the model does without hooks; then as much as parameters is a guess
        return steady_losses(problem, row), max(1, sum(parameters.values()))
    return loss, max(1, sum(size for place, size in held.items() if place not in parameters))


def sentence(error: Exception) -> str:
    """Return the first line of what an error says."""
    return (str(error) or type(error).__name__).splitlines()[0]
