import re
import warnings

import pytest
import torch
import torch.nn.functional as F
from cases import Apply, case, cross_entropy
from test_engine import quietly
from test_grams import assert_same
from torch import nn
from zoo import ZOO, parameter, squares

from gradconf import cosine, gram, grams, reference
from gradconf.isolation import full_precision
from gradconf.models import cnn, mlp


def mixed_late(m, x):
    x = torch.cat([x[:4], x[4:6].flip(0) + x[4:6], x[6:]])
    return m.f(x)


MIXING = {
    "mean": lambda m, x: m.f(x - x.mean(0)),
    "slight": lambda m, x: m.f(x - 1e-4 * x.mean(0)),
    "attention": lambda m, x: m.f((x @ x.T).softmax(1) @ x),
    "batch_norm": lambda m, x: m.f(F.batch_norm(x, None, None, training=True)),
    "sorted": lambda m, x: m.f(x.sort(0).values),
    "shuffled": lambda m, x: m.f(x.roll(1, 0)),
    "after": lambda m, x: m.f(x) - m.f(x).mean(0),
    "of_the_later_samples": mixed_late,
    "branch": lambda m, x: m.f(x).tanh() if x[0].sum() > 0 else m.f(x).sin(),
    "branch_on_later_samples": lambda m, x: m.f(x).tanh() if (x.sum(1) > 0).all() else m.f(x).sin(),
}


@pytest.mark.parametrize("memory", [None, 2**12])
@pytest.mark.parametrize("scale", [1.0, 1e-9])
@pytest.mark.parametrize("name", MIXING)
def test_mixing_samples_is_refused_or_exact(name, scale, memory):
    signs = torch.tensor([1.0, 1, 1, -1, 1, -1, 1, -1]).double()[:, None]
    made = case(Apply(MIXING[name], f=nn.Linear(4, 3)), inputs=torch.rand(8, 4).double() * signs, n=8)
    made.loss_fn = lambda o, t: scale * cross_entropy(o, t)
    try:
        measured = quietly(gram, made, max_memory=memory)
    except ValueError as error:
        assert re.search("samples beside it|more than 1 value", str(error))  # noqa: PT017
    else:
        assert_same(measured, quietly(reference.gram, made))


@pytest.mark.parametrize("name", ["linear_3d", "conv2d_groups", "embedding", "in_place_relu", "attention"])
def test_too_little_memory_says_what_would_do(name):
    made, memory = ZOO[name](), 100
    for _ in range(6):
        try:
            measured = quietly(gram, made, max_memory=memory)
            break
        except MemoryError as error:
            amount, unit = re.search(r"raise max_memory to ([\d.]+) (MiB|KiB|bytes)", str(error)).groups()
            memory = int(float(amount) * {"MiB": 2**20, "KiB": 2**10, "bytes": 1}[unit])
    assert_same(measured, quietly(reference.gram, made))


@pytest.mark.parametrize(("relu", "tolerance"), [(True, 5e-4), (False, 1e-5)])
def test_float32_cosines(relu, tolerance):
    model = cnn(10, 1, out_features=3) if relu else mlp(3, 16, in_features=192, out_features=3, activation="tanh")
    x, y = torch.randn(6, *((3, 8, 8) if relu else (192,))), torch.arange(6) % 3
    measured = cosine(gram(model, cross_entropy, x, y))
    expected = cosine(reference.gram(model.double(), cross_entropy, x.double(), y))
    assert torch.allclose(measured, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("memory", [None, 2**13])
@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e25])
@pytest.mark.parametrize("kind", ["dense", "conv", "tied", "dead_layer", "dead_use"])
def test_float32_keeps_tiny_and_huge_gradients(kind, scale, memory):
    models = {
        "dense": lambda: mlp(2, 6, in_features=4, out_features=3, activation="tanh"),
        "conv": lambda: Apply(lambda m, x: m.f(x[:, :, None].expand(-1, -1, 7)).tanh().mean(2), f=nn.Conv1d(4, 3, 3)),
        "tied": lambda: Apply(lambda m, x: m.f(m.f(x).tanh()), f=nn.Linear(4, 4)),
        "dead_layer": lambda: Apply(
            lambda m, x: m.f(x) + m.g(x) * 0 + m.p * 0, f=nn.Linear(4, 3), g=nn.Linear(4, 3), p=parameter(3)
        ),
        "dead_use": lambda: Apply(lambda m, x: m.f(x) + m.f(x.abs()) * 0, f=nn.Linear(4, 3)),
    }
    model, x, y = models[kind]().float(), torch.randn(5, 4), torch.arange(5) % 3
    measured = gram(model, lambda o, t: scale * cross_entropy(o, t), x, y, max_memory=memory)
    expected = reference.gram(model.double(), lambda o, t: scale * cross_entropy(o, t), x.double(), y)
    assert torch.allclose(measured.diagonal() / expected.diagonal(), torch.ones(5).double(), rtol=1e-4)


