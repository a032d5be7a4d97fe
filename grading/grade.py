"""Grade a folder of notebooks, in parallel, each in a sandbox of its own: `python -m grading.grade FOLDER`."""

import argparse
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import nbformat
from tqdm import tqdm

from grading import sandbox, submissions
from grading.masters import kept_questions
from grading.places import BUILT, ROOT, autograder
from grading.results import Grade, read_result
from grading.suspicions import suspicions
from grading.table import obstacle_to, report, write_somewhere

INSIDE = ROOT / "grading" / "inside.py"
LATE = "its {:.0f} seconds were up"


def grade_folder(folder: Path, *, assignment: str, jobs: int, limits: sandbox.Limits) -> list[Grade]:
    """Grade every file below a folder, and return one grade a file, in the order of their names.

    Without the name of an assignment, each notebook's title says which it is. What runs out of time beside others,
    which may have slowed it, is graded once more alone. Ctrl-C keeps what is graded already.
    """
    files = submissions.handed_in(folder)
    names = [assignment] if assignment else sorted(path.parent.name for path in BUILT.glob("*/autograder.zip"))
    for name in names:
        autograder(name)  # stops here if it is not built
    grades = {
        path: Grade(path.relative_to(folder).as_posix(), failed="grading was stopped before it") for path in files
    }
    if _grade_all(files, grades, names, limits, jobs) and jobs > 1:
        late = [path for path in files if grades[path].failed == LATE.format(limits.seconds)]
        _grade_all(late, grades, names, limits, 1)
    return list(grades.values())


def _grade_all(
    files: list[Path], grades: dict[Path, Grade], names: list[str], limits: sandbox.Limits, jobs: int
) -> bool:
    """Grade files, so many at a time, each into its place among the grades; return False if Ctrl-C ended that."""
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(_grade_safely, path, grades[path], names, limits): path for path in files}
        try:
            for done in tqdm(as_completed(waiting), total=len(waiting), desc="grading", unit="file", disable=not files):
                grades[waiting[done]] = done.result()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            return False
    return True


def _grade_safely(path: Path, grade: Grade, names: list[str], limits: sandbox.Limits) -> Grade:
    """Grade one file; whatever happens to it stays with it."""
    try:
        notebook = submissions.read(path)
        grade = replace(grade, assignment=names[0] if len(names) == 1 else submissions.recognise(notebook, names))
        return grade_one(notebook, replace(grade, failed=""), limits)
    except ValueError as error:
        return replace(grade, failed=str(error))
    except Exception as error:
        return replace(grade, failed=f"{type(error).__name__}: {error}")


def grade_one(notebook: nbformat.NotebookNode, grade: Grade, limits: sandbox.Limits) -> Grade:
    """Grade one plain notebook, and return the grade with its points.

    Raises:
        ValueError: with the reason, if there is no result.
    """
    with tempfile.TemporaryDirectory(prefix="grading-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        given, result, work = folder / "submission.ipynb", folder / "result.json", folder / "work"
        nbformat.write(notebook, given)
        result.touch()
        work.mkdir()
        packed = autograder(grade.assignment)
        command = [sys.executable, str(INSIDE), str(given), str(packed), str(result), str(limits.cell_seconds)]
        readable = [INSIDE, given, packed, ROOT / "gradconf"]
        outcome = sandbox.run(command, work, readable=readable, writable=result, limits=limits)
        if outcome.status is None:
            raise ValueError(LATE.format(limits.seconds))
        try:
            grade = read_result(result, kept_questions(grade.assignment), grade)
        except ValueError as error:
            raise ValueError(f"{error} (exit status {outcome.status}): {outcome.said[-200:]}") from error
    odd = [f"its grading ended with exit status {outcome.status}"] if outcome.status else []  # who wrote the result?
    odd += submissions.other_title(notebook, grade.assignment)
    odd += suspicions(notebook, submissions.as_handed_out(grade.assignment))
    return replace(grade, look=grade.look + odd)


def main() -> None:
    """Grade the folder named on the command line and write the table."""
    parser = argparse.ArgumentParser(prog="python -m grading.grade", description=__doc__)
    parser.add_argument("folder", type=Path, help="submissions: notebooks, in subfolders or not")
    parser.add_argument("--assignment", default="", help="e.g. 01_concept; otherwise each notebook's title says which")
    parser.add_argument("--out", type=Path, help="the table to write; the folder's name with .csv by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="submissions at a time")
    parser.add_argument("--seconds", type=float, default=sandbox.Limits.seconds, help="for each submission")
    options = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # whatever students' files are called
    if not options.folder.is_dir():
        sys.exit(f"There is no folder {options.folder}: make grade SUBMISSIONS=folder")
    folder = options.folder.resolve()
    table = options.out or Path(f"{folder}.csv")
    if obstacle := obstacle_to(table):
        sys.exit(obstacle)
    if not sandbox.confined():
        print("bubblewrap is missing: submissions can read your files and reach the network. Install it if you can.")
    limits = sandbox.Limits(seconds=options.seconds)
    grades = grade_folder(folder, assignment=options.assignment, jobs=options.jobs, limits=limits)
    table = write_somewhere(grades, table)
    print(report(grades, table))


if __name__ == "__main__":
    main()
