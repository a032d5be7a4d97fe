"""The table of expected marks: every prepared answer against the check that students see and the test that they do not.

Skipped in a public copy, which holds neither. `make test-assignments` grades the same answers as teachers do.
"""

import contextlib
import functools
import io
import signal

import nbformat
import pytest
from handed_out import surroundings

from grading.answers import answers
from grading.places import MASTERS

NAMES = sorted(path.stem for path in MASTERS.glob("*.ipynb"))
if not NAMES:
    pytest.skip("no masters: this is a public copy", allow_module_level=True)
PREPARED = [(name, answer) for name in NAMES for listed in answers(name).values() for answer in listed]


@functools.cache
def hidden_test(name, question):
    """Return the function that decides a question's mark."""
    inside, scope = "", {}
    for cell in nbformat.read(MASTERS / f"{name}.ipynb", as_version=4).cells:
        if cell.source.startswith("# BEGIN QUESTION"):
            inside = cell.source.splitlines()[1].removeprefix("name: ")
        elif inside == question and "BEGIN TEST CONFIG" in cell.source:
            exec(cell.source, scope)
    return next(value for key, value in scope.items() if key.startswith("test_"))


@contextlib.contextmanager
def in_time(seconds):
    """Raise an error in what takes longer, as the grader does: some wrong answers are endless."""

    def ring(number, frame):
        raise TimeoutError(f"it takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "answer"), PREPARED, ids=lambda v: v if isinstance(v, str) else f"{v.question}-{v.what}"
)
def test_each_prepared_answer_gets_what_it_deserves(name, answer):
    scope, check = surroundings(name, answer.question)
    scope = dict(scope)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(answer.code, scope)
        if answer.right:
            exec(check, scope)
            hidden_test(name, answer.question)(scope)
        else:
            with pytest.raises(Exception), in_time(20):  # noqa: B017, PT011 (whatever goes wrong, the points are lost)
                hidden_test(name, answer.question)(scope)


@pytest.mark.parametrize("name", NAMES)
def test_each_question_has_enough_answers(name):
    for question, listed in answers(name).items():
        assert sum(not answer.right for answer in listed) >= 3, question
        assert sum(answer.right for answer in listed) >= 2, question
