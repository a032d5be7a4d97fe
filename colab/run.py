"""Run notebooks as Colab does: `python -m colab.run chapters/01_concept.ipynb`.

This Python has Colab's packages: `make colab` makes one from `pins.txt`, and the workflow `colab` uses the image that
Colab publishes. Executed notebooks are left in `_build/colab`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

from colab.attempt import Report, attempt
from colab.repository import redirected

ROOT = Path(__file__).parents[1]
EXECUTED = ROOT / "_build" / "colab"


def main() -> None:
    """Run each notebook of the command line, and exit with 1 if one of them fails."""
    paths = [Path(name) for name in sys.argv[1:]]
    if not paths:
        sys.exit("name the notebooks to run: python -m colab.run chapters/*.ipynb")
    if dirty():
        print("Note: gradconf is installed from the last commit, without what has been changed since.")
    EXECUTED.mkdir(parents=True, exist_ok=True)
    failed = [path for path in paths if run(path).faults]
    if failed:
        sys.exit(f"not as in Colab: {', '.join(str(path) for path in failed)}")


def run(path: Path) -> Report:
    """Run one notebook, keep what it shows, and print what happened."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        variables = redirected(ROOT, folder / "gradconf.git", first_cell(path))
        report = attempt(path, folder, variables)
    nbformat.write(report.notebook, EXECUTED / path.name)
    added = ", ".join(f"{name} {version}" for name, version in report.added.items())
    verdict = "failed" if report.faults else "ran"
    print(f"{path}: {verdict} in {report.seconds:.0f} s; installed {added or 'nothing'}", *report.faults, sep="\n  ")
    return report


def first_cell(path: Path) -> str:
    """Return the source of a notebook's first code cell."""
    return next(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")


def dirty() -> bool:
    """Return whether files of the package differ from the last commit."""
    changes = subprocess.run(
        ["git", "status", "--porcelain", "gradconf", "pyproject.toml"], cwd=ROOT, capture_output=True
    )
    return bool(changes.stdout)


if __name__ == "__main__":
    main()
