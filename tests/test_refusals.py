import copy
import itertools
import math
import random
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import MEASURES, Apply, cross_entropy, no_trace
from torch import nn

import gradconf
from gradconf import confusion, cosine, gram, minibatch_gram, paired_confusion, reference

X, Y = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
PER_SAMPLE = ["gram", "reference.gram"]


def linear(**kwargs):
    return nn.Linear(4, 3, **kwargs)


def spoiled(tensor, value=math.nan):
    tensor = tensor.clone()
    tensor[2] = value
    return tensor


def norm_model(**kwargs):
    return nn.Sequential(OrderedDict(first=linear(), norm=nn.BatchNorm1d(3, **kwargs)))


def lstm():
    return Apply(lambda m, x: m.cells(x[:, None])[0][:, 0], cells=nn.LSTM(4, 3, 2, dropout=0.5))


def hooked():
    model = linear()
    model.weight.register_hook(lambda gradient: gradient / 2)
    return model


def randomly(number):
    return Apply(lambda m, x: m.f(x) * number(), f=linear())


def root(outputs, targets):
    return outputs.square().sum(1).sqrt()


def undropped(x=X):
    return Apply(lambda m, x: m.f(F.dropout(x, training=True)), f=linear()), cross_entropy, x, Y


# name: what is measured, what the message says, and, unless it is every one, by which functions
REFUSED = {
    "mean": (lambda: (linear(), F.cross_entropy, X, Y), r'one loss a sample.*\(\).*reduction="none"'),
    "column": (lambda: (linear(), lambda o, t: cross_entropy(o, t)[:, None], X, Y), r"one loss a sample.*, 1\)"),
    "matrix": (lambda: (linear(), lambda o, t: o.square(), X, Y), r"one loss a sample.*, 3\)"),
    "no loss": (lambda: (linear(), lambda o, t: None, X, Y), "one loss a sample.*NoneType"),
    "nan input": (lambda: (linear(), cross_entropy, spoiled(X), Y), "inputs contain NaN.*sample 2"),
    "infinite input": (lambda: (linear(), cross_entropy, spoiled(X, math.inf), Y), "inputs contain.*sample 2"),
    "nan target": (lambda: (linear(), cross_entropy, X, spoiled(X)), "targets contain NaN.*sample 2"),
    "nan loss": (lambda: (linear(), lambda o, t: o.sum(1) + t.sqrt(), X, spoiled(Y, -1)), "loss of sample 2 is NaN"),
    "infinite loss": (lambda: (linear(), lambda o, t: o.sum(1) + t.log(), X, spoiled(Y + 1, 0)), "loss of sample 2"),
    "nan gradient": (
        lambda: (linear(bias=False), root, spoiled(X, 0.0), Y),
        "gradient of (sample 2|batch 0) is NaN.*square root",
    ),
    "renormalised": (
        lambda: (nn.Embedding(9, 3, max_norm=0.1), lambda o, t: cross_entropy(o, t), Y, Y),
        "'Embedding'.*max_norm to None",
    ),
    "hook": (lambda: (hooked(), cross_entropy, X, Y), "'weight' has a hook that rewrites"),
    "complex": (lambda: (linear(dtype=torch.complex64), cross_entropy, X, Y), "'weight' is complex"),
    "numpy": (lambda: (randomly(np.random.rand), cross_entropy, X, Y), "draws random numbers"),
    "python": (lambda: (randomly(random.random), cross_entropy, X, Y), "draws random numbers"),
    "nothing": (lambda: (linear(), cross_entropy, X[:0], Y[:0]), "there are no samples"),
    "lengths": (lambda: (linear(), cross_entropy, X, Y[:4]), r"lengths are \[4, 6\]"),
    "scalar": (lambda: (linear(), cross_entropy, X, Y[0]), "first dimension"),
    "batch norm": (lambda: (norm_model(), cross_entropy, X, Y), r"'norm'.*model\.eval\(\).*minibatch_gram", PER_SAMPLE),
    "no running statistics": (
        lambda: (norm_model(track_running_stats=False).eval(), cross_entropy, X, Y),
        "'norm'.*minibatch_gram",
        PER_SAMPLE,
    ),
    "dropout": (
        lambda: (nn.Sequential(OrderedDict(first=linear(), drop=nn.Dropout(0.1))), cross_entropy, X, Y),
        r"'drop' \(Dropout\).*model\.eval\(\)",
    ),
    "dropout between LSTM layers": (lambda: (lstm(), cross_entropy, X, Y), r"'cells' \(LSTM\)"),
    "dropout in forward": (undropped, "draws random numbers"),
    "dropout that spares the first sample": (
        lambda: undropped(X * (torch.arange(6) > 0)[:, None]),
        "draws random numbers",
    ),
    "half": (lambda: (linear().half(), cross_entropy, X, Y), r"'weight' is float16.*\.float\(\)"),
    "bfloat16": (lambda: (linear().bfloat16(), cross_entropy, X, Y), r"'weight' is bfloat16.*\.float\(\)"),
    "two devices": (
        lambda: (nn.Sequential(linear(), nn.Linear(3, 3, device="meta")), cross_entropy, X, Y),
        "cpu and meta",
    ),
    "inputs elsewhere": (lambda: (linear(), cross_entropy, X.to("meta"), Y), "inputs are on meta.*model is on cpu"),
    "targets elsewhere": (lambda: (linear(), cross_entropy, X, Y.to("meta")), "targets are on meta"),
    "array": (lambda: (linear(), cross_entropy, X.numpy(), Y), "inputs must be.*ndarray.*as_tensor"),
    "numbers": (lambda: (linear(), cross_entropy, [0.5, 1.0], Y[:2]), "inputs must be.*float.*as_tensor"),
    "arrays in a dict": (lambda: (linear(), cross_entropy, X, {"y": Y.numpy()}), "targets must be.*ndarray"),
    "nothing trainable": (lambda: (linear().requires_grad_(False), cross_entropy, X, Y), "no trainable parameter"),
    "no parameters": (lambda: (nn.ReLU(), cross_entropy, X, Y), "no trainable parameter"),
    "detached": (lambda: (linear(), lambda o, t: cross_entropy(o.detach(), t), X, Y), r"does not depend.*\.detach\(\)"),
    "another precision": (
        lambda: (linear(), cross_entropy, X.double(), Y),
        "model is float32 .* inputs that are float64",
    ),
    "made for inference": (
        lambda: (inferring(), cross_entropy, X, Y),
        r"'weight' was made in torch\.inference_mode",
        ["gram", "reference.gram", "minibatch_gram"],
    ),
    "mixed samples": (
        lambda: (Apply(lambda m, x: m.f(x - x.mean(0)), f=linear()), cross_entropy, X, Y),
        "changes with the samples beside it.*minibatch_gram",
        ["gram"],
    ),
}


