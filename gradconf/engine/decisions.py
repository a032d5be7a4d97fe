"""Which path each parameter takes: by what it costs, and by whether rules are proved to hold for it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradconf.engine import proof
from gradconf.engine.contributions import Contribution, Rows
from gradconf.engine.outer import Outer
from gradconf.engine.plans import CONTRACT, FORM, UNUSED, OtherWay, Path, Plan
from gradconf.engine.registry import RULES
from gradconf.engine.tape import Use
from gradconf.problems import Problem

Uses = list[tuple[Use, Contribution | None]]  # with what each contributes, None where there is no rule
OUT_OF_SIGHT = "it is used out of sight"


@torch.no_grad()
def contribute(use: Use, d: Tensor, n: int) -> dict[str, Contribution]:
    """Return what a use contributes, by parameter name."""
    if use.version != sum(v._version for v in use.inputs):
        raise OtherWay("the input of a layer is changed in place after it")
    if d.dim() == 0 or len(d) % n:
        raise OtherWay("the first dimension of its output is not that of samples")
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
    path, (other, why) = plan.paths[name], plan.others.get(name, ("", ""))
    plan.undecided.pop(name)
    taken = [contribution for _, contribution in uses if contribution is not None]
    path.uses, path.function = len(uses), getattr(uses[0][0].function, "__name__", "") if uses else other
    if why:
        path.fall_back(why)
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
