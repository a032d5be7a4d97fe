"""A pass over the samples: each use of a parameter is taken as its gradient comes by, and then dropped."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gradconf.engine.contributions import Contribution
from gradconf.engine.decisions import OUT_OF_SIGHT, Uses, contribute, decide, join, judge, seek
from gradconf.engine.places import out_of_place
from gradconf.engine.plans import OtherWay, Path, Plan, sentence
from gradconf.engine.shelf import Shelf
from gradconf.engine.tape import Tape, Use
from gradconf.isolation import copied_buffers
from gradconf.problems import Problem


@dataclass(frozen=True)
class Block:
    """Samples that run together.

    Attributes:
        rows: which.
        row: where among them the sample is that was run alone; negative or too large if it is not.
        first: whether this is the first block.
        deciding: whether paths are still to be decided.
    """

    rows: slice
    row: int
    first: bool
    deciding: bool

    @property
    def members(self) -> range:
        """Their numbers."""
        return range(self.rows.start, self.rows.stop)


@dataclass
class Pass:
    """A pass over all samples, block by block.

    Parameters of which the path is not decided yet are decided as they come by in the first block.

    Attributes:
        problem: what is measured.
        plan: where decisions are noted.
        places: in which rows the samples that were run alone are, by their number.
        step: samples to run together.
        shelf: where contributions go; None to decide only.
        expected: how many uses there are of a parameter, by name.
        waiting: uses of parameters of which not all have come by in this block.
        done: parameters of which all have.
        unused: parameters that got no gradient in the first block.
    """

    problem: Problem
    plan: Plan
    places: dict[int, int]
    step: int
    shelf: Shelf | None = None
    expected: Counter[str] = field(default_factory=Counter)
    waiting: dict[str, Uses] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    unused: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Run some samples at a time forward and backward."""
        for block in self._blocks():
            self._run(block)  # what it leaves behind is gone before the next one

    def _run(self, block: Block) -> None:
        tape, losses = record(self.problem, block.rows)
        self._see_moves(tape, losses)
        self._compare(tape, losses, block)
        wanted = set(self.plan.paths) if self.shelf is None else self.shelf.wanted(first=block.first)
        names = wanted - tape.others.keys()
        tape.seen = partial(self._take, block, names)
        self.unused = self.plan.unused
        whole = block.deciding or self.step >= self.problem.samples
        ends = self._all_ends(tape) if whole else self._some_ends(tape, names | self.unused)
        found = torch.autograd.grad(losses.sum(), ends, allow_unused=True)
        hidden = self._hidden(tape, ends, found)
        if block.deciding:
            self._settle(tape, block, hidden)
        elif hidden:
            raise OtherWay(OUT_OF_SIGHT, dict.fromkeys(hidden, OUT_OF_SIGHT))
        elif self.waiting or self.done != names:
            raise OtherWay("a gradient comes by another number of times than before")
        self.done.clear()

    def _blocks(self) -> Iterator[Block]:
        """Cut the samples into blocks, first the one with the sample that was run alone."""
        n, row = self.problem.samples, self.places[self.plan.sample]
        first, undecided = row // self.step * self.step, self.plan.alone is not None
        for start in [first, *(start for start in range(0, n, self.step) if start != first)]:
            rows = slice(start, min(start + self.step, n))
            yield Block(rows, row - start, first=start == first, deciding=undecided and start == first)

    def _all_ends(self, tape: Tape) -> list[Any]:
        """Return where the whole backward pass ends, with parameters that a gradient may reach out of sight."""
        return [*tape.leaves, *(p for p in self.problem.model.parameters() if p.requires_grad)]

    def _some_ends(self, tape: Tape, names: set[str]) -> list[Any]:
        """Return the uses of some parameters, and those parameters that a gradient may reach out of sight."""
        edges = [use.edge for use in tape.uses if names & set(use.roles.values())]
        return [*edges, *(self.problem.params[name] for name in self._open(tape))]

    def _open(self, tape: Tape) -> set[str]:
        """Return the parameters that rules handle, or might."""
        return self.plan.paths.keys() - self.plan.fallen - tape.others.keys()

    def _hidden(self, tape: Tape, ends: list[Any], gradients: Sequence[Tensor | None]) -> set[str]:
        """Return those that a gradient reached out of the tape's sight."""
        pairs = zip(ends, gradients, strict=True)
        return {tape.names.get(id(end), "") for end, d in pairs if d is not None} & self._open(tape)

    def _see_moves(self, tape: Tape, losses: Tensor) -> None:
        """Have no rule for the uses that see samples in another order."""
        if tape.moves:
            for k in out_of_place(partial(lengths, tape, losses, self._all_ends(tape)), losses):
                tape.others |= dict.fromkeys(tape.uses[k].roles.values(), ("", "samples change places before it"))

    def _compare(self, tape: Tape, losses: Tensor, block: Block) -> None:
        """Notice a model that does something else than before."""
        plan, calls = self.plan, [signature(use, len(losses)) for use in tape.uses]
        if block.deciding:
            plan.others = tape.others
            self.expected = Counter(name for use in tape.uses for name in set(use.roles.values()))
        elif new := {name: why for name, (_, why) in tape.others.items() if name in plan.paths.keys() - plan.fallen}:
            raise OtherWay(next(iter(new.values())), new)
        elif what_counts(calls, plan.paths) != what_counts(plan.calls, plan.paths):
            raise OtherWay("the model takes another way through its layers than before")
        else:
            self.expected = Counter({path.name: path.uses for path in plan.paths.values()})
        for sample, row in self.places.items():
            inside = row in block.members
            if inside and not plan.has_loss(sample, losses[row - block.rows.start]):
                raise OtherWay("the loss of a sample is another one alone")

    def _settle(self, tape: Tape, block: Block, hidden: set[str]) -> None:
        """End the block in which paths were decided, given what parameters a gradient reached out of sight."""
        self.plan.hidden = hidden
        for name in list(self.plan.undecided):  # no gradient reached all uses of these
            self._complete({name: self.waiting.pop(name, [])}, block)
        if self.shelf is not None:
            if judge(self.plan, self.problem, block.members):
                raise OtherWay("what was added is not to be trusted")
            self.shelf.budget.refuse_too_little(self.plan)
        self.plan.calls = [signature(use, len(block.members)) for use in tape.uses]

    @torch.no_grad()
    def _take(self, block: Block, names: set[str], use: Use, d: Tensor) -> None:
        """Take one use and the gradient of its output."""
        if self.unused & set(use.roles.values()):
            raise OtherWay("a gradient comes to a parameter that got none before")
        wanted = [name for name in dict.fromkeys(use.roles.values()) if name in names]
        found = self._contributions(use, d, len(block.members), wanted) if wanted else {}
        use.call, use.edge = {}, None  # a reference less to what the pass needs no longer
        ready = {}
        for name in wanted:
            uses = self.waiting.setdefault(name, [])
            uses.append((use, found.get(name)))
            if len(uses) == self.expected[name]:
                ready[name] = self.waiting.pop(name)
        self._complete(ready, block)

    def _contributions(self, use: Use, d: Tensor, n: int, wanted: list[str]) -> dict[str, Contribution]:
        try:
            return contribute(use, d, n)
        except Exception as error:  # a rule may meet a call that it was not made for
            for name in wanted:
                self.plan.paths[name].reason = sentence(error)
            return {}

    @torch.no_grad()
    def _complete(self, ready: dict[str, Uses], block: Block) -> None:
        """Decide, and add or hold what all uses of some parameters contribute."""
        self.done |= ready.keys()
        undecided = {name: uses for name, uses in ready.items() if name in self.plan.undecided}
        for name, uses in undecided.items():
            decide(self.plan, name, uses, block.row, len(block.members))
        join(self.plan, undecided)
        for name in sorted({name for name, _ in self.plan.silent} & ready.keys()):
            seek(self.plan, name, [taken.sizes for _, taken in ready[name] if taken is not None], block.members)
        if self.shelf is not None:
            for name, uses in ready.items():
                self.shelf.put(name, uses, block.rows, first=block.first)


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


