"""The cases: networks with as many samples, and which contestants meet there."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from gradconf.models import cnn, mlp, wrn

CLASSES = 10
WORDS, LENGTH = 256, 64  # of the transformer
EVERYONE = ("yardstick", "gradconf", "vmap", "loop", "opacus", "opacus_ew", "backpack")
SWEPT = ("yardstick", "gradconf", "vmap", "loop", "opacus", "backpack")


@dataclass(frozen=True)
class Problem:
    """What a contestant measures: `K[i, j] = <grad f_i, grad f_j>` with `f = loss_fn(model(inputs), targets)`."""

    model: nn.Module
    loss_fn: Callable[[Tensor, Tensor], Tensor]
    inputs: Tensor
    targets: Tensor

    @property
    def parameters(self) -> int:
        """P, the number of trainable parameters."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)


@dataclass(frozen=True)
class Case:
    """A network, a number of samples, and who takes part.

    Attributes:
        name: for the command line.
        label: for the table.
        network: makes the model from a generator.
        shape: of one input; None for a sequence of words.
        samples: N.
        contestants: names in `contestants.CONTESTANTS`.
        sweep: the sweep it is a point of, `samples`, `width` or `depth`; None for the table's cases.
        at: where on the sweep.
    """

    name: str
    label: str
    network: Callable[[Generator], nn.Module]
    shape: tuple[int, ...] | None
    samples: int
    contestants: tuple[str, ...] = EVERYONE
    sweep: str | None = None
    at: int | None = None


class Positions(nn.Module):
    """Learned positions, added; a module of its own, as Opacus wants every parameter in a small module."""

    def __init__(self, length: int, width: int) -> None:
        """Make the parameter."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(length, width) / 50)

    def forward(self, h: Tensor) -> Tensor:
        """Add to `(N, T, d)`."""
        return h + self.weight


class Attention(nn.Module):
    """Causal self-attention with explicit projections."""

    def __init__(self, width: int, heads: int) -> None:
        """Make the projections."""
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        """Map `(N, T, d)` to `(N, T, d)`."""
        n, length, width = h.shape
        q, k, v = self.qkv(h).view(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(n, length, width))


class Residual(nn.Module):
    """`h + layers(norm(h))`."""

    def __init__(self, width: int, *layers: nn.Module) -> None:
        """Make the norm."""
        super().__init__()
        self.norm, self.layers = nn.LayerNorm(width), nn.Sequential(*layers)

    def forward(self, h: Tensor) -> Tensor:
        """Map `(N, T, d)` to `(N, T, d)`."""
        return h + self.layers(self.norm(h))


def transformer(*, width: int = 128, depth: int = 4, heads: int = 4, generator: Generator) -> nn.Sequential:
    """Build a small causal language model with norms before its layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        layers = [nn.Embedding(WORDS, width), Positions(LENGTH, width)]
        for _ in range(depth):
            layers.append(Residual(width, Attention(width, heads)))
            layers.append(Residual(width, nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)))
        return nn.Sequential(*layers, nn.LayerNorm(width), nn.Linear(width, WORDS))


def each_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Compute one cross entropy a sample, shape `(N,)`; the mean over words where a sample is a sequence."""
    losses = F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="none")
    return losses.view(len(targets), -1).mean(1)


def pose(case: Case, device: torch.device, *, samples: int | None = None) -> Problem:
    """Build a case's model, in float32, and draw random samples; batch norm gets statistics and is then frozen."""
    generator = torch.Generator().manual_seed(0)
    model = case.network(generator)
    n = case.samples if samples is None else samples
    if case.shape is None:
        inputs, targets = torch.randint(WORDS, (2, n, LENGTH), generator=generator).unbind(0)
    else:
        inputs = torch.randn(n, *case.shape, generator=generator)
        targets = torch.randint(CLASSES, (n,), generator=generator)
    if has_batch_norm(model):
        with torch.no_grad():
            for _ in range(20):
                model(inputs[:32])
        model.eval()
    return Problem(model.to(device), each_loss, inputs.to(device), targets.to(device))


def has_batch_norm(model: nn.Module) -> bool:
    """Tell whether a model holds batch norm."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def _mlp(inputs: int, width: int, depth: int) -> Callable[[Generator], nn.Module]:
    return lambda g: mlp(depth, width, in_features=inputs, out_features=CLASSES, generator=g)


def _table() -> list[Case]:
    image = (3, 32, 32)
    large = ("yardstick", "gradconf", "gradconf_256", "vmap")
    cases = [
        Case("mlp500", "MLP 784-[500]×4-10", _mlp(784, 500, 4), (784,), 512),
        Case("mlp1000", "MLP 64-[1000]×8-10", _mlp(64, 1000, 8), (64,), 512),
        Case("cnn16", "CNN-16-2", lambda g: cnn(16, 2, generator=g), image, 64),
        Case("cnn16_128", "CNN-16-2", lambda g: cnn(16, 2, generator=g), image, 128),
        Case("cnn16_512", "CNN-16-2", lambda g: cnn(16, 2, generator=g), image, 512, large),
        Case("wrn16", "WRN-16-2", lambda g: wrn(16, 2, generator=g), image, 64),
        Case("wrn40", "WRN-40-2", lambda g: wrn(40, 2, generator=g), image, 64),
        Case("transformer", "Transformer, 4 layers", lambda g: transformer(generator=g), None, 64),
    ]
    return cases


def _sweeps() -> list[Case]:
    samples = [
        Case(f"samples_{n}", "MLP 64-[256]×4-10", _mlp(64, 256, 4), (64,), n, SWEPT, "samples", n)
        for n in (32, 64, 128, 256, 512, 1024, 2048)
    ]
    width = [
        Case(f"width_{w}", f"MLP 64-[{w}]×4-10", _mlp(64, w, 4), (64,), 128, SWEPT, "width", w)
        for w in (64, 128, 256, 512, 1024)
    ]
    depth = [
        Case(
            f"depth_{d}",
            f"CNN-{d}-2",
            lambda g, d=d: cnn(d, 2, generator=g),
            (3, 32, 32),
            32,
            SWEPT,
            "depth",
            d,
        )
        for d in (10, 16, 22)
    ]
    return samples + width + depth


CASES = {case.name: case for case in _table() + _sweeps()}
