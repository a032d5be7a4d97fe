"""Benchmarks: contestants compute the same matrix, instruments measure, and the report tells what was measured."""

import json
import re
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import memory, models, report, run, timing
from benchmarks.contestants import CONTESTANTS, LeftOut, disagreement, prepare, products
from gradconf import reference
from gradconf.models import cnn, mlp, wrn

ROOT = Path(__file__).parents[1]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
CPU = torch.device("cpu")
TINY = {
    "mlp": models.Case("mlp500", "", lambda g: mlp(2, 8, in_features=6, out_features=10, generator=g), (6,), 12),
    "cnn": models.Case("cnn16", "", lambda g: cnn(10, 1, generator=g), (3, 8, 8), 4),
    "wrn": models.Case("wrn16", "", lambda g: wrn(10, 1, generator=g), (3, 8, 8), 4),
    "transformer": models.Case(
        "transformer", "", lambda g: models.transformer(width=8, depth=1, heads=2, generator=g), None, 3
    ),
}
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing", "ignore:There is a performance drop")
IMPOSSIBLE = {("wrn", "opacus"), ("wrn", "opacus_ew"), ("transformer", "opacus_ew"), ("transformer", "backpack")}


@pytest.mark.parametrize("name", [name for name in CONTESTANTS if name != "yardstick"])
@pytest.mark.parametrize("case", TINY)
def test_contestants_compute_the_gram_matrix(case, name):
    if "opacus" in name or name == "backpack":
        pytest.importorskip(name.removesuffix("_ew"))
    if (case, name) in IMPOSSIBLE:
        pytest.skip("this package cannot measure this model")
    problem = models.pose(TINY[case], CPU)
    K = reference.gram(problem.model, problem.loss_fn, problem.inputs, problem.targets)
    try:
        call = prepare(name, problem, 5)
    except LeftOut as reason:
        pytest.skip(str(reason))
    for _ in range(2):  # the second call finds what the first one left behind
        assert disagreement(K, call()) < 1e-4


