"""The scripts of the book."""

import subprocess
import sys
from pathlib import Path

import pytest

FORGET = Path(__file__).parents[1] / "book" / "forget.py"


@pytest.fixture
def built(tmp_path):
    """A folder in which a book was built."""
    (tmp_path / "gradconf").mkdir()
    (tmp_path / "gradconf" / "one.py").write_text("1")
    (tmp_path / "constraints.txt").write_text("")
    forget(tmp_path)
    (tmp_path / "_build" / ".jupyter_cache").mkdir()
    return tmp_path


def forget(folder):
    subprocess.run([sys.executable, FORGET], cwd=folder, check=True)
    return not (folder / "_build" / ".jupyter_cache").exists()


def test_results_are_kept_while_the_package_is_the_same(built):
    (built / "gradconf" / "one.py").touch()
    assert not forget(built)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "gradconf" / "one.py").write_text("2"),
        lambda folder: (folder / "gradconf" / "one.py").rename(folder / "gradconf" / "two.py"),
        lambda folder: (folder / "gradconf" / "one.py").unlink(),
        lambda folder: (folder / "gradconf" / "new.csv").write_text(""),
        lambda folder: (folder / "constraints.txt").write_text("torch==1"),
    ],
    ids=["edited", "renamed", "deleted", "added", "versions"],
)
def test_results_are_forgotten_when_anything_changes(built, change):
    change(built)
    assert forget(built)
