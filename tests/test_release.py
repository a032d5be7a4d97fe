"""Releases: made in a clone, and archives by their lists of files."""

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from release import contents
from release.changes import dated, pinned
from release.notes import notes

ROOT = Path(__file__).parents[1]
PERSON = {f"GIT_{role}_{what}": "someone@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
LOG = "# Change log\n\n## Unreleased\n\n- new\n\n## 0.1.0 (2026-01-01)\n\n- old\n"


def git(folder, *command):
    done = subprocess.run(
        ["git", *command], cwd=folder, env=os.environ | PERSON, check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture
def clone(tmp_path):
    """The repository as it is now, committed."""
    if subprocess.run(["git", "clone", "-q", ROOT, tmp_path / "clone"]).returncode:
        pytest.skip("this is no git checkout")
    shutil.copytree(ROOT / "release", tmp_path / "clone" / "release", dirs_exist_ok=True)
    git(tmp_path / "clone", "add", "--all")
    git(tmp_path / "clone", "commit", "-q", "--allow-empty", "-m", "now")
    return tmp_path / "clone"


def name(folder):
    """What the repository is called there."""
    return yaml.safe_load((folder / "_config.yml").read_text())["repository"]["url"].rsplit("/")[-1]


def prepare(folder, *options):
    command = [sys.executable, "-m", "release.prepare", *options]
    return subprocess.run(command, cwd=folder, env=os.environ | PERSON, capture_output=True, text=True)


def cells(folder, commit):
    """What the first code cells install at a commit."""
    names = git(folder, "ls-files", "chapters/*.ipynb").splitlines()
    texts = [git(folder, "show", f"{commit}:{name}") for name in names]
    return {re.search(r"%pip install -q git\+https://[\w./-]+/([^\s\"\\]+)", text)[1] for text in texts}


def test_a_release_is_one_tagged_commit_and_notebooks_follow_the_default_branch_after_it(clone):
    done = prepare(clone, "7.8.9")
    assert done.returncode == 0, done.stderr
    assert git(clone, "describe", "HEAD~1").strip() == "v7.8.9"
    assert git(clone, "show", "v7.8.9:gradconf/_version.py") == '__version__ = "7.8.9"\n'
    citation = yaml.safe_load(git(clone, "show", "v7.8.9:CITATION.cff"))
    assert (citation["version"], citation["date-released"]) == ("7.8.9", datetime.date.today())
    assert f"## Unreleased\n\n## 7.8.9 ({datetime.date.today()})\n" in git(clone, "show", "v7.8.9:CHANGELOG.md")
    assert cells(clone, "v7.8.9") == {f"{name(clone)}@v7.8.9"}
    assert cells(clone, "HEAD") == {name(clone)}
    changed = git(clone, "diff", "--name-only", "v7.8.9~1", "v7.8.9").splitlines()
    assert {name for name in changed if not name.endswith(".ipynb")} == {
        "CHANGELOG.md",
        "CITATION.cff",
        "book/citing.md",
        "gradconf/_version.py",
    }
    assert "{Version 7.8.9}" in git(clone, "show", "v7.8.9:book/citing.md")
    assert git(clone, "status", "--porcelain") == ""


def test_a_dry_run_shows_the_changes_and_makes_none(clone):
    before = git(clone, "rev-parse", "HEAD")
    done = prepare(clone, "7.8.9", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert '+__version__ = "7.8.9"' in done.stdout
    assert f"{name(clone)}@v7.8.9" in done.stdout
    assert git(clone, "rev-parse", "HEAD") == before
    assert git(clone, "status", "--porcelain") == git(clone, "tag") == ""


@pytest.mark.parametrize(
    ("version", "tag", "change", "sentence"),
    [
        ("next", None, None, "three numbers"),
        ("0.9.0", "v0.10.0", None, "0.9.0 is not newer than 0.10.0"),
        ("0.9.0", None, "README.md", "uncommitted changes"),
    ],
)
def test_what_cannot_be_released_is_refused_in_a_sentence(clone, version, tag, change, sentence):
    if tag:
        git(clone, "tag", tag)
    if change:
        (clone / change).write_text("changed")
    done = prepare(clone, version)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_change_log_without_news_is_refused():
    with pytest.raises(ValueError, match="says nothing under"):
        dated(LOG.replace("- new\n", ""), "1.0.0", datetime.date(2026, 2, 3))


def test_notes_are_those_of_the_version():
    log = dated(LOG, "1.0.0", datetime.date(2026, 2, 3))
    assert notes(log, "1.0.0") == "- new"
    assert notes(log, "0.1.0") == "- old"
    with pytest.raises(ValueError, match=r"no section for 2\.0\.0"):
        notes(log, "2.0.0")


@pytest.mark.parametrize("before", ["", "@v0.1.0"])
def test_first_cells_are_pinned_and_freed(before):
    text = f'"    %pip install -q git+https://github.com/Some-One/Course{before}\\n",'
    assert "Some-One/Course@v1.2.3\\n" in pinned(text, "v1.2.3")
    assert "Some-One/Course\\n" in pinned(text, "")


def wheel(folder, names):
    with zipfile.ZipFile(folder / "gradconf-1.0-py3-none-any.whl", "w") as archive:
        for name in names:
            archive.writestr(name.replace("dist-info", "gradconf-1.0.dist-info"), "")


def sdist(folder, names):
    with tarfile.open(folder / "gradconf-1.0.tar.gz", "w:gz") as archive:
        for name in names:
            archive.add(os.devnull, f"gradconf-1.0/{name}", filter=as_file)


def as_file(info):
    info.type = tarfile.REGTYPE
    return info


@pytest.mark.parametrize("extra", ["tests/test_grams.py", "gradconf/__pycache__/grams.pyc", "claims/run.py"])
def test_archives_hold_what_they_should_and_nothing_else(tmp_path, extra):
    files = {"gradconf/__init__.py", "gradconf/results/claims.json"}
    for write, read, wanted in (
        (wheel, contents.names_in_wheel, contents.in_wheel(files)),
        (sdist, contents.names_in_sdist, contents.in_sdist(files)),
    ):
        write(tmp_path, wanted)
        path = contents.one(tmp_path, "*.whl" if write is wheel else "*.tar.gz")
        assert contents.compare(read(path), wanted) == []
        write(tmp_path, (wanted | {extra}) - {"gradconf/results/claims.json"})
        assert contents.compare(read(path), wanted) == [
            "lacks gradconf/results/claims.json",
            f"holds {extra}, which does not belong there",
        ]


def test_stored_results_and_type_marker_are_part_of_the_package():
    assert {"gradconf/py.typed", "gradconf/results/claims.json", "gradconf/__main__.py"} <= contents.package()


def test_zenodo_gets_the_same_description_as_everybody():
    zenodo = json.loads((ROOT / ".zenodo.json").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert zenodo["title"] == citation["title"]
    assert zenodo["license"] == citation["license"].lower()
    assert zenodo["creators"] == [{"name": author["name"]} for author in citation["authors"]]
    identifiers = {entry["value"] for work in citation["references"] for entry in work["identifiers"]}
    assert {entry["identifier"] for entry in zenodo["related_identifiers"]} == identifiers
