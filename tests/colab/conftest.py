"""An environment with Colab's packages, in which gradconf is not installed: `make colab` makes it."""

import os
import subprocess
from pathlib import Path

import nbformat
import pytest

from colab.environment import fresh
from colab.repository import redirected
from colab.run import first_cell
from tests.site.conftest import chromium  # noqa: F401, the fixture

ROOT = Path(__file__).parents[2]
COLAB = ROOT / ".venv-colab" / "bin" / "python"
CHAPTER = ROOT / "chapters" / "01_concept.ipynb"


@pytest.fixture(scope="session", autouse=True)
def made():
    if not COLAB.exists():
        pytest.exit("there is no environment like Colab's yet: run make test-colab", returncode=1)


@pytest.fixture
def python(tmp_path):
    """A Python with Colab's packages and without gradconf."""
    return fresh(tmp_path / "environment", COLAB)


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Environment variables by which git finds the last commit at the published address."""
    return redirected(ROOT, tmp_path_factory.mktemp("published") / "gradconf.git", first_cell(CHAPTER))


@pytest.fixture(scope="session")
def for_a_later_python(tmp_path_factory):
    """The same of a commit that demands a Python that nobody has yet."""
    folder = tmp_path_factory.mktemp("later")
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    subprocess.run(["git", "clone", "-q", ROOT, folder / "clone"], check=True)
    project = folder / "clone" / "pyproject.toml"
    project.write_text(project.read_text().replace('requires-python = ">=3.11"', 'requires-python = ">=3.99"'))
    subprocess.run(["git", *identity, "commit", "-qam", "later"], cwd=folder / "clone", check=True)
    return redirected(folder / "clone", folder / "gradconf.git", first_cell(CHAPTER))


def notebook(*sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=kernel)


def colab_run(path):
    """Run a notebook by the command behind `make colab`."""
    command = [COLAB, "-m", "colab.run", path]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
