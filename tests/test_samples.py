from collections import namedtuple

import pytest
import torch

from gradconf.samples import call, count, join, map_tensors, select

Named = namedtuple("Named", ["a", "b"])
X = torch.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize("samples", [X, (X, X), [X], {"a": X}, Named(X, X)], ids=lambda s: type(s).__name__)
def test_structures_survive_a_map(samples):
    doubled = map_tensors(lambda t: 2 * t, samples)
    assert type(doubled) is type(samples)
    halved = map_tensors(lambda t: t / 2, doubled)
    assert str(halved) == str(samples)


def test_a_model_is_called_the_way_its_inputs_ask_for():
    def model(a, b=1):
        return a - b

    assert torch.equal(call(model, X), X - 1)
    assert torch.equal(call(model, [X, 3 * X]), -2 * X)
    assert torch.equal(call(model, {"b": X, "a": 3 * X}), 2 * X)


@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([1, 2])])
def test_select_takes_the_same_rows_of_every_tensor(rows):
    selected = select({"a": X, "b": X[:, 0]}, rows)
    assert torch.equal(selected["a"], X[1:])
    assert torch.equal(selected["b"], X[1:, 0])
    assert count(selected, X[1:]) == 2


def test_join_puts_sets_behind_each_other():
    joined = join({"a": X, "b": X[:, 0]}, {"b": 2 * X[:1, 0], "a": 2 * X[:1]})
    assert torch.equal(joined["a"], torch.cat([X, 2 * X[:1]]))
    assert torch.equal(joined["b"], torch.cat([X[:, 0], 2 * X[:1, 0]]))


@pytest.mark.parametrize("second", [(X, X[:, 0]), (X,), X, {"a": X, "b": X}, (X, X, X)], ids=range(5))
def test_join_refuses_what_does_not_fit(second):
    with pytest.raises(ValueError, match="the same structure, shapes and device"):
        join((X, X), second)
