"""The first code cell of the chapters, where Colab's packages are."""

import nbformat
import pytest
from conftest import CHAPTER, colab_run, notebook
from nbclient.exceptions import CellExecutionError

from colab.attempt import execute
from colab.run import first_cell

CELL = first_cell(CHAPTER)
NO_NETWORK = dict.fromkeys(("https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
SENTENCE = "Not installed: this needs a network, and Python 3.11 or newer."


def shown(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


def test_it_installs_once_and_says_nothing_the_second_time(python, published, tmp_path):
    run = notebook(CELL, "import gradconf\ndevice = gradconf.setup()", CELL)
    execute(run, python, tmp_path, published)
    assert "gradconf" in shown(run.cells[1])
    assert "and the sizes given here need none" in shown(run.cells[1])
    assert run.cells[2].outputs == []


@pytest.mark.parametrize(
    ("where", "reason"), [("no network", "Failed to connect"), ("old Python", "requires a different Python")]
)
def test_where_it_cannot_install_it_says_so_in_a_sentence(python, tmp_path, request, where, reason):
    variables = NO_NETWORK if where == "no network" else request.getfixturevalue("for_a_later_python")
    run = notebook(CELL, "print('not reached')")
    with pytest.raises(CellExecutionError):
        execute(run, python, tmp_path, variables)
    assert reason in shown(run.cells[0])
    (error,) = (output for output in run.cells[0].outputs if output.output_type == "error")
    assert (error.ename, error.evalue) == ("SystemExit", SENTENCE)
    everything = shown(run.cells[0]) + "".join(error.traceback)
    assert "Traceback" not in everything
    assert "---->" not in everything
    assert run.cells[1].outputs == []


def test_what_colab_lacks_makes_the_run_fail(tmp_path):
    path = tmp_path / "planted.ipynb"
    nbformat.write(notebook(CELL, "%pip install -q --no-deps nbval", "import hypothesis"), path)
    done = colab_run(path)
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'hypothesis'" in done.stdout
    assert "nbval 0.11.0 was installed, which is not ours to install." in done.stdout
