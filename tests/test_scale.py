"""Stored sweeps, none or some of them: what the pages and chapters show, and the verdicts."""

import argparse
import ast
import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch

import gradconf
from claims import page
from gradconf import results
from gradconf.datasets import Dataset
from gradconf.plots import Picture
from gradconf.results import at_scale, tables, words
from gradconf.results.figures import FIGURES
from gradconf.results.plans import PLANS, setting
from gradconf.sweeps import Configuration, cost, read_sweep
from gradconf.sweeps.cli import add_parser

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
WORSE = {10: (1.0, -0.2, 0.10), 16: (1.5, -0.4, 0.15), 22: (2.0, -0.6, 0.20)}  # by depth: loss, minimum, deviation
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
        sweep, _, size = name.rpartition("_")
        rows = [{"sweep": sweep, "size": size} | one for one in rows]
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in rows))

    return write


def depths(*, seeds=(0, 1, 2), by_depth=WORSE, **options):
    slightly = {seed: 0.01 * k for k, seed in enumerate(seeds)}
    return [
        row(depth=depth, seed=seed, numbers=(n[0] + more, n[1] + more, n[2] + more / 10), **options)
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
        shown = stored._repr_markdown_()
        assert shown.startswith("**Not run yet** (the paper's size). What can be run, the cheapest first:")
        assert shown.index("\nA reduced set for one CPU core (") < shown.index("\nThe paper's size (")
        assert shown.count(" floating point operations):\n\n```bash\npython -m gradconf sweep") == 2
        assert f"--out gradconf/results/{name}_full.jsonl" in stored.command()
        assert [claim.verdict for claim in stored.claims] == ["not run yet"] * len(figure.claims)


def test_the_command_is_one_that_is_understood(store):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    for name in FIGURES:
        for size in words.SIZES:
            parts = at_scale(name, size=size).command().split()
            assert parts[:3] == ["python", "-m", "gradconf"]
            asked = parser.parse_args(parts[3:])
            assert read_sweep(ROOT / asked.file, size=asked.size).configurations
            assert asked.out.name == f"{name}_{size}.jsonl"


def test_the_largest_size_that_can_be_judged_is_shown(store):
    store("depth_cpu", depths())
    assert at_scale("depth").size == "cpu"
    for few in (depths()[:1], depths(status="failed"), depths()):  # too few, failed, and depth 40 is missing
        store("depth_full", few)
        assert at_scale("depth").size == "cpu"
    store("depth_full", depths(by_depth={16: WORSE[10], 40: WORSE[22]}))
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
    assert claim.checks[0].what == "training loss, depth 10 to 22"
    assert claim.provenance == PROVENANCE
    assert claim.seeds == (0, 1, 2)
    assert "a reduced set for one CPU core, 1,000 images of CIFAR-10 (JPEG-compressed copy)" in claim.claim
    assert claim.claim.endswith("2 × 2 pixels, 9 of 18 planned runs; not run yet: rate 0.03")
    assert f"**{verdict}**, 3 seeds" in at_scale("depth")._repr_markdown_()


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
    shown = "| 10 | 3 | 0.1 | 1.01 ± 0.01 | 0.5 ± 0 | −0.19 ± 0.01 | 0.101 ± 0.001 | −0.095 ± 0.005 |"
    assert shown.replace("± ", "±\N{NO-BREAK SPACE}") in at_scale("depth")._repr_markdown_()
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
    lost = depths(by_depth={22: WORSE[22]}, status="diverged")
    store("depth_cpu", [*rows[:6], *lost])
    assert "| 22 | 3 | diverged at every rate tried | – |" in at_scale("depth")._repr_markdown_()
    store("depth_cpu", [*rows[:6], *lost, *depths(by_depth={22: WORSE[22]}, status="diverged", learning_rate=0.03)])
    stored = at_scale("depth")
    assert "| 22 | 3 | diverged at every rate tried | – |" in stored._repr_markdown_()
    assert "Runs: 6 finished, 6 diverged;" in stored._repr_markdown_()
    assert stored.claims[0].verdict == "not at this scale"
    assert all(math.isnan(value) for value in stored.claims[0].checks[0].after)
    assert "at 22" not in stored.curves().alt


def test_what_failed_is_told_with_its_reason_and_counts_as_not_run(store):
    lost = [one | {"reason": "out of memory |\nof 80 GB"} for one in depths(by_depth={22: WORSE[22]}, status="failed")]
    store("depth_cpu", [*depths()[:6], *lost])
    stored = at_scale("depth")
    assert "| 22 | 3 | failed (out of memory / of 80 GB) | – |" in stored._repr_markdown_()
    assert "Runs: 6 finished, 3 failed (out of memory / of 80 GB);" in stored._repr_markdown_()
    assert "diverged" not in stored._repr_markdown_()
    assert stored.claims[0].verdict == "not run yet"
    other = depths(by_depth={22: WORSE[22]}, status="diverged", learning_rate=0.03)
    store("depth_cpu", [*depths()[:6], *lost, *other])
    assert "| 22 | 3 | at no rate with all seeds: 3 failed, 3 diverged (out of" in at_scale("depth")._repr_markdown_()


STRANGE = {
    "other epochs": row(seed=0, epochs=3),
    "another width": row(seed=0, width=4),
    "other weights": row(seed=0, init="glorot"),
    "another size": row(seed=3) | {"size": "small"},
    "another sweep": row(seed=3) | {"sweep": "width"},
    "the same run": row(seed=0),
    "no configuration": {"key": "k", "status": "failed", "sweep": "depth", "size": "cpu"},
}


@pytest.mark.parametrize("strange", STRANGE.values(), ids=STRANGE)
def test_rows_that_do_not_belong_there_are_left_out(store, strange):
    store("depth_cpu", [strange, *depths()])
    stored = at_scale("depth")
    assert len(stored.rows) == 9
    assert stored.left_out == 1
    assert " Left out of its table: 1 row that " in stored._repr_markdown_()
    assert stored.claims[0].verdict == "reproduced"


def test_a_table_of_another_size_alone_is_not_this_one(store):
    store("depth_full", [one | {"size": "cpu"} for one in depths()])
    assert not at_scale("depth", size="full")
    assert "**Not run yet** (the paper's size). Left out" in at_scale("depth", size="full")._repr_markdown_()


def test_what_is_not_run_yet_is_told(store):
    store("depth_cpu", [*depths(seeds=(0, 1))[:4], row(depth=64)])
    told = at_scale("depth")._repr_markdown_()
    assert "4 of 18 planned runs, beside 1 not planned; not run yet: depth 22, seed 2, rate 0.03." in told
    assert "the smallest training loss of those tried so far;" in told
    both = [one for rate in (0.1, 0.03) for one in depths(learning_rate=rate)]
    store("depth_cpu", both[:-1])
    last = "17 of 18 planned runs; not run yet: 1 of them (depth 22, seed 2, rate 0.03)."
    assert last in at_scale("depth")._repr_markdown_()
    store("depth_cpu", both)
    assert " 18 of 18 planned runs.\n" in at_scale("depth")._repr_markdown_()
    assert "runs what is missing" not in at_scale("depth")._repr_markdown_()
    assert "tried so far" not in at_scale("depth")._repr_markdown_()


def test_runs_that_two_tables_share_are_told(store):
    store("depth_cpu", depths())
    store("width_cpu", depths()[:2])
    once = "2 of these runs are also in the depth table (same key); all were run once for both, so that 1 hours are in"
    assert once in at_scale("width")._repr_markdown_()
    again = [one | {"provenance": PROVENANCE | {"date": "2026-02-02T00:00:00+00:00"}} for one in depths()[:2]]
    store("width_cpu", again)
    assert "2 of these runs are also in the width table (same key); they were" in at_scale("depth")._repr_markdown_()


@pytest.mark.parametrize(("sweep", "size"), PLANS, ids="-".join)
def test_plans_are_those_of_the_sweep_files(sweep, size):
    runs = read_sweep(ROOT / "book" / "sweeps" / f"{sweep}.toml", size=size).configurations
    settings = {setting({"configuration": run.as_dict()}, FIGURES[sweep].axis) for run in runs}
    assert PLANS[sweep, size].settings == settings
    assert len(settings) == len(runs)
    assert list(PLANS[sweep, size].values) == sorted(PLANS[sweep, size].values)


def blank(run):
    """Data of the size that a run asks for."""
    shape = (1, 28, 28) if run.dataset == "fashion_mnist" else (3, 32 // run.pool, 32 // run.pool)
    train, test = (torch.empty(size, *shape, device="meta") for size in (run.train_size, run.test_size))
    targets = (torch.zeros(len(inputs), dtype=torch.long) for inputs in (train, test))
    return Dataset("blank", train, next(targets), test, next(targets), 10, "")


@pytest.mark.parametrize("sweep", FIGURES)
def test_plans_say_what_the_reduced_sets_cost(sweep):
    runs = read_sweep(ROOT / "book" / "sweeps" / f"{sweep}.toml", size="cpu").configurations
    networks = Counter(replace(run, seed=0, learning_rate=0.1) for run in runs)
    work = sum(number * cost(run, blank(run)) for run, number in networks.items())
    assert float(f"{work / 1e15:.1g}") == PLANS[sweep, "cpu"].work


@pytest.mark.parametrize("sweep", [name for name, figure in FIGURES.items() if figure.paper])
def test_the_page_says_what_the_plans_say(sweep):
    told = [f"{len(plan.settings):,} runs, {plan.work:,g}" for size in words.SIZES for plan in [PLANS[sweep, size]]]
    assert f"| `{sweep}.toml` | {' | '.join(told)} |" in (ROOT / "book" / "scale.md").read_text()


def test_batch_norm_and_skip_connections_have_three_claims(store):
    shallow = {"plain": 1.5, "batch norm": 1.0, "skip": 1.2, "both": 0.5}
    deep = {"plain": 2.3, "batch norm": 1.5, "skip": 2.3, "both": 0.5}
    at = {16: shallow, 40: deep}
    rows = [one for seed in range(3) for depth, losses in at.items() for one in four(depth, seed, losses)]
    store("bn_skip_small", rows)
    stored = at_scale("bn_skip")
    assert [claim.verdict for claim in stored.claims] == ["reproduced", "partly", "reproduced"]
    assert stored.claims[0].checks[0].what == "training loss at depth 40, plain to batch norm"
    assert "both: 0.667" in stored.curves("test_accuracy").alt
    assert "| 40 | skip | 3 | 0.1 | 2.3 ±\N{NO-BREAK SPACE}0 |" in stored._repr_markdown_()
    store("bn_skip_small", [one for one in rows if not one["configuration"]["skip"]])
    assert [claim.verdict for claim in at_scale("bn_skip").claims] == ["reproduced", "not run yet", "not run yet"]


def test_fully_connected_networks_are_told_apart_by_activation_and_weights(store):
    mlp = {"model": "mlp", "pool": 1, "dataset": "fashion_mnist", "activation": "tanh"}
    store("mlp_depth_cpu", [row(**mlp, init=i, depth=d) for i in ("glorot", "orthogonal") for d in (3, 9)])
    stored = at_scale("mlp_depth")
    assert stored.claims == ()
    assert "| 9 | tanh, orthogonal |" in stored._repr_markdown_()
    assert "tanh, glorot, depth 3: 3 pairs" in stored.density().alt


def test_pictures_say_what_they_show(store):
    store("depth_cpu", depths())
    stored = at_scale("depth")
    assert "-0.19 ± 0.01 at 10" in stored.curves("min_cosine").alt
    assert "depth 10: 9 pairs, minimum -0.20" in stored.density().alt
    assert "depth 22: 2.01 ± 0.01 at 0" in stored.learning().alt


def test_the_ledger_judges_each_size_that_was_run_and_the_papers(store):
    assert {claim.verdict for claim in page.scaled()} == {"not run yet"}
    store("depth_cpu", depths())
    verdicts = {claim.id: claim.verdict for claim in page.scaled()}
    assert verdicts.pop("depth_cpu") == "reproduced"
    assert {"depth_full", "bn_skip_full", "bn_skip_cpu"} <= set(verdicts)
    assert set(verdicts.values()) == {"not run yet"}
    (line,) = [line for line in page.page()[0].splitlines() if "1,000 images" in line]
    assert "../chapters/03_depth.ipynb#at-the-papers-scale" in line
    assert line.count("|") == 4


def some(store):
    store("depth_cpu", depths())
    store("width_cpu", [row(width=w, seed=s, numbers=(2 - w / 4, -0.5, 0.1 + s / 9)) for w in (1, 3) for s in (0, 1)])
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
