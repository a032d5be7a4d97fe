"""The accumulator: float64 sums of symmetric products, of which only the upper triangle is computed."""

import pytest
import torch

from gradconf.engine.accumulator import NARROW, Accumulator


@pytest.mark.parametrize("n", [1, 31, 33, 255, 257, 300])  # on both sides of whole panels
def test_sums_are_whole_and_exactly_symmetric(n):
    total, rows = Accumulator(n, torch.device("cpu")), [torch.randn(n, k).double() for k in (3, NARROW + 1, 5)]
    for each in rows:
        total.rows("K", each, torch.zeros(n, dtype=torch.int32))
    wanted = sum(each @ each.T for each in rows)
    assert total.entry(n - 1) == pytest.approx(wanted[-1, -1].item())
    found = total.result()["K"]
    assert torch.equal(found, found.T)
    torch.testing.assert_close(found, wanted)


def test_exponents_belong_to_rows():
    total, rows = Accumulator(2, torch.device("cpu")), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    total.rows("K", rows, torch.tensor([3, -200]))
    wanted = rows.double() * torch.tensor([[2.0**3], [2.0**-200]], dtype=torch.float64)
    torch.testing.assert_close(total.result()["K"], wanted @ wanted.T, rtol=1e-12, atol=0.0)


def test_each_key_has_its_own_sum():
    total, one = Accumulator(3, torch.device("cpu")), torch.eye(3)
    for key, factor in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        total.rows(key, factor * one, torch.zeros(3, dtype=torch.int32))
    found = total.result()
    assert found.keys() == {"a", "b"}
    torch.testing.assert_close(found["a"], 10.0 * one.double())
    torch.testing.assert_close(found["b"], 4.0 * one.double())
