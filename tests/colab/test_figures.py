"""Figures with controls in Notebook 6 with ipywidgets 7, where only the kernel can switch between frames."""

import json
import os
import re
import subprocess
import time

import nbformat
import pytest
from conftest import CHAPTER, COLAB

VISIBLE = "[...document.querySelectorAll('.widget-html img')].filter(i => i.offsetParent).map(i => i.alt)"
READY = "window.IPython?.notebook?.kernel?.is_connected() && IPython.notebook.kernel.widget_manager"
MINUTES = 60_000  # milliseconds


@pytest.fixture
def kernel(python, tmp_path):
    """A folder that tells Jupyter to start kernels in the fresh environment."""
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    return tmp_path / "jupyter"


@pytest.fixture
def address(kernel, published, tmp_path):
    """Notebook 6, serving the first chapter up to its second figure with controls."""
    chapter, alone, log = nbformat.read(CHAPTER, 4), tmp_path / "alone", tmp_path / "log"
    ends = [number for number, cell in enumerate(chapter.cells) if "\nexplore(" in f"\n{cell.source}"]
    chapter.cells = chapter.cells[: ends[1] + 1]
    alone.mkdir()
    nbformat.write(chapter, alone / "chapter.ipynb")
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--NotebookApp.token=", f"--notebook-dir={alone}"]
    variables = os.environ | published | {"JUPYTER_PATH": str(kernel), "JUPYTER_RUNTIME_DIR": str(tmp_path)}
    with log.open("w") as written:
        server = subprocess.Popen([COLAB, "-m", "notebook", *options], env=variables, stdout=written, stderr=written)
    while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
        assert server.poll() is None, log.read_text()
        time.sleep(0.2)
    yield found[0]
    server.terminate()
    server.wait(60)


def test_both_figures_follow_the_keyboard(chromium, address):
    tab = chromium.new_page()
    tab.route(lambda url: not url.startswith(address), lambda route: route.abort())
    tab.goto(f"{address}/notebooks/chapter.ipynb", wait_until="domcontentloaded", timeout=2 * MINUTES)
    tab.wait_for_function(READY, timeout=2 * MINUTES)
    tab.wait_for_timeout(10_000)  # Notebook 6 asks a new kernel for old widgets, and mixes them up with new ones
    tab.evaluate("IPython.notebook.execute_all_cells()")
    figures = tab.locator(".widget-vbox:has(> .widget-slider)")
    figures.nth(1).locator("img").wait_for(timeout=5 * MINUTES)
    assert figures.count() == 2
    for figure in figures.all():
        before = tab.evaluate(VISIBLE)
        figure.locator(".ui-slider-handle").focus()
        tab.keyboard.press("ArrowRight")
        changed = f"before => JSON.stringify({VISIBLE}) !== JSON.stringify(before)"
        tab.wait_for_function(changed, arg=before, timeout=MINUTES)
    tab.close()
