"""The recipes of book/training_loops.md: what readers copy measures what it says and does not touch their training."""

import copy
import importlib
import itertools
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradconf

RECIPES = Path(__file__).parents[1] / "book" / "recipes"
X, Y = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3
PROBE = X[:8], Y[:8]
STEPS, EVERY = 5, 2
MEASURED = [0, 2, 4]


@pytest.fixture
def recipe(monkeypatch):
    """Import a recipe as its readers run it, from its folder."""
    monkeypatch.syspath_prepend(RECIPES)
    yield importlib.import_module
    for path in RECIPES.glob("*.py"):
        sys.modules.pop(path.stem, None)


def network():
    """A model with batch norm and dropout, one of its modules kept in evaluation mode."""
    torch.manual_seed(0)
    layers = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3), nn.Dropout(0.5)
    model = nn.Sequential(*layers)
    model[5].eval()
    return model


def cross_entropy(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")


def direct(model, loss_fn, inputs, targets):
    """What should be logged, from a copy of the model."""
    row = gradconf.measure(copy.deepcopy(model).eval(), loss_fn, inputs, targets).row()
    return {f"confusion/{name}": number for name, number in row.items()}


def same_numbers(row, other):
    return row.keys() == other.keys() and all(row[k] == other[k] or math.isnan(row[k] + other[k]) for k in row)


def same_weights(model, other):
    mine, others = model.state_dict(), other.state_dict()
    return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)


def check_logged(logged, expected):
    """Compare rows by step with direct measurements, which change from one to the next."""
    assert list(logged) == MEASURED
    assert all(same_numbers(row, other) for row, other in zip(logged.values(), expected, strict=True))
    assert len({row["confusion/median"] for row in logged.values()}) == len(MEASURED)


def modes(model):
    return [module.training for module in model.modules()]


def split(rows):
    """Numbers of confusion by step."""
    return {row["step"]: {k: v for k, v in row.items() if k.startswith("confusion/")} for row in rows}


# Plain PyTorch


def run_plain(plain, model, log):
    torch.manual_seed(1)
    plain.train(model, cross_entropy, X, Y, probe=PROBE, steps=STEPS, every=EVERY, log=log)
    return model


def test_plain_logs_what_a_direct_measurement_gives(recipe):
    model, rows, expected = network(), [], []

    def log(row):
        rows.append(row)
        expected.append(direct(model, cross_entropy, *PROBE))

    run_plain(recipe("plain"), model, log)
    check_logged(split(rows), expected)


def test_plain_training_is_the_same_with_and_without_measuring(recipe, monkeypatch):
    plain = recipe("plain")
    measured = run_plain(plain, network(), lambda row: None)
    monkeypatch.setattr(plain, "confusion_row", lambda *args: {})
    assert same_weights(measured, run_plain(plain, network(), lambda row: None))


@pytest.mark.parametrize("function", ["confusion_row", "batch_confusion_row"])
def test_modes_are_restored_even_after_an_error(recipe, function):
    model, measure = network(), getattr(recipe("confusion"), function)
    samples = PROBE if function == "confusion_row" else ([PROBE, PROBE],)
    before = modes(model)
    measure(model, cross_entropy, *samples)
    assert modes(model) == before
    with pytest.raises(ValueError, match="one loss a sample"):
        measure(model, nn.CrossEntropyLoss(), *samples)
    assert modes(model) == before


def test_batches_are_measured_with_batch_norm_as_in_training_and_without_dropout(recipe):
    model = network()
    batches = gradconf.minibatches(X, Y, batch_size=10, generator=torch.Generator().manual_seed(0))
    row = recipe("confusion").batch_confusion_row(model, cross_entropy, batches)
    undropped = nn.Sequential(*[layer for layer in copy.deepcopy(model) if not isinstance(layer, nn.Dropout)]).train()
    expected = gradconf.confusion(gradconf.minibatch_gram(undropped, cross_entropy, batches)).row()
    assert row == {f"batch_confusion/{name}": number for name, number in expected.items()}
    other = gradconf.confusion(gradconf.minibatch_gram(undropped.eval(), cross_entropy, batches)).row()
    assert row["batch_confusion/median"] != other["median"]


