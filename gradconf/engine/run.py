"""The work: forward and backward passes, each use of a parameter contributing to K and then dropped."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gradconf.engine.accumulator import NARROW, Accumulator
from gradconf.engine.contributions import Contribution, Outer, exponents, flat, scaled, summed
from gradconf.engine.plan import (
    CONTRACT,
    FALL_BACK,
    FORM,
    OtherWay,
    Path,
    Plan,
    contributions,
    record,
    same,
    signature,
    trainable,
)
from gradconf.engine.tape import Tape, Use
from gradconf.gradients import per_sample_gradients
from gradconf.isolation import untouched
from gradconf.memory import bundles, size
from gradconf.mixing import JOINT_SAMPLES
from gradconf.problems import Problem

Key = Callable[[str], str]
Piece = tuple[str, int, int]  # a parameter's name and a range of its pieces

# Shares of max_memory: activations if all samples run at once, and otherwise those of a block, and a group's gradients.
AT_ONCE, BLOCK, GROUP = 1 / 2, 1 / 4, 5 / 8
PIECE = 2**25  # bytes of gradients to form at a time where nothing asks for less: memory that is soon used again


def grams(problem: Problem, plan: Plan, key: Key, *, max_memory: int) -> dict[str, Tensor]:
    """Compute one Gram matrix a key.

    Args:
        problem: what is measured.
        plan: from `make_plan`.
        key: maps a parameter's name to the name of the matrix that it joins.
        max_memory: bytes of activations and gradients to hold at a time.

    Returns:
        Matrices by key, float64, shape `(N, N)`.

    Raises:
        MemoryError: if not even one sample, or one piece of one parameter, fits.
        OtherWay: if the model takes another way than for the samples that were probed.
    """
    total = Accumulator(problem.samples, problem.device)
    fast = [path for path in plan.paths.values() if path.fast and not _joined(path, key)]
    _refuse_too_little(problem, plan, max_memory)
    with untouched(problem.model):
        if plan.activations * problem.samples <= AT_ONCE * max_memory:
            budget = min(AT_ONCE * max_memory, PIECE)
            groups = [[piece for path in fast for piece in _pieces(path, problem, budget)]]
            step = problem.samples
        else:
            groups, step = _groups(problem, fast, GROUP * max_memory), int(BLOCK * max_memory / plan.activations)
        for group in filter(None, groups):
            _Pass(problem, plan, key, total, group).run(step)
        if fast:
            _check_one(total, plan, problem.dtype)
        _fall_back(problem, plan, key, total, max_memory)
        return total.result()


@dataclass
class _Pass:
    """One pass over all samples, block by block, for some pieces of parameters.

    Attributes:
        problem: what is measured.
        plan: how.
        key: maps a parameter's name to the name of its matrix.
        total: where contributions go.
        group: the pieces.
        waiting: contributions of parameters of which not all uses have come by in this block.
        done: parameters of which all have.
        held: what the pieces need of the blocks so far, of shape `(N, ...)`.
        memory: where gradients are formed.
    """

    problem: Problem
    plan: Plan
    key: Key
    total: Accumulator
    group: list[Piece]
    waiting: dict[str, list[Contribution]] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    held: dict[Piece, list[Tensor]] = field(default_factory=dict)
    memory: Tensor = field(default_factory=lambda: torch.empty(0))

    def run(self, step: int) -> None:
        """Run so many samples at a time forward and backward."""
        n = self.problem.samples
        names = {name for name, _, _ in self.group}
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            tape, losses = record(self.problem, rows)
            self._check(tape, losses, rows)
            tape.seen = lambda use, d, rows=rows: self._take(use, d, rows, names)
            uses = [use.edge for use in tape.uses if names & set(use.roles.values())]
            ends = [*tape.leaves, *trainable(self.problem)] if step >= n else uses
            torch.autograd.grad(losses.sum(), ends, allow_unused=True)
            if self.waiting or self.done != names:
                raise OtherWay("a gradient comes by another number of times than before")
            self.done.clear()

    def _check(self, tape: Tape, losses: Tensor, rows: slice) -> None:
        plan = self.plan
        calls = [signature(use, len(losses), plan.paths) for use in tape.uses]
        if calls != plan.calls or tape.others != plan.others:
            raise OtherWay("the model takes another way through its layers than for the samples probed before")
        for row, alone in plan.losses.items():
            if rows.start <= row < rows.stop and not same(losses[row - rows.start].item(), alone, losses.dtype):
                raise OtherWay("the loss of a sample is another one alone")

    @torch.no_grad()
    def _take(self, use: Use, d: Tensor, rows: slice, names: set[str]) -> None:
        """Take one use and the gradient of its output."""
        wanted = names & set(use.roles.values())
        found = contributions(use, d, rows.stop - rows.start) if wanted else {}
        use.call = use.edge = None  # a reference less to what the pass needs no longer
        for name in wanted:
            uses = self.waiting.setdefault(name, [])
            uses.append(found[name])
            if len(uses) == self.plan.paths[name].uses:
                self.done.add(name)
                self._complete(name, self.waiting.pop(name), rows)

    def _complete(self, name: str, uses: list[Contribution], rows: slice) -> None:
        for piece in [piece for piece in self.group if piece[0] == name]:
            if self.plan.paths[name].way == CONTRACT:
                (outer,) = uses
                a = outer.a.reshape(*outer.d.shape[:2], outer.inner, -1)
                tensors = [a, outer.d, outer.a_exponent, outer.d_exponent]
            else:
                formed, exponent = summed(uses, *piece[1:], memory=self._memory(piece))
                tensors = [flat(formed), exponent]
            if rows.stop - rows.start == self.problem.samples:
                self._add(piece, tensors)
            else:
                self._hold(piece, tensors, rows)

    def _memory(self, piece: Piece) -> Tensor | None:
        """Return memory for what a piece takes, again the same, as the system is slow to hand out and take back."""
        path = self.plan.paths[piece[0]]
        columns = path.numbers // path.pieces * (piece[2] - piece[1])
        if columns < NARROW:  # those wait for others, and must not be written over
            return None
        numbers = self.problem.samples * columns
        if len(self.memory) < numbers:
            self.memory = torch.empty(numbers, dtype=self.problem.dtype, device=self.problem.device)
        return self.memory

    def _hold(self, piece: Piece, tensors: list[Tensor], rows: slice) -> None:
        if piece not in self.held:
            self.held[piece] = [t.new_empty(self.problem.samples, *t.shape[1:]) for t in tensors]
        for all_samples, part in zip(self.held[piece], tensors, strict=True):
            all_samples[rows] = part
        if rows.stop == self.problem.samples:
            self._add(piece, self.held.pop(piece))

    def _add(self, piece: Piece, tensors: list[Tensor]) -> None:
        key, path = self.key(piece[0]), self.plan.paths[piece[0]]
        if path.way == CONTRACT:
            outer = Outer(*tensors)
            if any(p.joins == path.name and _joined(p, self.key) for p in self.plan.paths.values()):
                outer = outer.with_bias()
            self.total.panels(key, outer.contract(), outer.a_exponent + outer.d_exponent)
        else:
            self.total.rows(key, *tensors)


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


def _joined(path: Path, key: Key) -> bool:
    """Tell whether a bias is handled with its weights."""
    return path.joins != "" and key(path.joins) == key(path.name)


def _check_one(total: Accumulator, plan: Plan, dtype: torch.dtype) -> None:
    """Compare the squared norm of the gradient that was computed alone."""
    if abs(total.entry(plan.sample) - plan.squared) > (0.1 if dtype == torch.float32 else 1e-6) * plan.squared:
        raise OtherWay("the gradient of a sample is another one alone")


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


def _pieces(path: Path, problem: Problem, budget: float) -> Iterator[Piece]:
    """Cut a parameter so that what each piece takes fits the budget."""
    each = max(1.0, path.held / path.pieces * problem.samples * problem.dtype.itemsize)
    step = path.pieces if path.way == CONTRACT else max(1, min(path.pieces, int(budget / each)))
    yield from ((path.name, low, min(low + step, path.pieces)) for low in range(0, path.pieces, step))


def _groups(problem: Problem, fast: list[Path], budget: float) -> Iterator[list[Piece]]:
    """Group pieces, last used first, so that what a group holds fits the budget."""
    pieces = [piece for path in reversed(fast) for piece in _pieces(path, problem, budget)]
    each = {p.name: p.held * problem.samples * problem.dtype.itemsize / p.pieces for p in fast}  # bytes
    return bundles(((piece, each[piece[0]] * (piece[2] - piece[1])) for piece in pieces), budget)
