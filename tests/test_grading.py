"""The parts of the grader that decide what is believed, and what is published."""

import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile

import nbformat
import psutil
import pytest

from grading import grade, leaks, sandbox
from grading.masters import Question
from grading.places import MASTERS, ROOT, STUDENTS
from grading.results import Grade, read_result
from grading.submissions import handed_in, other_title, read, recognise
from grading.suspicions import suspicions
from grading.table import write_csv, write_somewhere

LISTED = [Question("q1", 2, False), Question("q2", 3, False), Question("q3", 4, True)]
needs_bubblewrap = pytest.mark.skipif(not sandbox.confined(), reason="bubblewrap is not installed, or may not work")
needs_masters = pytest.mark.skipif(not MASTERS.exists(), reason="no masters: this is a public copy")


def notebook(*sources, title="# Assignment 1: the concept"):
    cells = [nbformat.v4.new_markdown_cell(title), *map(nbformat.v4.new_code_cell, sources)]
    return nbformat.v4.new_notebook(cells=cells)


def result(path, q1=2.0, q2=3.0, most=3, **more):
    rows = [{"name": "Public Tests"}, {"name": "q1", "score": q1, "max_score": 2, "output": "a\n  why\n"}]
    rows.append({"name": "q2", "score": q2, "max_score": most, "output": "b"})
    path.write_text(json.dumps({"tests": rows, "touched": False, "failures": [], "checks": []} | more))
    return read_result(path, LISTED, Grade("x"))


def test_a_result_that_adds_up_is_believed(tmp_path):
    grade = result(tmp_path / "r", q1=0)
    assert grade.points == {"q1": 0.0, "q2": 3.0}
    assert grade.messages == {"q1": "why"}
    assert grade.status == "graded"


def test_full_marks_with_a_check_that_fails_are_for_a_person(tmp_path):
    assert result(tmp_path / "r", q1=0, checks=["q1"]).status == "graded"
    assert result(tmp_path / "r", checks=["q1"]).look == ["q1 has full marks, and its visible check fails"]


def test_an_endless_function_fails_its_own_test_only():
    files = pytest.importorskip("otter.test_files", reason="otter is in .venv-teach only: make test-assignments")
    from grading import inside

    kept = files.ExceptionTestFile.run
    inside.limit_tests(0.2)
    try:
        for answer, passed in ((itertools.count(1), False), ([0, 1, 2], True)):
            source = "from otter.test_files import test_case\nname = 'q1'\n@test_case()\ndef test(env):\n"
            test = files.ExceptionTestFile.from_string(source + "    for k in env['answer']: pass")
            test.run({"answer": answer})
            assert test.test_case_results[0].passed == passed
            assert passed or "it takes longer than 0.2 s" in test.test_case_results[0].message
    finally:
        files.ExceptionTestFile.run = kept


def test_an_open_question_is_called_so(tmp_path):
    rows = [{"name": "q1", "score": 0.0, "max_score": 2, "output": "RuntimeError: Could not infer dtype of NoneType"}]
    grade = result(tmp_path / "r", tests=[{"name": "Public Tests"}, *rows])
    assert grade.messages["q1"].startswith("None in place of an answer")


@pytest.mark.parametrize(
    "odd",
    [
        {"q1": 5},
        {"q1": -1},
        {"q1": float("nan")},
        {"q1": "2"},
        {"most": 30},
        {"touched": True},
        {"tests": [{"name": "q1", "score": 2, "max_score": 2}]},
        {"tests": [{"name": "q1", "score": 2, "max_score": 2}] * 3},
        {"tests": [{"name": name, "score": 2, "max_score": 2} for name in ("q1", "q2", "q9")]},
    ],
)
def test_a_result_that_does_not_add_up_is_for_a_person(tmp_path, odd):
    grade = result(tmp_path / "r", **odd)
    assert grade.status == "look"
    assert sum(grade.points.values()) <= 5


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tests": 3}', '{"tests": [7], "touched": false}', "x" * 2**21])
def test_no_result_is_no_grade(tmp_path, text):
    (tmp_path / "r").write_text(text)
    with pytest.raises(ValueError, match="result"):
        read_result(tmp_path / "r", LISTED, Grade("x"))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os", "imports os"),
        ("from otter import execute", "imports otter"),
        ("from torch import os as help", "imports os"),
        ("torch.os.kill(torch.os.getppid(), 9)", "uses torch.os"),
        ("torch.allclose = lambda *a: True", "changes torch.allclose"),
        ("del torch.Tensor.sum", "changes torch.Tensor.sum"),
        ("!ls", "uses get_ipython"),
        ("print(open('tests/q1.py').read())", "uses open"),
        ("().__class__.__base__.__subclasses__()", "uses __subclasses__"),
        ("getattr(type(torch), '__seta' + 'ttr__')(torch, 'allclose', 1)", "uses getattr with a name that is computed"),
        ("get = getattr", "uses getattr with a name that is computed"),
        ("getattr(torch, 'os').kill(1, 9)", "uses os by getattr"),
        ("getattr(torch, '__dict__')['allclose'] = max", "uses __dict__ by getattr"),
        ("import operator\noperator.attrgetter('o' + 's')(torch)", "uses operator.attrgetter"),
        ("from operator import methodcaller as m", "imports methodcaller"),
        ("%matplotlib inline\n%run other.py", "uses get_ipython"),
        ("if True:\n    %matplotlib inline\n    import os", "imports os"),
        ("%matplotlib inline\rimport os", "imports os"),
    ],
)
def test_what_no_answer_needs_is_listed(source, found):
    assert any(found in line for line in suspicions(notebook("x = 1", source), notebook("x = 1")))


