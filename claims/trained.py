"""Experiments on trained networks, all seeds at once."""

import copy
import math
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import torch
from torch import nn

import gradconf
from gradconf import Run, datasets
from gradconf.models import mlp, residual_mlp

cross_entropy = nn.CrossEntropyLoss(reduction="none")
Make = Callable[[torch.Generator], nn.Module]


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
        diverged has the loss of a guess, log 10, and no cosines.
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
    lost = {"epoch": max(measured_at), "train_loss": math.log(10), "train_accuracy": 0.1, "diverged": 1.0}
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
        As `train`, at the end, by width, with the deviation's and the minimum's change since initialisation, and
        logarithms of the loss and of eta.
    """
    dataset, parts = small() if data == "mnist1d" else datasets.load(data), []
    for units in widths:
        table = train(
            lambda g, units=units: mlp(3, units, in_features=dataset.features, out_features=10, generator=g),
            seeds,
            dataset,
            rate=0.3,
            epochs=epochs,
            measured_at=(0, epochs),
        )
        first, last = (table[table["epoch"] == epoch].set_index("seed") for epoch in (0, epochs))
        change = {"std_change": last["std"] - first["std"], "min_change": last["min_cosine"] - first["min_cosine"]}
        logs = {"log10_loss": np.log10(last["train_loss"]), "log10_eta": np.log10(last["eta"])}
        parts.append(last.assign(**change, **logs, at=units).reset_index())
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
        rates: alpha, chosen on other runs by the final loss.
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
    rates: tuple[float, ...] = (0.3, 0.3, 0.1),
    epochs: int = 30,
) -> pd.DataFrame:
    """Vary depth and width together, at one ratio; and depth alone, from the same start.

    Args:
        seeds: of weights and order.
        pairs: (beta, l).
        rates: alpha, chosen on other runs by the final loss.
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
    "plain": {5: 0.3, 17: 0.1, 33: 0.03},
    "batch norm": {5: 1.0, 17: 1.0, 33: 0.3},
    "skip": {5: 0.3, 17: 0.03, 33: 0.003},
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
        depths: beta, of those in `RATES`, which were chosen on other runs by the final loss.
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


def ball(seeds: Iterable[int], *, radius: float = 0.01, draws: int = 20, epochs: int = 10) -> pd.DataFrame:
    """Move trained weights by a random vector of a given share of their length.

    Args:
        seeds: of weights and order.
        radius: length of the move over the length of the weights.
        draws: moves a seed.
        epochs: of training before.

    Returns:
        By seed: how far the smallest cosine of 300 samples falls below that at the centre, at worst.
    """
    data, rows = small(), []
    inputs, targets = data.train_inputs[:300], data.train_targets[:300]
    models = [mlp(3, 32, in_features=40, out_features=10, generator=torch.Generator().manual_seed(s)) for s in seeds]
    gradconf.train_many(models, cross_entropy, data, learning_rates=0.3, seeds=list(seeds), epochs=epochs)
    for seed, model in zip(seeds, models, strict=True):
        centre = gradconf.confusion(gradconf.gram(model, cross_entropy, inputs, targets)).min_cosine
        generator, moved = torch.Generator().manual_seed(seed), []
        for _ in range(draws):
            near = copy.deepcopy(model)
            directions = [torch.randn(p.shape, generator=generator) for p in near.parameters()]
            length = math.sqrt(sum(d.square().sum().item() for d in directions))
            size = math.sqrt(sum(p.square().sum().item() for p in near.parameters()))
            with torch.no_grad():
                for p, d in zip(near.parameters(), directions, strict=True):
                    p.add_(d * (radius * size / length))
            moved.append(gradconf.confusion(gradconf.gram(near, cross_entropy, inputs, targets)).min_cosine)
        rows.append({"seed": seed, "at": 0, "drop": centre - min(moved)})
    return pd.DataFrame(rows)