def inferring():
    with torch.inference_mode():
        return linear()


def assert_one_sentence(error):
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert 20 < len(message) < 350


@pytest.mark.parametrize(
    ("name", "measure"), [(n, m) for n, (_, _, *only) in REFUSED.items() for m in (only[0] if only else MEASURES)]
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(name, measure):
    make, match, *_ = REFUSED[name]
    model, loss_fn, inputs, targets = make()
    for p in list(model.parameters())[:1]:
        p.grad = torch.ones_like(p)
    kind = TypeError if "must be" in match else ValueError
    with no_trace(model), pytest.raises(kind, match=match) as error:
        MEASURES[measure](model, loss_fn, inputs, targets)
    assert_one_sentence(error)


@pytest.mark.parametrize("name", ["nan loss", "infinite loss", "nan gradient"])
def test_a_sample_is_named_by_its_place_among_all(name, monkeypatch):
    monkeypatch.setattr(gradconf.gradients, "BLOCK_NUMBERS", 1)
    with pytest.raises(ValueError, match="of sample 2"):
        gram(*REFUSED[name][0]())


@pytest.mark.parametrize("measure", [gram, reference.gram, reference.per_sample_gradients])
@pytest.mark.parametrize(
    ("params", "match"),
    [
        (["weight", "no_such_weight"], "no parameter 'no_such_weight'; it has weight, bias"),
        ("nothing", "no parameter 'nothing'"),
        (["bias"], "'bias' is frozen"),
        ([], "names no parameter"),
    ],
)
def test_parameters_are_chosen_by_their_names(measure, params, match):
    model = linear()
    model.bias.requires_grad_(False)
    with no_trace(model), pytest.raises(ValueError, match=match) as error:
        measure(model, cross_entropy, X, Y, params=params)
    assert_one_sentence(error)


def test_parameters_and_models_of_another_kind_are_refused():
    with pytest.raises(TypeError, match=r"takes names, not Parameter") as error:
        gram(linear(), cross_entropy, X, Y, params=linear().parameters())
    assert_one_sentence(error)
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, not a function") as error:
        gram(lambda x: x, cross_entropy, X, Y)
    assert_one_sentence(error)


@pytest.mark.parametrize("amount", [0, -1, True, "1GB", math.inf, math.nan])
def test_memory_is_a_positive_number_of_bytes(amount):
    with pytest.raises(ValueError, match="positive number of bytes") as error:
        gram(linear(), cross_entropy, X, Y, max_memory=amount)
    assert_one_sentence(error)
    with pytest.raises(ValueError, match="positive number of bytes"):
        gradconf.minibatch_gram(linear(), cross_entropy, [(X, Y)], max_memory=amount)


@pytest.mark.parametrize("measure", MEASURES)
def test_inference_mode_and_no_grad_do_not_matter(measure):
    model = linear()
    expected = MEASURES[measure](model, cross_entropy, X, Y)
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            assert torch.equal(MEASURES[measure](model, cross_entropy, X, Y), expected)


@pytest.mark.parametrize("module", [gradconf, reference])
@pytest.mark.parametrize(
    ("batches", "match"), [([], "no batches"), ([[X]], "pair"), ([(X, Y), (X, Y[:1])], r"\[1, 6\]")]
)
def test_batches_are_pairs_of_inputs_and_targets(module, batches, match):
    model = linear()
    with no_trace(model), pytest.raises(ValueError, match=match) as error:
        module.minibatch_gram(model, cross_entropy, batches)
    assert_one_sentence(error)


def test_advice_that_is_followed_helps():
    dropout = nn.Sequential(linear(), nn.Dropout())
    assert gram(dropout.eval(), cross_entropy, X, Y).shape == (6, 6)
    norm = norm_model()
    assert minibatch_gram(norm, cross_entropy, [(X, Y)]).shape == (1, 1)
    assert gram(norm.eval(), cross_entropy, X, Y).shape == (6, 6)
    half = linear().half()
    assert gram(copy.deepcopy(half).float(), cross_entropy, X, Y).shape == (6, 6)


@pytest.mark.parametrize("seed", range(5))
def test_random_numbers_are_refused_however_seldom_they_matter(seed):
    dropping = Apply(lambda m, h: h if torch.rand(1) < 0.99 else 0 * h)  # as stochastic depth does
    model = nn.Sequential(OrderedDict(first=linear(), path=nn.Sequential(OrderedDict(drop=dropping))))
    torch.manual_seed(seed)
    with no_trace(model), pytest.raises(ValueError, match=r"draws random numbers in the layer 'path\.drop', and"):
        gram(model, cross_entropy, X, Y)


def test_a_model_with_a_seed_of_its_own_may_draw():
    def features(m, x):
        torch.manual_seed(0)
        return m.f(x @ torch.randn(4, 4))

    model = Apply(features, f=linear()).eval()
    for _ in range(2):
        with no_trace(model):
            K = gram(model, cross_entropy, X, Y)
        assert torch.allclose(K, reference.gram(model, cross_entropy, X, Y), rtol=1e-4)
        torch.rand(1)


def test_what_draws_now_and_then_is_another_thread():
    def forward(m, x):
        if next(calls) % 2 == 0:
            random.random()  # in place of a thread that draws now and then
        return m.f(x)

    calls, model = itertools.count(), Apply(forward, f=linear())
    assert gram(model, cross_entropy, X, Y).shape == (6, 6)


def test_a_model_in_evaluation_mode_is_not_told_to_go_there():
    model = Apply(lambda m, x: m.f(x + 0 * torch.rand(4)), f=linear()).eval()
    with pytest.raises(ValueError, match="cannot tell: take the random step out"):
        gram(model, cross_entropy, X, Y)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (torch.ones(2, 3), r"shape \(N, N\)"),
        (torch.ones(4), r"shape \(N, N\)"),
        ([[1.0, 0.0], [0.0, 1.0]], r"shape \(N, N\)"),
        (torch.tensor([[1.0, math.nan], [math.nan, 1.0]]), "NaN"),
        (torch.tensor([[1.0, 0.5], [-0.5, 1.0]]), "not symmetric"),
        (torch.tensor([[1.0, 0.0], [0.0, -1.0]]), "negative"),
    ],
)
@pytest.mark.parametrize("function", [confusion, cosine, paired_confusion])
def test_what_is_no_gram_matrix_is_refused(function, bad, match):
    with pytest.raises(ValueError, match=match) as error:
        function(bad)
    assert_one_sentence(error)


