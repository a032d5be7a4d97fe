"""Stored sweeps, none or some of them: what the pages and chapters show, and the verdicts."""

import argparse
import ast
import json
import math
import re
from pathlib import Path

import nbformat
import pytest

import gradconf
from claims import page
from gradconf import results
from gradconf.plots import Picture
from gradconf.results import at_scale, tables, words
from gradconf.results.figures import FIGURES
from gradconf.sweeps import Configuration, read_sweep
from gradconf.sweeps.cli import add_parser

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
WORSE = {8: (1.0, -0.2, 0.10), 16: (1.5, -0.4, 0.15), 32: (2.0, -0.6, 0.20)}  # by depth: loss, minimum, deviation
PROVENANCE = {"date": "2026-01-02T03:04:05+00:00", "device": "abacus", "threads": 1, "torch": "2", "python": "3"}
PROVENANCE |= {"gradconf": "0", "commit": "0123456789ab"}


def row(*, numbers=(1.0, -0.3, 0.1), accuracy=0.5, status="finished", **options):
    """A row as a sweep stores it, of a run that ended with these numbers."""
    given = {"model": "cnn", "depth": 10, "width": 1, "dataset": "cifar10_jpeg", "train_size": 1000, "epochs": 2}
    told = Configuration(**given | {"learning_rate": 0.1, "pool": 2} | options)
    loss, least, deviation = numbers
    last = {"train_loss": loss, "train_accuracy": 0.5, "test_loss": loss, "test_accuracy": accuracy}
    epochs = [{"epoch": k, "steps": 8 * k, "learning_rate": told.learning_rate} | last for k in range(3)]
    epochs[-1] |= {"min_cosine": least, "std": deviation, "q01": least, "disjoint_q01": least / 2}
    more = {"cosines": [least, 0.0, 0.2]} if status == "finished" else {"reason": "the loss exploded", "epochs": []}
    facts = {"provenance": PROVENANCE, "seconds": 1800, "peak_memory": 10**9, "data": "JPEG, compressed"}
    shared = {"key": told.key, "configuration": told.as_dict(), "status": status, "epochs": epochs, "parameters": 9}
    return shared | facts | more


@pytest.fixture
def store(monkeypatch, tmp_path):
    """Write rows as the stored table of a sweep; without any, there is none."""
    monkeypatch.setattr(tables, "FOLDER", tmp_path)

    def write(name, rows):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in rows))

    return write


def depths(*, seeds=(0, 1, 2), by_depth=WORSE, **options):
    slightly = {seed: 0.01 * k for k, seed in enumerate(seeds)}
    return [
        row(depth=6 * depth + 4, width=2, seed=seed, numbers=(n[0] + more, n[1] + more, n[2] + more / 10), **options)
        for depth, n in by_depth.items()
        for seed, more in slightly.items()
    ]


def four(depth, seed, losses, **options):
    kinds = {"plain": (False, False), "batch norm": (True, False), "skip": (False, True), "both": (True, True)}
    rows = []
    for name, loss in losses.items():
        layers = dict(zip(("batch_norm", "skip"), kinds[name], strict=True))
        numbers = {"numbers": (loss, -loss / 4, 0.1), "accuracy": 1 / (1 + loss)}
        rows.append(row(model="wrn", depth=depth, seed=seed, **layers, **numbers, **options))
    return rows


def test_without_runs_it_says_how_to_run_them(store):
    for name, figure in FIGURES.items():
        stored = at_scale(name)
        assert not stored
        assert (stored.curves(), stored.learning(), stored.density()) == (None, None, None)
        assert stored._repr_markdown_().startswith("**Not run yet** (the paper's size): `python -m gradconf sweep")
        assert f"--out gradconf/results/{name}_full.jsonl" in stored.command
        assert [claim.verdict for claim in stored.claims] == ["not run yet"] * len(figure.claims)


def test_the_command_is_one_that_is_understood(store):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    for name in FIGURES:
        for size in words.SIZES:
            parts = at_scale(name, size=size).command.split()
            assert parts[:3] == ["python", "-m", "gradconf"]
            asked = parser.parse_args(parts[3:])
            assert read_sweep(ROOT / asked.file, size=asked.size).configurations
            assert asked.out.name == f"{name}_{size}.jsonl"


def test_the_largest_size_of_which_there_are_runs_is_shown(store):
    store("depth_cpu", depths())
    assert at_scale("depth").size == "cpu"
    store("depth_full", depths())
    assert at_scale("depth").size == "full"
    assert at_scale("depth", size="cpu").size == "cpu"
    assert not at_scale("depth", size="small")


