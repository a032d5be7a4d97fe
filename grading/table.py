"""The table of marks: one row a submission."""

import csv
import os
import tempfile
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
    written = path.with_name(f"{path.name}.part")  # a table is whole, or not there
    with written.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for grade in grades:
            writer.writerow([_harmless(value) for value in _row(grade, listed.get(grade.assignment, []), columns)])
    written.replace(path)


def obstacle_to(path: Path) -> str:
    """Say why a table cannot be written to a path, or ""; before grading, so that its time is not lost."""
    if path.is_dir():
        return f"{path} is a folder: give the name of a table, OUT=table.csv"
    if os.path.lexists(path):
        return f"{path} exists, and may hold marks that you wrote: move it, or choose another, OUT=table.csv"
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} to write {path.name} to: make it, or choose another, OUT=table.csv"
    if not os.access(path.parent, os.W_OK):
        return f"You may not write to {path.parent}: choose another place, OUT=table.csv"
    return ""


def write_somewhere(grades: list[Grade], path: Path) -> Path:
    """Write the table, beside other temporary files if it cannot be written where it should; return where it is."""
    try:
        write_csv(grades, path)
    except OSError as error:
        elsewhere = Path(tempfile.mkdtemp(prefix="marks-")) / path.name
        print(f"{path} cannot be written ({error.strerror}): look for {elsewhere}")
        write_csv(grades, elsewhere)
        return elsewhere
    return path


def report(grades: list[Grade], path: Path) -> str:
    """Return a summary to print: how many were graded, and every one that needs a person."""
    lines = [f"{len(grades)} files: {path}"]
    for status in ("graded", "look", "not graded"):
        lines.append(f"{sum(grade.status == status for grade in grades):5d}  {status}")
    for grade in grades:
        if grade.status != "graded":
            lines.append(f"  {grade.submission}: {grade.failed or '; '.join(grade.look)}")
    text = "\n".join(lines)
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)


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
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