def test_answers_and_cells_that_were_handed_out_are_not_listed():
    given = notebook("import os, subprocess")
    usual = "%matplotlib inline\nfrom __future__ import annotations\nx = getattr(torch.nn, 'ReLU')()\n"
    usual += "import numpy as np\nimport torch.nn as nn\nclass A:\n    def __init__(self):\n        self.x = nn.ReLU()"
    assert suspicions(notebook("import os, subprocess", usual, "this is no ( Python"), given) == []


def test_metadata_and_outputs_of_a_submission_are_dropped(tmp_path):
    given = notebook("1 + 1")
    given.cells[1].metadata = {"tags": ["otter_ignore"], "otter": {"tests": ["q9"]}}
    given.metadata = {"kernelspec": {"name": "ir", "display_name": "R"}}
    nbformat.write(given, tmp_path / "a.ipynb")
    plain = read(tmp_path / "a.ipynb")
    assert plain.metadata.kernelspec.name == "python3"
    assert [dict(cell.metadata) for cell in plain.cells] == [{}, {}]
    assert recognise(plain, ["01_concept", "02_width"]) == "01_concept"
    with pytest.raises(ValueError, match="no cell begins with"):
        recognise(notebook("1", title="# My homework"), ["01_concept"])


def test_a_notebook_of_another_assignment_is_noticed():
    assert other_title(notebook("1"), "01_concept") == []
    assert other_title(notebook("1", title="# My homework"), "01_concept") == []
    assert "assignment 2" in other_title(notebook("1", title="# Assignment 2: width"), "01_concept")[0]


def test_a_notebook_that_was_saved_on_windows_is_read(tmp_path):
    text = nbformat.writes(notebook("x = 1\r\ny = 2")).replace("\n", "\r\n")
    (tmp_path / "A.IPYNB").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read(tmp_path / "A.IPYNB").cells[1].source == "x = 1\ny = 2"


