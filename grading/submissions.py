"""Find what was handed in, and make plain notebooks of it: source only, whatever Colab or a student did to the rest."""

import re
from pathlib import Path

import nbformat

from grading.places import STUDENTS

TITLE = re.compile(r"^# Assignment (\d+)", re.MULTILINE)
LARGEST = 50 * 2**20  # bytes of a notebook, figures included


def handed_in(folder: Path) -> list[Path]:
    """Return every file below a folder, but hidden ones, in order."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def read(path: Path) -> nbformat.NotebookNode:
    """Read a submission as a plain notebook: code and Markdown, without metadata and outputs.

    Raises:
        ValueError: with the reason, if the file is not a notebook that can be graded.
    """
    if path.is_symlink():
        raise ValueError("it is a link, not a file")
    if path.suffix.lower() != ".ipynb":
        raise ValueError(f"it is no notebook: the name ends in '{path.suffix}', not in '.ipynb'")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it has more than {LARGEST // 2**20} MB: hand it in without outputs")
    try:
        given = nbformat.reads(path.read_text(encoding="utf-8-sig"), as_version=4)  # Windows may mark it
        cells = [_plain(cell) for cell in given.cells if cell.cell_type in ("code", "markdown")]
    except Exception as error:  # whatever is wrong with the file, the others are graded
        raise ValueError(f"it cannot be read as a notebook: {type(error).__name__}") from error
    if not any(cell.cell_type == "code" and cell.source.strip() for cell in cells):
        raise ValueError("it has no code")
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=kernel)


def recognise(notebook: nbformat.NotebookNode, names: list[str]) -> str:
    """Return which of the assignments a notebook is, by its title.

    Raises:
        ValueError: if no title says so.
    """
    for cell in notebook.cells:
        title = TITLE.search(cell.source) if cell.cell_type == "markdown" else None
        for name in names:
            if title and name.startswith(f"{int(title[1]):02d}_"):
                return name
    raise ValueError("no cell begins with '# Assignment' and its number: give the name, ASSIGNMENT=...")


def other_title(notebook: nbformat.NotebookNode, name: str) -> list[str]:
    """Say if a notebook that is graded as one assignment has the title of another."""
    titles = (TITLE.search(cell.source) for cell in notebook.cells if cell.cell_type == "markdown")
    numbers = [int(title[1]) for title in titles if title]
    if not numbers or any(name.startswith(f"{number:02d}_") for number in numbers):
        return []
    return [f"its title is that of assignment {numbers[0]}, and it was graded as {name}"]


def as_handed_out(name: str) -> nbformat.NotebookNode:
    """Return the notebook that the students of an assignment were given."""
    return nbformat.read(STUDENTS / f"{name}.ipynb", as_version=4)


def _plain(cell: nbformat.NotebookNode) -> nbformat.NotebookNode:
    make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
    return make(str(cell.source).replace("\r\n", "\n"))