@pytest.mark.parametrize(
    ("measure", "match"),
    [
        (lambda: confusion(torch.ones(1, 1)), "only one"),
        (lambda: confusion(torch.eye(3), labels=[0, 1]), "3 gradients but 2 labels"),
        (lambda: paired_confusion(torch.eye(3)), "even number of gradients.*3"),
        (lambda: paired_confusion(torch.eye(0)), "even number of gradients.*0"),
    ],
)
def test_pairs_must_exist(measure, match):
    with pytest.raises(ValueError, match=match) as error:
        measure()
    assert_one_sentence(error)


@pytest.mark.parametrize("scale", [1.0, 1e-4])
@pytest.mark.parametrize("samples", [2, 6])
def test_mixing_is_noticed_whatever_the_size_of_blocks_and_losses(samples, scale, monkeypatch):
    monkeypatch.setattr(gradconf.gradients, "BLOCK_NUMBERS", 1)  # one sample a block, as for very large models
    model = Apply(lambda m, x: m.f(x - 0.5 * x.mean(0)), f=linear())
    with pytest.raises(ValueError, match="changes with the samples beside it"):
        gram(model, lambda o, t: scale * cross_entropy(o, t), X[:samples], Y[:samples])


def test_the_last_sample_is_evaluated_with_others_too(monkeypatch):
    monkeypatch.setattr(gradconf.gradients, "JOINT_SAMPLES", 5)
    model = Apply(lambda m, x: m.f(x - (x.mean(0) if x[-1, 0] == X[-1, 0] else 0)), f=linear())
    with pytest.raises(ValueError, match="changes with the samples beside it"):
        gram(model, cross_entropy, X, Y)


