"""Gradient confusion and its relatives, all read off one Gram matrix."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PairStatistics:
    """How the gradients of pairs i < j relate; cosines leave out pairs with a zero gradient.

    Attributes:
        eta: confusion bound `max(0, -min K_ij)`, in units of squared gradient.
        min_cosine: smallest cosine; an extreme value, so comparable only between equal numbers of pairs.
        q01: 1% quantile of the cosines.
        q05: 5% quantile of the cosines.
        median: median cosine.
        mean: mean cosine.
        std: standard deviation of the cosines (divided by the number of pairs).
        negative_fraction: share of pairs with a negative cosine.
        samples: number of gradients that the pairs are made of.
        pairs: number of pairs with a cosine.
    """

    eta: float
    min_cosine: float
    q01: float
    q05: float
    median: float
    mean: float
    std: float
    negative_fraction: float
    samples: int
    pairs: int


@dataclass(frozen=True)
class Confusion(PairStatistics):
    """Gradient confusion of N gradients with related measures.

    Attributes:
        zero_gradients: how many of the N gradients are exactly zero.
        within_class: statistics over pairs with the same label; None without labels or such pairs.
        between_class: statistics over pairs with different labels; None without labels or such pairs.
        gradient_diversity: `sum_i |g_i|^2 / |sum_i g_i|^2` (Yin et al. 2018).
        coherence: m-coherence `|sum_i g_i|^2 / sum_i |g_i|^2`, from 0 to N, 1 for orthogonal gradients
            (Chatterjee & Zielinski 2020).
        noise_scale: simple noise scale `tr(Sigma) / |grad F|^2` (McCandlish et al. 2018), unbiased: `|grad F|^2` is
            the mean off-diagonal entry of K, and tr(Sigma) the mean diagonal entry less that. In gradients: times
            the batch size for a mini-batch Gram matrix. nan where the mean off-diagonal entry is not positive.
    """

    zero_gradients: int
    within_class: PairStatistics | None
    between_class: PairStatistics | None
    gradient_diversity: float
    coherence: float
    noise_scale: float

    def row(self) -> dict[str, float]:
        """Return all numbers as one flat row for a pandas table, e.g. `within_class_q01` for the nested ones."""
        flat: dict[str, float] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, PairStatistics):
                flat |= {f"{field.name}_{name}": number for name, number in asdict(value).items()}
            elif field.name not in ("within_class", "between_class"):
                flat[field.name] = value
        return flat

    def _repr_html_(self) -> str:
        lines = "".join(
            f'<tr><th scope="row" style="text-align:left">{name.replace("_", " ")}</th>'
            f"<td>{value if isinstance(value, int) else format(value, '.4g')}</td></tr>"
            for name, value in self.row().items()
        )
        return f"<table><caption>Gradient confusion</caption><tbody>{lines}</tbody></table>"


def cosine(gram: Tensor) -> Tensor:
    """Turn a Gram matrix into the matrix of cosines, `C_ij = K_ij / sqrt(K_ii K_jj)`.

    Args:
        gram: K, shape `(N, N)`.

    Returns:
        C, float64, shape `(N, N)`, between -1 and 1 with ones on its diagonal; rows and columns of zero gradients
        are nan, as they have no direction.

    Raises:
        ValueError: if `gram` is not a finite symmetric square matrix with a diagonal >= 0.

    Source: Sankararaman et al. 2020, Section 7.

    Example:
        >>> cosine(torch.tensor([[4.0, -1.0], [-1.0, 1.0]]))
        tensor([[ 1.0000, -0.5000],
                [-0.5000,  1.0000]], dtype=torch.float64)
    """
    return _cosine(_checked(gram))


def _cosine(gram: Tensor) -> Tensor:
    lengths = gram.diagonal().sqrt()  # (N,)
    cosines = (gram / lengths[:, None] / lengths[None, :]).clamp(-1, 1)
    cosines.diagonal()[lengths > 0] = 1.0
    return cosines.where((lengths[:, None] > 0) & (lengths[None, :] > 0), math.nan)


def confusion(gram: Tensor, *, labels: Tensor | Sequence[int] | None = None) -> Confusion:
    """Measure gradient confusion over all pairs of gradients.

    `eta = max(0, -min_{i != j} K_ij)`: the smallest eta with `<grad f_i, grad f_j> >= -eta` for all `i != j`.

    Args:
        gram: K, shape `(N, N)`, from `gradconf.gram` or `gradconf.minibatch_gram`.
        labels: a class for each gradient, shape `(N,)`, to tell pairs within a class from pairs between classes.

    Returns:
        The confusion bound, the distribution of the cosines, and related measures.

    Raises:
        ValueError: if `gram` is no Gram matrix, has fewer than two rows, or `labels` has another length.

    Source: Sankararaman et al. 2020, Definition 2.1 (eta) and Section 7 (cosines).

    Example:
        >>> measured = confusion(torch.tensor([[4.0, -1.0], [-1.0, 1.0]]))
        >>> measured.eta, measured.min_cosine
        (1.0, -0.5)
    """
    gram = _checked(gram)
    n, cosines = len(gram), _cosine(gram)
    if n < 2:
        raise ValueError("confusion compares pairs of gradients, and there is only one: measure two samples or more.")
    i, j = torch.triu_indices(n, n, offset=1, device=gram.device)  # (pairs,) each
    if labels is None:
        return _confusion(gram, _statistics(gram, cosines, i, j))
    classes = torch.as_tensor(labels).to(gram.device).reshape(-1)
    if len(classes) != n:
        raise ValueError(f"labels must hold one class a gradient: there are {n} gradients but {len(classes)} labels.")
    same = classes[i] == classes[j]  # (pairs,)
    within, between = (_statistics(gram, cosines, i[chosen], j[chosen]) for chosen in (same, ~same))
    return _confusion(gram, _statistics(gram, cosines, i, j), within, between)


def paired_confusion(gram: Tensor) -> Confusion:
    """Measure gradient confusion over the pairs (0, 1), (2, 3), ... alone, as in the paper's experiments.

    Args:
        gram: K, shape `(2 n, 2 n)`, of the batches of `gradconf.minibatch_pairs`.

    Returns:
        As `confusion`, with n pairs instead of all; the measures that use the whole matrix still do.

    Raises:
        ValueError: if `gram` is no Gram matrix or has an odd number of rows.

    Source: Sankararaman et al. 2020, Section 7 (100 pairs of mini-batches).
    """
    gram = _checked(gram)
    if len(gram) < 2 or len(gram) % 2:
        raise ValueError(f"paired_confusion needs an even number of gradients, two a pair, but got {len(gram)}.")
    first = torch.arange(0, len(gram), 2, device=gram.device)  # (n,)
    return _confusion(gram, _statistics(gram, _cosine(gram), first, first + 1))


def _confusion(
    gram: Tensor,
    pairs: PairStatistics | None,
    within: PairStatistics | None = None,
    between: PairStatistics | None = None,
) -> Confusion:
    n = len(gram)
    trace, total = gram.trace().item(), gram.sum().item()
    off_diagonal = (total - trace) / (n * (n - 1))
    return Confusion(
        **asdict(pairs),  # type: ignore[arg-type]
        zero_gradients=int((gram.diagonal() == 0).sum()),
        within_class=within,
        between_class=between,
        gradient_diversity=trace / total if total > 0 else (math.inf if trace > 0 else math.nan),
        coherence=max(total, 0.0) / trace if trace > 0 else math.nan,
        noise_scale=(trace / n - off_diagonal) / off_diagonal if off_diagonal > 0 else math.nan,
    )


def _statistics(gram: Tensor, cosines: Tensor, i: Tensor, j: Tensor) -> PairStatistics | None:
    """Return the statistics of pairs `(i, j)`, each of shape `(pairs,)`, or None if there is no pair."""
    if len(i) == 0:
        return None
    defined = cosines[i, j]
    values = defined[~defined.isnan()].cpu().numpy()
    q01, q05, median = np.quantile(values, [0.01, 0.05, 0.5]) if len(values) else [math.nan] * 3
    return PairStatistics(
        eta=max(0.0, -gram[i, j].min().item()),
        min_cosine=float(values.min()) if len(values) else math.nan,
        q01=float(q01),
        q05=float(q05),
        median=float(median),
        mean=float(values.mean()) if len(values) else math.nan,
        std=float(values.std()) if len(values) else math.nan,
        negative_fraction=float((values < 0).mean()) if len(values) else math.nan,
        samples=len(torch.unique(torch.cat([i, j]))),
        pairs=len(values),
    )


def _checked(gram: Tensor) -> Tensor:
    """Return the matrix in float64 without a graph, refusing what cannot be a Gram matrix."""
    if not isinstance(gram, Tensor) or gram.dim() != 2 or gram.shape[0] != gram.shape[1]:
        raise ValueError("a Gram matrix is a square tensor of shape (N, N): pass what gradconf.gram returned.")
    gram = gram.detach().double()
    if not bool(torch.isfinite(gram).all()):
        raise ValueError("the Gram matrix holds NaN or infinity, so nothing can be read off it.")
    scale = gram.diagonal().abs().max().item() if len(gram) else 0.0
    if not torch.allclose(gram, gram.T, rtol=1e-5, atol=1e-6 * scale) or bool((gram.diagonal() < 0).any()):
        raise ValueError("this is no Gram matrix, as it is not symmetric or its diagonal has negative entries.")
    lengths = gram.diagonal().sqrt()
    if bool((gram.abs() > 1.001 * lengths[:, None] * lengths + 1e-6 * scale).any()):
        raise ValueError("this is no Gram matrix, as an inner product exceeds the product of the lengths.")
    return gram
