import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sweeping import ENVIRONMENT, SMALL, small, toml, without_time_and_place

import gradconf
from gradconf import sweeps
from gradconf.sweeps import Configuration, execution, expand, read_sweep, read_table, run
from gradconf.sweeps.cli import assignment

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "book" / "sweeps").glob("*.toml"))


def one(**changes):
    return Configuration(**(SMALL | changes))


# Grids


def test_a_grid_has_every_combination_once_and_the_first_axis_varies_slowest():
    grid = expand(SMALL | {"depth": [1, 2], "seed": range(3), "decay_at": [[0.5], []]})
    assert [(c.depth, c.seed, c.decay_at) for c in grid[:3]] == [(1, 0, (0.5,)), (1, 0, ()), (1, 1, (0.5,))]
    assert len(grid) == len({c.key for c in grid}) == 12
    assert len(expand(SMALL | {"depth": [1, 1]})) == 1


def test_the_key_names_the_run_whatever_way_it_is_written():
    assert one(learning_rate=1).key == one(learning_rate=1.0).key
    assert one(init="he").key == one().key != one(init="glorot").key
    assert one().key == "8ca359eaba330a3f"  # stored tables are found by it


def test_a_configuration_has_the_defaults_of_its_network():
    plain, residual = one(), one(model="residual_mlp")
    assert (plain.batch_norm, plain.activation, plain.init) == (None, "relu", "he")
    assert (residual.batch_norm, residual.skip, residual.activation) == (True, True, None)
    assert one(model="linear_net").init == "orthogonal"


def test_a_file_has_sizes_and_a_first_one(tmp_path):
    path = tmp_path / "both.toml"
    common = "\n".join(f"{key} = {value!r}" for key, value in SMALL.items() if key != "depth")
    path.write_text(
        f"title = 'T'\n[common]\n{common}\n[[a]]\nnote='N'\ndepth=[1,2]\n[[a]]\ndepth=[2,3]\n[b]\ndepth=9\n"
    )
    sweep = read_sweep(path)
    assert (sweep.name, sweep.size, sweep.title, sweep.note, sweep.sizes) == ("both", "a", "T", "N", ("a", "b"))
    assert [c.depth for c in sweep.configurations] == [1, 2, 3]
    assert [c.depth for c in read_sweep(path, size="b").configurations] == [9]
    assert [c.depth for c in read_sweep(path, changes={"depth": [5]}).configurations] == [5]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_sweep_files_of_the_book_hold(path):
    for size in read_sweep(path).sizes:
        sweep = read_sweep(path, size=size)
        assert sweep.title
        assert sweep.source
        assert sweep.note
        assert len({c.learning_rate for c in sweep.configurations}) > 1
        assert len({c.seed for c in sweep.configurations}) > 1


def test_the_papers_experiments_are_the_full_size():
    full = {path.stem: read_sweep(path, size="full").configurations for path in FILES}
    assert {(c.model, c.depth, c.width) for c in full["width"]} == {("cnn", 16, width) for width in (2, 3, 4, 5, 6)}
    assert {(c.model, c.depth, c.width) for c in full["depth"]} == {("cnn", b, 2) for b in (16, 22, 28, 34, 40)}
    depths = (16, 22, 28, 34, 40, 52, 76, 100)
    variants = {(c.depth, c.batch_norm, c.skip) for c in full["bn_skip"]}
    assert variants == {(b, norm, skip) for b in depths for norm in (True, False) for skip in (True, False)}
    for c in full["width"] + full["depth"] + full["bn_skip"]:
        assert (c.dataset, c.train_size, c.epochs, c.batch_size, c.decay_at) == ("cifar10", None, 200, 128, (0.4, 0.8))
        assert (c.pairs, c.pair_size, c.measure_every, c.init, c.decay_factor) == (100, 128, 1, "he", 0.1)


# Bad input

WRONG = {
    "unknown key": ({"breadth": 3}, "unknown key 'breadth'"),
    "negative depth": ({"depth": -1}, "depth >= 0"),
    "depth not 6 n + 4": ({"model": "cnn", "dataset": "digits", "depth": 12}, "depth 6 n + 4"),
    "type": ({"width": "wide"}, "width must be a whole number, not 'wide'"),
    "truth for number": ({"seed": True}, "seed must be a whole number, not True"),
    "large seed": ({"seed": 2**32}, "seed must be at least 0 and less than 2^32"),
    "gain": ({"gain": 0.0}, "gain must be a positive number"),
    "empty axis": ({"seed": []}, "seed has no values"),
    "rate": ({"learning_rate": [0.1, -0.1]}, "learning_rate must be a positive number"),
    "model": ({"model": "vit"}, "unknown model 'vit'"),
    "data set": ({"dataset": "imagenet"}, "unknown data set 'imagenet'"),
    "option": ({"skip": True}, "mlp has no option skip"),
    "precision": ({"precision": "fp8"}, "unknown precision 'fp8'"),
    "too few samples": ({"pair_size": 128}, "need 256 training samples, but there are 80"),
    "subset": ({"train_size": 10**6}, "a subset has between 1 and"),
    "pooled away": ({"pool": 9}, "cannot be averaged over 9 pixels"),
}


