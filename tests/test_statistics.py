import math

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given

from gradconf import PairStatistics, confusion, cosine, paired_confusion

SEEDS = st.integers(0, 2**16)


def gram_of(*gradients):
    J = torch.tensor(gradients, dtype=torch.float64)
    return J @ J.T


def random_gradients(seed, n=9, size=4):
    return torch.randn(n, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_two_gradients_by_hand():
    measured = confusion(gram_of([3, 4], [0, -2]))
    assert measured.eta == 8
    assert measured.min_cosine == measured.median == measured.mean == measured.q01 == pytest.approx(-0.8)
    assert (measured.std, measured.negative_fraction, measured.pairs, measured.samples) == (0, 1, 1, 2)
    assert measured.gradient_diversity == pytest.approx(29 / 13)
    assert measured.coherence == pytest.approx(13 / 29)
    assert math.isnan(measured.noise_scale)


def test_a_zero_gradient_has_no_direction_and_leaves_no_pair():
    K = gram_of([1, 0], [0, 0], [1, 1])
    measured = confusion(K)
    assert (measured.zero_gradients, measured.pairs, measured.samples, measured.eta) == (1, 1, 3, 0)
    assert measured.min_cosine == measured.mean == pytest.approx(math.sqrt(0.5))
    cosines = cosine(K)
    assert cosines[1].isnan().all()
    assert cosines[:, 1].isnan().all()
    assert cosines.isnan().sum() == 5


def test_only_zero_gradients_leave_nothing_to_say_but_do_not_fail():
    measured = confusion(torch.zeros(3, 3))
    assert (measured.zero_gradients, measured.pairs, measured.eta) == (3, 0, 0)
    numbers = (measured.min_cosine, measured.q05, measured.std, measured.coherence, measured.gradient_diversity)
    assert all(math.isnan(number) for number in numbers)


def test_orthogonal_gradients_are_not_confused():
    measured = confusion(torch.diag(torch.tensor([1.0, 4.0, 9.0])))
    assert measured.eta == measured.min_cosine == measured.std == measured.negative_fraction == 0
    assert measured.coherence == measured.gradient_diversity == 1


def test_gradients_that_agree_have_no_confusion():
    measured = confusion(gram_of([1, 0], [1, 1], [2, 1]))
    assert (measured.eta, measured.negative_fraction) == (0, 0)
    assert measured.min_cosine > 0
    assert measured.noise_scale == pytest.approx((8 / 3 - 2) / 2)


def test_antiparallel_gradients_cancel():
    measured = confusion(gram_of([1, 2], [-1, -2]))
    assert (measured.eta, measured.min_cosine, measured.coherence) == (5, -1, 0)
    assert measured.gradient_diversity == math.inf


@given(SEEDS)
def test_statistics_are_those_of_the_cosines_of_the_pairs(seed):
    J = random_gradients(seed)
    pairs = [(i, j) for i in range(9) for j in range(i)]
    cosines = np.array([F.cosine_similarity(J[i], J[j], dim=0) for i, j in pairs])
    measured = confusion(J @ J.T)
    assert measured.eta == pytest.approx(max(0, -min(float(J[i] @ J[j]) for i, j in pairs)))
    assert (measured.q01, measured.q05, measured.median) == pytest.approx(np.quantile(cosines, [0.01, 0.05, 0.5]))
    assert (measured.min_cosine, measured.mean, measured.std) == pytest.approx(
        (cosines.min(), cosines.mean(), cosines.std())
    )
    assert measured.negative_fraction == np.mean(cosines < 0)
    assert measured.pairs == 36


@given(SEEDS)
def test_lengths_leave_the_cosines_and_order_leaves_everything(seed):
    J = random_gradients(seed)
    order, lengths = torch.randperm(9), torch.rand(9, 1, dtype=torch.float64) + 1e-150
    assert torch.allclose(cosine((lengths * J) @ (lengths * J).T), cosine(J @ J.T), atol=1e-10)
    assert confusion(J[order] @ J[order].T).row() == pytest.approx(confusion(J @ J.T).row(), nan_ok=True)


def test_cosines_stay_within_bounds_and_are_one_on_the_diagonal():
    J = random_gradients(0, n=3).repeat(20, 1) * torch.logspace(-140, 140, 60, dtype=torch.float64)[:, None]
    cosines = cosine(J @ J.T)
    assert cosines.abs().max() == 1
    assert (cosines.diagonal() == 1).all()


@given(SEEDS, st.lists(st.integers(0, 3), min_size=9, max_size=9))
def test_pairs_within_and_between_classes_are_all_pairs(seed, labels):
    J = random_gradients(seed)
    measured = confusion(J @ J.T, labels=labels)
    parts = [part for part in (measured.within_class, measured.between_class) if part is not None]
    assert sum(part.pairs for part in parts) == measured.pairs == 36
    assert max(part.eta for part in parts) == measured.eta
    assert sum(part.mean * part.pairs for part in parts) == pytest.approx(36 * measured.mean)
    assert (measured.within_class is None) == (len(set(labels)) == len(labels))
    assert (measured.between_class is None) == (len(set(labels)) == 1)


def test_classes_tell_pairs_apart():
    measured = confusion(gram_of([1, 0], [2, 0], [-1, 0]), labels=torch.tensor([[7], [7], [8]]))
    assert (measured.within_class.min_cosine, measured.within_class.samples) == (1, 2)
    assert (measured.between_class.eta, measured.between_class.pairs) == (2, 2)


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], None])
def test_no_such_pairs_is_none(labels):
    measured = confusion(torch.eye(3), labels=labels)
    assert (measured.within_class is None) == (labels != [0, 0, 0])
    assert (measured.between_class is None) == (labels != [0, 1, 2])


