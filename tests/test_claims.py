"""The claims that the ledger calls reproduced hold at a small size too, and the ledger is what its rule says."""

import ast
import inspect
import json
import math

import nbformat
import numpy as np
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from claims import page, rates, run, trained
from gradconf.results import Check, ledger, verdicts

ENTRIES = {entry["id"]: entry for entry in run.read_entries()}
REPRODUCED = [claim for claim in ledger() if claim.verdict == verdicts.REPRODUCED]
SEEDS = (5, 6, 7)


def small(entry):
    options = entry["options"] | entry["test"].get("options", {})
    return entry["experiment"], json.dumps(options), tuple(entry["test"].get("seeds", SEEDS))


@pytest.fixture(scope="module")
def tables():
    """Each experiment once."""
    found = {}

    def table(entry):
        key = small(entry)
        if key not in found:
            found[key] = run.run(key[0], key[2], json.loads(key[1]))
        return found[key]

    return table


@pytest.mark.parametrize("claim", REPRODUCED, ids=lambda claim: claim.id)
def test_what_was_reproduced_shows_at_test_size(claim, tables):
    entry, checked = ENTRIES[claim.id], 0
    share, table = entry["test"].get("share", 0.5), tables(entry)
    for check, full in zip(entry["checks"], claim.checks, strict=True):
        settings = {check[name] for name in ("at", "from", "to") if name in check}
        if not settings <= set(table["at"]):
            continue  # left out at test size
        seeds = small(entry)[2]
        found = run.values(check, table, seeds)
        now = Check(
            check["what"], check["direction"], check["tolerance"], tuple(found["before"]), tuple(found["after"])
        )
        if now.direction in ("rises", "falls"):
            assert now.effects.mean() >= share * full.effects.mean(), str(now)
        elif now.direction == "stays":
            assert abs(now.effects.mean()) <= 2 * now.tolerance, str(now)
        elif now.direction in ("does not rise", "does not fall"):
            assert now.effects.mean() <= 2 * now.tolerance, str(now)
        else:
            assert (now.effects >= 0).all(), str(now)
        checked += 1
    assert checked


def check(direction, before, after, tolerance=0.1):
    return Check("it", direction, tolerance, tuple(before), tuple(after)).verdict


@pytest.mark.parametrize(
    ("direction", "after", "verdict"),
    [
        ("rises", [0.2, 0.3, 0.1], "reproduced"),
        ("rises", [0.2, 0.3, -0.01], "not at this scale"),  # not in every seed
        ("rises", [0.05, 0.06, 0.07], "not at this scale"),  # too little
        ("rises", [-0.2, -0.3, -0.1], "contradicted"),
        ("rises", [0.2, 0.3, math.nan], "not at this scale"),  # a run diverged
        ("falls", [0.2, 0.3, 0.1], "contradicted"),
        ("falls", [-0.2, -0.3, -0.1], "reproduced"),
        ("stays", [0.01, -0.02, 0.03], "reproduced"),
        ("stays", [0.2, -0.2, 0.0], "not at this scale"),  # nobody can tell
        ("stays", [0.3, 0.31, 0.32], "contradicted"),
        ("stays", [0.0, 0.0, math.nan], "not at this scale"),
        ("does not rise", [-0.5, -0.4, -0.3], "reproduced"),  # an improvement is no objection
        ("does not rise", [0.01, -0.02, 0.03], "reproduced"),
        ("does not rise", [0.3, 0.31, 0.32], "contradicted"),
        ("does not rise", [0.2, -0.2, 0.0], "not at this scale"),
        ("does not fall", [0.5, 0.4, 0.3], "reproduced"),
        ("does not fall", [-0.3, -0.31, -0.32], "contradicted"),
    ],
)
def test_the_rule_for_two_settings(direction, after, verdict):
    assert check(direction, [0.0, 0.0, 0.0], after) == verdict


@pytest.mark.parametrize(
    ("direction", "values", "verdict"),
    [
        ("at most", [0.1, 0.0], "reproduced"),
        ("at most", [0.2, 0.0], "not at this scale"),
        ("at most", [0.2, 0.3], "contradicted"),
        ("at least", [0.1, 0.2], "reproduced"),
        ("at least", [0.0, 0.2], "not at this scale"),
        ("at least", [0.0, 0.05], "contradicted"),
    ],
)
def test_the_rule_for_a_limit(direction, values, verdict):
    assert check(direction, [], values) == verdict


@pytest.mark.parametrize(
    ("marks", "verdict"),
    [
        ("rr", "reproduced"),
        ("ro", "partly"),
        ("rc", "partly"),
        ("oc", "contradicted"),
        ("oo", "not at this scale"),
        ("", "not run yet"),
    ],
)
def test_the_verdict_on_a_claim(marks, verdict):
    after = {"r": 1.0, "o": 0.0, "c": -1.0}
    record = dict.fromkeys(("id", "claim", "paper", "chapter", "section", "hash"), "") | {"provenance": {}}
    checks = [
        {"what": "it", "direction": "rises", "tolerance": 0.1, "before": [0.0] * 2, "after": [after[mark]] * 2}
        for mark in marks
    ]
    assert verdicts.read(record | {"seeds": [0, 1], "checks": checks}).verdict == verdict