def test_plain_example_runs(recipe, capsys):
    recipe("plain").main(steps=2, every=1)
    assert sum(line.startswith("step") for line in capsys.readouterr().out.splitlines()) == 2


def test_cost_example_runs(recipe, monkeypatch):
    cost, times = recipe("cost"), itertools.cycle([3.0, 2.0])

    def once(code, **names):
        exec(code, names)
        return next(times)

    monkeypatch.setattr(cost, "milliseconds", once)
    table = cost.main(sizes=(2, 3))
    assert list(table.samples) == [2, 3] * 3
    assert (table.ratio == 1.5).all()


# Lightning

IGNORED = [
    "LeafSpec",  # Lightning calls what torch has deprecated
    "does not have many workers",
    "smaller than the logging interval",
    "in eval mode at the start of training",  # on purpose
]
lightly = pytest.mark.filterwarnings(*(f"ignore:.*{text}" for text in IGNORED))


@pytest.fixture
def lightning():
    return pytest.importorskip("lightning")


def fit(lightning, module, callbacks, logger=False, **options):
    torch.manual_seed(1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8, shuffle=True)
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = {"max_steps": STEPS, "accelerator": "cpu"} | options
    lightning.Trainer(callbacks=callbacks, logger=logger, **quiet, **options).fit(module, loader)
    return module


def witness(lightning, module):
    """A logger that measures a copy of the model whenever confusion is logged."""

    class Witness(lightning.pytorch.loggers.Logger):
        name, version, rows, expected = "witness", 0, [], []

        def log_hyperparams(self, *args):
            pass

        def log_metrics(self, metrics, step):
            if "confusion/eta" in metrics:
                self.rows.append({"step": step, **metrics})
                self.expected.append(direct(module, cross_entropy, *PROBE))

    return Witness()


@lightly
@pytest.mark.parametrize(
    "options", [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}], ids=["plain", "accumulating", "bf16"]
)
def test_lightning_logs_what_a_direct_measurement_gives(recipe, lightning, options):
    made = recipe("lightning_callback")
    module = made.Classifier(network())
    logger = witness(lightning, module)
    fit(lightning, module, [made.GradientConfusion(cross_entropy, *PROBE, every=EVERY)], logger, **options)
    assert len(logger.rows) == len(MEASURED)
    check_logged(split(logger.rows), logger.expected)


@lightly
def test_lightning_training_is_the_same_with_and_without_measuring(recipe, lightning):
    made = recipe("lightning_callback")
    measured = made.GradientConfusion(cross_entropy, *PROBE, every=EVERY)
    modules = [fit(lightning, made.Classifier(network()), callbacks) for callbacks in ([measured], [])]
    assert same_weights(*modules)
    assert modes(modules[0].net) == modes(network())


def test_lightning_measures_on_one_rank_alone(recipe, lightning):
    made = recipe("lightning_callback")
    trainer = SimpleNamespace(is_global_zero=False, global_step=0)  # and no loggers
    made.GradientConfusion(cross_entropy, *PROBE).on_train_batch_start(trainer, network(), None, 0)


@lightly
def test_lightning_example_runs(recipe, lightning):
    table = recipe("lightning_callback").main(steps=3, every=2)
    assert list(table.step) == [0, 2]
    assert table["confusion/within_class_q01"].notna().all()


# Transformers

TOKENS = torch.randint(20, (32, 9), generator=torch.Generator().manual_seed(0))
TEXTS = {"input_ids": TOKENS[:6]}, TOKENS[:6]


@pytest.fixture
def transformers(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "1")
    pytest.importorskip("accelerate")
    return pytest.importorskip("transformers")


def gpt2(transformers):
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "n_positions": 9, "n_embd": 8, "n_layer": 1, "n_head": 2, "loss_type": "ForCausalLM"}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


