"""The chapters as files: what readers, Colab and reviewers rely on, and that every solution runs."""

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from book.set_repository import present

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
MYST = {
    "directive": re.compile(r"^\s*(```|~~~|:{3,})\{", re.M),
    "role": re.compile(r"\{[a-zA-Z][\w:+-]*\}`"),
    "target": re.compile(r"^\([\w-]+\)=\s*$", re.M),
    "equation label": re.compile(r"\$\$\s*\([\w:-]+\)"),
    "comment": re.compile(r"^%\s", re.M),
}
SOLUTION = re.compile(r"```python\n(.*?)```", re.S)

each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def markdown(path):
    return [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]


def code(path):
    return [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def myst_only(text):
    """What MyST renders and Colab shows raw."""
    return [name for name, pattern in MYST.items() if pattern.search(text)]


@pytest.mark.parametrize(
    "text",
    [
        "```{note}\nhello\n```",
        ":::{admonition} hello\n:::",
        "see {cite}`paper`",
        "see {prf:ref}`one`",
        "(label)=\n# Title",
        "$$x$$ (one)",
        "% hidden",
    ],
)
def test_what_colab_shows_raw_is_found(text):
    assert myst_only(text)


@each_chapter
def test_markdown_is_what_colab_renders_too(path):
    assert {text: myst_only(text) for text in markdown(path) if myst_only(text)} == {}


@each_chapter
def test_the_first_cell_is_the_same_everywhere_and_installs_from_this_repository(path):
    first = code(path)[0]
    assert first == code(CHAPTERS[0])[0]
    assert len([line for line in first.splitlines() if line.strip()]) <= 6
    assert re.findall(r"git\+([^@\s]+)(?:@v[\d.]+)?$", first, re.M) == [present()]
    assert "gradconf.setup(" in code(path)[1]


@each_chapter
def test_links_lead_somewhere_from_colab_too(path):
    """Colab opens another notebook of the folder by its name, and nothing else."""
    links = re.findall(r"\]\(([^()\s]+)\)", "".join(markdown(path)))
    assert links
    assert {link for link in links if not re.fullmatch(r"https://\S+|\w+\.ipynb(#\S+)?", link)} == set()


@each_chapter
def test_formulas_within_text_stay_on_one_line(path):
    """Jupyter and Colab cut formulas out before they read Markdown, with what a line of a quotation begins with."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", "\n".join(markdown(path)), flags=re.S).replace("$$", "")
    assert [line for line in text.splitlines() if line.count("$") % 2] == []


@each_chapter
def test_chapters_are_stored_without_outputs(path):
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@each_chapter
def test_cells_are_short(path):
    lines = [len([line for line in source.splitlines() if line.strip()]) for source in code(path)]
    assert max(lines) <= 25
    assert statistics.median(lines) <= 10


@each_chapter
def test_sizes_live_in_one_cell(path):
    cells = nbformat.read(path, 4).cells
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in cells) == 1


@each_chapter
def test_every_exercise_has_a_folded_solution(path):
    exercises = [text for text in markdown(path) if "**Exercise" in text]
    assert len(exercises) >= 5
    assert all("<summary>Solution</summary>" in text for text in exercises)


def statements():
    """Kind, number and what follows of each definition, lemma and theorem, through all chapters."""
    for path in CHAPTERS:
        kinds = "Definition|Lemma|Theorem|Proposition|Corollary"
        _, *rest = re.split(rf"^> \*\*({kinds})\b ?(\d*)", "\n\n".join(markdown(path)), flags=re.M)
        yield from zip(rest[::3], rest[1::3], rest[2::3], strict=True)


def test_definitions_and_theorems_are_numbered_through_the_course():
    by_kind = {}
    for kind, number, _ in statements():
        by_kind.setdefault(kind, []).append(number)
    assert by_kind.keys() >= {"Definition", "Lemma", "Theorem"}
    assert by_kind == {kind: [str(k + 1) for k in range(len(found))] for kind, found in by_kind.items()}


@pytest.mark.parametrize(
    ("kind", "number", "text"), [one for one in statements() if one[0] != "Definition"], ids=lambda part: part[:7]
)
def test_theorems_are_proved(kind, number, text):
    folded = "<summary>Proof</summary>" in text and "$\\square$" in text
    assert folded or f"Prove {kind} {number}" in text or "The proof is the paper's" in text


def test_every_term_of_the_glossary_is_linked_from_where_it_is_used():
    glossary = (ROOT / "book" / "glossary.md").read_text()
    terms = {re.sub(r"[ _]", "-", term.lower()) for term in re.findall(r"^## (.*)$", glossary, re.M)}
    pages = [path.read_text() for path in [*CHAPTERS, *(ROOT / "book").glob("*.md")]]
    linked = {term for page in pages for term in re.findall(r"glossary\.(?:md|html)#([\w-]+)", page)}
    assert linked == terms


@each_chapter
def test_folded_text_is_rendered_as_markdown(path):
    for text in markdown(path):
        assert not re.search(r"<summary>[^<]*\$", text), "a formula in <summary> stays raw"
        assert len(re.findall(r"</summary>\n\n", text)) == text.count("<summary>")
        assert len(re.findall(r"\n\n</details>", text)) == text.count("<details>")


@each_chapter
def test_pictures_come_from_the_package(path):
    assert not any("matplotlib" in source or "seaborn" in source for source in code(path))


OTHER_SIZES = {
    "01_concept": {"SEEDS": "range(20, 22)", "STEPS": "4_000", "EPOCHS": "4", "SAMPLES": "120"},
    "02_width": {"SEEDS": "range(20, 22)", "WIDTHS": "(8, 64)", "EPOCHS": "12", "SAMPLES": "120"},
    "03_depth": {"SEEDS": "range(20, 22)", "RATES": "{2: 1.0, 4: 0.3, 16: 0.1}", "EPOCHS": "12", "SAMPLES": "120"},
    "04_batchnorm_skip": {"SEEDS": "range(20, 22)", "DEEPER": "(33, 49)", "EPOCHS": "12", "TRAIN_SIZE": "1500"},
}


LARGER = {  # as the chapters propose for a GPU, but as little of it as runs here
    "02_width": {"SEEDS": "range(20, 22)", "NETWORK, DEPTH": '"cnn", 10', "WIDTHS": "(1, 2)", "RATE": "0.03"},
    "03_depth": {"SEEDS": "range(20, 22)", "NETWORK": '"cnn"', "WIDTH": "1", "RATES": "{10: 0.03, 16: 0.03, 22: 0.03}"},
    "04_batchnorm_skip": {"SEEDS": "range(20, 22)", "NETWORK, WIDTH": '"wrn", 1', "DEEPER": "(22, 28)"},
}
LITTLE = {"EPOCHS": "3", "SAMPLES": "40", "TRAIN_SIZE": "300"}


def resized(path, sizes):
    """A chapter with other values in its parameters cell."""
    notebook = nbformat.read(path, 4)
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    for name, value in sizes.items():
        cell.source, found = re.subn(rf"^{name} = [^#\n]*", f"{name} = {value}  ", cell.source, flags=re.M)
        assert found == 1 or name in LITTLE
    return notebook, cell


def execute(notebook, folder):
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}).execute()


@each_chapter
def test_every_solution_runs_with_other_sizes(path, tmp_path):
    notebook, _ = resized(path, OTHER_SIZES[path.stem])
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        solutions = SOLUTION.findall(cell.source) if cell.cell_type == "markdown" else []
        cells += [nbformat.v4.new_code_cell(source) for source in solutions]
    assert len(cells) > len(notebook.cells)
    notebook.cells = cells
    execute(notebook, tmp_path)


@pytest.mark.parametrize("path", [path for path in CHAPTERS if path.stem in LARGER], ids=lambda path: path.stem)
def test_convolutional_networks_run_through_the_same_cells(path, tmp_path):
    notebook, parameters = resized(path, LARGER[path.stem] | LITTLE)
    by_depth = r"\{5: [\d.]+, 9: [\d.]+, 17: [\d.]+\}"  # several lines, one a variant
    parameters.source = re.sub(by_depth, "{10: 0.03, 16: 0.03}", parameters.source)
    for cell in notebook.cells:
        if cell.cell_type == "code" and "%pip" not in cell.source:
            nodes = [node for node in ast.parse(cell.source).body if not isinstance(node, ast.Assert)]
            cell.source = ast.unparse(nodes)  # nothing shows at this size
    execute(notebook, tmp_path)


@pytest.mark.parametrize("planted", [None, "assert 1 == 2", "1 / 0"])
def test_nbval_fails_when_a_chapter_is_broken(planted, tmp_path):
    notebook = nbformat.read(CHAPTERS[0], 4)
    notebook.cells = notebook.cells[:5] + ([nbformat.v4.new_code_cell(planted)] if planted else [])
    nbformat.write(notebook, tmp_path / "copy.ipynb")
    options = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=120", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *options, "copy.ipynb"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == (1 if planted else 0), run.stdout
    assert ("1 failed" in run.stdout) == bool(planted)