@pytest.mark.parametrize("memory", [None, 2**13])
@pytest.mark.parametrize("kind", ["dense", "conv", "scalar"])
def test_float32_keeps_tiny_gradients_beside_ordinary_ones(kind, memory):
    models = {
        "dense": lambda: mlp(2, 6, in_features=4, out_features=3, activation="tanh"),
        "conv": lambda: Apply(lambda m, x: m.f(x[:, :, None].expand(-1, -1, 7)).tanh().mean(2), f=nn.Conv1d(4, 3, 3)),
        "scalar": lambda: Apply(lambda m, x: x[:, :3] * m.p, p=nn.Parameter(torch.tensor(0.5))),
    }
    model, x, y = models[kind]().float(), torch.randn(6, 4), torch.arange(6) % 3
    weights = torch.tensor([1.0, 1e-25, 1e-12, 1e-3, 1e-30, 1e3])

    def loss(o, t):
        return t[1].to(o) * F.cross_entropy(o, t[0], reduction="none")

    measured = gram(model, loss, x, (y, weights), max_memory=memory)
    expected = reference.gram(model.double(), loss, x.double(), (y, weights.double()))
    assert torch.allclose(cosine(measured), cosine(expected), atol=1e-4)
    assert torch.allclose(measured.diagonal() / expected.diagonal(), torch.ones(6).double(), rtol=1e-4)


def setting(name, value):
    def change():
        holder, _, switch = name.rpartition(".")
        target = torch.backends
        for part in holder.split("."):
            target = getattr(target, part)
        setattr(target, switch, value)

    return change


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("cuda.matmul.allow_tf32", value) for value in (True, False)],
        *[("cudnn.allow_tf32", value) for value in (True, False)],
        *[("cuda.matmul.fp32_precision", value) for value in ("tf32", "ieee", "none")],
        *[("cudnn.conv.fp32_precision", value) for value in ("tf32", "ieee", "none")],
        *[("mkldnn.matmul.fp32_precision", value) for value in ("bf16", "tf32", "ieee", "none")],
    ],
)
def test_precision_switches_come_back(name, value):
    backends = torch.backends
    if "fp32_precision" in name and not hasattr(backends.cuda.matmul, "fp32_precision"):
        pytest.skip("torch without fp32_precision")
    holders = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    holders += [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
    before = [holder.fp32_precision for holder in holders]
    try:
        setting(name, value)()
        state = [holder.fp32_precision for holder in holders]
        with full_precision(torch.device("cpu")):
            assert all(holder.fp32_precision == "ieee" for holder in holders)
            assert not torch.is_autocast_enabled("cpu")
        assert [holder.fp32_precision for holder in holders] == state
    finally:
        for holder, precision in zip(holders, before, strict=True):
            holder.fp32_precision = precision


def test_squares_is_one_loss_a_sample():
    assert squares(torch.zeros(2, 3), torch.ones(2)).tolist() == [3, 3]


def test_more_samples_than_a_matrix_can_hold_are_refused(monkeypatch):
    monkeypatch.setattr(grams, "free", lambda device: 1000)
    made = case(nn.Linear(4, 3), 4, n=8)
    with pytest.raises(MemoryError, match=r"8 x 8 numbers take 1 KiB.*measure fewer samples.*upper bound"):
        quietly(gram, made)


def test_two_precisions_in_one_model():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 3, bias=False).double()

        def forward(self, x):
            return self.b(self.a(x.float()).double())

    x = 0.1 * torch.randn(8, 6)
    x[4] = 1e4 * torch.randn(6)
    task = Mixed(), squares, x, torch.zeros(8, dtype=torch.float64)
    expected = reference.gram(*task)
    lengths = expected.diagonal().sqrt()
    assert ((gram(*task) - expected).abs() / (lengths[:, None] * lengths)).max() < 1e-5


@pytest.mark.parametrize("max_memory", [None, 20_000])
def test_a_model_that_counts_its_calls_counts_anew_in_each_block(max_memory):
    def forward(m, x):
        m.calls += 1
        return m.f(x) * m.w.exp() * m.calls  # w falls back

    model = Apply(forward, f=nn.Linear(4, 3).double(), w=parameter(3))
    model.register_buffer("calls", torch.tensor(0.0, dtype=torch.float64))
    task = model, squares, torch.randn(9, 4, dtype=torch.float64), torch.zeros(9, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert_same(gram(*task, max_memory=max_memory), reference.gram(*task))
