"""The work: passes over the samples until all is added, and what falls back."""

from contextlib import suppress
from dataclasses import replace

import torch

from gradconf.engine.accumulator import Accumulator
from gradconf.engine.budget import BLOCK, Budget
from gradconf.engine.decisions import judge
from gradconf.engine.passes import Pass
from gradconf.engine.plans import FALL_BACK, Key, OtherWay, Plan, begin, sentence
from gradconf.engine.proof import OTHER_GRADIENT
from gradconf.engine.scaling import exponents, scaled
from gradconf.engine.shelf import Shelf
from gradconf.gradients import per_sample_gradients
from gradconf.isolation import untouched
from gradconf.memory import bundles, keep_freed
from gradconf.mixing import JOINT_SAMPLES
from gradconf.problems import Problem
from gradconf.samples import select


def grams_by_key(problem: Problem, key: Key, *, max_memory: int) -> dict[str, torch.Tensor]:
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
    keep_freed()
    with untouched(problem.model):
        plan = begin(problem)
        try:
            return _work(problem, plan, key, max_memory)
        except MemoryError:
            raise
        except Exception as error:  # whatever a tape does to a model that nobody has foreseen; what follows will tell
            plan = _anew(problem, error)
        while True:
            try:
                return _work(problem, plan, key, max_memory)
            except OtherWay as reason:
                plan.fall_back(str(reason), *reason.refuted)


def make_plan(problem: Problem) -> Plan:
    """Decide on two samples; where float32 disagrees with itself on them, in float64.

    Args:
        problem: what is measured.

    Returns:
        The plan.

    Raises:
        ValueError: if the model changes its parameters, draws random numbers, or its losses are unusable.
    """
    with untouched(problem.model):
        plan = _tried(problem)
        for name, why in _refuted(problem, plan).items():
            plan.fall_back(why, name)
        return plan


def _anew(problem: Problem, error: Exception) -> Plan:
    """Decide on two samples after the work has failed, with what is known of parameters."""
    plan = _tried(problem)
    if not isinstance(error, OtherWay):
        return plan
    if not error.refuted and plan.dtype == torch.float32:
        with suppress(Exception):  # a part that stays in float32, say
            return _in_float64(problem, plan)
    for name, why in error.refuted.items():
        plan.fall_back(why, name)
    return plan


def _tried(problem: Problem) -> Plan:
    plan = begin(problem)
    few = [plan.sample, problem.samples - 1]
    try:
        Pass(_some(problem, few), plan, dict(zip(few, (0, 1), strict=True)), step=2).run()
        doubtful = OTHER_GRADIENT in judge(plan, problem, few)
    except Exception as error:
        plan.fall_back(sentence(error))
        doubtful = isinstance(error, OtherWay)
    if doubtful and problem.dtype == torch.float32:
        try:
            return _in_float64(problem, plan)
        except Exception as error:
            plan.fall_back(sentence(error))
    return plan


def _in_float64(problem: Problem, plan: Plan) -> Plan:
    """Decide again where float32 cannot tell: with losses that are small differences of large numbers, say."""
    return replace(_tried(problem.double()), activations=plan.activations)


def _some(problem: Problem, samples: list[int]) -> Problem:
    inputs, targets = (select(each, torch.tensor(samples)) for each in (problem.inputs, problem.targets))
    return replace(problem, inputs=inputs, targets=targets, samples=len(samples))


def _work(problem: Problem, plan: Plan, key: Key, max_memory: int) -> dict[str, torch.Tensor]:
    """Add all parameters up, in as many passes as memory asks for, deciding in the first where that is still to do."""
    total, budget = Accumulator(problem.samples, problem.device), Budget.of(problem, plan, max_memory)
    todo = None
    if plan.alone is None:
        budget.refuse_too_little(plan)
        added = [path for path in plan.paths.values() if path.fast and not path.joined(key)]
        todo = {path.name: list(budget.pieces(path, form=False)) for path in added}
    while todo is None or todo:
        shelf = Shelf(problem, plan, budget, key, total, todo)
        Pass(problem, plan, {sample: sample for sample in plan.losses}, budget.step, shelf).run()
        todo = shelf.rest
    if refuted := _refuted(problem, plan):
        raise OtherWay("rules do not hold for another sample", refuted)
    if any(path.fast for path in plan.paths.values()):
        _check_one(total, plan, problem.dtype)
    _fall_back(problem, plan, key, total, max_memory)
    return total.result()


def _refuted(problem: Problem, plan: Plan) -> dict[str, str]:
    """Try rules on other samples where the first says nothing; return why they do not hold, by parameter name."""
    unproven = {name: samples for name, samples in plan.unproven.items() if plan.paths[name].fast}
    refuted: dict[str, str] = {}
    for sample in sorted(set().union(*unproven.values())):
        tried = _tried(_some(problem, [sample])).paths
        names = [name for name, samples in unproven.items() if sample in samples and tried[name].way == FALL_BACK]
        refuted |= {name: tried[name].reason for name in names}
    return refuted


def _check_one(total: Accumulator, plan: Plan, dtype: torch.dtype) -> None:
    """Compare the squared norm of the gradient that was computed alone."""
    squared = sum(plan.squares[name] for name, path in plan.paths.items() if path.fast)
    if abs(total.entry(plan.sample) - squared) > (0.1 if dtype == torch.float32 else 1e-6) * squared:
        raise OtherWay("the gradient of a sample is another one alone")


def _fall_back(problem: Problem, plan: Plan, key: Key, total: Accumulator, max_memory: int) -> None:
    """Add the parameters that rules do not handle, some at a time, by whole gradients."""
    budget, at_once = BLOCK * max_memory, max(1, min(JOINT_SAMPLES, int(BLOCK * max_memory / plan.activations)))
    paths = [path for path in plan.paths.values() if path.way == FALL_BACK]
    each = problem.samples * problem.dtype.itemsize
    for bundle in bundles(((path, path.numbers * each) for path in paths), budget):
        some = replace(problem, params={path.name: problem.params[path.name] for path in bundle})
        rows = per_sample_gradients(some, at_once=at_once)
        for path, part in zip(bundle, rows.split([path.numbers for path in bundle], dim=1), strict=True):
            exponent = exponents(part)
            total.rows(key(path.name), scaled(part, exponent), exponent)
