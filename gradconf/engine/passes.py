"""Passes over the samples: each use of a parameter is taken as its gradient comes by, and then dropped."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradconf.engine.accumulator import NARROW, Accumulator
from gradconf.engine.contributions import Contribution, Outer, flat, summed
from gradconf.engine.plan import CONTRACT, OtherWay, Path, Plan, contributions, decide, join, same
from gradconf.engine.tape import Tape, Use
from gradconf.problems import Problem

Key = Callable[[str], str]
Piece = tuple[str, int, int]  # a parameter's name and a range of its pieces
Uses = list[tuple[Use, Contribution | None]]

PIECE = 2**25  # bytes of gradients to form at a time where nothing asks for less: memory that is soon used again


@dataclass
class Pass:
    """A pass that decides each parameter's path as it comes by; all samples run together.

    Attributes:
        problem: what is measured.
        plan: where decisions are noted.
        places: in which rows the samples that were run alone are, by their number.
        key: maps a parameter's name to the name of its matrix.
        total: where contributions go; None to decide only.
        budget: bytes to form gradients in.
        expected: how many uses there are of a parameter, by name.
        waiting: uses of parameters of which not all have come by in this block.
        memory: where gradients are formed and products scaled.
    """

    problem: Problem
    plan: Plan
    places: dict[int, int] = field(default_factory=dict)
    key: Key = str
    total: Accumulator | None = None
    budget: float = PIECE
    expected: Counter[str] = field(default_factory=Counter)
    waiting: dict[str, Uses] = field(default_factory=dict)
    memory: Tensor = field(default_factory=lambda: torch.empty(0))

    def run(self) -> None:
        """Run all samples forward and backward, and decide."""
        rows = slice(0, self.problem.samples)
        tape, losses = record(self.problem, rows)
        for sample, row in self.places.items():
            if not same(losses[row].item(), self.plan.losses[sample], losses.dtype):
                raise OtherWay("the loss of a sample is another one alone")
        self.plan.others = tape.others
        names = self.plan.paths.keys() - tape.others.keys()
        self.expected = Counter(name for use in tape.uses for name in set(use.roles.values()))
        tape.seen = lambda use, d: self._take(use, d, rows, names)
        ends = [*tape.leaves, *trainable(self.problem)]
        torch.autograd.grad(losses.sum(), ends, allow_unused=True)
        for name in list(self.plan.alone):  # no gradient reached all uses of these
            self._complete({name: self.waiting.pop(name, [])}, rows)
        self.plan.calls = [signature(use, len(losses), self.plan.paths) for use in tape.uses]

    @torch.no_grad()
    def _take(self, use: Use, d: Tensor, rows: slice, names: set[str]) -> None:
        """Take one use and the gradient of its output."""
        wanted = [name for name in dict.fromkeys(use.roles.values()) if name in names]
        found = self._contributions(use, d, rows.stop - rows.start, wanted) if wanted else {}
        use.call = use.edge = None  # a reference less to what the pass needs no longer
        ready = {}
        for name in wanted:
            uses = self.waiting.setdefault(name, [])
            uses.append((use, found.get(name)))
            if len(uses) == self.expected[name]:
                ready[name] = self.waiting.pop(name)
        self._complete(ready, rows)

    def _contributions(self, use: Use, d: Tensor, n: int, wanted: list[str]) -> dict[str, Contribution]:
        try:
            return contributions(use, d, n)
        except Exception as error:  # a rule may meet a call that it was not made for
            for name in wanted:
                self.plan.paths[name].reason = sentence(error)
            return {}

    def _complete(self, ready: dict[str, Uses], rows: slice) -> None:
        """Decide, and add what all uses of some parameters contribute."""
        row = self.places[self.plan.sample]
        for name, uses in ready.items():
            decide(self.plan, name, uses, row, self._memory(self.plan.paths[name].numbers))
        join(self.plan, ready)
        for name, uses in ready.items():
            path = self.plan.paths[name]
            if self.total is not None and path.fast and not joined(path, self.key):
                for piece in pieces(path, self.problem, self.budget):
                    self._add(piece, self._values(piece, uses))

    def _values(self, piece: Piece, uses: Uses) -> list[Tensor]:
        """Return what is to be held of a piece, of shape `(N, ...)` each."""
        path, taken = self.plan.paths[piece[0]], [contribution for _, contribution in uses]
        if None in taken:
            raise OtherWay("a rule does not fit any more")
        if path.way == CONTRACT:
            (outer,) = taken
            a = outer.a.reshape(*outer.d.shape[:2], outer.inner, -1)
            return [a, outer.d, outer.a_exponent, outer.d_exponent]
        columns = path.numbers // path.pieces * (piece[2] - piece[1])
        # narrow ones wait for others, and must not be written over
        memory = None if columns < NARROW else self._memory(self.problem.samples * columns)
        formed, exponent = summed(taken, *piece[1:], memory=memory)
        return [flat(formed), exponent]

    def _add(self, piece: Piece, values: list[Tensor]) -> None:
        key, path = self.key(piece[0]), self.plan.paths[piece[0]]
        if path.way != CONTRACT:
            self.total.rows(key, *values)
            return
        outer = Outer(*values)
        if any(p.joins == path.name and joined(p, self.key) for p in self.plan.paths.values()):
            outer = outer.with_bias()
        panels = outer.contract(memory=self._memory(outer.numbers))
        self.total.panels(key, panels, outer.a_exponent + outer.d_exponent)

    def _memory(self, numbers: int) -> Tensor:
        """Return memory, again the same, as the system is slow to hand out and take back."""
        if len(self.memory) < numbers:
            self.memory = torch.empty(numbers, dtype=self.problem.dtype, device=self.problem.device)
        return self.memory


@dataclass
class PlannedPass(Pass):
    """A pass over all samples, block by block, for some pieces of parameters whose paths are decided.

    Attributes:
        group: the pieces.
        step: samples to run together.
        raw: parameters of which inputs and output gradients are held instead of gradients, as they are smaller.
        windows: shape and strides of a sample of the inputs of those, by name.
        done: parameters of which all uses have come by in this block.
        held: what the pieces need of the blocks so far, of shape `(N, ...)`.
    """

    group: list[Piece] = field(default_factory=list)
    step: int = 1
    raw: set[str] = field(default_factory=set)
    windows: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    held: dict[Piece, list[Tensor]] = field(default_factory=dict)

    def run(self) -> None:
        """Run some samples at a time forward and backward."""
        n, names = self.problem.samples, {name for name, _, _ in self.group}
        self.expected = Counter({name: self.plan.paths[name].uses for name in names})
        for start in range(0, n, self.step):
            rows = slice(start, min(start + self.step, n))
            tape, losses = record(self.problem, rows)
            self._compare(tape, losses, rows)
            tape.seen = lambda use, d, rows=rows: self._take(use, d, rows, names)
            uses = [use.edge for use in tape.uses if names & set(use.roles.values())]
            ends = [*tape.leaves, *trainable(self.problem)] if self.step >= n else uses
            torch.autograd.grad(losses.sum(), ends, allow_unused=True)
            if self.waiting or self.done != names:
                raise OtherWay("a gradient comes by another number of times than before")
            self.done.clear()

    def _compare(self, tape: Tape, losses: Tensor, rows: slice) -> None:
        plan = self.plan
        calls = [signature(use, len(losses), plan.paths) for use in tape.uses]
        if calls != plan.calls or tape.others != plan.others:
            raise OtherWay("the model takes another way through its layers than for the samples probed before")
        for row, alone in plan.losses.items():
            if rows.start <= row < rows.stop and not same(losses[row - rows.start].item(), alone, losses.dtype):
                raise OtherWay("the loss of a sample is another one alone")

    def _complete(self, ready: dict[str, Uses], rows: slice) -> None:
        """Add what all uses of some parameters contribute, or hold it until the last block."""
        self.done |= ready.keys()
        for piece in [piece for piece in self.group if piece[0] in ready]:
            values = self._values(piece, ready[piece[0]])
            if rows.stop - rows.start == self.problem.samples:
                self._add(piece, values)
            else:
                self._hold(piece, values, rows)

    def _values(self, piece: Piece, uses: Uses) -> list[Tensor]:
        outer = uses[0][1]
        if piece[0] not in self.raw or not isinstance(outer, Outer):
            return super()._values(piece, uses)
        self.windows[piece[0]] = outer.a.shape[1:], outer.a.stride()[1:]
        return [outer.packed(), outer.d, outer.a_exponent, outer.d_exponent]

    def _add(self, piece: Piece, values: list[Tensor]) -> None:
        if piece[0] not in self.raw:
            super()._add(piece, values)
            return
        (shape, strides), inputs = self.windows[piece[0]], values[0]
        a = inputs.as_strided((len(inputs), *shape), (inputs.stride(0), *strides))
        uses = [(None, Outer(a, *values[1:]))]
        for part in pieces(self.plan.paths[piece[0]], self.problem, self.budget):
            super()._add(part, super()._values(part, uses))

    def _hold(self, piece: Piece, values: list[Tensor], rows: slice) -> None:
        if piece not in self.held:
            self.held[piece] = [t.new_empty(self.problem.samples, *t.shape[1:]) for t in values]
        for all_samples, part in zip(self.held[piece], values, strict=True):
            all_samples[rows] = part
        if rows.stop == self.problem.samples:
            self._add(piece, self.held.pop(piece))


def record(problem: Problem, rows: slice) -> tuple[Tape, Tensor]:
    """Run some samples forward on a tape.

    Args:
        problem: what is measured.
        rows: which samples.

    Returns:
        The tape, and the losses of shape `(n,)`.
    """
    names = {id(p): name for name, p in problem.model.named_parameters() if p.requires_grad}
    tape = Tape(names, len(range(problem.samples)[rows]))
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


def joined(path: Path, key: Key) -> bool:
    """Tell whether a bias is handled with its weights."""
    return path.joins != "" and key(path.joins) == key(path.name)


def pieces(path: Path, problem: Problem, budget: float) -> Iterator[Piece]:
    """Cut a parameter so that what each piece takes fits the budget."""
    each = max(1.0, path.held / path.pieces * problem.samples * problem.dtype.itemsize)
    step = path.pieces if path.way == CONTRACT else max(1, min(path.pieces, int(budget / each)))
    yield from ((path.name, low, min(low + step, path.pieces)) for low in range(0, path.pieces, step))


def sentence(error: Exception) -> str:
    """Return the first line of what an error says."""
    return (str(error) or type(error).__name__).splitlines()[0]