@pytest.mark.parametrize(("name", "size"), [("tiny", None), ("depth", "huge")])
def test_what_there_is_not_is_answered_with_what_there_is(name, size):
    with pytest.raises(ValueError, match=r"^there is no (sweep 'tiny'|size 'huge'): choose one of \w+, \w+[^.]*\.$"):
        at_scale(name, size=size)


@pytest.mark.parametrize(("sign", "verdict"), [(1, "reproduced"), (-1, "contradicted"), (0, "not at this scale")])
def test_the_verdict_follows_from_the_ends(store, sign, verdict):
    flat = WORSE[16]
    by_depth = {d: tuple(f + sign * (n - f) for f, n in zip(flat, WORSE[d], strict=True)) for d in WORSE}
    store("depth_cpu", depths(by_depth=by_depth))
    (claim,) = at_scale("depth").claims
    assert claim.verdict == verdict
    assert claim.checks[0].what == "training loss, depth 52 to 196"
    assert claim.provenance == PROVENANCE
    assert claim.seeds == (0, 1, 2)
    assert "a reduced set for one CPU core, 1,000 images of CIFAR-10 (JPEG-compressed copy)" in claim.claim
    assert claim.claim.endswith("2 × 2 pixels, 3 seeds")
    assert f"**{verdict}**" in at_scale("depth")._repr_markdown_()


@pytest.mark.parametrize("kept", [slice(0, 3), slice(0, 9, 3), slice(0, 1)], ids=["a depth", "a seed", "a run"])
def test_part_of_a_sweep_is_shown_and_not_judged(store, kept):
    store("depth_cpu", depths()[kept])
    stored = at_scale("depth")
    assert stored.claims[0].verdict == "not run yet"
    assert isinstance(stored.curves(), Picture)
    assert stored._repr_markdown_().count("\n| ") == 1 + len({r["configuration"]["depth"] for r in stored.rows})


def test_each_network_is_shown_at_its_best_rate(store):
    worse = depths(learning_rate=0.01, by_depth={d: (n[0] + 1, 0.0, 0.0) for d, n in WORSE.items()})
    store("depth_cpu", [*worse, *depths()])
    assert set(at_scale("depth").runs.learning_rate) == {0.1}
    shown = "| 52 | 3 | 0.1 | 1.01 ± 0.01 | 0.5 ± 0 | −0.19 ± 0.01 | 0.101 ± 0.001 | −0.095 ± 0.005 |"
    assert shown in at_scale("depth")._repr_markdown_()
    assert len(at_scale("depth").runs) == 9


def test_rates_are_compared_with_seeds_that_have_them_all(store):
    good = depths(learning_rate=0.01, by_depth={d: (n[0] - 0.5, 0.0, 0.0) for d, n in WORSE.items()})
    store("depth_cpu", [*depths(), *good[::3]])  # the better rate was run with seed 0 alone so far
    assert set(at_scale("depth").runs.learning_rate) == {0.01}
    assert set(at_scale("depth").runs.seed) == {0}
    store("depth_cpu", [*depths(seeds=(1, 2)), *good[::3]])
    assert set(at_scale("depth").runs.seed) == {1, 2}


def test_what_diverged_at_every_rate_is_told_and_decides_nothing(store):
    rows = depths()
    lost = depths(by_depth={32: WORSE[32]}, status="diverged")
    store("depth_cpu", [*rows[:6], *lost, *depths(by_depth={32: WORSE[32]}, status="diverged", learning_rate=0.01)])
    stored = at_scale("depth")
    assert "| 196 | 3 | diverged at every rate | – |" in stored._repr_markdown_()
    assert "Runs: 6 finished, 6 diverged;" in stored.measured_on()
    assert stored.claims[0].verdict == "not at this scale"
    assert all(math.isnan(value) for value in stored.claims[0].checks[0].after)
    assert "196" not in stored.curves().alt


