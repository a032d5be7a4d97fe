"""Runs inside the sandbox: grade one notebook with otter and write what came out as JSON.

Everything here works beside untrusted code. Nothing that it writes is believed without `grading.results`.
"""

import hashlib
import json
import os
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

from nbconvert.preprocessors import ExecutePreprocessor


def main(notebook: str, autograder: str, result: str, cell_seconds: str) -> None:
    """Grade the notebook with the autograder's zip, and write the file `result`."""
    from otter.run import run_autograder_main

    if find_spec("gradconf") is None:  # else right answers that use it would silently be wrong
        sys.exit("gradconf is not installed where submissions run: remove .venv-teach, and make it again.")
    failures = _watch_cells(int(cell_seconds))
    folder = _lay_out(notebook, autograder)
    before = _digest(folder / "source")
    os.chdir(folder)
    run_autograder_main(str(folder), logo=False, otter_run=True)
    tests = json.loads((folder / "results" / "results.json").read_text())["tests"]
    copied = _digest(folder / "source" / "tests") == _digest(folder / "submission" / "tests")
    touched = not copied or before != _digest(folder / "source")
    Path(result).write_text(json.dumps({"tests": tests, "touched": touched, "failures": failures}))


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


def _watch_cells(seconds: int) -> list[str]:
    """Interrupt cells that take longer, and return a list that fills with the errors of cells."""
    failures, execute = [], ExecutePreprocessor.preprocess

    def preprocess(self, notebook, *args, **options):
        self.timeout, self.interrupt_on_timeout = seconds, True  # and go on with the next cell
        notebook, resources = execute(self, notebook, *args, **options)
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                if output["output_type"] == "error":
                    failures.append(f"{output['ename']}: {output['evalue']}"[:200])
        return notebook, resources

    ExecutePreprocessor.preprocess = preprocess
    return failures


def _digest(folder: Path) -> str:
    """Return one hash of all Python files in a folder and their names."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        if path.name != "__init__.py":
            total.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


if __name__ == "__main__":
    main(*sys.argv[1:])