def test_a_wrong_scale_is_a_disagreement():
    K = torch.tensor([[4.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    assert disagreement(K, K) == 0
    assert disagreement(K, 2 * K) == pytest.approx(1)


def test_products_add_parameters():
    parts = torch.randn(3, 4), torch.randn(3, 2)
    J = torch.cat(parts, dim=1).double()
    torch.testing.assert_close(products(parts), J @ J.T, rtol=1e-5, atol=1e-5)


def test_operations_are_counted_as_by_hand():
    case = TINY["mlp"]
    with timing.Operations() as count:
        prepare("yardstick", models.pose(case, CPU))()
    forward = 2 * case.samples * (6 * 8 + 8 * 8 + 8 * 10)
    assert count.total == 3 * forward - 2 * case.samples * 6 * 8  # no gradient of the inputs is needed


@pytest.mark.parametrize("groups", [1, 4])
def test_operations_of_convolutions_are_counted_as_by_hand(groups):
    conv = torch.nn.Conv2d(8, 12, 3, padding=1, groups=groups)
    x = torch.randn(2, 8, 5, 5, requires_grad=True)
    with timing.Operations() as count:
        conv(x).sum().backward()
    assert count.total == 3 * 2 * (2 * 25 * 12) * (8 // groups) * 9


def test_contestants_take_turns():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    times = timing.interleave(calls, {"a": 3, "b": 1, "c": 3}, CPU)
    assert {name: len(ones) for name, ones in times.items()} == {"a": 3, "b": 1, "c": 3}
    assert order == ["a", "b", "c", "c", "a", "a", "c"]


def test_those_who_would_hold_or_take_too_much_are_left_out():
    problem = models.pose(replace(TINY["mlp"], samples=2), CPU)
    run.refuse_size("loop", problem, peak=1e9)
    with pytest.raises(LeftOut, match="would take over"):
        run.refuse_size("backpack", problem, peak=1.0)
    run.refuse_size("gradconf", problem, peak=1.0)
    big = models.pose(replace(models.CASES["mlp1000"], network=lambda g: torch.nn.Linear(64, 10**6)), CPU, samples=32)
    with pytest.raises(LeftOut, match=r"would hold 8\.3 GB"):
        run.refuse_size("vmap", big, peak=1e12)


@pytest.mark.skipif(not memory.RESET.exists(), reason="this system does not tell the peak of a process")
def test_memory_is_that_of_the_call():
    memory._resident(lambda: torch.zeros(10))  # memory that torch takes once
    assert 30 < memory._resident(lambda: torch.ones(2**23)) < 40  # 32 MiB


def test_results_are_stored_and_reported(tmp_path):
    records = run.measure(replace(TINY["mlp"], name="samples_32", sweep="samples"), CPU, 2)
    rows = {r["contestant"]: r for r in records}
    assert rows["gradconf"]["rounds"] == 2
    assert rows["loop"]["disagreement"] < 1e-5
    assert rows["vmap"]["chunk"] in (8, 12)
    for r in records:
        r["fraction_of_peak"] = 0.5
    run.store(tmp_path / "some.json", run.provenance(CPU) | {"peak_gflops": 1.0}, records)
    results = json.loads((tmp_path / "some.json").read_text())
    assert results["records"] == records
    assert (
        results["provenance"]["packages"]["torch"] in torch.__version__
    )  # which a build may extend, as in 2.14.1+cu130
    assert list(report.figures(results)) == ["samples"]


def made_up():
    facts = {"date": "2026-01-01", "device": "abacus", "threads": 1, "cores": 2, "system": "wood", "commit": "0" * 40}
    facts |= {"packages": {"torch": "2"}, "peak_gflops": 100.0}
    shared = {"samples": 64, "parameters": 9, "seconds": None, "left_out": None}
    shared |= {"calibration_gflops": 100.0, "calibration_slowest": 90.0}
    timed = {"rounds": 7, "gflop": 2.0, "fraction_of_peak": 0.25, "peak_mib": 2048.0}
    records = [
        shared | timed | {"case": "cnn16", "contestant": "gradconf", "seconds": 0.5},
        shared | timed | {"case": "cnn16", "contestant": "vmap", "seconds": 6.0, "rounds": 3, "chunk": 16},
        shared | {"case": "cnn16", "contestant": "backpack", "left_out": "would hold 14.5 GB of gradients"},
    ]
    records[1]["disagreement"] = 2e-6
    return {"provenance": facts, "records": records}


def test_the_tables_say_what_was_measured():
    text = report.tables(made_up())
    row = next(line for line in text.splitlines() if line.startswith("| CNN-16-2, N = 64"))
    assert row == "| CNN-16-2, N = 64 | 500 ms | 6 s† · 12× · 16 at a time | left out |"
    assert "2.0 GiB" in text
    assert "2 · 25 %" in text
    assert "- BackPACK at CNN-16-2, N = 64: would hold 14.5 GB of gradients." in text
    assert "abacus" in text
    assert "at most 2e-06 (vmap(grad)" in text


def test_cases_that_are_not_measured_again_are_kept_with_their_date(tmp_path):
    stored, path = made_up(), tmp_path / "some.json"
    run.store(path, stored["provenance"], stored["records"])
    facts = stored["provenance"] | {"date": "2026-02-02", "commit": "1" * 40}
    records = run.kept(path, facts, ["wrn16"])
    assert [r["commit"] for r in records] == ["0" * 40] * 3
    records.append(stored["records"][0] | {"case": "wrn16"})
    text = report.tables({"provenance": facts, "records": records})
    assert "commit 111111111111 for WRN-16-2, N = 64; else commit 000000000000 of 2026-01-01;" in text
    assert run.kept(path, facts, list(models.CASES)) == []
    with pytest.raises(SystemExit, match="another machine or other versions"):
        run.kept(path, facts | {"threads": 2}, ["wrn16"])


def test_a_run_that_is_stopped_loses_nothing(tmp_path, monkeypatch):
    def measured(case, device, rounds):
        if case.name == "cnn16":
            raise KeyboardInterrupt
        return [stored["records"][0] | {"case": case.name}]

    stored, path = made_up(), tmp_path / "some.json"
    run.store(path, stored["provenance"] | run.provenance(CPU), stored["records"])
    monkeypatch.setattr(run, "fair_surroundings", lambda: None)
    monkeypatch.setattr(run, "measure", measured)
    monkeypatch.setattr("sys.argv", ["run", "--device", "cpu", "--out", str(path), "--cases", "wrn16", "cnn16"])
    with pytest.raises(KeyboardInterrupt):
        run.main()
    assert [r["case"] for r in json.loads(path.read_text())["records"]] == ["cnn16"] * 3 + ["wrn16"]


def test_the_figures_say_their_values_in_words():
    pictures = report.figures(made_up())
    assert list(pictures) == ["memory"]
    assert "vmap(grad) 2.0 GiB" in pictures["memory"].alt


def test_labels_are_moved_apart_in_order():
    heights = np.array([1.0, 3.0, 1.05, 1.02])
    placed = report.spread(heights, gap=0.2)
    assert (np.argsort(placed) == np.argsort(heights)).all()
    assert np.diff(np.sort(placed)).min() > 0.199
    assert placed[1] == 3


@pytest.mark.skipif(not RESULTS, reason="nothing was measured yet")
@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_stored_results_are_whole_and_agree(path):
    results = json.loads(path.read_text(encoding="utf-8"))
    facts, records = results["provenance"], results["records"]
    assert {"date", "device", "cores", "threads", "packages", "commit", "command", "peak_gflops"} <= facts.keys()
    assert all(facts["packages"].values())
    assert re.match(r"[0-9a-f]{12}", facts["commit"])
    measured = {(r["case"], r["contestant"]) for r in records}
    assert measured == {(case.name, name) for case in models.CASES.values() for name in case.contestants}
    assert all((r["seconds"] is None) != (r["left_out"] is None) for r in records)
    assert not [r for r in records if r["left_out"] and r["contestant"] in run.OURS]
    differences = [r["disagreement"] for r in records if "disagreement" in r]
    assert max(differences) < 5e-3  # in float32 a ReLU of a deep network may flip for one sample
    assert statistics.median(differences) < 1e-5
    assert path.with_suffix(".md").read_text(encoding="utf-8") == report.tables(results)
    for name in report.figures(results):
        assert (report.IMAGES / f"benchmark_{path.stem}_{name}.png").stat().st_size < 200_000