def test_masks_may_hold_minus_infinity():
    mask = torch.zeros(6, 4).masked_fill(torch.arange(4) > Y[:, None] + 1, -math.inf)
    model = Apply(lambda m, x, mask: m.f(x * mask.softmax(1)), f=linear())
    measured = gram(model, cross_entropy, (X, mask), Y)
    assert torch.allclose(measured, reference.gram(model, cross_entropy, (X, mask), Y), atol=1e-5)


def test_parameters_without_a_shape_are_refused():
    with pytest.raises(ValueError, match="'weight' has no shape yet"):
        gram(nn.LazyLinear(3), cross_entropy, X, Y)


@pytest.mark.parametrize("measure", MEASURES)
def test_parameters_that_a_model_changes_while_it_runs_are_put_back(measure):
    def forward(m, x):
        with torch.no_grad():
            m.f.weight.clamp_(-0.1, 0.1)
        return m.f(x)

    model = Apply(forward, f=linear())
    with no_trace(model), pytest.raises(ValueError, match=r"changes its parameter 'f\.weight' while it runs"):
        MEASURES[measure](model, cross_entropy, X, Y)


def test_rounding_is_not_taken_for_mixing():
    model = gradconf.models.mlp(2, 512, in_features=4, out_features=1, generator=torch.Generator().manual_seed(0))
    inputs = torch.randn(300, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.linear_2.weight.mul_(1e4)
        targets = model(inputs) + 0.1

    def squared(outputs, targets):
        return (outputs - targets).square().sum(1)

    assert gram(model, squared, inputs, targets).shape == (300, 300)
