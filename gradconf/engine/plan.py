"""The plan: which path each parameter takes, by what it costs and by whether rules are proved to hold for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradconf.engine import proof
from gradconf.engine.contributions import Contribution, Outer, Rows
from gradconf.engine.rules import RULES
from gradconf.engine.tape import Use
from gradconf.isolation import constant_parameters, steady_losses
from gradconf.problems import Problem

Uses = list[tuple[Use, Contribution | None]]  # with what each contributes, None where there is no rule
OUT_OF_SIGHT = "it is used out of sight"
CONTRACT, FORM, FALL_BACK, UNUSED = "contract", "form", "fall back", "unused"


class OtherWay(RuntimeError):
    """The model does not do what it did before, so the plan does not hold."""


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
        refuted: why rules do not hold for parameters, as such samples told.
        squares: the squared norms of its gradients, by parameter name.
        calls: signatures of the uses, in order; every later run must have the same.
        others: which parameters reach functions without a rule; the same then too.
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
    refuted: dict[str, str] = field(default_factory=dict)
    squares: dict[str, float] = field(default_factory=dict)
    calls: list[tuple] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)

    @property
    def unused(self) -> set[str]:
        """Parameters that have got no gradient so far."""
        return {name for name, path in self.paths.items() if path.way == UNUSED} - self.undecided.keys()

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
    held = {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor.detach()  # the tensor itself would be a reference cycle

    with constant_parameters(problem.model):
        losses = {row: steady_losses(problem, slice(row, row + 1)).item() for row in {last} - {one}}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = steady_losses(problem, slice(one, one + 1))
    for p in problem.model.parameters():
        held.pop(p.untyped_storage().data_ptr(), None)
    paths = {name: Path(name, p.numel()) for name, p in problem.params.items()}
    losses[one] = loss.item()
    activations = max(1, sum(held.values()))
    return Plan(paths, problem.samples, problem.dtype, one, loss, losses, activations, undecided=dict.fromkeys(paths))


def same(value: float, other: float, dtype: torch.dtype) -> bool:
    """Tell whether two ways to one loss agree, as far as rounding lets them."""
    return abs(value - other) <= (1e-2 * abs(other) + 1e-5 if dtype == torch.float32 else 1e-7 * abs(other) + 1e-13)


@torch.no_grad()
def contribute(use: Use, d: Tensor, n: int) -> dict[str, Contribution]:
    """Return what a use contributes, by parameter name."""
    if use.version != sum(v._version for v in use.inputs):
        raise OtherWay("the input of a layer is changed in place after it")
    found = RULES[use.function][1](use.call | {"parameters": set(use.roles)}, d, n)
    return {use.roles[role]: contribution for role, contribution in found.items() if role in use.roles}


@torch.no_grad()
def decide(plan: Plan, name: str, uses: Uses, row: int, n: int) -> None:
    """Choose a parameter's path.

    Args:
        plan: where it is noted, with what is to be judged.
        name: of the parameter.
        uses: all its uses that a gradient reached, and what they contribute, None where there is no rule.
        row: where the sample that was run alone is among those that contribute.
        n: how many contribute.
    """
    path, other = plan.paths[name], plan.others.get(name)
    plan.undecided.pop(name)
    taken = [contribution for _, contribution in uses if contribution is not None]
    path.uses, path.function = len(uses), getattr(uses[0][0].function, "__name__", "") if uses else other or ""
    if other is not None:
        path.fall_back(f"{other} has no rule")
    elif len(taken) < len(uses):
        path.fall_back(path.reason or f"the rule of {path.function} does not cover this call")
    elif len({contribution.axis for contribution in taken}) > 1:
        path.fall_back("its uses are cut into pieces differently")
    elif uses:
        in_rows = all(use.shape[0] == n for use, _ in uses)
        plan.claims.append(proof.Claim.of(name, taken, row, in_rows=in_rows, numbers=path.numbers))
        _choose(path, taken, plan.samples)


def join(plan: Plan, ready: dict[str, Uses]) -> None:
    """Let biases join weights that are contracted, among parameters of one call that are used once."""
    once = {name: uses[0][1] for name, uses in ready.items() if len(uses) == 1 and plan.paths[name].fast}
    weights = {id(taken): name for name, taken in once.items() if plan.paths[name].way == CONTRACT}
    for name, taken in once.items():
        if isinstance(taken, Rows):
            plan.paths[name].joins = weights.get(id(taken.joins), "")


def judge(plan: Plan, problem: Problem, samples: Sequence[int]) -> set[str]:
    """Let parameters fall back whose gradients by rules are not those of the sample alone.

    Args:
        plan: with what rules say.
        problem: what is measured.
        samples: which samples contributed.

    Returns:
        The reasons.
    """
    loss, plan.alone = plan.alone, None
    if loss is None:
        return set()
    found = torch.autograd.grad(loss, tuple(problem.params.values()), torch.ones_like(loss), allow_unused=True)
    gradients: dict[str, Tensor | None] = dict(zip(problem.params, found, strict=True))
    hidden = plan.hidden | {
        name for name, one in gradients.items() if one is not None and plan.paths[name].way == UNUSED
    }
    reasons = {OUT_OF_SIGHT for name in hidden if plan.paths[name].fast}
    for name in hidden:
        plan.fall_back(OUT_OF_SIGHT, name)
    claims = [claim for claim in plan.claims if claim.name not in hidden]
    for claim, norm, nothing, reason in proof.judged(claims, gradients, plan.dtype):
        if reason:
            reasons.add(reason)
            plan.fall_back(reason, claim.name)
            continue
        plan.squares[claim.name] = norm**2
        plan.silent |= {(claim.name, k): size for k, size in claim.silent(norm=norm, nothing=nothing).items()}
        seek(plan, claim.name, claim.sizes, samples)
    plan.claims.clear()
    return reasons


def seek(plan: Plan, name: str, sizes: list[tuple[Tensor, ...]], samples: Sequence[int]) -> None:
    """Find samples that have to tell whether rules hold for a parameter, where the one that was run alone does not."""
    for k in [k for k in range(len(sizes)) if (name, k) in plan.silent]:
        known = {samples.index(one) for rows in plan.unproven.values() for one in rows if one in samples}
        row = proof.witness(sizes[k], plan.silent[name, k], sorted(known))
        if row is not None:
            del plan.silent[name, k]
            plan.unproven.setdefault(name, set()).add(samples[row])


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
    if len(taken) > 1:
        return
    path.raw = taken[0].inputs + taken[0].d[0].numel()
    if contract * (1.0 if path.positions == 1 else 1.5) < form:
        path.way, path.work, path.held = CONTRACT, contract, groups * (outer + taken[0].inner) * path.positions


def sentence(error: Exception) -> str:
    """Return the first line of what an error says."""
    return (str(error) or type(error).__name__).splitlines()[0]