@pytest.mark.parametrize(("axes", "said"), WRONG.values(), ids=WRONG)
def test_bad_input_is_refused_in_one_sentence_before_anything_runs(axes, said, tmp_path, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr("gradconf.sweeps.running.execute", lambda *args, **named: ran.append(args))
    file, out = toml(tmp_path / "wrong.toml", **axes), tmp_path / "out.jsonl"
    assert command("sweep", file, "--out", out, monkeypatch=monkeypatch) == 1
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert "Traceback" not in told
    assert ran == []
    assert not out.exists()


@pytest.mark.parametrize(
    ("device", "precision", "said"),
    [("cpu", "tf32", "the cpu has no tf32"), ("cuda", "float32", "there is no CUDA device here")],
)
def test_what_this_machine_lacks_is_told_before_anything_runs(device, precision, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    file, out = toml(tmp_path / "s.toml", precision=precision), tmp_path / "out.jsonl"
    for more in ([], ["--dry-run"]):
        assert command("sweep", file, "--device", device, "--out", out, *more, monkeypatch=monkeypatch) == 1
        assert said in capsys.readouterr().err
    assert not out.exists()


def test_the_exit_status_tells_that_a_run_failed(tmp_path, monkeypatch, capsys):
    def lost(configuration, *rest):
        raise MemoryError("no more memory")

    monkeypatch.setattr(execution, "_prepared", lost)
    file = toml(tmp_path / "s.toml")
    assert command("sweep", file, "--out", tmp_path / "t.jsonl", monkeypatch=monkeypatch) == 1
    assert "MemoryError: no more memory" in capsys.readouterr().out


def test_a_missing_data_set_is_told_before_anything_runs(tmp_path, monkeypatch, capsys):
    file = toml(tmp_path / "cifar.toml", model="cnn", depth=10, dataset="cifar10")
    assert command("sweep", file, "--data", tmp_path, "--out", tmp_path / "o", monkeypatch=monkeypatch) == 1
    assert "cifar-10-binary.tar.gz is needed but it is not there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no sweep file"),
        ("depth = ", "is no TOML file"),
        ("", "has no size"),
        ("depth = 3", "'depth' is neither a size nor one of title, source, common"),
        ("[a]\ndepth = 3", "model, width, dataset, learning_rate must be given"),
    ],
)
def test_bad_files_are_refused_in_one_sentence(content, said, tmp_path):
    path = tmp_path / "bad.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        read_sweep(path)


# Runs


def test_a_run_is_a_pure_function_of_its_configuration():
    first, second = (sweeps.execute(one(measure_every=1)) for _ in range(2))
    assert without_time_and_place([first]) == without_time_and_place([second])
    assert first["status"] == "finished"
    assert without_time_and_place([sweeps.execute(one(seed=1))]) != without_time_and_place([first])


def test_a_dead_network_between_two_others_is_a_row_without_cosines(tmp_path):
    rows = sweeps.run(small(gain=[1.0, 1e-30, 2.0], bias=False, depth=2), out=tmp_path / "table.jsonl")
    assert [row["status"] for row in rows] == ["finished"] * 3
    assert [len(row["cosines"]) for row in rows] == [3, 0, 3]
    assert rows[1]["epochs"][-1]["zero_gradients"] > 0
    assert sweeps.read_table(tmp_path / "table.jsonl") == rows


