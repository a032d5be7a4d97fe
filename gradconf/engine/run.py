"""The work: a pass over all samples at once where that fits, else passes over blocks of them, and what falls back."""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from gradconf.engine.accumulator import Accumulator
from gradconf.engine.contributions import exponents, scaled
from gradconf.engine.passes import PIECE, Key, Pass, Piece, PlannedPass, joined, pieces, sentence
from gradconf.engine.plan import CONTRACT, FALL_BACK, FORM, OTHER_GRADIENT, OtherWay, Path, Plan, begin, judge
from gradconf.gradients import per_sample_gradients
from gradconf.isolation import untouched
from gradconf.memory import bundles, size
from gradconf.mixing import JOINT_SAMPLES
from gradconf.problems import Problem
from gradconf.samples import select

# Shares of max_memory: activations if all samples run at once; else those of a block, what is held, what is formed.
AT_ONCE, BLOCK, GROUP, FORMED = 1 / 2, 1 / 4, 5 / 8, 1 / 16


def grams(problem: Problem, key: Key, *, max_memory: int) -> dict[str, torch.Tensor]:
    """Compute one Gram matrix a key.

    Args:
        problem: what is measured.
        key: maps a parameter's name to the name of the matrix that it joins.
        max_memory: bytes of activations and gradients to hold at a time.

    Returns:
        Matrices by key, float64, shape `(N, N)`.

    Raises:
        MemoryError: if not even one sample, or one piece of one parameter, fits.
        ValueError: if there are no per-sample gradients.
    """
    plan = begin(problem)
    if _all_fits(problem, plan, max_memory):
        try:
            return _directly(problem, plan, key, max_memory)
        except Exception:  # whatever a tape does to a model that nobody has foreseen; what follows will tell
            plan = begin(problem)
    plan = _probed(problem, plan)
    try:
        return _as_planned(problem, plan, key, max_memory)
    except OtherWay as reason:
        plan.fall_back(str(reason))
        return _as_planned(problem, plan, key, max_memory)


def make_plan(problem: Problem) -> Plan:
    """Decide by a few samples; where float32 disagrees with itself, by the same in float64.

    Args:
        problem: what is measured.

    Returns:
        The plan.

    Raises:
        ValueError: if the model changes its parameters, draws random numbers, or its losses are unusable.
    """
    return _probed(problem, begin(problem))


def _probed(problem: Problem, plan: Plan) -> Plan:
    few = [plan.sample, problem.samples - 1]
    inputs, targets = (select(samples, torch.tensor(few)) for samples in (problem.inputs, problem.targets))
    probe = replace(problem, inputs=inputs, targets=targets, samples=2)
    try:
        with untouched(problem.model):
            Pass(probe, plan, dict(zip(few, (0, 1), strict=True))).run()
        doubtful = OTHER_GRADIENT in judge(plan)
    except Exception as error:
        plan.fall_back(sentence(error))
        doubtful = isinstance(error, OtherWay)
    if doubtful and problem.dtype == torch.float32:  # losses that are small differences of large numbers, say
        exact = make_plan(problem.double())
        return replace(exact, activations=plan.activations, squared=math.nan)
    return plan


def _all_fits(problem: Problem, plan: Plan, max_memory: int) -> bool:
    """Tell whether the activations of all samples and the gradients of any one parameter fit."""
    largest = max(path.numbers for path in plan.paths.values()) * problem.samples * problem.dtype.itemsize
    return plan.activations * problem.samples <= AT_ONCE * max_memory and largest <= BLOCK * max_memory


def _directly(problem: Problem, plan: Plan, key: Key, max_memory: int) -> dict[str, torch.Tensor]:
    """Decide and work in one pass."""
    total = Accumulator(problem.samples, problem.device)
    with untouched(problem.model):
        Pass(problem, plan, {sample: sample for sample in plan.losses}, key, total).run()
        if judge(plan):
            raise OtherWay("what was added is not to be trusted")
        return _completed(problem, plan, key, total, max_memory)


