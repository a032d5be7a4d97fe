"""Prepared answers, right and wrong, and submissions made of them, whose marks are known beforehand."""

import itertools
import re
from dataclasses import dataclass

import nbformat

from grading import masters
from grading.places import ANSWERS, MASTERS
from grading.submissions import as_handed_out

HEAD = re.compile(r"^# %% (q\d+) (right|wrong): (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    """A prepared answer: to which question, whether it is right, what it is an example of, and its code."""

    question: str
    right: bool
    what: str
    code: str


def answers(name: str) -> dict[str, list[Answer]]:
    """Return the prepared answers of an assignment, by question."""
    _, *parts = HEAD.split((ANSWERS / f"{name}.py").read_text(encoding="utf-8"))
    found: dict[str, list[Answer]] = {}
    for question, verdict, what, code in zip(*(parts[k::4] for k in range(4)), strict=True):
        found.setdefault(question, []).append(Answer(question, verdict == "right", what, code.strip()))
    return found


def filled_in(name: str, chosen: list[Answer]) -> nbformat.NotebookNode:
    """Return the notebook of an assignment with these answers in place of the open ones, just before the checks."""
    notebook, waiting = as_handed_out(name), {f"# Check of question {a.question[1:]}:": a.code for a in chosen}
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for open_one, check in itertools.pairwise(code):
        title = check.source.partition("\n")[0].partition(":")[0] + ":"
        open_one.source = waiting.pop(title, open_one.source)
    if waiting:
        raise ValueError(f"{name} has no check {', '.join(waiting)}")
    return notebook


def covering(name: str) -> list[list[Answer]]:
    """Return choices of one answer a question, so few that together they hold every prepared answer."""
    prepared = answers(name)
    number = max(map(len, prepared.values()))
    return [
        [listed[(k + shift) % len(listed)] for shift, listed in enumerate(prepared.values())] for k in range(number)
    ]


def expected(name: str, chosen: list[Answer]) -> dict[str, float]:
    """Return the points that a submission with these answers has to get, by question."""
    points = {q.name: q.points for q in masters.questions(MASTERS / f"{name}.ipynb") if not q.manual}
    right = {answer.question for answer in chosen if answer.right}
    return {question: most if question in right else 0.0 for question, most in points.items()}
