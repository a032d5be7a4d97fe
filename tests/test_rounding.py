"""Layers in TF32 and bf16 as `benchmarks.rounding` emulates them, and what is measured with it and of training."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import precision, run, training
from benchmarks.rounding import BITS, Rounded, layers_in, rounded
from gradconf.models import cnn, mlp

CPU = torch.device("cpu")


def test_seven_bits_are_bfloat16():
    x = torch.cat([torch.randn(1000) * 10.0**k for k in range(-30, 31, 6)] + [torch.tensor([0.0, -0.0, 1.00390625])])
    assert torch.equal(rounded(x, 7), x.bfloat16().float())


def test_ten_bits_are_tf32():
    step = 2.0**-10
    x = torch.tensor([1 + step, 1 + step / 2, 1 + 1.5 * step, 1 + 0.51 * step, -(2 - step / 4), 3e-40])
    assert rounded(x, 10)[:5].tolist() == [1 + step, 1.0, 1 + 2 * step, 1 + step, -2.0]  # ties go to even


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("layer", "shape"), [(nn.Linear, (5, 4)), (nn.Conv1d, (5, 4, 6)), (nn.Conv2d, (5, 4, 6, 6))], ids=lambda p: str(p)
)
def test_all_three_products_of_a_layer_multiply_rounded_operands(layer, shape, bias):
    made = layer(4, 3, bias=bias) if layer is nn.Linear else layer(4, 3, 3, stride=2, padding=1, bias=bias)
    x = torch.randn(shape, requires_grad=True)
    with Rounded(7):
        out = made(x)
    weights = torch.randn_like(out)
    (out * weights).sum().backward()
    plain = layer(4, 3, bias=bias) if layer is nn.Linear else layer(4, 3, 3, stride=2, padding=1, bias=bias)
    plain.load_state_dict(made.state_dict())
    with torch.no_grad():
        plain.weight.copy_(rounded(made.weight, 7))
    y = rounded(x.detach(), 7).requires_grad_()
    expected = plain(y)
    (expected * rounded(weights, 7)).sum().backward()
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(made.weight.grad, plain.weight.grad)
    if bias:  # it is added, not multiplied
        torch.testing.assert_close(made.bias.grad, weights.transpose(0, 1).reshape(3, -1).sum(1))


def test_outside_of_it_nothing_is_rounded():
    x, weight = torch.randn(3, 4), torch.randn(2, 4)
    expected = F.linear(x, weight)
    with layers_in("float32"):
        assert torch.equal(F.linear(x, weight), expected)
    with layers_in("bf16"):
        assert not torch.equal(F.linear(x, weight), expected)
    assert torch.equal(F.linear(x, weight), expected)


def test_fewer_bits_move_cosines_further(monkeypatch):
    monkeypatch.setattr(precision, "SAMPLES", 20), monkeypatch.setattr(precision, "PAIRS", 4)
    data = precision.load("digits", train_size=300, test_size=50)
    model = cnn(10, 1, in_channels=1, generator=torch.Generator().manual_seed(0))
    moved = {(r["precision"], r["of"]): r for r in precision.changes(model, data)}
    for kind in ("samples", "mini-batches"):
        rms = [moved[name, kind]["rms"] for name in BITS]
        assert rms == sorted(rms)
        assert rms[0] < 1e-4 < rms[2]


def test_what_was_emulated_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "SAMPLES", 10), monkeypatch.setattr(precision, "PAIRS", 3)
    case = precision.Case(
        "tiny", lambda data, g: mlp(1, 4, in_features=64, out_features=10, generator=g), "digits", 0.1
    )
    monkeypatch.setitem(precision.CASES, "mlp", case)
    monkeypatch.setattr(
        "sys.argv", ["precision", "--cases", "mlp", "--seeds", "3", "4", "--out", f"{tmp_path}/it.json"]
    )
    precision.main()
    records = json.loads((tmp_path / "it.json").read_text())["records"]
    assert len(records) == 2 * (2 * 3 + 3)
    text = (tmp_path / "it.md").read_text()
    assert text.count("| tiny |") == 2 * 3 + 3
    assert "2 seeds" in text
    assert "Emulated" in text


@pytest.mark.parametrize("way", ["float32", "channels last", "eight at once"])
def test_a_step_of_training_changes_every_weight(way):
    built = []

    def build(generator):
        built.append(cnn(10, 1, generator=generator))
        return built[-1]

    step = training.steps(training.Case("tiny", build, (3, 8, 8)), way, CPU)
    before = [[p.clone() for p in model.parameters()] for model in built]
    assert len(built) == (8 if way == "eight at once" else 1)
    step()
    if way != "eight at once":  # whose models get their weights when training ends
        assert not any(map(torch.equal, built[0].parameters(), before[0]))


def test_training_is_timed_and_told(tmp_path):
    case = training.Case("tiny", lambda g: mlp(1, 8, in_features=6, out_features=10, generator=g), (6,))
    records = training.measure("mlp", case, CPU, ["float32", "channels last", "TF32", "eight at once"], 1)
    by_way = {record["way"]: record for record in records}
    forward = 2 * training.BATCH * (6 * 8 + 8 * 10)
    assert by_way["float32"]["gflop"] * 1e9 == 3 * forward - 2 * training.BATCH * 6 * 8
    assert by_way["TF32"]["left_out"] == "needs a GPU with TF32"
    assert by_way["channels last"]["left_out"] == "has no channels"
    text = training.table({"provenance": run.provenance(CPU) | {"command": "it"}, "records": records})
    assert "| network | GFLOP an image | float32 | eight at once |" in text


RESULTS = [precision.RESULTS, *sorted(training.RESULTS.glob("*.json"))]


@pytest.mark.parametrize("path", [path for path in RESULTS if path.exists()], ids=lambda path: path.parent.stem)
def test_stored_tables_are_those_of_the_stored_results(path):
    results = json.loads(path.read_text(encoding="utf-8"))
    told = precision.tables if path == precision.RESULTS else training.table
    assert path.with_suffix(".md").read_text(encoding="utf-8") == told(results)
    assert results["provenance"]["device"]
