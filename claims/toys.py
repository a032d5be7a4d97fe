"""Experiments without networks: linear models, quadratics, and the two convergence theorems."""

import math
from collections.abc import Iterable

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

import gradconf


def draw(seed: int, *shape: int) -> Tensor:
    """Draw standard normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal_inputs(seeds: Iterable[int], *, samples: int = 20) -> pd.DataFrame:
    """Take one step of logistic regression on each of N orthogonal inputs.

    Args:
        seeds: of the inputs.
        samples: N.

    Returns:
        By seed: the largest cosine between two samples' gradients, and the largest change of another sample's loss.
    """
    rows = []
    for seed in seeds:
        X = torch.linalg.qr(draw(seed, samples, samples))[0]  # (N, N)
        y, w = draw(seed + 1, samples).sign(), draw(seed + 2, samples)
        zeta = -y * torch.sigmoid(-y * (X @ w))  # (N,)
        cosine = gradconf.cosine(zeta[:, None] * zeta * (X @ X.T)) - torch.eye(samples)
        steps = w - zeta[:, None] * X  # (N, N), after a step on each
        change = F.softplus(-y * (steps @ X.T)) - F.softplus(-y * (X @ w))  # (step, sample)
        others = change - torch.diag(change.diagonal())
        rows.append({"seed": seed, "cosine": cosine.abs().max().item(), "change": others.abs().max().item()})
    return pd.DataFrame(rows).assign(at=0)


def random_inputs(
    seeds: Iterable[int], *, samples: int = 100, dimensions: tuple[int, ...] = (100, 1000, 10_000)
) -> pd.DataFrame:
    """Compare random unit vectors.

    Args:
        seeds: of the vectors.
        samples: N.
        dimensions: d.

    Returns:
        By seed and d: the largest `|cosine|` of two of them, and the logarithm of that times `sqrt(d)`.
    """
    rows = []
    for seed in seeds:
        for d in dimensions:
            X = F.normalize(draw(seed, samples, d))
            largest = (X @ X.T - torch.eye(samples)).abs().max().item()
            rows.append({"seed": seed, "at": d, "largest": largest, "log10_scaled": math.log10(largest * d**0.5)})
    return pd.DataFrame(rows)


def regression(
    seeds: Iterable[int], *, samples: int = 100, steps: int = 20_000, rate: float = 0.5, noise: float = 0.1
) -> pd.DataFrame:
    """Run SGD on linear regression with fewer and with more parameters than samples.

    Args:
        seeds: of data and order.
        samples: N.
        steps: of SGD, one sample each.
        rate: alpha, on inputs of unit length.
        noise: of the labels.

    Returns:
        By seed and number of parameters: logarithm of the final loss, logarithm of the confusion bound, the smallest
        cosine, and the ratio `E |<g_i, g_j>| / E |g_i|^2` at the minimiser.
    """
    rows = []
    for seed in seeds:
        for d in (80, 120):
            X = F.normalize(draw(seed, samples, d))
            y = X @ draw(seed + 1000, d) + noise * draw(seed + 2000, samples)
            order = torch.randint(samples, (steps,), generator=torch.Generator().manual_seed(seed)).tolist()
            w = torch.zeros(d, dtype=torch.float64)
            for i in order:
                w -= rate * (X[i] @ w - y[i]) * X[i]
            r = X @ w - y
            measured = gradconf.confusion(r[:, None] * r * (X @ X.T))
            best = X @ torch.linalg.lstsq(X, y[:, None]).solution[:, 0] - y
            K = best[:, None] * best * (X @ X.T)
            rows.append(
                {
                    "seed": seed,
                    "at": d,
                    "log10_loss": (r.square().mean() / 2).log10().item(),
                    "log10_eta": torch.tensor(measured.eta).log10().item(),
                    "min_cosine": measured.min_cosine,
                    "ratio": (K.abs().mean() / K.diagonal().mean()).item(),
                }
            )
    return pd.DataFrame(rows)


def rank_one(seeds: Iterable[int], *, samples: int = 50, dimensions: tuple[int, ...] = (10, 100, 1000)) -> pd.DataFrame:
    """Compare gradients `H_i w` of quadratics with random Hessians of rank one at distance 1 of their minimiser.

    Args:
        seeds: of Hessians and w.
        samples: N.
        dimensions: d.

    Returns:
        By seed and d: logarithm of the mean `|<H_i w, H_j w>|` over i != j.
    """
    rows = []
    for seed in seeds:
        for d in dimensions:
            A, w = F.normalize(draw(seed, samples, d)), F.normalize(draw(seed + 1000, d), dim=0)  # H_i = a_i a_i^T
            g = (A @ w)[:, None] * A
            off = (g @ g.T)[~torch.eye(samples, dtype=torch.bool)]
            rows.append({"seed": seed, "at": d, "log10_inner": off.abs().mean().log10().item()})
    return pd.DataFrame(rows)


def linear_convergence(
    seeds: Iterable[int], *, rates: tuple[float, ...] = (0.02, 0.1, 0.3, 0.5, 0.9), steps: int = 400, runs: int = 2000
) -> pd.DataFrame:
    """Compare SGD on two quadratics, with minima at -1 and 1, with the bound of Theorem 3.1.

    There N = 2, L = mu = 1, `eta = 1` holds everywhere, and `F* = 1/2`.

    Args:
        seeds: of the order.
        rates: alpha.
        steps: T.
        runs: over which the expectation is taken.

    Returns:
        By seed: the largest `(F(w_T) - F*) / bound` over rates and steps.
    """
    rows = []
    for seed in seeds:
        generator, worst = torch.Generator().manual_seed(seed), 0.0
        for rate in rates:
            rho, w = 1 - (rate - rate**2), torch.full((runs,), 3.0, dtype=torch.float64)
            start = w.square().mean().item() / 2  # F(w_0) - F*
            for step in range(steps):
                bound = rho**step * start + rate / (1 - rho)
                worst = max(worst, (w.square().mean().item() / 2) / bound)  # F(w) = w^2 / 2 + 1/2
                w = w - rate * (w - (2.0 * torch.randint(2, (runs,), generator=generator) - 1))
        rows.append({"seed": seed, "at": 0, "used": worst})
    return pd.DataFrame(rows)


def smooth_convergence(
    seeds: Iterable[int], *, samples: int = 20, rate: float = 0.01, steps: int = 100, runs: int = 200
) -> pd.DataFrame:
    """Compare SGD on `f_i(w) = log(1 + (w - c_i)^2) / 2` and on equal quadratics with the bound of Theorem 3.2.

    Smooth and not convex, with L = 1. The confusion bound is the largest met on the way.

    Args:
        seeds: of the centres `c_i` and of the order.
        samples: N.
        rate: alpha below 2 / (N L).
        steps: T.
        runs: over which the expectation is taken.

    Returns:
        By seed: the largest smallest `E |grad F|^2` over the bound, as it is printed and with the factor 1 / alpha.
    """
    rows = []
    for seed in seeds:
        generator, centres = torch.Generator().manual_seed(seed), draw(seed, samples)
        w, eta, smallest = torch.full((runs,), 5.0, dtype=torch.float64), 0.0, torch.inf
        rho = 2 * samples / (2 - samples * rate)
        start = (1 + (w[0] - centres) ** 2).log().mean().item() / 2
        for _ in range(steps):
            g = (w[:, None] - centres) / (1 + (w[:, None] - centres) ** 2)  # (runs, N)
            smallest = min(smallest, g.mean(1).square().mean().item())
            products = g.amin(1) * g.amax(1)  # the smallest of all products of two
            eta = max(eta, -products.min().item())
            chosen = torch.randint(samples, (runs, 1), generator=generator)
            w = w - rate * g.gather(1, chosen)[:, 0]
        quadratic = {"g": (1 - rate) ** (2 * (steps - 1)), "bound": 4 / (2 - 2 * rate) * 0.5 / steps}  # two w^2 / 2
        printed = max(smallest / (rho * (start / steps + eta)), quadratic["g"] / quadratic["bound"])
        corrected = max(smallest / (rho * (start / steps / rate + eta)), quadratic["g"] / quadratic["bound"] * rate)
        rows.append({"seed": seed, "at": 0, "printed": printed, "corrected": corrected})
    return pd.DataFrame(rows)
