"""The scripts and extensions of the book."""

import importlib
import subprocess
import sys
import types
from pathlib import Path

import pytest

import gradconf
from book._ext import executed

FORGET = Path(__file__).parents[1] / "book" / "forget.py"
EXTENSIONS = Path(__file__).parents[1] / "book" / "_ext"


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


def test_the_status_table_reads_what_a_chapter_prints(capsys):
    gradconf.setup()
    gradconf.spent()
    date, seconds, memory, device, versions = executed.row(capsys.readouterr().out)
    assert date.count("-") == 2
    assert seconds == "0 s"
    assert memory.endswith(" GB")
    assert device
    assert f"gradconf {gradconf.__version__}, Python 3." in versions


def test_a_chapter_that_was_not_run_is_told():
    assert executed.row("nothing")[0] == "not executed"


@pytest.fixture
def local_scripts(monkeypatch, tmp_path):
    """The extension that decides where scripts come from, with a folder of its own."""
    monkeypatch.syspath_prepend(EXTENSIONS)
    module = importlib.import_module("local_scripts")
    script = tmp_path / "tex-svg.js"
    for name, value in {"FOLDER": tmp_path, "WIDGETS": tmp_path, "SCRIPTS": (script,)}.items():
        monkeypatch.setattr(module, name, value)
    return module, script


def test_scripts_come_from_elsewhere_only_where_they_were_not_fetched(local_scripts):
    module, script = local_scripts
    config = types.SimpleNamespace(html_static_path=[], mathjax_path="https://a", nb_ipywidgets_js={"https": {}})
    module._choose(None, config)
    assert (config.mathjax_path, config.nb_ipywidgets_js) == ("https://a", {"https": {}})
    script.write_text("")
    module._choose(None, config)
    assert (config.mathjax_path, config.nb_ipywidgets_js) == ("vendor/tex-svg.js", {"vendor/embed.js": {}})
    assert (Path(config.html_static_path[0]) / "vendor" / script.name).exists()


def test_only_notebooks_are_offered_to_colab():
    prose = importlib.import_module("book._ext.prose")
    told = {name: {"kernelspec": {}} for name in ("book/scale", "chapters/02_width")}
    app = types.SimpleNamespace(env=types.SimpleNamespace(metadata=told))
    for name in (*told, "genindex"):
        prose._forget_kernel(app, name, "page.html", {}, None)
    assert told == {"book/scale": {}, "chapters/02_width": {"kernelspec": {}}}
