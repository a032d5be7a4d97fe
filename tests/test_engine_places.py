"""Samples that change places: what may do that is noticed, and what does not is not suspected."""

import pytest
import torch

from gradconf.engine.places import may_move, out_of_place

X, ORDER = torch.rand(4, 3), torch.tensor([1, 0, 3, 2])
CALLS = {
    "picked": (torch.Tensor.__getitem__, (X, ORDER), {}, True),
    "picked by mask": (torch.Tensor.__getitem__, (X, (X[:, 0] > 0, slice(2))), {}, True),
    "picked columns": (torch.Tensor.__getitem__, (X, (slice(None), torch.tensor([0, 2]))), {}, False),
    "cut": (torch.Tensor.__getitem__, (X, slice(2)), {}, False),
    "first": (torch.Tensor.__getitem__, (X, ()), {}, False),
    "put": (torch.Tensor.__setitem__, (X, ORDER, X), {}, True),
    "selected": (torch.index_select, (X, 0, ORDER), {}, True),
    "selected columns": (torch.index_select, (X, 1, torch.tensor([0])), {}, False),
    "flipped": (torch.flip, (X, [-2]), {}, True),
    "flipped by name": (torch.flip, (X,), {"dims": (0,)}, True),
    "flipped rows of a sample": (torch.flip, (X, [1]), {}, False),
    "joined": (torch.cat, ([X, X],), {}, True),
    "joined features": (torch.cat, ([X, X], 1), {}, False),
    "joined by name": (torch.cat, ([X, X],), {"dim": -1}, False),
    "stacked": (torch.stack, (list(X),), {}, True),
    "stacked heads": (torch.stack, ([X, X, X],), {}, False),
    "another table": (torch.index_select, (torch.rand(7, 3), 0, ORDER), {}, False),
    "joined one by one": (torch.hstack, (list(X),), {}, True),
    "by name": (torch.index_select, (), {"input": X, "dim": 0, "index": ORDER}, True),
    "by an array": (torch.Tensor.__getitem__, (X, ORDER.numpy()), {}, True),
    "written one by one": (torch.Tensor.__setitem__, (X, 1, X[0]), {}, True),
    "time first": (torch.Tensor.__getitem__, (X.T, (slice(None), ORDER)), {}, True),
    "time first by name": (torch.index_select, (X.T, 1, ORDER), {}, True),
    "looked up": (torch.nn.functional.embedding, (ORDER, X), {}, True),
    "looked up elsewhere": (torch.nn.functional.embedding, (ORDER, torch.rand(7, 3)), {}, False),
    "a table of positions": (torch.Tensor.__getitem__, (torch.rand(9, 3), ORDER), {}, False),
    "rolled": (torch.roll, (X, 1), {}, True),
    "in place": (torch.Tensor.index_add_, (X, 0, ORDER, X), {}, True),
    "added": (torch.add, (X, X), {}, False),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_may_move_rows_is_noticed(name):
    function, args, kwargs, moves = CALLS[name]
    assert may_move(function, args, kwargs, 4) is moves
    assert not may_move(function, args, kwargs, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-12])
def test_rows_that_follow_another_loss_are_found(dtype, scale):
    gradients = scale * torch.rand(300, 5, dtype=dtype)
    orders = {0: torch.arange(300), 1: torch.arange(300), 2: torch.arange(300).flip(0)}
    orders[1][[7, 8]] = torch.tensor([8, 7])

    def lengths(weights):
        weighted = gradients * weights[:, None]
        return {k: weighted[order].norm(dim=1, dtype=torch.float64) for k, order in orders.items()}

    assert out_of_place(lengths, torch.zeros(300, dtype=dtype)) == {1, 2}
