"""Submissions that are broken in every way we could think of, each with the status it has to get."""

import json
from collections.abc import Callable
from pathlib import Path

import nbformat

Notebook = nbformat.NotebookNode


def _with_cell(source: str, position: int = 3) -> Callable[[Notebook], str]:
    def make(notebook: Notebook) -> str:
        changed = nbformat.from_dict(notebook)
        changed.cells.insert(position, nbformat.v4.new_code_cell(source))
        return nbformat.writes(changed)

    return make


def _rewritten_by_colab(notebook: Notebook) -> str:
    """Give every cell the ids and metadata that Colab writes, outputs, and a notebook format without cell ids."""
    given = json.loads(nbformat.writes(notebook))
    for number, cell in enumerate(given["cells"]):
        cell.pop("id", None)
        cell["metadata"] = {"id": f"a{number}Bc9", "colab": {"base_uri": "https://localhost:8080/"}}
        if cell["cell_type"] == "code":
            text = {"output_type": "stream", "name": "stdout", "text": ["said in Colab\n"]}
            cell |= {"execution_count": number, "outputs": [text]}
    given["metadata"] = {
        "colab": {"provenance": []},
        "kernelspec": {"name": "ir", "display_name": "R"},
        "accelerator": "GPU",
    }
    return json.dumps(given | {"nbformat": 4, "nbformat_minor": 0})


READS_TESTS = "import glob\nfor path in glob.glob('**/*.py', recursive=True):\n    print(open(path).read())"
CHANGES_TESTS = "import glob\nfor path in glob.glob('**/q*.py', recursive=True):\n    open(path, 'w').write('')"
FORGES_RESULT = """
system, rows = torch.os, [{"name": "Public Tests"}]
rows += [{"name": f"q{k}", "score": p, "max_score": p} for k, p in enumerate((3, 2, 3, 3, 3, 2, 2), start=1)]
path = system.popen(f"cat /proc/{system.getppid()}/cmdline | tr '\\\\0' ' '").read().split()[-2]
forged = system.open(path, system.O_WRONLY | system.O_TRUNC)
system.write(forged, str({"tests": rows, "touched": 0, "failures": [], "checks": []}).replace("'", '"').encode())
system.kill(system.getppid(), 9)
"""
OTHER_RESULT = "import otter.execute\notter.execute.Checker.get_results = lambda: []"

# By file name: how to break a notebook, and what has to become of it.
BROKEN: dict[str, tuple[Callable[[Notebook], str], str]] = {
    "colab.ipynb": (_rewritten_by_colab, "graded"),
    "fails_in_a_cell.ipynb": (_with_cell("1 / 0"), "graded"),
    "endless_cell.ipynb": (_with_cell("while True:\n    pass"), "graded"),
    "endless.ipynb": (
        _with_cell(
            "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass"
        ),
        "not graded",
    ),
    "kernel_dies.ipynb": (_with_cell("import os\nos._exit(1)"), "not graded"),
    "too_much_memory.ipynb": (_with_cell("hoard = [bytearray(2**28) for _ in range(200)]"), "graded"),
    "overwrites_checks.ipynb": (_with_cell("torch.allclose = lambda *a, **k: True"), "look"),
    "reads_tests.ipynb": (_with_cell(READS_TESTS), "look"),
    "changes_tests.ipynb": (_with_cell(CHANGES_TESTS), "look"),
    "forges_result.ipynb": (_with_cell(FORGES_RESULT), "look"),
    "no_results.ipynb": (_with_cell(OTHER_RESULT), "look"),
    "empty_file.ipynb": (lambda notebook: "", "not graded"),
    "empty_notebook.ipynb": (lambda notebook: nbformat.writes(nbformat.v4.new_notebook()), "not graded"),
    "cut_off.ipynb": (lambda notebook: nbformat.writes(notebook)[:5000], "not graded"),
    "answers.pdf": (lambda notebook: "%PDF-1.4", "not graded"),
}


def write_broken(notebook: Notebook, folder: Path, names: list[str]) -> None:
    """Write broken copies of a notebook to a folder."""
    for name in names:
        (folder / name).write_text(BROKEN[name][0](notebook), encoding="utf-8")
