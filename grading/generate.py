"""Make student notebooks, solutions and autograders of the masters, and check them: `python -m grading.generate`."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

from grading import masters, sandbox
from grading.grade import grade_one
from grading.places import BUILT, MASTERS, ROOT, STUDENTS, assignments
from grading.results import Grade
from grading.submissions import read

BOUNDARY = re.compile(r"<!-- (BEGIN|END) QUESTION -->")  # otter's, round questions that are marked by hand
FIRST_CHAPTER = ROOT / "chapters" / "01_concept.ipynb"


def generate(name: str) -> None:
    """Write the student's notebook, the solution, and the autograder of one assignment."""
    master = MASTERS / f"{name}.ipynb"
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary)
        split(master, made)
        student = handed_out(made / "student" / f"{name}.ipynb")
        folder = BUILT / name
        folder.mkdir(parents=True, exist_ok=True)
        write_if_changed(student, STUDENTS / f"{name}.ipynb")
        (made / "autograder" / f"{name}.ipynb").replace(folder / "solution.ipynb")
        next((made / "autograder").glob("*.zip")).replace(folder / "autograder.zip")
    masters.keep_questions(name, masters.questions(master))


def write_if_changed(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write a notebook, but leave a file alone that holds it already: others may be reading it."""
    text = nbformat.writes(notebook).rstrip("\n") + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def split(master: Path, folder: Path) -> None:
    """Let otter split a master into `student/` and `autograder/`."""
    command = [sys.executable, "-m", "otter", "assign", "--no-run-tests", str(master), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"otter cannot read {master}:\n{done.stderr[-2000:]}")


def handed_out(path: Path) -> nbformat.NotebookNode:
    """Return otter's student notebook without otter: plain cells, and the chapters' own first cell for Colab."""
    plain = read(path)
    for cell in plain.cells:
        cell.source = BOUNDARY.sub("", cell.source).strip()
    plain.cells = [cell for cell in plain.cells if cell.source]
    plain.cells[1:1] = installing()
    plain.metadata["language_info"] = {"name": "python"}
    plain.nbformat_minor = 5
    for number, cell in enumerate(plain.cells):
        cell["id"] = str(number)
    return plain


def installing() -> list[nbformat.NotebookNode]:
    """Return the cells with which chapters install the package in Colab."""
    cells = nbformat.read(FIRST_CHAPTER, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code" and "find_spec" in cell.source]


def check(name: str) -> None:
    """Stop unless the solution gets all points, the notebook as handed out gets none, and no cell of either fails."""
    listed = [question for question in masters.questions(MASTERS / f"{name}.ipynb") if not question.manual]
    for path, full in ((BUILT / name / "solution.ipynb", True), (STUDENTS / f"{name}.ipynb", False)):
        grade = grade_one(read(path), Grade(path.name, name), sandbox.Limits())
        for question in listed:
            points = grade.points[question.name]
            if points != (question.points if full else 0):
                sys.exit(
                    f"{name}, {question.name}: {path.name} gets {points} points. {grade.messages.get(question.name)}"
                )
        if grade.errors:
            sys.exit(f"{name}: cells of {path.name} fail, such as with {grade.errors[0]}")
        print(f"{name}: {path.name} gets {sum(grade.points.values()):g} points, as it should")


def main() -> None:
    """Generate and check the assignments named on the command line, or all."""
    for name in sys.argv[1:] or assignments():
        generate(name)
        check(name)


if __name__ == "__main__":
    main()
