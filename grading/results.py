"""Read what came out of a sandbox. It was written beside untrusted code: believe only what adds up."""

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from grading.masters import Question

LARGEST = 2**20  # bytes


@dataclass(frozen=True)
class Grade:
    """What one submission got.

    Attributes:
        submission: its path below the folder of submissions.
        assignment: which assignment it is, "" if that is unknown.
        points: by question, for those that are marked automatically.
        messages: by question, why points were lost.
        errors: what cells failed with, visible checks included.
        look: reasons for a person to look at it.
        failed: why it could not be graded, "" if it was.
    """

    submission: str
    assignment: str = ""
    points: dict[str, float] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    look: list[str] = field(default_factory=list)
    failed: str = ""

    @property
    def status(self) -> str:
        """Return "graded", "look" or "not graded"."""
        return "not graded" if self.failed else "look" if self.look else "graded"


def read_result(path: Path, listed: list[Question], grade: Grade) -> Grade:
    """Return the grade with what its sandbox wrote: points, messages, errors, and what does not add up.

    Raises:
        ValueError: if there is no result.
    """
    text = path.read_bytes()[: LARGEST + 1]
    if not text:
        raise ValueError("the tests did not get as far as a result")
    try:
        result = json.loads(text) if len(text) <= LARGEST else None
        rows = {str(row["name"]): row for row in result["tests"] if row["name"] != "Public Tests"}
        touched, number = bool(result["touched"]), len(result["tests"])
        errors = [str(error)[:200] for error in result["failures"]][:50]
        checks = {str(name) for name in result["checks"]}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError("its result is not what the tests write") from error
    points, messages, look = {}, {}, ["the tests were changed while it ran"] if touched else []
    for question in (q for q in listed if not q.manual):
        row = rows.pop(question.name, {})
        points[question.name], odd = _score(row, question)
        look += [f"{question.name}: {odd}"] if odd else []
        if points[question.name] < question.points:
            messages[question.name] = _last_line(row.get("output"))
        elif question.name in checks:
            look.append(f"{question.name} has full marks, and its visible check fails")
    if rows or number != len(points) + 1:
        look.append("its result lists questions twice, or ones that there are not")
    return replace(grade, points=points, messages=messages, errors=errors, look=look)


def _score(row: dict, question: Question) -> tuple[float, str]:
    """Return the points of a question, and what is odd about them."""
    score, most = row.get("score"), row.get("max_score")
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in (score, most))
    if not numbers or most != question.points:
        return 0.0, "no proper result"
    if not 0 <= score <= most:
        return 0.0, f"{score} of {most} points"
    return float(score), ""


def _last_line(output: object) -> str:
    lines = [line.strip() for line in str(output or "").splitlines() if line.strip()]
    last = lines[-1][:300] if lines else ""
    return f"None in place of an answer ({last})" if "NoneType" in last else last
