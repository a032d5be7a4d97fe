"""The plan: which path each parameter takes, found out and checked on a few samples before the work begins.

A few samples run on the tape, and one of them alone without it. A parameter is handled by rules only if the gradient
that they give for this sample, beside the others, is the one that a plain backward pass gives for it alone. So a use
that nobody saw, a rule that does not fit, or samples that are not where the rules look for them cannot go unnoticed.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gradconf.engine.contributions import Contribution, Outer, Rows
from gradconf.engine.rules import RULES
from gradconf.engine.tape import Tape, Use
from gradconf.isolation import constant_parameters, full_precision, steady_losses, untouched
from gradconf.problems import Problem
from gradconf.samples import select

CONTRACT, FORM, FALL_BACK, UNUSED = "contract", "form", "fall back", "unused"
OTHER_GRADIENT = "rules give another gradient than a plain backward pass"


class OtherWay(RuntimeError):
    """The model does not do what it did when it was probed, so the plan does not hold."""


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
    work: float = 0
    joins: str = ""

    @property
    def fast(self) -> bool:
        """Whether rules handle it."""
        return self.way in (CONTRACT, FORM)

    def fall_back(self, reason: str) -> None:
        """Leave it to `torch.func` or a loop."""
        self.way, self.reason, self.held = FALL_BACK, reason, self.numbers


@dataclass
class Plan:
    """What the probe found out.

    Attributes:
        paths: by parameter name.
        losses: of some samples run alone, by their number.
        sample: the one of them of which the gradient was computed.
        squared: the squared norm of its gradient with respect to what rules handle.
        calls: signatures of the uses, in order; every later run must have the same.
        others: which parameters reach functions without a rule; the same then too.
        activations: bytes a sample that forward and backward hold.
    """

    paths: dict[str, Path]
    losses: dict[int, float]
    sample: int
    squared: float = 0.0
    calls: list[tuple] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)
    activations: int = 1

    def fall_back(self, reason: str) -> None:
        """Leave every parameter to `torch.func` or a loop."""
        for path in self.paths.values():
            path.fall_back(reason)


def make_plan(problem: Problem) -> Plan:
    """Run a few samples together, and one of them alone, and decide.

    Where float32 disagrees with itself, as it may once losses are small differences of large numbers, float64 decides.

    Args:
        problem: what is measured.

    Returns:
        The plan.

    Raises:
        ValueError: if the model changes its parameters, draws random numbers, or its losses are unusable.
    """
    last, middle = problem.samples - 1, problem.samples // 2
    with constant_parameters(problem.model), full_precision(problem.device):
        losses = {row: steady_losses(problem, slice(row, row + 1)) for row in (last, middle)}
        one = torch.ones_like(losses[middle])
        found = torch.autograd.grad(losses[middle], tuple(problem.params.values()), one, allow_unused=True)
    alone = dict(zip(problem.params, found, strict=True))
    paths = {name: Path(name, p.numel()) for name, p in problem.params.items()}
    plan = Plan(paths, {row: loss.item() for row, loss in losses.items()}, middle)
    try:
        doubtful = _probe(plan, _subset(problem, [middle, last]), alone, problem.samples)
        if doubtful and problem.dtype == torch.float32:
            plan = replace(make_plan(problem.double()), activations=plan.activations, squared=math.nan)
    except Exception as error:  # whatever a tape does to a model that nobody has foreseen
        plan.fall_back(_sentence(error))
    return plan


def record(problem: Problem, rows: slice) -> tuple[Tape, Tensor]:
    """Run some samples forward on a tape.

    Args:
        problem: what is measured.
        rows: which samples.

    Returns:
        The tape, and the losses of shape `(n,)`.
    """
    tape = Tape({id(p): name for name, p in problem.model.named_parameters() if p.requires_grad})
    with tape:
        return tape, problem.losses(rows)


def trainable(problem: Problem) -> list[Tensor]:
    """Return the parameters that may get a gradient out of the tape's sight."""
    return [p for p in problem.model.parameters() if p.requires_grad]


def signature(use: Use, n: int, paths: dict[str, Path]) -> tuple:
    """Return what must be the same in each run: function, parameters, and the output's shape a sample."""
    fast = any(name in paths and paths[name].fast for name in use.roles.values())
    shape = (use.shape[0] / n, *use.shape[1:]) if fast and use.shape else ()
    return use.function, tuple(use.roles.items()), shape


@torch.no_grad()
def contributions(use: Use, d: Tensor, n: int) -> dict[str, Contribution]:
    """Return what a use contributes, by parameter name."""
    if use.version != sum(v._version for v in use.inputs):
        raise OtherWay("the input of a layer is changed in place after it")
    found = RULES[use.function][1](use.call | {"parameters": set(use.roles)}, d, n)
    return {use.roles[role]: contribution for role, contribution in found.items() if role in use.roles}


def same(value: float, other: float, dtype: torch.dtype) -> bool:
    """Tell whether two ways to one loss agree, as far as rounding lets them."""
    return abs(value - other) <= (1e-2 * abs(other) + 1e-5 if dtype == torch.float32 else 1e-7 * abs(other) + 1e-13)


def _subset(problem: Problem, rows: list[int]) -> Problem:
    inputs, targets = (select(samples, torch.tensor(rows)) for samples in (problem.inputs, problem.targets))
    return replace(problem, inputs=inputs, targets=targets, samples=len(rows))