def test_a_row_tells_all_that_is_needed_to_repeat_it():
    row = json.loads(json.dumps(sweeps.execute(one(measure_every=1)), allow_nan=False))
    assert Configuration(**row["configuration"]).key == row["key"] == one(measure_every=1).key
    assert [epoch["epoch"] for epoch in row["epochs"]] == [0, 1, 2]
    assert len(row["cosines"]) == 3
    assert row["cosines"] == [round(value, 4) for value in row["cosines"]]
    assert min(row["cosines"]) == pytest.approx(row["epochs"][-1]["min_cosine"], abs=1e-4)
    assert row["epochs"][-1].keys() >= {"train_loss", "test_accuracy", "q01", "std", "disjoint_std", "disjoint_q01"}
    assert row["provenance"].keys() == {"date", "device", "threads", "python", "torch", "gradconf", "commit"}
    assert "load_digits" in row["data"]
    assert row["seconds"] > 0
    assert row["peak_memory"] > 10**7
    assert row["parameters"] == 64 * 4 + 4 + 4 * 10 + 10


def test_the_measurement_is_the_papers():
    c = one(epochs=1, pairs=4)
    row = sweeps.execute(c)
    data, model = c.load(), c.build(c.load())
    loss_fn = torch.nn.CrossEntropyLoss(reduction="none")
    gradconf.train(model, loss_fn, data, learning_rate=c.learning_rate, epochs=1, seed=c.seed)
    generator = torch.Generator().manual_seed(1_000_003 + 1)
    inputs, targets = data.train_inputs, data.train_targets
    batches = gradconf.minibatch_pairs(inputs, targets, pairs=4, batch_size=16, generator=generator)
    measured = gradconf.paired_confusion(gradconf.minibatch_gram(model.train(), loss_fn, batches))
    assert row["epochs"][-1]["min_cosine"] == pytest.approx(measured.min_cosine, rel=1e-5)
    assert row["epochs"][-1]["std"] == pytest.approx(measured.std, rel=1e-5)


@pytest.mark.parametrize(("every", "measured"), [(0, [5]), (1, [0, 1, 2, 3, 4, 5]), (2, [0, 2, 4, 5])])
def test_it_is_measured_as_often_as_asked_for(every, measured):
    row = sweeps.execute(one(epochs=5, measure_every=every))
    assert [epoch["epoch"] for epoch in row["epochs"] if "std" in epoch] == measured


def test_pooling_averages_over_pixels():
    whole, pooled = one().load(), one(pool=2).load()
    assert pooled.train_inputs.shape[1:] == (1, 4, 4)
    assert torch.allclose(pooled.train_inputs[0, 0, 0, 0], whole.train_inputs[0, 0, :2, :2].mean())
    assert "averaged over 2 pixels" in pooled.provenance
    assert one(dataset="mnist1d", pool=4).load().train_inputs.shape[1:] == (1, 10)


def test_diverged_and_failed_runs_are_rows_with_a_reason(tmp_path, monkeypatch):
    def prepared(configuration, *rest, original=execution._prepared):
        if configuration.width == 3:
            raise MemoryError("no more\nmemory")
        return original(configuration, *rest)

    monkeypatch.setattr(execution, "_prepared", prepared)
    sweep = small(learning_rate=[0.1, 1e6], width=[2, 3])
    rows = run(sweep, out=tmp_path / "t.jsonl")
    assert [row["status"] for row in rows] == ["finished", "diverged", "failed", "failed"]
    assert rows[1]["reason"].startswith("the loss exploded or became NaN in epoch")
    assert "cosines" not in rows[1]
    assert rows[2]["reason"] == "MemoryError: no more memory"
    assert run(sweep, out=tmp_path / "t.jsonl") == rows == read_table(tmp_path / "t.jsonl")


def test_what_failed_is_run_again_when_asked_to(tmp_path, monkeypatch):
    sweep, out = small(seed=[0, 1, 2]), tmp_path / "t.jsonl"

    def fails(*args, **named):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 3 GiB")

    with monkeypatch.context() as patched:
        patched.setattr(execution, "train", fails)
        run(small(seed=1), out=out)
    assert read_table(out)[0]["reason"] == "OutOfMemoryError: CUDA out of memory. Tried to allocate 3 GiB"
    assert [row["status"] for row in run(sweep, out=out)] == ["finished", "failed", "finished"]
    assert [row["status"] for row in run(sweep, out=out, retry=True)] == ["finished"] * 3
    assert len(read_table(out)) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["t.jsonl"]


