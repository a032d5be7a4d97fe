"""Choose learning rates as the paper does: from a grid, by the final training loss, leaving out what diverges.

`python -m claims.rates` trains every network of chapters 3 and 4 and of the claims at every rate, with seeds that
nothing else uses, and writes `claims/rates.csv`. A test compares the rates in use with it.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Generator, nn
from tqdm import tqdm

from claims.trained import VARIANTS, cross_entropy, small
from gradconf import datasets, train_many
from gradconf.models import linear_net, mlp, post_activation_mlp, residual_mlp

GRID = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
SEEDS = (1000, 1001, 1002, 1003, 1004)
TABLE = Path(__file__).with_name("rates.csv")
Build = Callable[..., nn.Module]


def main() -> None:
    """Train all, and write the table."""
    torch.set_num_threads(1)
    rows = []
    for name, build, epochs, data in (progress := tqdm(list(cases()), unit="network")):
        progress.set_postfix_str(name)
        rows += tried(name, build, epochs, data)
    pd.DataFrame(rows).to_csv(TABLE, index=False)
    print(pd.Series(chosen()).to_string())


def cases() -> Iterator[tuple[str, Build, int, datasets.Dataset]]:
    """Yield name, maker, epochs and data of every network that has a rate of its own."""
    data, digits = small(), datasets.load("digits")
    plain = partial(mlp, in_features=40, out_features=10)
    for depth, width in [(2, 32), (4, 32), (8, 32), (16, 32), (24, 32), (4, 16), (16, 64), (8, 16), (16, 16)]:
        yield f"mlp {depth} {width}", partial(plain, depth, width), 30, data
    for init in ("glorot", "orthogonal"):
        linear = partial(linear_net, in_features=64, out_features=10, init=init)
        for depth in (1, 16, 64):
            yield f"{init} {depth}", partial(linear, depth, 64), 8, digits
    for epochs, depths in ((15, (5, 9, 17)), (20, (5, 17, 33))):
        for depth in depths:
            for name, options in VARIANTS.items():
                make = partial(residual_mlp, depth, 32, in_features=40, out_features=10, **options)
                yield f"{name} {depth} {epochs}", make, epochs, data
    for depth in (5, 9, 17):
        make = partial(post_activation_mlp, depth, 32, in_features=40, out_features=10)
        yield f"post-activation {depth} 15", make, 15, data


def tried(name: str, build: Build, epochs: int, data: datasets.Dataset) -> list[dict[str, object]]:
    """Train one network at every rate with every seed, all at once; one row a rate."""
    pairs = [(rate, seed) for rate in GRID for seed in SEEDS]
    models = [build(generator=Generator().manual_seed(seed)) for _, seed in pairs]
    rates, seeds = zip(*pairs, strict=True)
    runs = train_many(models, cross_entropy, data, learning_rates=rates, seeds=seeds, epochs=epochs)
    rows = []
    for rate in GRID:
        mine = [run for run, used in zip(runs, rates, strict=True) if used == rate]
        lost = sum(run.diverged for run in mine)
        losses = [math.nan if run.diverged else run.history["train_loss"].iloc[-1] for run in mine]
        rows.append({"network": name, "rate": rate, "loss": round(sum(losses) / len(losses), 4), "diverged": lost})
    return rows


def chosen() -> dict[str, float]:
    """Return the rate with the smallest mean loss for each network, among those at which no run diverged."""
    table = pd.read_csv(TABLE)
    best = table[table["diverged"] == 0].groupby("network", sort=False)["loss"].idxmin()
    return dict(zip(best.index, table["rate"][best], strict=True))


if __name__ == "__main__":
    main()
