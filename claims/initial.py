"""Experiments on untrained networks."""

import math
from collections.abc import Callable, Iterable

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

import gradconf
from claims.toys import draw
from gradconf.models import linear_net, mlp


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    """Compute `(output - target)^2 / 2`, shape `(N,)`."""
    return (outputs[:, 0] - targets).square() / 2


def logistic(outputs: Tensor, targets: Tensor) -> Tensor:
    """Compute `log(1 + exp(-target output))`, shape `(N,)`."""
    return F.softplus(-targets * outputs[:, 0])


def sphere(seed: int, samples: int, features: int) -> tuple[Tensor, Tensor]:
    """Draw inputs from the unit sphere with labels of -1 and 1."""
    return F.normalize(draw(seed, samples, features)), draw(seed + 5000, samples).sign()


def tabulate(
    seeds: Iterable[int],
    values: Iterable[int],
    make: Callable[[int, Generator], nn.Module],
    *,
    samples: int,
    features: int,
) -> pd.DataFrame:
    """Measure networks at initialisation on data of the sphere, squared loss.

    Args:
        seeds: of data and weights.
        values: what is varied.
        make: builds the network for a value, drawing weights from the generator.
        samples: N.
        features: d.

    Returns:
        By seed and value: all that `gradconf.confusion` measures, and the logarithm of eta.
    """
    rows = []
    for seed in seeds:
        inputs, targets = sphere(seed, samples, features)
        for value in values:
            model = make(value, torch.Generator().manual_seed(seed)).double()
            measured = gradconf.confusion(gradconf.gram(model, squared, inputs, targets)).row()
            rows.append({"seed": seed, "at": value, "log10_eta": math.log10(max(measured["eta"], 1e-300))} | measured)
    return pd.DataFrame(rows)


def width(
    seeds: Iterable[int], *, widths: tuple[int, ...] = (16, 64, 256, 1024), depth: int = 4, activation: str = "tanh"
) -> pd.DataFrame:
    """Vary the width of networks with Gaussian weights of variance `1 / fan_in`.

    Args:
        seeds: of data and weights.
        widths: l.
        depth: beta.
        activation: of hidden layers.

    Returns:
        As `tabulate`.
    """
    options = {"in_features": 32, "out_features": 1, "activation": activation, "bias": False, "init": "lecun"}
    return tabulate(seeds, widths, lambda units, g: mlp(depth, units, generator=g, **options), samples=100, features=32)


def depth(
    seeds: Iterable[int], *, depths: tuple[int, ...] = (1, 4, 16, 64), width: int = 64, activation: str = "tanh"
) -> pd.DataFrame:
    """Vary the depth of networks with Gaussian weights of variance `1 / fan_in`.

    Args:
        seeds: of data and weights.
        depths: beta.
        width: l.
        activation: of hidden layers.

    Returns:
        As `tabulate`.
    """
    options = {"in_features": 32, "out_features": 1, "activation": activation, "bias": False, "init": "lecun"}
    return tabulate(seeds, depths, lambda b, g: mlp(b, width, generator=g, **options), samples=100, features=32)


def ratio(seeds: Iterable[int], *, pairs: tuple[tuple[int, int], ...] = ((4, 16), (16, 64), (64, 256))) -> pd.DataFrame:
    """Vary depth and width together, at one ratio.

    Args:
        seeds: of data and weights.
        pairs: (beta, l).

    Returns:
        As `tabulate`, by beta.
    """
    options = {"in_features": 16, "out_features": 1, "activation": "tanh", "bias": False, "init": "lecun"}
    widths = dict(pairs)
    return tabulate(seeds, widths, lambda b, g: mlp(b, widths[b], generator=g, **options), samples=100, features=16)


def small_weights(
    seeds: Iterable[int], *, depths: tuple[int, ...] = (1, 16), widths: tuple[int, ...] = (64, 512)
) -> pd.DataFrame:
    """Vary depth and width of tanh networks of which every matrix is scaled to operator norm 1.

    Args:
        seeds: of data and weights.
        depths: beta.
        widths: l.

    Returns:
        As `tabulate`, by `1000 beta + l`.
    """

    def make(value: int, generator: Generator) -> nn.Module:
        options = {"in_features": 32, "out_features": 1, "activation": "tanh", "bias": False}
        model = mlp(value // 1000, value % 1000, generator=generator, **options)
        with torch.no_grad():
            for p in model.parameters():
                p.div_(torch.linalg.matrix_norm(p, 2))
        return model

    values = [1000 * beta + units for beta in depths for units in widths]
    return tabulate(seeds, values, make, samples=100, features=32)


def orthogonal(
    seeds: Iterable[int], *, depths: tuple[int, ...] = (1, 4, 16, 64), width: int = 64, features: int = 32
) -> pd.DataFrame:
    """Vary the depth of linear networks, orthogonal and Gaussian, logistic loss.

    Args:
        seeds: of data and weights.
        depths: beta.
        width: l, at least `features`.
        features: d.

    Returns:
        By seed and depth: the largest change of any cosine against the first depth, orthogonal and Gaussian, the
        deviation of the cosines of both, and eta of orthogonal networks whose outputs are scaled by
        `gamma = 1 / sqrt(2 beta)`, over that at the first depth.
    """
    rows = []
    for seed in seeds:
        inputs, targets = sphere(seed, 100, features)
        first = {}
        for beta in depths:
            row = {"seed": seed, "at": beta}
            for init in ("orthogonal", "lecun"):
                generator = torch.Generator().manual_seed(seed)
                model = linear_net(beta, width, in_features=features, init=init, generator=generator).double()
                if init == "orthogonal":
                    _orthogonalise(model)
                K = gradconf.gram(model, logistic, inputs, targets)
                cosine = gradconf.cosine(K)
                change = (cosine - first.setdefault(init, cosine)).abs().max().item()
                row |= {f"{init}_change": change, f"{init}_std": gradconf.confusion(K).std}
                if init == "orthogonal":
                    eta = gradconf.gram(_Scaled(model, beta), logistic, inputs, targets).min().item()
                    row["scaled_eta"] = eta / first.setdefault("eta", eta)
            rows.append(row)
    return pd.DataFrame(rows)


class _Scaled(nn.Module):
    """A network whose outputs are multiplied by gamma."""

    def __init__(self, model: nn.Module, depth: int) -> None:
        super().__init__()
        self.model, self.gamma = model, (2 * depth) ** -0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, d)` to `(N, outputs)`."""
        return self.gamma * self.model(x)


@torch.no_grad()
def _orthogonalise(model: nn.Module) -> None:
    """Make matrices that are orthogonal in float32 so in float64, by the nearest ones."""
    for p in model.parameters():
        left, _, right = torch.linalg.svd(p, full_matrices=False)
        p.copy_(left @ right)