@given(SEEDS)
def test_gradient_diversity_is_the_inverse_of_coherence(seed):
    J = random_gradients(seed)
    measured = confusion(J @ J.T)
    assert measured.gradient_diversity * measured.coherence == pytest.approx(1)
    assert measured.coherence == pytest.approx(float(J.sum(0).square().sum() / J.square().sum()))


@pytest.mark.parametrize("noise", [0.1, 0.7, 3.0])
def test_noise_scale_recovers_the_noise_put_in(noise):
    J = torch.ones(20, dtype=torch.float64) + noise * random_gradients(1, n=800, size=20)
    assert confusion(J @ J.T).noise_scale == pytest.approx(noise**2, rel=0.15)


def test_noise_scale_is_unbiased_where_gradients_are_few():
    diagonal = off_diagonal = 0.0
    for seed in range(400):
        J = torch.ones(5, dtype=torch.float64) + 0.5 * random_gradients(seed, n=3, size=5)
        K = J @ J.T
        diagonal += K.trace() / 3
        off_diagonal += K.trace() / 3 / (1 + confusion(K).noise_scale)
    assert float(off_diagonal / 400) == pytest.approx(5, rel=0.05)
    assert float(diagonal / 400) == pytest.approx(5 * 1.25, rel=0.05)


@pytest.mark.parametrize("K", [torch.eye(3), gram_of([1, 0], [-1, 1])])
def test_noise_scale_needs_a_mean_gradient(K):
    assert math.isnan(confusion(K).noise_scale)


def test_paired_confusion_looks_at_partners_only():
    K = gram_of([1, 0], [1, 1], [-3, 0], [0, 2])
    measured = paired_confusion(K)
    assert (measured.pairs, measured.samples, measured.eta, measured.min_cosine) == (2, 4, 0, 0)
    assert measured.mean == pytest.approx(math.sqrt(0.5) / 2)
    assert measured.coherence == confusion(K).coherence
    assert confusion(K).eta == 3


def test_a_row_is_flat_and_fits_a_table():
    measured = confusion(gram_of([1, 0], [2, 1], [-1, 0]), labels=[0, 0, 1])
    row = measured.row()
    assert all(isinstance(value, int | float) for value in row.values())
    assert not any(isinstance(value, PairStatistics) for value in row.values())
    table = pd.DataFrame([row, confusion(torch.eye(2)).row()])
    assert table.dtypes.map(pd.api.types.is_numeric_dtype).all()
    assert table.loc[0, "within_class_min_cosine"] == measured.within_class.min_cosine
    assert math.isnan(table.loc[1, "between_class_eta"])


def test_a_notebook_shows_every_number():
    measured = confusion(gram_of([1, 0.3], [2, 1], [-1, 0.2]), labels=[0, 0, 1])
    shown = measured._repr_html_()
    for name, value in measured.row().items():
        assert name.replace("_", " ") in shown
        assert f"<td>{value if isinstance(value, int) else format(value, '.4g')}</td>" in shown
