"""One notebook, run from its first cell to its last where nothing of ours is installed, and what that changed."""

import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError

from colab.environment import fresh, installed

# Colab lacks mnist1d, and jedi: IPython asks for it, so that pip adds it with whatever needs ipywidgets.
OURS = {"gradconf", "mnist1d", "jedi"}
UNLIKE = {"MPLBACKEND", "PYTHONPATH", "TQDM_DISABLE", "VIRTUAL_ENV"}  # set here, not in Colab


@dataclass(frozen=True)
class Report:
    """What happened to one notebook.

    Attributes:
        notebook: as far as it was executed.
        seconds: for the installation and all cells.
        faults: in sentences; none when all went well.
        added: packages that the first cell installed, with their versions.
    """

    notebook: nbformat.NotebookNode
    seconds: float
    faults: list[str] = field(default_factory=list)
    added: dict[str, str] = field(default_factory=dict)


def attempt(path: Path, folder: Path, variables: dict[str, str]) -> Report:
    """Copy a notebook alone into an empty folder, and run it in a fresh environment.

    Args:
        path: the notebook.
        folder: an empty folder to work in.
        variables: environment variables to add.

    Returns:
        What happened.
    """
    python, alone = fresh(folder / "environment", Path(sys.executable)), folder / "alone"
    alone.mkdir()
    notebook = nbformat.read(shutil.copy(path, alone), 4)
    before, start, faults = installed(python), time.perf_counter(), []
    try:
        execute(notebook, python, alone, variables)
    except (CellControlSignal, DeadKernelError) as error:  # a cell failed, took too long, or ended the kernel
        faults.append(str(error))
    seconds = time.perf_counter() - start
    after = installed(python)
    added = {name: version for name, version in after.items() if name not in before}
    return Report(notebook, seconds, faults + moved(before, after) + warned(notebook), added)


def execute(notebook: nbformat.NotebookNode, python: Path, folder: Path, variables: dict[str, str]) -> None:
    """Run all cells of a notebook, in place.

    Args:
        notebook: whose outputs are replaced.
        python: runs the kernel.
        folder: the kernel's working directory.
        variables: environment variables to add.

    Raises:
        CellControlSignal: at the first cell that fails or takes too long.
        DeadKernelError: if the kernel ends.
    """
    client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}})
    client.create_kernel_manager()
    client.km.kernel_spec.argv[:1] = [str(python), "-Xfrozen_modules=off"]  # else the debugger complains
    ours = {name: value for name, value in os.environ.items() if name not in UNLIKE}
    client.execute(env=ours | variables)


def moved(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return a sentence for every package that a notebook should have left alone."""
    added = sorted(after.keys() - before.keys() - OURS)
    changed = sorted(name for name in before if after.get(name) != before[name])
    return [f"{name} {after[name]} was installed, which is not ours to install." for name in added] + [
        f"{name} was {before[name]} and is now {after.get(name, 'gone')}." for name in changed
    ]


def warned(notebook: nbformat.NotebookNode) -> list[str]:
    """Return a sentence for every cell that warns, which readers take for a mistake of theirs."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    texts = ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]
    return [f"cell {number} warns: {text}" for number, text in enumerate(texts, start=1) if "Warning:" in text]