def _probe(plan: Plan, probe: Problem, alone: dict[str, Tensor | None], samples: int) -> bool:
    """Run the probe on a tape, choose each parameter's path, and tell whether something did not agree."""
    n, found = probe.samples, {name: [] for name in plan.paths}

    def seen(use: Use, d: Tensor) -> None:
        try:
            taken = contributions(use, d, n)
        except Exception as error:  # a rule may meet a call that it was not made for
            taken, reason = {}, _sentence(error)
            for name in plan.paths.keys() & set(use.roles.values()):
                plan.paths[name].reason = reason
        for name in found.keys() & set(use.roles.values()):
            found[name].append((use, taken.get(name)))

    with untouched(probe.model):
        tape, losses, saved = _measured(probe)
        tape.seen = seen
        torch.autograd.grad(losses.sum(), [*tape.leaves, *trainable(probe)], allow_unused=True)
    plan.others = tape.others
    plan.activations = max(1, saved // n)
    doubtful = not same(losses[0].item(), plan.losses[plan.sample], losses.dtype)
    for name, path in plan.paths.items():
        uses, taken = ([item[k] for item in found[name]] for k in (0, 1))
        plan.squared += _decide(path, uses, taken, alone[name], tape.others.get(name), alone.values())
        doubtful |= path.reason == OTHER_GRADIENT
        if path.fast:
            _choose(path, taken, samples)
    _join(plan, {name: items[0][1] for name, items in found.items() if plan.paths[name].fast and len(items) == 1})
    plan.calls = [signature(use, n, plan.paths) for use in tape.uses]
    return doubtful


def _join(plan: Plan, once: dict[str, Contribution]) -> None:
    """Let biases join weights that are contracted, among the parameters that are used once."""
    weights = {id(taken): name for name, taken in once.items() if plan.paths[name].way == CONTRACT}
    for name, taken in once.items():
        if isinstance(taken, Rows):
            plan.paths[name].joins = weights.get(id(taken.joins), "")


def _measured(problem: Problem) -> tuple[Tape, Tensor, int]:
    """Run all samples on a tape; return it, their losses, and the bytes that wait for the backward pass."""
    held = {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # the tensor itself would be a reference cycle

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        tape, losses = record(problem, slice(0, problem.samples))
    for tensor in (tensor for use in tape.uses for tensor in use.inputs):
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    for p in problem.model.parameters():
        held.pop(p.untyped_storage().data_ptr(), None)
    return tape, losses, sum(held.values())


@torch.no_grad()
def _decide(
    path: Path,
    uses: list[Use],
    taken: list[Contribution | None],
    gradient: Tensor | None,
    other: str | None,
    whole: Iterable[Tensor | None],
) -> float:
    """Compare what rules give for the first sample with its gradient, and return that gradient's squared norm."""
    path.uses, path.function = len(uses), getattr(uses[0].function, "__name__", "") if uses else other or ""
    if other is not None:
        path.fall_back(f"{other} has no rule")
    elif not uses and gradient is not None:
        path.fall_back("it is used out of sight")
    elif None in taken:
        path.fall_back(path.reason or f"the rule of {path.function} does not cover this call")
    elif uses:
        gradient = torch.zeros(path.numbers, device=taken[0].exponent.device) if gradient is None else gradient
        error, norm = _difference([contribution.sample(0) for contribution in taken], gradient)
        near, nothing = (1e-2, 1e-6) if gradient.dtype == torch.float32 else (1e-7, 1e-13)
        # rounding may be all there is of a gradient, such as that of a bias that a softmax does not feel
        if error > near * norm and error > nothing * math.hypot(*(g.norm().item() for g in whole if g is not None)):
            path.fall_back(OTHER_GRADIENT)
        elif norm == 0 and any(use.shape[0] != len(taken[0].exponent) for use in uses):
            path.fall_back("the gradient of the sample to check it on is zero")
        else:
            path.way = FORM
            return norm**2
    return 0.0


def _difference(taken: list[Contribution], gradient: Tensor) -> tuple[float, float]:
    """Return the norms of the difference between a gradient and what contributions give, and of the gradient."""
    power = max(int(contribution.exponent) for contribution in taken)
    rest = (gradient * math.ldexp(1.0, -power)).contiguous()
    norm = math.ldexp(rest.norm().item(), power)
    for contribution in taken:
        if isinstance(contribution, Outer) and contribution.dense(rest.numel()):  # as below, without forming
            a, d = contribution.a[0, 0], contribution.d[0, 0] * math.ldexp(1.0, -power)
            rest.view(len(d), len(a)).addmm_(d, a.T, alpha=-1)
            continue
        formed = contribution.rows(0, contribution.pieces)
        if formed.numel() != rest.numel():
            return math.inf, norm
        rest.sub_(formed.reshape(rest.shape), alpha=math.ldexp(1.0, int(contribution.exponent) - power))
    return math.ldexp(rest.norm().item(), power), norm


def _choose(path: Path, taken: list[Contribution], n: int) -> None:
    """Take the way that costs less for N samples."""
    path.way, path.pieces = FORM, taken[0].pieces
    path.held, path.work = path.numbers, n * n * path.numbers
    if not isinstance(taken[0], Outer):
        return
    _, groups, outer, path.positions = taken[0].d.shape
    form = path.numbers * n * (n + 2 * path.positions * len(taken))
    contract = groups * (n * path.positions) ** 2 * (outer + taken[0].inner)
    path.work = form
    if len(taken) == 1 and contract * (1.0 if path.positions == 1 else 1.5) < form:
        path.way, path.work, path.held = CONTRACT, contract, groups * (outer + taken[0].inner) * path.positions


def _sentence(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