def test_every_claim_was_run_with_many_seeds_twice_and_is_not_older_than_its_definition():
    stored, again = {claim.id: claim for claim in ledger()}, ledger().again
    assert list(stored) == list(ENTRIES)
    for name, entry in ENTRIES.items():
        assert stored[name].hash == run.definition(entry) == again[name].hash, f"{name}: run make claims"
        assert min(len(stored[name].seeds), len(again[name].seeds)) >= 5
        assert not set(stored[name].seeds) & set(again[name].seeds)


def test_other_seeds_reproduce_what_was_reproduced():
    assert {claim.id: ledger().again[claim.id].verdict for claim in REPRODUCED} == {
        claim.id: verdicts.REPRODUCED for claim in REPRODUCED
    }


def test_the_page_shows_every_claim_with_its_computed_verdict():
    text, old = page.page()
    assert old == []
    assert page.PAGE.read_text(encoding="utf-8") == text, "run make claims"
    for claim in ledger():
        linked, colon, rest = claim.claim.partition(": ")
        (line,) = [line for line in text.splitlines() if f"[{linked}](" in line and f"){colon}{rest} (" in line]
        assert f"**{claim.verdict}**" in line
        assert line.count("|") == 4


def test_a_claim_whose_definition_changed_is_called_old(monkeypatch):
    changed = [dict(entry) for entry in ENTRIES.values()]
    changed[0]["options"] = {"samples": 7}
    new = changed[1] | {"id": "new"}
    monkeypatch.setattr(page, "read_entries", lambda: [*changed, new])
    text, old = page.page()
    assert old == [changed[0]["id"], "new"]
    assert "not run yet" in text
    assert f"Older than their definition, or not run yet: {changed[0]['id']}, new." in text


def test_a_chapter_shows_its_own_rows():
    own = ledger("02_width")
    assert {claim.chapter for claim in own} == {"02_width"}
    text = own._repr_markdown_()
    assert text.count("\n| ") == 1 + len(own.claims)
    assert "10 seeds" in text
    with pytest.raises(ValueError, match=r"no claim of '09_none': choose one of 01_concept"):
        ledger("09_none")


def test_measuring_reads_the_settings_that_an_entry_names():
    entry = ENTRIES["random-inputs"] | {"options": {"samples": 20, "dimensions": [100, 10000]}}
    (record,) = run.measure([entry], (0, 1))
    assert [len(check["before"]) for check in record["checks"]] == [2, 2]
    assert np.mean(record["checks"][0]["before"]) > np.mean(record["checks"][0]["after"])
    assert record["provenance"]["torch"]
    with pytest.raises(ValueError, match="the experiment has no setting 5"):
        run.values({"metric": "largest", "at": 5}, run.run("toys.random_inputs", (0,), {}), (0,))


def assigned(chapter, name):
    """What a chapter's code assigns to a name."""
    cells = nbformat.read(run.ROOT / "chapters" / f"{chapter}.ipynb", 4).cells
    source = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    tree = ast.parse(TransformerManager().transform_cell(source))  # the first cell has a %pip
    nodes = (node for node in tree.body if isinstance(node, ast.Assign))
    return next(ast.literal_eval(node.value) for node in nodes if getattr(node.targets[0], "id", "") == name)


def default(function, name):
    return inspect.signature(function).parameters[name].default


def test_rates_in_use_are_those_that_were_chosen():
    used = {f"mlp {depth} 32": rate for depth, rate in assigned("03_depth", "RATES").items()}
    for kind in ("glorot", "orthogonal"):
        used |= {f"{kind} {depth}": rate for depth, rate in assigned("03_depth", "CHOSEN")[kind].items()}
    for name, by_depth in assigned("04_batchnorm_skip", "RATES").items():
        used |= {f"{name} {depth} 15": rate for depth, rate in by_depth.items()}
    for name, by_depth in trained.RATES.items():
        used |= {f"{name} {depth} 20": rate for depth, rate in by_depth.items()}
    pairs, alphas = default(trained.ratio, "pairs"), default(trained.ratio, "rates")
    used |= {f"mlp {depth} {width}": rate for (depth, width), rate in zip(pairs, alphas, strict=True)}
    used |= {f"mlp {depth} {pairs[0][1]}": rate for (depth, _), rate in zip(pairs, alphas, strict=True)}
    assert used == rates.chosen()
    depths, alphas = default(trained.depth, "depths"), default(trained.depth, "rates")
    assert {f"mlp {d} 32": rate for d, rate in zip(depths, alphas, strict=True)}.items() <= used.items()


def test_the_rate_with_the_smallest_loss_at_which_nothing_diverged_is_chosen(monkeypatch, tmp_path):
    (tmp_path / "table.csv").write_text("network,rate,loss,diverged\na,1.0,0.1,1\na,0.1,0.3,0\na,0.01,0.4,0\n")
    monkeypatch.setattr(rates, "TABLE", tmp_path / "table.csv")
    assert rates.chosen() == {"a": 0.1}


def test_a_network_is_tried_at_every_rate(monkeypatch):
    monkeypatch.setattr(rates, "GRID", (0.1, 1e4))
    monkeypatch.setattr(rates, "SEEDS", (1, 2))
    _, build, _, data = next(rates.cases())
    rows = rates.tried("it", build, 1, data)
    assert [(row["network"], row["rate"], row["diverged"]) for row in rows] == [("it", 0.1, 0), ("it", 1e4, 2)]
    assert rows[0]["loss"] < 3
    assert math.isnan(rows[1]["loss"])
