"""Where masters, student notebooks and autograders lie."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
STUDENTS = ROOT / "assignments"
MASTERS = STUDENTS / "masters"
ANSWERS = STUDENTS / "answers"
BUILT = ROOT / "_build" / "assignments"


def assignments() -> list[str]:
    """Return the names of all assignments that have a master, or stop where there are no masters."""
    names = sorted(path.stem for path in MASTERS.glob("*.ipynb"))
    if not names:
        raise SystemExit(f"There are no masters in {MASTERS}: this is a public copy, without solutions.")
    return names


def autograder(name: str) -> Path:
    """Return the Gradescope-ready zip of an assignment, or stop if it is not built."""
    path = BUILT / name / "autograder.zip"
    if not path.exists():
        raise SystemExit(f"There is no {path.relative_to(ROOT)}: run make assignments first.")
    return path