def test_batch_norm_and_skip_connections_have_three_claims(store):
    shallow = {"plain": 1.5, "batch norm": 1.0, "skip": 1.2, "both": 0.5}
    deep = {"plain": 2.3, "batch norm": 1.5, "skip": 2.3, "both": 0.5}
    at = {10: shallow, 40: deep}
    rows = [one for seed in range(3) for depth, losses in at.items() for one in four(depth, seed, losses)]
    store("bn_skip_small", rows)
    stored = at_scale("bn_skip")
    assert [claim.verdict for claim in stored.claims] == ["reproduced", "partly", "reproduced"]
    assert stored.claims[0].checks[0].what == "training loss at depth 40, plain to batch norm"
    assert "both: 0.667" in stored.curves("test_accuracy").alt
    assert "| 40, skip | 3 | 0.1 | 2.3 ± 0 |" in stored._repr_markdown_()
    store("bn_skip_small", [one for one in rows if not one["configuration"]["skip"]])
    assert [claim.verdict for claim in at_scale("bn_skip").claims] == ["reproduced", "not run yet", "not run yet"]


def test_fully_connected_networks_are_told_apart_by_activation_and_weights(store):
    mlp = {"model": "mlp", "pool": 1, "dataset": "fashion_mnist", "activation": "tanh"}
    store("mlp_depth_cpu", [row(**mlp, init=i, depth=d) for i in ("glorot", "orthogonal") for d in (3, 9)])
    stored = at_scale("mlp_depth")
    assert stored.claims == ()
    assert "| 9, tanh, orthogonal |" in stored._repr_markdown_()
    assert "tanh, glorot, depth 3: 3 pairs" in stored.density().alt


def test_pictures_say_what_they_show(store):
    store("depth_cpu", depths())
    stored = at_scale("depth")
    assert "-0.19 ± 0.01 at 52" in stored.curves("min_cosine").alt
    assert "depth 52: 9 pairs, minimum -0.20" in stored.density().alt
    assert "depth 196: 2.01 ± 0.01 at 0" in stored.learning().alt


def test_the_ledger_judges_each_size_that_was_run_and_the_papers(store):
    assert {claim.verdict for claim in page.scaled()} == {"not run yet"}
    store("depth_cpu", depths())
    verdicts = {claim.id: claim.verdict for claim in page.scaled()}
    assert verdicts.pop("depth_cpu") == "reproduced"
    assert set(verdicts.values()) == {"not run yet"}
    (line,) = [line for line in page.page()[0].splitlines() if "1,000 images" in line]
    assert "../chapters/03_depth.ipynb#at-the-papers-scale" in line
    assert line.count("|") == 4


def some(store):
    store("depth_cpu", depths())
    store("width_cpu", [row(width=w, seed=s, numbers=(2 - w / 4, -0.5, 0.1 + s / 9)) for w in (1, 4) for s in (0, 1)])
    store("bn_skip_cpu", four(10, 0, {"plain": 1.0, "both": 2.0}))


def shown(source, names):
    """What a cell displays: the value of its last line."""
    *body, last = ast.parse(source).body
    displays = isinstance(last, ast.Expr)
    exec(compile(ast.Module(body if displays else [*body, last], []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if displays else None


@pytest.mark.parametrize("present", [True, False], ids=["some results", "no results"])
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapters_show_what_was_stored(path, present, store):
    if present:
        some(store)
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.get("id", "").startswith("scale-")]
    names = {"gradconf": gradconf, "results": results}
    displayed = [shown(cell.source, names) for cell in cells]
    assert isinstance(displayed[0], results.Scale)
    assert [isinstance(one, Picture) for one in displayed[1:]] == [present]


@pytest.mark.parametrize("present", [True, False], ids=["some results", "no results"])
def test_the_page_works_with_whatever_is_there(present, store):
    if present:
        some(store)
    text, names = (ROOT / "book" / "scale.md").read_text(), {}
    displayed = [shown(cell, names) for cell in re.findall(r"```\{code-cell\}\n(.*?)```", text, re.S)]
    stored = [one for one in displayed if isinstance(one, results.Scale)]
    assert {one.sweep for one in stored} == set(FIGURES)
    assert {one.sweep for one in stored if one.size == "full"} >= {"depth", "width", "bn_skip"}
    pictures = [one.alt for one in displayed if isinstance(one, Picture)]
    assert len(pictures) == len(set(pictures)) == 9 * present


@pytest.mark.parametrize("path", sorted((ROOT / "gradconf" / "results").glob("*.jsonl")), ids=lambda path: path.stem)
def test_stored_tables_are_small_and_of_their_sweep(path):
    name, _, size = path.stem.rpartition("_")
    stored = at_scale(name, size=size)
    assert len({one["key"] for one in stored.rows}) == len(stored.rows)
    assert path.stat().st_size < 500_000
    assert {one["status"] for one in stored.rows} <= {"finished", "diverged", "failed"}
    assert stored._repr_markdown_()
