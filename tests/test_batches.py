import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradconf import minibatch_pairs, minibatches


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def numbered(n):
    return torch.arange(n)[:, None] * torch.ones(2), torch.arange(n)


def rows(batches):
    return [targets.tolist() for _, targets in batches]


@given(samples=st.integers(1, 40), data=st.data())
def test_minibatches_are_disjoint_of_equal_size_and_drop_less_than_one(samples, data):
    size = data.draw(st.integers(1, samples))
    batches = rows(minibatches(*numbered(samples), batch_size=size, generator=seeded()))
    together = [row for batch in batches for row in batch]
    assert {len(batch) for batch in batches} == {size}
    assert len(set(together)) == len(together) > samples - size
    assert set(together) <= set(range(samples))


@given(size=st.integers(1, 10), extra=st.integers(0, 10), pairs=st.integers(1, 5))
def test_partners_are_disjoint_and_next_to_each_other(size, extra, pairs):
    batches = rows(minibatch_pairs(*numbered(2 * size + extra), pairs=pairs, batch_size=size, generator=seeded()))
    assert [len(batch) for batch in batches] == [size] * 2 * pairs
    for one, other in zip(batches[::2], batches[1::2], strict=True):
        assert len({*one, *other}) == 2 * size


def test_the_paper_s_numbers_are_the_defaults():
    inputs, targets = numbered(600)
    assert [len(batch) for batch in rows(minibatches(inputs, targets))] == [128] * 4
    assert [len(batch) for batch in rows(minibatch_pairs(inputs, targets))] == [128] * 200


def test_pairs_are_drawn_independently():
    batches = rows(minibatch_pairs(*numbered(20), pairs=50, batch_size=10, generator=seeded()))
    firsts = torch.tensor(batches[::2]).flatten().bincount(minlength=20)
    assert len({tuple(sorted(batch)) for batch in batches[::2]}) > 40
    assert (firsts > 0).all()


@pytest.mark.parametrize("draw", [minibatches, minibatch_pairs])
def test_the_generator_decides_and_the_global_one_is_left_alone(draw):
    state = torch.get_rng_state()
    one, same, other = (rows(draw(*numbered(30), batch_size=5, generator=seeded(s))) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert one == same != other
    torch.manual_seed(0)
    assert rows(draw(*numbered(30), batch_size=5)) == one


@pytest.mark.parametrize("draw", [minibatches, minibatch_pairs])
def test_inputs_and_targets_stay_together_in_any_structure(draw):
    inputs, targets = numbered(12)
    for x, y in draw({"a": inputs, "b": -inputs}, (targets, targets + 1), batch_size=4):
        assert torch.equal(x["a"][:, 0].long(), y[0])
        assert torch.equal(x["b"], -x["a"])
        assert torch.equal(y[1], y[0] + 1)


@pytest.mark.parametrize(("draw", "needed"), [(minibatches, 8), (minibatch_pairs, 16)])
def test_too_few_samples_are_refused(draw, needed):
    assert draw(*numbered(needed), batch_size=8)
    with pytest.raises(ValueError, match=rf"at least {needed} samples .* there are {needed - 1}: .*batch_size"):
        draw(*numbered(needed - 1), batch_size=8)


@pytest.mark.parametrize("draw", [minibatches, minibatch_pairs])
def test_impossible_requests_are_refused(draw):
    inputs, targets = numbered(6)
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"of {size} need .* choose another batch_size"):
            draw(inputs, targets, batch_size=size)
    with pytest.raises(ValueError, match=r"lengths are \[5, 6\]"):
        draw(inputs, targets[:5], batch_size=1)
    with pytest.raises(TypeError, match="targets must be a tensor"):
        draw(inputs, targets.numpy(), batch_size=1)


def test_no_pairs_are_refused():
    with pytest.raises(ValueError, match="pairs must be at least 1, not 0"):
        minibatch_pairs(*numbered(6), pairs=0, batch_size=1)
