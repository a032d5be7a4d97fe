"""How `max_memory` is shared out, and the refusal of what cannot fit."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from gradconf.engine.plans import CONTRACT, FALL_BACK, FORM, Path, Plan
from gradconf.memory import size
from gradconf.problems import Problem

# Shares of max_memory: activations if all samples run at once; else those of a block, what is held, what is formed.
AT_ONCE, BLOCK, HOLD, FORMED = 1 / 2, 3 / 16, 11 / 16, 1 / 16
LARGE, PART = 2**28, 2**26  # bytes of activations that a CPU better runs in blocks, and of such a block
FEW = 32  # samples: a smaller block loses more than it gains
PIECE = 2**24  # bytes of gradients to form at a time where nothing asks for less: memory that is soon used again
CUDA_PIECE = 2**28


class Piece(NamedTuple):
    """A range of the pieces that a parameter can be cut into."""

    name: str
    low: int
    high: int


@dataclass(frozen=True)
class Budget:
    """Bytes for one thing and another.

    Attributes:
        max_memory: for all.
        number: of one number a sample, for all samples.
        step: samples to run together.
        hold: for what is held from block to block; infinite where there is one block.
        form: for gradients to form at a time.
        kept: whether blocks are for speed alone, with room for all gradients.
    """

    max_memory: int
    number: int
    step: int
    hold: float
    form: float
    kept: bool = False

    @classmethod
    def of(cls, problem: Problem, plan: Plan, max_memory: int) -> "Budget":
        """Share out memory: all samples at once where their activations take less than half of it, else in blocks.

        On a CPU, new memory costs time, so blocks are also taken where all samples would use a lot, and every gradient
        can be held meanwhile.
        """
        number = problem.samples * problem.dtype.itemsize
        everything = plan.activations * problem.samples
        piece = CUDA_PIECE if problem.device.type == "cuda" else PIECE
        gradients = sum(path.numbers for path in plan.paths.values()) * number
        large = problem.device.type == "cpu" and everything > LARGE and plan.activations * FEW <= PART
        kept = large and everything + gradients <= HOLD * max_memory
        if everything <= AT_ONCE * max_memory and not kept:
            return cls(max_memory, number, problem.samples, math.inf, min(AT_ONCE * max_memory, piece))
        step = max(1, int((PART if kept else BLOCK * max_memory) / plan.activations))
        return cls(max_memory, number, step, HOLD * max_memory, min(FORMED * max_memory, piece), kept)

    def raw(self, path: Path) -> bool:
        """Tell whether to hold a parameter's inputs and output gradients, as they take less than its gradients."""
        tight = self.hold < math.inf and not self.kept
        return tight and path.way == FORM and 0 < path.raw < path.held and path.raw * self.number <= self.hold

    def bytes(self, path: Path, piece: Piece) -> float:
        """Return what is to be held of a piece."""
        if self.raw(path):
            return path.raw * self.number
        return path.held * self.number * (piece.high - piece.low) / path.pieces

    def pieces(self, path: Path, *, form: bool) -> Iterator[Piece]:
        """Cut a parameter so that what each piece takes fits what may be formed, or else held."""
        each = max(1.0, path.held / path.pieces * self.number)
        whole = path.way == CONTRACT or (self.raw(path) and not form)
        room = self.form if form or self.hold == math.inf else self.hold
        step = path.pieces if whole else max(1, min(path.pieces, int(room / each)))
        yield from (Piece(path.name, low, min(low + step, path.pieces)) for low in range(0, path.pieces, step))

    def refuse_too_little(self, plan: Plan) -> None:
        """Refuse a bound below what the hungriest single thing takes."""
        at_once = self.hold == math.inf
        needs = {} if at_once else {"the activations of one sample": plan.activations / BLOCK}
        for path in plan.paths.values():
            held = path.held * self.number
            if path.way == FALL_BACK:
                needs[f"'{path.name}', for which there is no rule,"] = held / BLOCK
            elif path.way == FORM:
                needs[f"one piece of '{path.name}'"] = held / path.pieces / (AT_ONCE if at_once else HOLD)
            elif path.way == CONTRACT and not at_once:
                needs[f"what contracts '{path.name}'"] = held / HOLD
        what, needed = max(needs.items(), key=lambda item: item[1], default=("", 0))
        if needed > self.max_memory:
            raise MemoryError(
                f"for {plan.samples} samples, {what} does not fit into max_memory ({size(self.max_memory)}): measure "
                f"fewer samples, raise max_memory to {size(needed + 1)}, or leave parameters out with params=. The "
                f"minimum over a random subset of the samples is only an upper bound of the minimum over all."
            )