def test_every_file_is_accounted_for(tmp_path):
    for name in ("b/a.ipynb", "a.ipynb", "c.pdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "link.ipynb").symlink_to("a.ipynb")
    found = handed_in(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a.ipynb", "b/a.ipynb", "c.pdf", "link.ipynb"]
    for path in found:
        with pytest.raises(ValueError, match=r"^it "):
            read(path)


@pytest.mark.parametrize(("jobs", "status"), [(2, "graded"), (1, "not graded")])
def test_what_ran_out_of_time_beside_others_has_a_second_chance(tmp_path, monkeypatch, jobs, status):
    tried = []

    def grade_one(notebook, given, limits):
        tried.append(given.submission)
        if given.submission == "slow.ipynb" and tried.count("slow.ipynb") == 1:
            raise ValueError(grade.LATE.format(limits.seconds))
        return given

    for name in ("quick", "slow"):
        nbformat.write(notebook("x = 1"), tmp_path / f"{name}.ipynb")
    monkeypatch.setattr(grade, "grade_one", grade_one)
    monkeypatch.setattr(grade, "autograder", lambda name: None)
    grades = grade.grade_folder(tmp_path, assignment="01_concept", jobs=jobs, limits=sandbox.Limits())
    assert {one.submission: one.status for one in grades} == {"quick.ipynb": "graded", "slow.ipynb": status}


def test_no_text_of_a_student_is_a_formula_in_the_table(tmp_path):
    write_csv([Grade("=cmd()", failed="@x")], tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().splitlines()[1] == "'=cmd(),,not graded,,,,,'@x,"


@pytest.mark.parametrize("broken", ["lone \ud800 surrogate", os.fsdecode(b"M\xfcller"), "bell \a and \0"])
def test_no_text_of_a_student_loses_the_table(tmp_path, monkeypatch, capsys, broken):
    graded = [Grade(f"{broken}.ipynb", failed=broken), Grade("good.ipynb", look=[broken])]
    monkeypatch.setattr(grade, "grade_folder", lambda *args, **options: graded)
    monkeypatch.setattr(sys, "argv", ["grade", str(tmp_path), "--out", str(tmp_path / "t.csv")])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))  # prints what it can
    grade.main()
    sys.stdout.flush()
    assert b"good.ipynb" in sys.stdout.buffer.getvalue()
    assert len((tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_a_table_that_cannot_be_written_is_written_elsewhere(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: str(tmp_path))
    assert write_somewhere([Grade("a")], tmp_path / "gone" / "t.csv") == tmp_path / "t.csv"
    assert "t.csv cannot be written" in capsys.readouterr().out
    assert (tmp_path / "t.csv").exists()


@pytest.mark.parametrize(
    ("out", "said"), [("gone/t.csv", "There is no folder"), ("folder", "is a folder"), ("full.csv", "exists")]
)
def test_a_table_that_cannot_be_written_is_noticed_before_grading(tmp_path, monkeypatch, out, said):
    (tmp_path / "folder").mkdir()
    (tmp_path / "full.csv").write_text("marks")
    monkeypatch.setattr(grade, "grade_folder", lambda *args, **options: pytest.fail("graded"))
    monkeypatch.setattr(sys, "argv", ["grade", str(tmp_path), "--out", str(tmp_path / out)])
    with pytest.raises(SystemExit, match=said):
        grade.main()
    assert (tmp_path / "full.csv").read_text() == "marks"


@pytest.fixture(params=["bubblewrap", "alone"])
def _each_way(request, monkeypatch):
    if request.param == "alone":
        monkeypatch.setattr(sandbox, "confined", lambda: False)
    elif not sandbox.confined():
        pytest.skip("bubblewrap is not installed, or may not make namespaces here")


def run_in_sandbox(tmp_path, code, **limits):
    (tmp_path / "work").mkdir(parents=True)
    (tmp_path / "result").touch()
    command = [sys.executable, "-c", code, str(tmp_path / "result")]
    limits = sandbox.Limits(**({"seconds": 20} | limits))
    kept = {"readable": [], "writable": tmp_path / "result", "limits": limits}
    return sandbox.run(command, tmp_path / "work", **kept), (tmp_path / "result").read_text()


@pytest.mark.usefixtures("_each_way")
def test_a_sandbox_has_an_empty_environment_and_writes_its_result(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "1")
    code = "import os, sys; open(sys.argv[1], 'w').write(str('SECRET' in os.environ))"
    assert run_in_sandbox(tmp_path, code) == (sandbox.Outcome(0, ""), "False")


@pytest.mark.usefixtures("_each_way")
def test_a_sandbox_ends_when_its_time_is_up_with_all_its_processes(tmp_path):
    code = "import subprocess, time; subprocess.Popen(['sleep', '91.5'], start_new_session=True); time.sleep(60)"
    outcome, _ = run_in_sandbox(tmp_path, code, seconds=2)
    assert outcome.status is None
    assert ["sleep", "91.5"] not in [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]


@pytest.mark.usefixtures("_each_way")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")
def test_a_sandbox_has_a_memory_limit(tmp_path):
    outcome, _ = run_in_sandbox(tmp_path, "x = bytearray(2**30)", memory=2**28)
    assert outcome.status == 1
    assert "MemoryError" in outcome.said


@needs_bubblewrap
def test_bubblewrap_hides_the_network_and_all_private_files(tmp_path):
    (tmp_path / "private").write_text("marks")
    code = f"""
import socket, pathlib
for what in (lambda: pathlib.Path({str(tmp_path / "private")!r}).read_text(), lambda: open("/usr/x", "w"),
             lambda: socket.create_connection(("192.0.2.1", 80), 2), lambda: open({str(ROOT / "README.md")!r})):
    try:
        what()
        print("reached")
    except OSError:
        print("refused")
"""
    outcome, _ = run_in_sandbox(tmp_path, code)
    assert outcome.said.split() == ["refused"] * 4


@needs_bubblewrap
def test_bubblewrap_limits_all_files_together(tmp_path):
    code = """
import os
places = {os.path.join(mount, "") for mount in (line.split()[1] for line in open("/proc/mounts"))} | {"/home/", "/x/"}
for place in sorted(places - {"/proc/", "/sys/"}):
    written = 0
    try:
        os.makedirs(place, exist_ok=True)
        for k in range(9):
            with open(f"{place}{k}", "wb", buffering=0) as file:
                while file.tell() < 2**20:
                    written += file.write(bytes(2**18))
    except OSError:
        pass
    print(f"{place}:{written // 2**20}" if written else "", end=" ")
"""
    outcome, _ = run_in_sandbox(tmp_path, code, file=2**21, disk=2**22)
    assert outcome.said.split() == ["/dev/shm/:2", "/tmp/:4"]


@pytest.mark.usefixtures("_each_way")
def test_what_a_sandbox_says_fills_no_memory(tmp_path):
    code = "import sys; sys.stdout.write('x' * 2**22)"
    outcome, _ = run_in_sandbox(tmp_path, code, file=2**20)
    assert outcome.status
    assert outcome.said == "x" * 2000
    outcome, _ = run_in_sandbox(tmp_path / "again", "print('x' * 5000, 'end')")
    assert outcome.said == "x" * 1995 + " end"


@needs_masters
def test_student_notebooks_are_what_the_masters_generate(tmp_path):
    pytest.importorskip("otter", reason="otter is in .venv-teach only: make test-assignments")
    from grading.generate import handed_out, split

    for master in sorted(MASTERS.glob("*.ipynb")):
        split(master, tmp_path / master.stem)
        made = nbformat.writes(handed_out(tmp_path / master.stem / "student" / master.name))
        kept = nbformat.writes(nbformat.read(STUDENTS / master.name, as_version=4))
        assert made == kept, f"{master.name}: run make assignments"


@needs_masters
def test_leaks_are_found(tmp_path):
    shutil.copy(MASTERS / "01_concept.ipynb", tmp_path / "renamed.json")
    (tmp_path / "page.html").write_text("<pre><b>if</b> target &lt;= floor: <i># ANSWER</i>-KEY</pre>")
    found = leaks.leaks(tmp_path)
    assert len([line for line in found if line.startswith("renamed.json")]) > 10
    assert [line for line in found if line.startswith("page.html")]


@needs_masters
def test_nothing_handed_out_or_built_holds_solutions():
    assert leaks.leaks(ROOT / "chapters") == []
    assert [line for line in leaks.leaks(STUDENTS) if not line.startswith(("masters", "answers"))] == []
    if (ROOT / "_build" / "html").exists():
        assert leaks.leaks(ROOT / "_build" / "html") == []


@needs_masters
def test_the_public_copy_and_its_packages_hold_no_solutions(tmp_path):
    if subprocess.run(["git", "rev-parse"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("this is no git checkout")
    public = tmp_path / "public"
    subprocess.run([sys.executable, "-m", "grading.publish", public], cwd=ROOT, check=True)
    log = subprocess.run(["git", "log", "--oneline"], cwd=public, capture_output=True, text=True, check=True).stdout
    assert len(log.splitlines()) == 1
    assert (public / "assignments" / "01_concept.ipynb").exists()
    assert not (public / "assignments" / "masters").exists()
    assert not (public / "assignments" / "answers").exists()
    left_out = shutil.ignore_patterns(".venv*", "_build", ".git", "build", "dist", ".*cache", "__pycache__")
    build = "from setuptools import build_meta as b; b.build_wheel('../wheel'); b.build_sdist('../sdist')"
    for folder in (public, ROOT):  # from the private repository, too
        kept = tmp_path / folder.name
        shutil.copytree(folder, kept / "source", ignore=left_out)
        subprocess.run([sys.executable, "-c", build], cwd=kept / "source", check=True, capture_output=True)
        for packed in (*kept.glob("wheel/*.whl"), *kept.glob("sdist/*.tar.gz")):
            shutil.unpack_archive(packed, kept / "unpacked" / packed.name, "zip" if packed.suffix == ".whl" else None)
        assert len(list((kept / "unpacked").iterdir())) == 2
        assert leaks.leaks(kept / "unpacked") == []
    assert leaks.leaks(public) == []