def test_bf16_changes_the_training_a_little():
    exact, rough = (sweeps.execute(one(precision=precision)) for precision in ("float32", "bf16"))
    losses = [row["epochs"][-1]["train_loss"] for row in (exact, rough)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_channels_last_changes_nothing_but_rounding():
    axes = {"model": "cnn", "depth": 10, "width": 1, "epochs": 1, "learning_rate": 0.01}
    rows = [sweeps.execute(one(**axes, channels_last=last)) for last in (False, True)]
    assert rows[0]["epochs"][-1]["train_loss"] == pytest.approx(rows[1]["epochs"][-1]["train_loss"], rel=1e-3)


# Reading


def row(rate, seed, loss, depth=1, status="finished"):
    configuration = one(learning_rate=rate, seed=seed, depth=depth).as_dict()
    epochs = [{"epoch": 0, "learning_rate": rate, "train_loss": 2.3}, {"epoch": 1, "train_loss": loss, "std": 0.5}]
    return {"key": f"{depth} {rate} {seed}", "configuration": configuration, "status": status, "epochs": epochs}


def test_the_rate_is_chosen_by_training_loss_among_those_that_never_diverged():
    rows = [row(0.1, 0, 0.5), row(0.1, 1, 0.6), row(0.01, 0, 1.0), row(0.01, 1, 0.2)]
    rows += [row(1.0, 0, 0.1), row(1.0, 1, 0.0, status="diverged")]
    rows += [row(0.03, 0, 0.01)]  # lacks a seed
    rows += [row(0.1, 0, 0.0, depth=2, status="diverged")]
    assert [r["key"] for r in sweeps.tuned(rows)] == ["1 0.1 0", "1 0.1 1"]
    assert sweeps.tuned([]) == []


def test_frames_hold_configuration_and_measurements():
    rows = [row(0.1, 0, 0.5), row(1.0, 0, 9.0, status="diverged")]
    table = sweeps.frame(rows)
    assert list(table["learning_rate"]) == [0.1, 1.0]
    assert table["train_loss"].iloc[0] == 0.5
    assert table["train_loss"].isna().iloc[1]
    assert list(sweeps.histories(rows)["epoch"]) == [0, 1, 0, 1]
    assert sweeps.frame([]).empty
    assert sweeps.histories([]).empty


# Cost and command line


def test_the_cost_counts_the_products_of_all_passes():
    c = one(epochs=2, measure_every=0)  # 64 -> 4 -> 10
    phi = 2 * (64 * 4 + 4 * 10)
    batches = 2 * 3 + 80 // 16
    assert sweeps.cost(c, c.load()) == phi * (3 * (2 * 80 + batches * 16) + 3 * (80 + 20))
    twice = one(model="residual_mlp", depth=3)
    assert sweeps.cost(twice, twice.load()) > 0


def command(*words, monkeypatch):
    """Run `python -m gradconf` here, and return its exit status."""
    from gradconf.__main__ import main

    monkeypatch.setattr(sys, "argv", ["gradconf", *map(str, words)])
    try:
        main()
    except SystemExit as end:
        return end.code
    return 0


def test_a_dry_run_prints_runs_and_cost_and_runs_nothing(tmp_path, monkeypatch, capsys):
    file, out = toml(tmp_path / "s.toml", seed=[0, 1], width=[2, 3]), tmp_path / "t.jsonl"
    run(read_sweep(file, changes={"seed": 0, "width": 2}), out=out)
    assert command("sweep", file, "--out", out, "--dry-run", monkeypatch=monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "width=2 seed=0" in lines[0] or "seed=0 width=2" in lines[0]
    assert lines[0].endswith("finished")
    assert [line.endswith("to run") for line in lines[:4]] == [False, True, True, True]
    assert "4 runs, 3 to run" in lines[4]
    assert "TFLOP; about" in lines[4]
    assert len(read_table(out)) == 1


def test_the_command_runs_a_file_and_says_what_came_out(tmp_path, monkeypatch, capsys):
    file = toml(tmp_path / "mine.toml", learning_rate=[0.1, 1e6])
    monkeypatch.chdir(tmp_path)
    assert command("sweep", file, "--set", "seed=3", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out == "mine_tiny.jsonl: 1 finished, 1 diverged\n"
    assert {row["configuration"]["seed"] for row in read_table(tmp_path / "mine_tiny.jsonl")} == {3}
    assert {(row["sweep"], row["size"]) for row in read_table(tmp_path / "mine_tiny.jsonl")} == {("mine", "tiny")}
    assert command("sweep", file, "--size", "huge", monkeypatch=monkeypatch) == 1
    assert "has no size 'huge': choose one of tiny" in capsys.readouterr().err
    with pytest.raises(ValueError, match="NAME=VALUE"):
        assignment("seed")


def test_without_a_command_versions_are_printed(monkeypatch, capsys):
    assert command(monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.startswith(f"gradconf {gradconf.__version__}")


def test_importing_the_package_does_not_import_dask():
    code = "import sys, gradconf; assert not {'distributed', 'dask'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT).returncode == 0
