"""Grade the prepared answers and broken submissions, and compare the marks with the expected ones.

`python -m grading.rehearse` takes every assignment; `python -m grading.rehearse --students 60 01_concept` a class.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import nbformat

from grading.answers import Answer, answers, covering, expected, filled_in
from grading.broken import BROKEN, write_broken
from grading.grade import grade_folder
from grading.places import assignments
from grading.results import Grade
from grading.sandbox import Limits
from grading.table import report, write_csv

IN_A_CLASS = ["endless.ipynb", "kernel_dies.ipynb", "empty_file.ipynb", "reads_tests.ipynb", "answers.pdf"]
SOME = ["colab.ipynb", "kernel_dies.ipynb", "overwrites_checks.ipynb", "reads_tests.ipynb", "empty_file.ipynb"]
LIMITS = Limits(seconds=100, cell_seconds=30)  # a machine may be busy; what is late has a second chance


def a_class(name: str, students: int, seed: int = 0) -> list[list[Answer]]:
    """Return the answers of a class that is right three times out of four."""
    chance, prepared = random.Random(seed), answers(name).values()

    def answer(listed: list[Answer]) -> Answer:
        right = chance.random() < 0.75
        return chance.choice([one for one in listed if one.right == right])

    return [[answer(listed) for listed in prepared] for _ in range(students)]


def hand_in(name: str, chosen: list[list[Answer]], broken: list[str], folder: Path) -> dict[str, dict[str, float]]:
    """Write a folder of submissions, and return the points expected for those that are not broken."""
    marks = {}
    for number, student in enumerate(chosen, start=1):
        path = folder / f"student_{number:02d}.ipynb"
        nbformat.write(filled_in(name, student), path)
        marks[path.name] = expected(name, student)
    right = [next(a for a in listed if a.right) for listed in answers(name).values()]
    write_broken(filled_in(name, right), folder, broken)
    full = expected(name, right)
    return marks | {broken_name: full for broken_name in broken if BROKEN[broken_name][1] == "graded"}


def differences(grades: list[Grade], marks: dict[str, dict[str, float]], broken: list[str]) -> list[str]:
    """Say where a grade is not the expected one."""
    found, by_name = [], {grade.submission: grade for grade in grades}
    for name in sorted(set(marks) | set(broken) | set(by_name)):
        grade, status = by_name.get(name), BROKEN[name][1] if name in BROKEN else "graded"
        if grade is None or grade.status != status:
            found.append(f"{name}: expected to be {status}, is {grade and (grade.status, grade.failed, grade.look)}")
        elif status == "graded" and grade.points != marks[name]:
            wrong = {q: (grade.points[q], p) for q, p in marks[name].items() if grade.points[q] != p}
            found.append(f"{name}: (points, expected) are {wrong}; {grade.messages}")
    return found


def rehearse(name: str, chosen: list[list[Answer]], broken: list[str], jobs: int) -> list[str]:
    """Grade a folder of prepared submissions and return the differences; print the summary and the time."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, name)
        folder.mkdir()
        marks, start = hand_in(name, chosen, broken, folder), time.monotonic()
        grades = grade_folder(folder, assignment=name, jobs=jobs, limits=LIMITS)
        write_csv(grades, Path(temporary, "marks.csv"))
        print(report(grades, Path(name)))
        print(f"{name}: {len(grades)} files in {time.monotonic() - start:.0f} s, {jobs} at a time")
    return [f"{name}, {line}" for line in differences(grades, marks, broken)]


def main() -> None:
    """Rehearse the assignments named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="python -m grading.rehearse", description=__doc__)
    parser.add_argument("names", nargs="*", help="assignments, e.g. 01_concept")
    parser.add_argument("--students", type=int, default=0, help="a class of so many, five of them broken")
    parser.add_argument("--jobs", type=int, default=2, help="submissions at a time")
    options = parser.parse_args()
    found, first = [], assignments()[0]
    for name in options.names or assignments():
        # What is broken hardly depends on the questions, so one assignment has all of it.
        broken = IN_A_CLASS if options.students else list(BROKEN) if name == first else SOME
        chosen = a_class(name, options.students - len(broken)) if options.students else covering(name)
        found += rehearse(name, chosen, broken, options.jobs)
    if found:
        sys.exit("\n".join(found))
    print("All marks are as expected.")


if __name__ == "__main__":
    main()
