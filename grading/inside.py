"""Runs inside the sandbox: grade one notebook with otter and write what came out as JSON.

Everything here works beside untrusted code. Nothing that it writes is believed without `grading.results`.
"""

import hashlib
import inspect
import json
import os
import re
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

from nbconvert.preprocessors import ExecutePreprocessor
from nbformat.v4 import new_code_cell

CHECK = re.compile(r"# Check of question (\d+):")


def main(notebook: str, autograder: str, result: str, cell_seconds: str) -> None:
    """Grade the notebook with the autograder's zip, and write the file `result`."""
    from otter.run import run_autograder_main

    if find_spec("gradconf") is None:  # else right answers that use it would silently be wrong
        sys.exit("gradconf is not installed where submissions run: remove .venv-teach, and make it again.")
    failures, checks = _watch_cells(int(cell_seconds))
    folder = _lay_out(notebook, autograder)
    before = _digest(folder / "source")
    os.chdir(folder)
    run_autograder_main(str(folder), logo=False, otter_run=True)
    tests = json.loads((folder / "results" / "results.json").read_text())["tests"]
    copied = _digest(folder / "source" / "tests") == _digest(folder / "submission" / "tests")
    touched = not copied or before != _digest(folder / "source")
    written = {"tests": tests, "touched": touched, "failures": failures, "checks": checks}
    Path(result).write_text(json.dumps(written))


def _lay_out(notebook: str, autograder: str) -> Path:
    """Make the folders that otter expects on Gradescope."""
    folder = Path(tempfile.mkdtemp())
    for part in ("source", "submission", "results"):
        (folder / part).mkdir()
    with zipfile.ZipFile(autograder) as packed:
        packed.extractall(folder / "source")
    (folder / "submission" / "submission.ipynb").write_bytes(Path(notebook).read_bytes())
    (folder / "submission_metadata.json").write_text("{}")
    return folder


def _watch_cells(seconds: int) -> tuple[list[str], list[str]]:
    """Interrupt cells that take longer, and hidden tests that take half as long.

    Returns:
        Two lists that fill with the errors of cells, and with the questions whose visible check fails.
    """
    failures, checks, execute = [], [], ExecutePreprocessor.preprocess

    def preprocess(self, notebook, *args, **options):
        last = notebook.cells[-1].source  # otter's: it runs all hidden tests
        self.timeout_func = lambda cell: None if cell.source == last else seconds
        self.interrupt_on_timeout = True  # and go on with the next cell
        limit = f"{inspect.getsource(limit_tests)}\nlimit_tests({seconds / 2})\ndel limit_tests"
        notebook.cells.insert(0, new_code_cell(limit))
        notebook, resources = execute(self, notebook, *args, **options)
        for cell in notebook.cells:
            found = [_said(output, seconds) for output in cell.get("outputs", []) if output["output_type"] == "error"]
            failures.extend(found)
            checks.extend(f"q{number}" for number in CHECK.findall(cell.source) if found)
        return notebook, resources

    ExecutePreprocessor.preprocess = preprocess
    return failures, checks


def _said(error: dict, seconds: int) -> str:
    if error["ename"] == "KeyboardInterrupt":
        return f"it takes longer than {seconds} s"
    return f"{error['ename']}: {error['evalue']}"[:200]


def limit_tests(seconds: float) -> None:
    """Make a question's hidden test fail if it takes longer, and go on with the next question's.

    Its source is run by the kernel, where the tests are, which may take the alarm from there on. An answer that catches
    every exception for ever is left to the time limit of the whole submission.
    """
    import signal

    from otter.test_files import ExceptionTestFile

    run = ExceptionTestFile.run

    def ring(number, frame):
        raise TimeoutError(f"it takes longer than {seconds:g} s")

    def run_in_time(self, environment):
        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)  # again and again, as it may be caught
        try:
            run(self, environment)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    ExceptionTestFile.run = run_in_time


def _digest(folder: Path) -> str:
    """Return one hash of all Python files in a folder and their names."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        if path.name != "__init__.py":
            total.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


if __name__ == "__main__":
    main(*sys.argv[1:])
