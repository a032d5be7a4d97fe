"""What a master notebook holds: questions with their points, and passages that students must not see."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
import yaml

from grading.places import BUILT

MARK = "ANSWER" + "-KEY"  # whole in every solution, hidden test and prepared answer, and nowhere else
PASSAGE = re.compile(r"^ *# BEGIN SOLUTION.*?^ *# END SOLUTION", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Question:
    """A question: its name, its points, and whether it is marked by hand."""

    name: str
    points: float
    manual: bool


def questions(master: Path) -> list[Question]:
    """Return the questions of a master, in order."""
    found = []
    for cell in nbformat.read(master, as_version=4).cells:
        if cell.cell_type == "raw" and cell.source.startswith("# BEGIN QUESTION"):
            config = yaml.safe_load(cell.source)
            found.append(Question(config["name"], config["points"], config.get("manual", False)))
    return found


def secrets(master: Path) -> list[str]:
    """Return the passages of a master that students must not see: solutions, model answers and hidden tests."""
    found = []
    for inside, cell in _sections(master):
        if inside == "# BEGIN TESTS" or (inside == "# BEGIN SOLUTION" and cell.cell_type == "markdown"):
            found.append(cell.source)
        elif inside == "# BEGIN SOLUTION":
            found += PASSAGE.findall(cell.source)
    return found


def handed_out_code(master: Path) -> str:
    """Return the code of a master that students are given, checks included."""
    return "\n".join(PASSAGE.sub("", cell.source) for inside, cell in _sections(master) if inside != "# BEGIN TESTS")


def _sections(master: Path) -> Iterator[tuple[str, nbformat.NotebookNode]]:
    """Yield every cell but the raw ones, with the raw cell's first line that begins its section, or ""."""
    inside = ""
    for cell in nbformat.read(master, as_version=4).cells:
        if cell.cell_type == "raw":
            inside = cell.source.splitlines()[0] if "# BEGIN" in cell.source else ""
        else:
            yield inside, cell


def keep_questions(name: str, listed: list[Question]) -> None:
    """Write the questions of an assignment beside its autograder."""
    (BUILT / name / "questions.json").write_text(json.dumps([asdict(q) for q in listed]), encoding="utf-8")


def kept_questions(name: str) -> list[Question]:
    """Read what `keep_questions` wrote."""
    return [Question(**q) for q in json.loads((BUILT / name / "questions.json").read_text(encoding="utf-8"))]
