"""The table of marks: one row a submission."""

import csv
from pathlib import Path

from grading.masters import Question, kept_questions
from grading.results import Grade


def write_csv(grades: list[Grade], path: Path) -> None:
    """Write one row a submission: status, points in all and by question, and why points are missing.

    Questions that are marked by hand have empty columns, to be filled in.
    """
    listed = {name: kept_questions(name) for name in {grade.assignment for grade in grades} if name}
    columns = sorted({question.name for questions in listed.values() for question in questions})
    head = ["submission", "assignment", "status", "points", "of", "by hand, of"]
    head += [*columns, "look", "messages", "failed cells"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for grade in grades:
            writer.writerow([_harmless(value) for value in _row(grade, listed.get(grade.assignment, []), columns)])


def report(grades: list[Grade], path: Path) -> str:
    """Return a summary to print: how many were graded, and every one that needs a person."""
    lines = [f"{len(grades)} files: {path}"]
    for status in ("graded", "look", "not graded"):
        lines.append(f"{sum(grade.status == status for grade in grades):5d}  {status}")
    for grade in grades:
        if grade.status != "graded":
            lines.append(f"  {grade.submission}: {grade.failed or '; '.join(grade.look)}")
    return "\n".join(lines)


def _row(grade: Grade, questions: list[Question], columns: list[str]) -> list[object]:
    automatic = sum(question.points for question in questions if not question.manual)
    by_hand = sum(question.points for question in questions if question.manual)
    totals = ["", automatic or "", by_hand or ""] if grade.failed else [sum(grade.points.values()), automatic, by_hand]
    marks = [grade.points.get(name, "") for name in columns]
    messages = "\n".join(f"{name}: {message}" for name, message in grade.messages.items())
    why = [grade.failed or messages, "\n".join(grade.errors)]
    return [grade.submission, grade.assignment, grade.status, *totals, *marks, "; ".join(grade.look), *why]


def _harmless(value: object) -> object:
    """Keep a spreadsheet from taking a student's text for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
