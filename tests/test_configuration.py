"""The files around the code agree with each other."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import gradconf
from book import set_repository
from book.set_repository import site
from colab.attempt import OURS
from release.binder import pip_part
from release.bounds import pins

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
REQUIREMENTS = [
    Requirement(text)
    for texts in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in texts
]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_constraints_are_exact_versions_without_addresses():
    assert [pin for pin in PINS if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_constraints_satisfy_every_requirement(requirement):
    pins = {canonical(name): version for name, version in (pin.split("==") for pin in PINS)}
    assert requirement.specifier.contains(pins[canonical(requirement.name)])


@pytest.mark.parametrize("text", PROJECT["dependencies"])
def test_the_package_states_lower_bounds_only(text):
    assert {clause.operator for clause in Requirement(text).specifier} == {">="}
    assert Requirement(text).name != "torchvision"
    assert re.fullmatch(r">=3\.\d+", PROJECT["requires-python"])


def test_lower_bounds_are_pinned_for_make_minimum():
    assert pins('[project]\ndependencies = ["torch>=2.6", "a-b>=1.0.post1"]') == ["torch==2.6", "a-b==1.0.post1"]
    oldest = re.search(r"OLDEST_TORCH=(\S+?)\b.0", (ROOT / ".github" / "workflows" / "weekly.yml").read_text())[1]
    assert f"torch=={oldest}" in pins((ROOT / "pyproject.toml").read_text())


def test_colab_has_all_dependencies_but_those_that_the_first_cell_may_install():
    lines = (ROOT / "colab" / "pins.txt").read_text().splitlines()
    pins = {canonical(name): version for name, version in (line.split("==") for line in lines if line[0] != "#")}
    lacking = set()
    for requirement in map(Requirement, PROJECT["dependencies"]):
        name = canonical(requirement.name)
        lacking |= {name} - pins.keys()
        assert name in lacking or requirement.specifier.contains(pins[name])
    assert lacking == {"mnist1d"}
    assert lacking < OURS


def test_conda_and_binder_get_the_same_packages_from_the_same_place():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = pip_part((ROOT / "environment.yml").read_text())
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert pip == ["--extra-index-url https://download.pytorch.org/whl/cpu", "-c constraints.txt", "-e .[book]"]
    assert f"PIP_EXTRA_INDEX_URL: {pip[0].split()[1]} " in (ROOT / ".github" / "workflows" / "book.yml").read_text()
    assert [re.split(r"[=<>]", entry)[0] for entry in plain] == ["python", "pip"]
    version = next(entry.split("=")[1] for entry in plain if entry.startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{version}.0")
    assert "-c constraints.txt -e" in (ROOT / "Makefile").read_text()


def own_address(folder):
    return yaml.safe_load((folder / "_config.yml").read_text())["repository"]["url"]


def addresses(folder):
    """Every address in the tree of this repository, under its present name or its first, and of its site."""
    url = own_address(folder)
    names = {"gradconf", url.rsplit("/")[-1]}
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=folder, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    found = set()
    for name in filter(None, listed.stdout.split("\0")):
        if not name.endswith(".png") and name != "tests/test_configuration.py":
            text = (folder / name).read_text(encoding="utf-8")
            repositories = re.findall(r"https://github\.com/[\w-]+/[\w.-]*[\w-]", text)
            found |= {address for address in repositories if address.rsplit("/")[-1].removesuffix(".git") in names}
            for address in re.findall(r"https://[\w-]+\.github\.io/(?:[\w.-]+/)?", text):
                found.add(site(url) if address.startswith(site(url)) else address)
    return found


def test_all_addresses_of_the_repository_agree():
    url = own_address(ROOT)
    assert addresses(ROOT) == {url, site(url)}


@pytest.mark.parametrize(
    ("new", "pages"),
    [
        ("https://github.com/Some-School/confusion-course", "https://some-school.github.io/confusion-course/"),
        ("https://github.com/acc/gradconf-2026", "https://acc.github.io/gradconf-2026/"),
        ("https://github.com/acc/my.course", "https://acc.github.io/my.course/"),
        ("https://github.com/Acc/acc.github.io", "https://acc.github.io/"),
    ],
)
def test_set_repo_changes_them_all(tmp_path, new, pages):
    if subprocess.run(["git", "clone", "-q", ROOT, tmp_path / "fork"]).returncode:
        pytest.skip("this is no git checkout")
    for path in set_repository.tracked():  # as it is now, committed or not
        if (tmp_path / "fork" / path.relative_to(ROOT)).exists():
            shutil.copy(path, tmp_path / "fork" / path.relative_to(ROOT))
    command = [sys.executable, "book/set_repository.py"]
    run = subprocess.run([*command, f"{new}.git"], cwd=tmp_path / "fork", capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert addresses(tmp_path / "fork") == {new, pages}
    shown = [path for path in set_repository.tracked() if path.suffix in {".md", ".ipynb", ".yml", ".cff", ".toml"}]
    fork = [tmp_path / "fork" / path.relative_to(ROOT) for path in shown]
    assert [path.name for path in fork if path.exists() and "YOUR_ACCOUNT" in path.read_text()] == []


def test_set_repo_refuses_what_is_no_address():
    for wrong in ("gradconf", "https://github.com/a/..", "https://github.com/-/course", "https://gitlab.com/a/b"):
        assert not set_repository.ADDRESS.fullmatch(wrong)
    command = [sys.executable, ROOT / "book" / "set_repository.py", "gradconf"]
    assert "give the repository's address" in subprocess.run(command, capture_output=True, text=True).stderr


def test_a_longer_name_is_another_repository():
    there = re.compile(set_repository.whole("https://github.com/acc/grad"))
    ends = {".": 1, ".git": 1, "/blob": 1, "@v1": 1, "-other": 0, ".x": 0, "er": 0}
    for end, found in ends.items():
        assert len(there.findall(f"https://github.com/acc/grad{end}")) == found


def test_version_and_licence_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == gradconf.__version__
    assert citation["license"] == PROJECT["license"] == "BSD-3-Clause"
    assert (ROOT / "LICENSE").read_text().startswith("BSD 3-Clause")
    page = (ROOT / "book" / "citing.md").read_text()
    assert f"Version {gradconf.__version__}}}" in page
    assert f"{{{citation['title']}}}" in page


def test_readme_example_runs(capsys):
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    names = {}
    exec(example, names)
    assert names["K"].shape == (200, 200)