def lengths(tape: Tape, losses: Tensor, ends: list[Any], weights: Tensor) -> dict[int, Tensor]:
    """Run backward and look at output gradients alone.

    Args:
        tape: of the block.
        losses: shape `(n,)`.
        ends: where the backward pass ends.
        weights: of the losses, shape `(n,)`.

    Returns:
        The lengths of each sample's output gradients, shape `(n,)`, by the position of the use.
    """
    found: dict[int, Tensor] = {}

    def seen(use: Use, d: Tensor) -> None:
        if d.dim() and len(d) % len(losses) == 0:
            rows = d.detach().reshape(len(losses), -1)
            found[use.position] = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)

    tape.seen = seen
    torch.autograd.grad(losses, ends, weights, allow_unused=True, retain_graph=True)
    return found


def signature(use: Use, n: int) -> tuple:
    """Return function, parameters, and the output's shape a sample."""
    return use.function, tuple(use.roles.items()), (use.shape[0] / n, *use.shape[1:]) if use.shape else ()


def what_counts(calls: list[tuple], paths: dict[str, Path]) -> list[tuple]:
    """Return what of signatures must be the same in each run: shapes only where rules handle a parameter."""
    fast = {name for name, path in paths.items() if path.fast}
    return [(call[0], call[1], call[2] if fast & {name for _, name in call[1]} else ()) for call in calls]
