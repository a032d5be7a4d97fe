"""A pass over the samples: each use of a parameter is taken as its gradient comes by, and then dropped."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradconf.engine.accumulator import NARROW, Accumulator
from gradconf.engine.budget import Budget, Piece
from gradconf.engine.contributions import Contribution, Outer, flat, summed
from gradconf.engine.plan import (
    CONTRACT,
    OtherWay,
    Path,
    Plan,
    Uses,
    contribute,
    decide,
    join,
    judge,
    same,
    seek,
    sentence,
)
from gradconf.engine.scaling import added
from gradconf.engine.tape import Tape, Use
from gradconf.isolation import copied_buffers
from gradconf.problems import Problem

Key = Callable[[str], str]


@dataclass
class Pass:
    """A pass over all samples, block by block, that adds what fits and says what is left for the next.

    Parameters of which the path is not decided yet are decided as they come by in the first block.

    Attributes:
        problem: what is measured.
        plan: where decisions are noted.
        budget: bytes for one thing and another.
        places: in which rows the samples that were run alone are, by their number.
        key: maps a parameter's name to the name of its matrix.
        total: where contributions go; None to decide only.
        todo: pieces to add, by parameter; None for all of all.
        rest: those for which there was no room.
        taken: those for which there was.
        room: bytes to hold more in.
        expected: how many uses there are of a parameter, by name.
        waiting: uses of parameters of which not all have come by in this block.
        done: parameters of which all have.
        unused: parameters that got no gradient in the first block.
        held: what pieces need of the blocks so far, of shape `(N, ...)`.
        windows: shape and strides of a sample of the inputs that are held raw, by name.
        memory: where gradients are formed and products scaled.
    """

    problem: Problem
    plan: Plan
    budget: Budget
    places: dict[int, int]
    key: Key = str
    total: Accumulator | None = None
    todo: dict[str, list[Piece]] | None = None
    rest: dict[str, list[Piece]] = field(default_factory=dict)
    taken: dict[str, list[Piece]] = field(default_factory=dict)
    room: float = 0.0
    expected: Counter[str] = field(default_factory=Counter)
    waiting: dict[str, Uses] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    unused: set[str] = field(default_factory=set)
    held: dict[Piece, list[Tensor]] = field(default_factory=dict)
    windows: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    memory: Tensor = field(default_factory=lambda: torch.empty(0))

    def run(self) -> None:
        """Run some samples at a time forward and backward."""
        self.room = self.budget.hold
        blocks = list(self._blocks())
        for rows in blocks:
            first, deciding = rows is blocks[0], self.plan.alone is not None
            tape, losses = record(self.problem, rows)
            self._compare(tape, losses, rows, deciding)
            names = self._names(first) - tape.others.keys()
            tape.seen = lambda use, d, rows=rows, names=names, first=first: self._take(use, d, rows, names, first)
            self.unused = self.plan.unused
            edges = [use.edge for use in tape.uses if (names | self.unused) & set(use.roles.values())]
            ends = edges if len(blocks) > 1 and not deciding else [*tape.leaves, *trainable(self.problem)]
            found = torch.autograd.grad(losses.sum(), ends, allow_unused=True)
            if deciding:
                self._settle(tape, rows, found[len(tape.leaves) :])
            elif self.waiting or self.done != names:
                raise OtherWay("a gradient comes by another number of times than before")
            self.done.clear()

    def _blocks(self) -> Iterator[slice]:
        """Cut the samples into blocks, first the one with the sample that was run alone."""
        n, step = self.problem.samples, self.budget.step
        first = self.places[self.plan.sample] // step * step
        for start in [first, *(start for start in range(0, n, step) if start != first)]:
            yield slice(start, min(start + step, n))

    def _names(self, first: bool) -> set[str]:
        """Return the parameters that are of interest in a block."""
        if not first:
            return set(self.taken)
        return set(self.plan.paths) if self.todo is None else set(self.todo)

    def _compare(self, tape: Tape, losses: Tensor, rows: slice, deciding: bool) -> None:
        """Notice a model that does something else than before."""
        plan, calls = self.plan, [signature(use, len(losses)) for use in tape.uses]
        if deciding:
            plan.others = tape.others
            self.expected = Counter(name for use in tape.uses for name in set(use.roles.values()))
        elif what_counts(calls, plan.paths) != what_counts(plan.calls, plan.paths) or tape.others != plan.others:
            raise OtherWay("the model takes another way through its layers than before")
        else:
            self.expected = Counter({path.name: path.uses for path in plan.paths.values()})
        for sample, row in self.places.items():
            inside = rows.start <= row < rows.stop
            if inside and not same(losses[row - rows.start].item(), plan.losses[sample], losses.dtype):
                raise OtherWay("the loss of a sample is another one alone")

    def _settle(self, tape: Tape, rows: slice, gradients: Sequence[Tensor | None]) -> None:
        """End the block in which paths were decided, given what reached parameters out of the tape's sight."""
        pairs = zip(trainable(self.problem), gradients, strict=True)
        reached = {tape.names[id(p)] for p, gradient in pairs if gradient is not None}
        self.plan.hidden = reached & self.plan.paths.keys() - tape.others.keys()
        for name in list(self.plan.undecided):  # no gradient reached all uses of these
            self._complete({name: self.waiting.pop(name, [])}, rows, first=True)
        if self.total is not None:
            if judge(self.plan, self.problem, range(rows.start, rows.stop)):
                raise OtherWay("what was added is not to be trusted")
            self.budget.refuse_too_little(self.plan)
        self.plan.calls = [signature(use, rows.stop - rows.start) for use in tape.uses]

    @torch.no_grad()
    def _take(self, use: Use, d: Tensor, rows: slice, names: set[str], first: bool) -> None:
        """Take one use and the gradient of its output."""
        if self.unused & set(use.roles.values()):
            raise OtherWay("a gradient comes to a parameter that got none before")
        wanted = [name for name in dict.fromkeys(use.roles.values()) if name in names]
        found = self._contributions(use, d, rows.stop - rows.start, wanted) if wanted else {}
        use.call, use.edge = {}, None  # a reference less to what the pass needs no longer
        ready = {}
        for name in wanted:
            uses = self.waiting.setdefault(name, [])
            uses.append((use, found.get(name)))
            if len(uses) == self.expected[name]:
                ready[name] = self.waiting.pop(name)
        self._complete(ready, rows, first)

    def _contributions(self, use: Use, d: Tensor, n: int, wanted: list[str]) -> dict[str, Contribution]:
        try:
            return contribute(use, d, n)
        except Exception as error:  # a rule may meet a call that it was not made for
            for name in wanted:
                self.plan.paths[name].reason = sentence(error)
            return {}

    @torch.no_grad()
    def _complete(self, ready: dict[str, Uses], rows: slice, first: bool) -> None:
        """Decide, and add or hold what all uses of some parameters contribute."""
        self.done |= ready.keys()
        undecided = {name: uses for name, uses in ready.items() if name in self.plan.undecided}
        for name, uses in undecided.items():
            decide(self.plan, name, uses, self.places[self.plan.sample] - rows.start, rows.stop - rows.start)
        join(self.plan, undecided)
        for name in sorted({name for name, _ in self.plan.silent} & ready.keys()):
            sizes = [taken.sizes for _, taken in ready[name] if taken is not None]
            seek(self.plan, name, sizes, range(rows.start, rows.stop))
        for name, uses in ready.items():
            path = self.plan.paths[name]
            if self.total is None or not path.fast or joined(path, self.key):
                continue
            if first:
                self._find_room(path)
            for piece in self.taken.get(name, []):
                self._hold(piece, self._values(piece, uses), rows)

    def _find_room(self, path: Path) -> None:
        pieces = self.todo[path.name] if self.todo is not None else self.budget.pieces(path, form=False)
        for piece in pieces:
            needed = self.budget.bytes(path, piece)
            (self.taken if needed <= self.room else self.rest).setdefault(path.name, []).append(piece)
            self.room -= needed if needed <= self.room else 0.0

    def _values(self, piece: Piece, uses: Uses) -> list[Tensor]:
        """Return what is to be held of a piece, of shape `(N, ...)` each."""
        path, taken = self.plan.paths[piece[0]], [taken for _, taken in uses if taken is not None]
        if len(taken) < len(uses):
            raise OtherWay("a rule does not fit any more")
        raw = self.budget.raw(path)
        if path.way == CONTRACT or raw:
            (outer,) = (one for one in taken if isinstance(one, Outer))
            self.windows[path.name] = outer.a.shape[1:], outer.a.stride()[1:]
            a = outer.packed() if raw else outer.a.reshape(*outer.d.shape[:2], outer.inner, -1)
            return [a, outer.d, outer.a_exponent, outer.d_exponent]
        return self._formed(piece, taken)

    def _formed(self, piece: Piece, taken: list[Contribution]) -> list[Tensor]:
        path = self.plan.paths[piece[0]]
        columns = path.numbers // path.pieces * (piece[2] - piece[1])
        # narrow ones wait for others, and must not be written over
        memory = None if columns < NARROW else self._memory(self.problem.samples * columns)
        formed, exponent = summed(taken, *piece[1:], memory=memory)
        return [flat(formed), exponent]

    def _hold(self, piece: Piece, values: list[Tensor], rows: slice) -> None:
        """Keep the values of a block until those of all are there."""
        if self.budget.step >= self.problem.samples:
            self._add(piece, values)
            return
        if piece not in self.held:
            self.held[piece] = [t.new_empty(self.problem.samples, *t.shape[1:]) for t in values]
        for all_samples, part in zip(self.held[piece], values, strict=True):
            all_samples[rows] = part
        if rows == list(self._blocks())[-1]:
            self._add(piece, self.held.pop(piece))

    def _add(self, piece: Piece, values: list[Tensor]) -> None:
        if self.total is None:
            return
        path = self.plan.paths[piece[0]]
        key = self.key(path.name)
        if self.budget.raw(path):
            (shape, strides), inputs = self.windows[path.name], values[0]
            _, d, a_exponent, d_exponent = values
            a = inputs.as_strided((len(inputs), *shape), (inputs.stride(0), *strides))
            outer = Outer(a, d, a_exponent, d_exponent)
            for part in self.budget.pieces(path, form=True):
                self.total.rows(key, *self._formed(part, [outer]))
        elif path.way == CONTRACT:
            outer = Outer(*values)  # type: ignore[arg-type]
            if any(p.joins == path.name and joined(p, self.key) for p in self.plan.paths.values()):
                outer = outer.with_bias()
            panels = outer.contract(memory=self._memory(outer.numbers))
            self.total.panels(key, panels, added(outer.a_exponent, outer.d_exponent))
        else:
            self.total.rows(key, *values)

    def _memory(self, numbers: int) -> Tensor:
        """Return memory, again the same, as the system is slow to hand out and take back."""
        if not numbers <= len(self.memory) <= 4 * numbers:
            self.memory = torch.empty(numbers, dtype=self.problem.dtype, device=self.problem.device)
        return self.memory


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
    with copied_buffers(problem.model), tape:  # a model that counts its calls does so anew in each block
        return tape, problem.losses(rows)


def trainable(problem: Problem) -> list[Tensor]:
    """Return the parameters that may get a gradient out of the tape's sight."""
    return [p for p in problem.model.parameters() if p.requires_grad]


def signature(use: Use, n: int) -> tuple:
    """Return function, parameters, and the output's shape a sample."""
    return use.function, tuple(use.roles.items()), (use.shape[0] / n, *use.shape[1:]) if use.shape else ()


def what_counts(calls: list[tuple], paths: dict[str, Path]) -> list[tuple]:
    """Return what of signatures must be the same in each run: shapes only where rules handle a parameter."""
    fast = {name for name, path in paths.items() if path.fast}
    return [(call[0], call[1], call[2] if fast & {name for _, name in call[1]} else ()) for call in calls]


def joined(path: Path, key: Key) -> bool:
    """Tell whether a bias is handled with its weights."""
    return path.joins != "" and key(path.joins) == key(path.name)