def trainer(transformers, folder, **options):
    samples = [{"input_ids": row, "labels": row} for row in TOKENS]
    quiet = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "dataloader_pin_memory": False}
    options = {"max_steps": STEPS, "per_device_train_batch_size": 4, "use_cpu": True} | options
    arguments = transformers.TrainingArguments(folder, seed=1, learning_rate=0.01, **quiet, **options)
    return transformers.Trainer(gpt2(transformers), arguments, train_dataset=samples)


@pytest.mark.parametrize(
    "options", [{}, {"gradient_accumulation_steps": 2}, {"bf16": True}], ids=["plain", "accumulating", "bf16"]
)
def test_transformers_log_what_a_direct_measurement_gives(recipe, transformers, tmp_path, options):
    made, expected = recipe("transformers_callback"), []
    trained = trainer(transformers, tmp_path, **options)

    def log(row):
        untouched = gpt2(transformers)  # without the autocast that Accelerate puts into the trained model
        untouched.load_state_dict(trained.model.state_dict())
        expected.append(direct(untouched, made.sequence_losses, *TEXTS))
        trained.log(row)

    trained.add_callback(made.GradientConfusion(made.sequence_losses, *TEXTS, log=log, every=EVERY))
    trained.train()
    check_logged(split(row for row in trained.state.log_history if "confusion/eta" in row), expected)


@pytest.mark.parametrize("options", [{}, {"bf16": True}], ids=["plain", "bf16"])
def test_transformers_training_is_the_same_with_and_without_measuring(recipe, transformers, tmp_path, options):
    made = recipe("transformers_callback")
    models = []
    for measuring in (True, False):
        trained = trainer(transformers, tmp_path, **options)  # which seeds
        if measuring:
            trained.add_callback(made.GradientConfusion(made.sequence_losses, *TEXTS, log=trained.log, every=EVERY))
        trained.train()
        models.append(trained.model)
    assert same_weights(*models)
    assert modes(models[0]) == modes(models[1])


def test_transformers_forward_is_restored_even_after_an_error(recipe, transformers):
    made, model, state = recipe("transformers_callback"), gpt2(transformers), transformers.TrainerState(global_step=0)
    model.forward = patched = model.forward  # as Accelerate does
    rows = []
    made.GradientConfusion(made.sequence_losses, *TEXTS, log=rows.append).on_step_begin(None, state, None, model=model)
    assert len(rows) == 1
    assert model.forward is patched
    averaged = made.GradientConfusion(lambda outputs, labels: outputs.logits.mean(), *TEXTS, log=rows.append)
    with pytest.raises(ValueError, match="one loss a sample"):
        averaged.on_step_begin(None, state, None, model=model)
    assert model.forward is patched


def test_transformers_measure_on_one_rank_alone(recipe, transformers):
    made = recipe("transformers_callback")
    state = transformers.TrainerState(global_step=0, is_world_process_zero=False)
    callback = made.GradientConfusion(made.sequence_losses, *TEXTS, log=lambda row: pytest.fail("measured"))
    callback.on_step_begin(None, state, None, model=gpt2(transformers))


def test_sequence_losses_are_those_of_the_model_and_leave_out_padding(recipe, transformers):
    sequence_losses = recipe("transformers_callback").sequence_losses
    model, labels = gpt2(transformers).eval(), TOKENS[:3].clone()
    labels[0, 5:] = -100
    labels[1] = -100
    losses = sequence_losses(model(input_ids=TOKENS[:3]), labels)
    alone = [model(input_ids=TOKENS[i : i + 1], labels=labels[i : i + 1]).loss for i in (0, 2)]
    assert torch.allclose(losses, torch.stack([alone[0], torch.tensor(0.0), alone[1]]))


def test_nothing_of_gpt2_falls_back(recipe, transformers):
    losses, (inputs, labels) = recipe("transformers_callback").sequence_losses, TEXTS
    inputs = inputs | {"attention_mask": torch.ones_like(TOKENS[:6])}
    paths = gradconf.explain(gpt2(transformers).eval(), losses, inputs, labels).path
    assert "fall back" not in set(paths)


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")
def test_transformers_example_runs(recipe, transformers):
    rows = [row for row in recipe("transformers_callback").main(steps=3, every=2) if "confusion/eta" in row]
    assert [row["step"] for row in rows] == [0, 2]
