"""How notebooks are judged that were run as in Colab. What needs Colab's packages is in tests/colab."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from colab.attempt import moved, warned
from colab.environment import fresh, installed
from colab.look import markdown
from colab.repository import redirected

ROOT = Path(__file__).parents[1]
HERE = Path(sys.executable)


def test_a_fresh_environment_sees_the_packages_below_and_leaves_them_alone(tmp_path):
    python = fresh(tmp_path / "environment", HERE)
    before, below = installed(python), installed(HERE)
    assert before["torch"] == below["torch"]
    (packages,) = tmp_path.glob("environment/lib/python3*/site-packages")
    for name, version in (("torch", "99.0"), ("planted", "1.0")):
        (packages / f"{name}-{version}.dist-info").mkdir()
        (packages / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    assert moved(before, installed(python)) == [
        "planted 1.0 was installed, which is not ours to install.",
        f"torch was {before['torch']} and is now 99.0.",
    ]
    assert installed(HERE) == below


@pytest.mark.parametrize(
    ("after", "faults"),
    [
        ({"numpy": "2.1.3", "gradconf": "1", "mnist1d": "1", "jedi": "1"}, []),
        ({"numpy": "2.2.0"}, ["numpy was 2.1.3 and is now 2.2.0."]),
        ({}, ["numpy was 2.1.3 and is now gone."]),
        ({"numpy": "2.1.3", "nbval": "0.11"}, ["nbval 0.11 was installed, which is not ours to install."]),
    ],
)
def test_only_our_own_packages_may_be_added(after, faults):
    assert moved({"numpy": "2.1.3"}, after) == faults


def test_warnings_are_found():
    output = nbformat.v4.new_output("stream", name="stderr", text="x.py:1: FutureWarning: soon\n")
    cells = [nbformat.v4.new_code_cell("1"), nbformat.v4.new_code_cell("2", outputs=[output])]
    notebook = nbformat.v4.new_notebook(cells=cells)
    assert warned(notebook) == ["cell 2 warns: x.py:1: FutureWarning: soon\n"]
    notebook.cells.pop()
    assert warned(notebook) == []


@pytest.mark.parametrize("tag", ["", "@v9.9.9"])
def test_git_finds_the_present_commit_at_the_published_address(tmp_path, tag):
    cell = f"%pip install -q git+https://github.com/some-one/some-thing{tag}\n"
    try:
        variables = redirected(ROOT, tmp_path / "copy.git", cell)
    except subprocess.CalledProcessError:
        pytest.skip("this is no git checkout")
    command = ["git", "ls-remote", "https://github.com/some-one/some-thing", "HEAD", *(["v9.9.9"] if tag else [])]
    listed = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split()[0] for line in listed.stdout.splitlines()} == {head.stdout.strip()}


def test_a_cell_that_installs_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="installs nothing"):
        redirected(ROOT, tmp_path / "copy.git", "import gradconf")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a $x_1$ b", r"\(x_1\)"),
        ("$$\nx < y\n$$", r"\[x &lt; y\]"),
        ("| a |\n| - |\n| 1 |", "<td>1</td>"),
        ("<details>\n<summary>S</summary>\n\n**b**\n\n</details>", "<strong>b</strong>"),
        ("```{note}\nx\n```", 'class="language-{note}"'),
    ],
)
def test_markdown_is_rendered_as_in_colab(text, shown):
    assert shown in markdown(text).replace("\n", "")
