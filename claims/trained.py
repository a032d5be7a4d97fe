"""Experiments on trained networks, all seeds at once."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd
import torch
from torch import nn

import gradconf
from gradconf import Run, datasets
from gradconf.models import mlp, residual_mlp

cross_entropy = nn.CrossEntropyLoss(reduction="none")
Make = Callable[[torch.Generator], nn.Module]
SHORT = {"std": "std", "min": "min_cosine"}


def small() -> datasets.Dataset:
    """Load half of MNIST-1D."""
    return datasets.load("mnist1d", train_size=2000, balanced=True)


def train(
    make: Make, seeds: Iterable[int], data: datasets.Dataset, *, rate: float, epochs: int, measured_at: tuple[int, ...]
) -> pd.DataFrame:
    """Train one network a seed and measure mini-batch gradients by the paper's protocol.

    Args:
        make: builds the network, drawing weights from the generator.
        seeds: of weights, order of samples, and pairs of batches.
        data: MNIST-1D.
        rate: alpha.
        epochs: with decay by 10 at 40% and 80%.
        measured_at: epochs to measure at.

    Returns:
        By seed and epoch: losses, accuracies, and the statistics of 100 pairs of mini-batches of 128; a run that
        diverged has no numbers.
    """
    seeds = list(seeds)
    models = [make(torch.Generator().manual_seed(seed)) for seed in seeds]

    def measure(model: nn.Module, epoch: int) -> dict[str, float]:
        return pair_statistics(model, data) if epoch in measured_at else {}

    runs = gradconf.train_many(
        models, cross_entropy, data, learning_rates=rate, seeds=seeds, epochs=epochs, measure=measure
    )
    return pd.concat([_rows(run, measured_at).assign(seed=seed) for run, seed in zip(runs, seeds, strict=True)])


def pair_statistics(model: nn.Module, data: datasets.Dataset, *, pairs: int = 100) -> dict[str, float]:
    """Measure 100 pairs of mini-batches of 128 in the mode that the model is in."""
    generator = torch.Generator().manual_seed(0)
    batches = gradconf.minibatch_pairs(data.train_inputs, data.train_targets, pairs=pairs, generator=generator)
    measured = gradconf.paired_confusion(gradconf.minibatch_gram(model, cross_entropy, batches))
    return {name: getattr(measured, name) for name in ("eta", "min_cosine", "q01", "mean", "std")}


def _rows(run: Run, measured_at: tuple[int, ...]) -> pd.DataFrame:
    history = run.history[run.history["epoch"].isin(measured_at)].assign(diverged=0.0)
    if not run.diverged:
        return history
    lost = {"epoch": max(measured_at), "diverged": 1.0}
    return pd.concat([history, pd.DataFrame([lost])])


def width(
    seeds: Iterable[int], *, widths: tuple[int, ...] = (8, 32, 128), epochs: int = 30, data: str = "mnist1d"
) -> pd.DataFrame:
    """Vary the width of ReLU networks of three hidden layers, rate 0.3.

    Args:
        seeds: of weights and order.
        widths: l.
        epochs: of training.
        data: `mnist1d` or `digits`.

    Returns:
        As `train`, at the end, by width, with the deviation's and the minimum's change since initialisation (`change`)
        and since a fifth of the training (`late`), and logarithms of the loss and of eta.
    """
    dataset, parts = small() if data == "mnist1d" else datasets.load(data), []
    for units in widths:
        table = train(
            lambda g, units=units: mlp(3, units, in_features=dataset.features, out_features=10, generator=g),
            seeds,
            dataset,
            rate=0.3,
            epochs=epochs,
            measured_at=(times := (0, epochs // 5, epochs)),
        )
        first, fifth, last = (table[table["epoch"] == epoch].set_index("seed") for epoch in times)
        more = {"log10_loss": np.log10(last["train_loss"]), "log10_eta": np.log10(last["eta"])}
        for name, before in (("change", first), ("late", fifth)):
            more |= {
                f"std_{name}": last["std"] - before["std"],
                f"min_{name}": last["min_cosine"] - before["min_cosine"],
            }
        parts.append(last.assign(**more, at=units).reset_index())
    return pd.concat(parts)


def depth(
    seeds: Iterable[int],
    *,
    depths: tuple[int, ...] = (2, 8, 24),
    rates: tuple[float, ...] = (1.0, 0.3, 0.1),
    epochs: int = 30,
) -> pd.DataFrame:
    """Vary the depth of ReLU networks of width 32, each at a rate that was chosen for it.

    Args:
        seeds: of weights and order.
        depths: beta.
        rates: alpha, chosen by `claims.rates`.
        epochs: of training.

    Returns:
        As `train`, at the end, by depth.
    """
    data = small()
    return pd.concat(
        train(
            lambda g, b=b: mlp(b, 32, in_features=40, out_features=10, generator=g),
            seeds,
            data,
            rate=rate,
            epochs=epochs,
            measured_at=(epochs,),
        ).assign(at=b)
        for b, rate in zip(depths, rates, strict=True)
    )


def ratio(
    seeds: Iterable[int],
    *,
    pairs: tuple[tuple[int, int], ...] = ((4, 16), (8, 32), (16, 64)),
    rates: tuple[float, ...] = (1.0, 0.3, 0.1),
    epochs: int = 30,
) -> pd.DataFrame:
    """Vary depth and width together, at one ratio; and depth alone, from the same start.

    Args:
        seeds: of weights and order.
        pairs: (beta, l).
        rates: alpha, chosen by `claims.rates`.
        epochs: of training.

    Returns:
        As `train`, at the end, by beta; with minus beta where the width stays the first.
    """
    data, narrow = small(), pairs[0][1]
    cases = [(b, b, units, rate) for (b, units), rate in zip(pairs, rates, strict=True)]
    cases += [(-b, b, narrow, rate) for (b, _), rate in zip(pairs[1:], rates[1:], strict=True)]
    return pd.concat(
        train(
            lambda g, b=b, units=units: mlp(b, units, in_features=40, out_features=10, generator=g),
            seeds,
            data,
            rate=rate,
            epochs=epochs,
            measured_at=(epochs,),
        ).assign(at=at)
        for at, b, units, rate in cases
    )


RATES = {
    "plain": {5: 0.3, 17: 0.1, 33: 0.1},
    "batch norm": {5: 1.0, 17: 1.0, 33: 1.0},
    "skip": {5: 0.3, 17: 0.03, 33: 0.001},
    "both": {5: 1.0, 17: 1.0, 33: 1.0},
}
VARIANTS = {
    "plain": {"batch_norm": False, "skip": False},
    "batch norm": {"batch_norm": True, "skip": False},
    "skip": {"batch_norm": False, "skip": True},
    "both": {"batch_norm": True, "skip": True},
}


def ablation(
    seeds: Iterable[int],
    *,
    depths: tuple[int, ...] = (5, 17, 33),
    variants: tuple[str, ...] = tuple(VARIANTS),
    epochs: int = 20,
) -> pd.DataFrame:
    """Take batch norm and skip connections from pre-activation residual networks of width 32.

    Args:
        seeds: of weights and order.
        depths: beta, of those in `RATES`, which `claims.rates` chose.
        variants: names in `VARIANTS`.
        epochs: of training.

    Returns:
        As `train`, at the end, in training mode, by variant and depth, e.g. `both 17`.
    """
    data, parts = small(), []
    for name in variants:
        for b in depths:
            table = train(
                lambda g, b=b, options=VARIANTS[name]: residual_mlp(
                    b, 32, in_features=40, out_features=10, generator=g, **options
                ),
                seeds,
                data,
                rate=RATES[name][b],
                epochs=epochs,
                measured_at=(epochs,),
            )
            parts.append(table[table["epoch"] == epochs].assign(at=f"{name} {b}"))
    return pd.concat(parts)


def ball(
    seeds: Iterable[int], *, radius: float = 0.01, draws: int = 20, steps: int = 10, epochs: int = 10
) -> pd.DataFrame:
    """Move trained weights by a given share of their length, at random and where it hurts.

    Args:
        seeds: of weights and order.
        radius: length of the move over the length of the weights.
        draws: random moves a seed.
        steps: of descent on the smallest cosine, within the ball.
        epochs: of training before.

    Returns:
        By seed: how far the smallest cosine of 300 samples falls below that at the centre, at worst, over the random
        moves (`random`) and along the descent (`sought`).
    """
    data, rows = small(), []
    samples = data.train_inputs[:300], data.train_targets[:300]
    models = [mlp(3, 32, in_features=40, out_features=10, generator=torch.Generator().manual_seed(s)) for s in seeds]
    gradconf.train_many(models, cross_entropy, data, learning_rates=0.3, seeds=list(seeds), epochs=epochs)
    for seed, model in zip(seeds, models, strict=True):
        centre, generator = smallest(model, *samples)[0], torch.Generator().manual_seed(seed)
        length = radius * torch.cat([p.detach().flatten() for p in model.parameters()]).norm().item()
        directions = ([torch.randn(p.shape, generator=generator) for p in model.parameters()] for _ in range(draws))
        random = min(smallest(moved(model, direction, length), *samples)[0] for direction in directions)
        sought = min(smallest(near, *samples)[0] for near in descent(model, *samples, length=length, steps=steps))
        rows.append({"seed": seed, "at": 0, "random": centre - random, "sought": centre - sought})
    return pd.DataFrame(rows)


def smallest(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[float, int, int]:
    """Return the smallest cosine of two samples, and which two."""
    cosine = gradconf.cosine(gradconf.gram(model, cross_entropy, inputs, targets)).nan_to_num(nan=1.0)
    return cosine.min().item(), *divmod(cosine.argmin().item(), len(cosine))


def moved(model: nn.Module, direction: Iterable[torch.Tensor], length: float) -> nn.Module:
    """Return a copy whose weights are moved in a direction, by a length."""
    near, direction = copy.deepcopy(model), list(direction)
    scale = length / math.sqrt(sum(d.square().sum().item() for d in direction))
    with torch.no_grad():
        for p, d in zip(near.parameters(), direction, strict=True):
            p.add_(d * scale)
    return near


def descent(
    model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, *, length: float, steps: int
) -> Iterator[nn.Module]:
    """Yield models within the ball round one, each a step further down the smallest cosine of two samples."""
    near = model
    for _ in range(steps):
        gradients = []
        for row in smallest(near, inputs, targets)[1:]:
            loss = cross_entropy(near(inputs[row : row + 1]), targets[row : row + 1]).sum()
            found = torch.autograd.grad(loss, list(near.parameters()), create_graph=True)
            gradients.append(torch.cat([g.flatten() for g in found]))
        cosine = nn.functional.cosine_similarity(*gradients, dim=0)
        down = torch.autograd.grad(-cosine, list(near.parameters()), allow_unused=True, materialize_grads=True)
        near = moved(near, down, length / 3)
        offset = [p.detach() - q.detach() for p, q in zip(near.parameters(), model.parameters(), strict=True)]
        if sum(d.square().sum().item() for d in offset) > length**2:
            near = moved(model, offset, length)
        yield near
