import platform
import re
import subprocess
import sys
import types

import pytest
import torch
from cases import STRICT

import gradconf


@pytest.fixture
def without_cuda(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_setup_prints_versions_and_seed_in_its_first_line(without_cuda, capsys):
    gradconf.setup(seed=17)
    out, err = capsys.readouterr()
    assert out.endswith("\n")
    assert out.count("\n") == 2
    assert err == ""
    parts = out.splitlines()[0].split(" · ")
    assert {f"gradconf {gradconf.__version__}", f"torch {torch.__version__}", "seed 17"} <= set(parts)
    assert f"Python {platform.python_version()}" in parts


@pytest.mark.parametrize(("colab", "how"), [(True, "Runtime > Change runtime type"), (False, "a CUDA device")])
def test_setup_says_what_to_do_without_a_gpu(without_cuda, capsys, monkeypatch, colab, how):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("colab"))
    gradconf.setup()
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith("No GPU, and the sizes given here need none.")
    assert how in line


def test_setup_says_nothing_more_with_a_gpu(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Some GPU")
    assert gradconf.setup() == torch.device("cuda", 0)
    (line,) = capsys.readouterr().out.splitlines()
    assert " · Some GPU · " in line


def test_setup_chooses_the_cpu_without_cuda(without_cuda):
    device = gradconf.setup()
    assert device == torch.device("cpu")


def test_setup_seeds_torch(without_cuda):
    draws = []
    for seed in (1, 1, 2):
        gradconf.setup(seed=seed)
        draws.append(torch.rand(5))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_what_was_spent_counts_from_setup(without_cuda, capsys, monkeypatch):
    clock = iter([100.0, 141.6])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    gradconf.setup()
    gradconf.spent()
    line = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(
        r"This took 42 s, at most \d+\.\d GB of memory, on CPU, \d+ threads?, on \d{4}-\d\d-\d\d\.", line
    )


def test_importing_says_nothing_and_needs_no_widgets():
    script = "import sys; sys.modules['ipywidgets'] = None; import gradconf"
    done = subprocess.run([sys.executable, *STRICT, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_all_that_is_promised_is_there():
    assert all(hasattr(gradconf, name) for name in gradconf.__all__)


@pytest.mark.parametrize(
    ("options", "told"), [(["--version"], rf"gradconf {gradconf.__version__}\n"), ([], r"gradconf .* · seed 0\n.*")]
)
def test_the_command_line_says_version_and_surroundings(options, told):
    command = [sys.executable, *STRICT, "-m", "gradconf", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.fullmatch(told, done.stdout, re.S)