def _as_planned(problem: Problem, plan: Plan, key: Key, max_memory: int) -> dict[str, torch.Tensor]:
    """Work as decided before."""
    total = Accumulator(problem.samples, problem.device)
    fast = [path for path in plan.paths.values() if path.fast and not joined(path, key)]
    _refuse_too_little(problem, plan, max_memory)
    at_once, raw = plan.activations * problem.samples <= AT_ONCE * max_memory, set()
    budget = min(AT_ONCE * max_memory if at_once else FORMED * max_memory, PIECE)
    if at_once:
        groups, step = [[piece for path in fast for piece in pieces(path, problem, budget)]], problem.samples
    else:
        raw = _smaller_raw(problem, fast, GROUP * max_memory)
        groups, step = _groups(problem, fast, raw, GROUP * max_memory), int(BLOCK * max_memory / plan.activations)
    with untouched(problem.model):
        for group in filter(None, groups):
            PlannedPass(problem, plan, {}, key, total, budget, group=group, step=step, raw=raw).run()
        return _completed(problem, plan, key, total, max_memory)


def _completed(problem: Problem, plan: Plan, key: Key, total: Accumulator, max_memory: int) -> dict[str, torch.Tensor]:
    """Check the squared norm of the gradient that was computed alone, and add what rules do not handle."""
    near = 0.1 if problem.dtype == torch.float32 else 1e-6
    fast = any(path.fast for path in plan.paths.values())
    if fast and abs(total.entry(plan.sample) - plan.squared) > near * plan.squared:
        raise OtherWay("the gradient of a sample is another one alone")
    budget, at_once = BLOCK * max_memory, max(1, min(JOINT_SAMPLES, int(BLOCK * max_memory / plan.activations)))
    paths = [path for path in plan.paths.values() if path.way == FALL_BACK]
    each = problem.samples * problem.dtype.itemsize
    for bundle in bundles(((path, path.numbers * each) for path in paths), budget):
        some = replace(problem, params={path.name: problem.params[path.name] for path in bundle})
        rows = per_sample_gradients(some, at_once=at_once)
        for path, part in zip(bundle, rows.split([path.numbers for path in bundle], dim=1), strict=True):
            exponent = exponents(part)
            total.rows(key(path.name), scaled(part, exponent), exponent)
    return total.result()


def _refuse_too_little(problem: Problem, plan: Plan, max_memory: int) -> None:
    """Refuse a bound below what the hungriest single thing takes."""
    at_once = plan.activations * problem.samples <= AT_ONCE * max_memory
    needs = {} if at_once else {"the activations of one sample": plan.activations / BLOCK}
    for path in plan.paths.values():
        bytes_ = path.held * problem.samples * problem.dtype.itemsize
        if path.way == FALL_BACK:
            needs[f"'{path.name}', for which there is no rule,"] = bytes_ / BLOCK
        elif path.way == FORM:
            needs[f"one piece of '{path.name}'"] = bytes_ / path.pieces / (AT_ONCE if at_once else GROUP)
        elif path.way == CONTRACT and not at_once:
            needs[f"what contracts '{path.name}'"] = bytes_ / GROUP
    what, needed = max(needs.items(), key=lambda item: item[1], default=("", 0))
    if needed > max_memory:
        raise MemoryError(
            f"for {problem.samples} samples, {what} does not fit into max_memory ({size(max_memory)}): measure fewer "
            f"samples, raise max_memory to {size(needed + 1)}, or leave parameters out with params=. The minimum over "
            f"a random subset of the samples is only an upper bound of the minimum over all."
        )


def _smaller_raw(problem: Problem, fast: list[Path], budget: float) -> set[str]:
    """Name the parameters whose inputs and output gradients take less than their gradients, and fit the budget."""
    each = problem.samples * problem.dtype.itemsize
    return {p.name for p in fast if p.way == FORM and 0 < p.raw < p.held and p.raw * each <= budget}


def _groups(problem: Problem, fast: list[Path], raw: set[str], budget: float) -> Iterator[list[Piece]]:
    """Group pieces, last used first, so that what a group holds fits the budget."""
    each = {p.name: (p.raw if p.name in raw else p.held) * problem.samples * problem.dtype.itemsize for p in fast}
    cut = []
    for path in reversed(fast):
        whole = [(path.name, 0, path.pieces)]
        cut += [(piece, path) for piece in (whole if path.name in raw else pieces(path, problem, budget))]
    return bundles(((piece, each[path.name] * (piece[2] - piece[1]) / path.pieces) for piece, path in cut), budget)
