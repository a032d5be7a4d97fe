"""The shelf: where what pieces of parameters contribute waits, until that of all samples is there to be added."""

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradconf.engine.accumulator import NARROW, Accumulator
from gradconf.engine.budget import Budget, Piece
from gradconf.engine.contributions import Contribution, flat, summed
from gradconf.engine.decisions import Uses
from gradconf.engine.outer import Outer
from gradconf.engine.plans import CONTRACT, FORM, Key, OtherWay, Path, Plan
from gradconf.engine.scaling import added
from gradconf.problems import Problem


@dataclass
class Shelf:
    """What a pass holds of some parameters, as much as there is room for.

    Attributes:
        problem: what is measured.
        plan: how parameters are handled.
        budget: bytes for one thing and another.
        key: maps a parameter's name to the name of its matrix.
        total: where contributions of all samples go.
        todo: pieces to add, by parameter; None for all of all.
        rest: those for which there was no room.
        taken: those for which there was.
        room: bytes to hold more in.
        held: what pieces need of the blocks so far, of shape `(N, ...)`.
        filled: of how many samples that is.
        windows: shape and strides of a sample of the inputs that are held raw, by name.
        memory: where gradients are formed and products scaled.
    """

    problem: Problem
    plan: Plan
    budget: Budget
    key: Key
    total: Accumulator
    todo: dict[str, list[Piece]] | None = None
    rest: dict[str, list[Piece]] = field(default_factory=dict)
    taken: dict[str, list[Piece]] = field(default_factory=dict)
    room: float = field(init=False)
    held: dict[Piece, list[Tensor]] = field(default_factory=dict)
    filled: Counter[Piece] = field(default_factory=Counter)
    windows: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    memory: Tensor = field(default_factory=lambda: torch.empty(0))

    def __post_init__(self) -> None:
        """Start with all the room there is."""
        self.room = self.budget.hold

    def wanted(self, *, first: bool) -> set[str]:
        """Return the parameters that are of interest in the first block or a later one."""
        if not first:
            return set(self.taken)
        return set(self.plan.paths) if self.todo is None else set(self.todo)

    def put(self, name: str, uses: Uses, rows: slice, *, first: bool) -> None:
        """Add or hold what all uses of a parameter contribute for a block of samples.

        Args:
            name: of the parameter.
            uses: its uses and what they contribute.
            rows: which samples.
            first: whether this is the first block, in which it is found out what there is room for.

        Raises:
            OtherWay: if a rule does not fit any more.
        """
        path = self.plan.paths[name]
        if not path.fast or path.joined(self.key):
            return
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
        path, taken = self.plan.paths[piece.name], [taken for _, taken in uses if taken is not None]
        if len(taken) < len(uses):
            raise OtherWay("a rule does not fit any more")
        raw = self.budget.raw(path)
        if path.way == FORM and not raw:
            return self._formed(piece, taken)
        (outer,) = (one for one in taken if isinstance(one, Outer))
        if raw:
            self.windows[path.name] = outer.a.shape[1:], outer.a.stride()[1:]
        a = outer.packed() if raw else outer.a.reshape(*outer.d.shape[:2], outer.inner, -1)
        return [a, outer.d, outer.a_exponent, outer.d_exponent]

    def _hold(self, piece: Piece, values: list[Tensor], rows: slice) -> None:
        """Keep the values of a block until those of all are there."""
        if len(values[0]) == self.problem.samples:
            self._add(piece, values)
            return
        if piece not in self.held:
            self.held[piece] = [t.new_empty(self.problem.samples, *t.shape[1:]) for t in values]
        for all_samples, part in zip(self.held[piece], values, strict=True):
            all_samples[rows] = part
        self.filled[piece] += len(values[0])
        if self.filled[piece] == self.problem.samples:
            self._add(piece, self.held.pop(piece))

    def _add(self, piece: Piece, values: list[Tensor]) -> None:
        """Add what all samples contribute."""
        path = self.plan.paths[piece.name]
        key = self.key(path.name)
        if self.budget.raw(path):
            outer = self._unpacked(path, *values)
            for part in self.budget.pieces(path, form=True):
                self.total.rows(key, *self._formed(part, [outer]))
        elif path.way == CONTRACT:
            outer = Outer(*values)  # type: ignore[arg-type]
            if any(bias.joins == path.name and bias.joined(self.key) for bias in self.plan.paths.values()):
                outer = outer.with_bias()
            panels = outer.contract(memory=self._memory(outer.numbers))
            self.total.panels(key, panels, added(outer.a_exponent, outer.d_exponent))
        else:
            self.total.rows(key, *values)

    def _unpacked(self, path: Path, inputs: Tensor, d: Tensor, a_exponent: Tensor, d_exponent: Tensor) -> Outer:
        """Return what was held raw."""
        shape, strides = self.windows[path.name]
        a = inputs.as_strided((len(inputs), *shape), (inputs.stride(0), *strides))
        return Outer(a, d, a_exponent, d_exponent)

    def _formed(self, piece: Piece, taken: list[Contribution]) -> list[Tensor]:
        """Return gradients of shape `(N, columns)`, and their exponents."""
        path = self.plan.paths[piece.name]
        columns = path.numbers // path.pieces * (piece.high - piece.low)
        # narrow ones wait for others, and must not be written over
        again = columns >= NARROW and len(taken) == 1 and isinstance(taken[0], Outer)
        memory = self._memory(len(taken[0].exponent) * columns) if again else None
        formed, exponent = summed(taken, piece.low, piece.high, memory=memory)
        return [flat(formed), exponent]

    def _memory(self, numbers: int) -> Tensor:
        """Return memory, the same again where it fits, as the system is slow to hand out and take back."""
        if not numbers <= len(self.memory) <= 4 * numbers:
            self.memory = torch.empty(numbers, dtype=self.problem.dtype, device=self.problem.device)
        return self.memory
