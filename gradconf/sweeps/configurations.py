"""All that decides the outcome of a run, and the name that it gives the run."""

import hashlib
import inspect
import json
import math
import types
import typing
from dataclasses import MISSING, asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from gradconf import datasets, models
from gradconf.datasets import Dataset
from gradconf.models.shapes import BUILDERS
from gradconf.training import check_schedule

LARGEST_SEED = 2**32
PRECISIONS = ("float32", "tf32", "bf16")
OPTIONS = ("batch_norm", "skip", "activation", "bias", "init", "gain")  # keyword arguments of some builder


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One run: a network, its data, and how it is trained and measured.

    Options of the network that are left out get its builder's defaults, and stay None where it has no such option.

    Attributes:
        model: a builder, see `gradconf.models.for_dataset`.
        depth: beta.
        width: l.
        batch_norm: whether blocks normalise.
        skip: whether blocks have skip connections.
        activation: of an MLP.
        bias: whether an MLP has biases.
        init: how weights are drawn.
        gain: factor on every weight, positive.
        dataset: see `gradconf.datasets.load`.
        train_size: training samples; all by default.
        test_size: test samples; all by default.
        balanced: whether subsets have as many samples of each class.
        pool: inputs are averaged over `pool` pixels in each direction.
        learning_rate: alpha at the beginning.
        epochs: passes over the training set.
        batch_size: samples a step.
        decay_at: shares of the epochs after which the rate decays.
        decay_factor: what the rate is multiplied by.
        seed: of weights, order of samples, and the mini-batches that are measured.
        pairs: pairs of mini-batches whose cosines are taken.
        pair_size: samples in each of these mini-batches, B.
        measure_every: epochs between measurements, the first before training; 0 measures at the end only.
        precision: of products in training, `float32`, `tf32` (CUDA only) or `bf16` (autocast); measurements are always
            in float32.
        channels_last: whether images lie in memory channel by channel of each pixel.
        compiled: whether training runs through `torch.compile`.

    Raises:
        TypeError: if a value has the wrong type.
        ValueError: if a value is out of range, or the network has no such option.

    Source: Sankararaman et al. 2020, Section 7 (the defaults of training and measurement).
    """

    model: str
    depth: int
    width: int
    batch_norm: bool | None = None
    skip: bool | None = None
    activation: str | None = None
    bias: bool | None = None
    init: str | None = None
    gain: float | None = None
    dataset: str
    train_size: int | None = None
    test_size: int | None = None
    balanced: bool = False
    pool: int = 1
    learning_rate: float
    epochs: int = 200
    batch_size: int = 128
    decay_at: tuple[float, ...] = (0.4, 0.8)
    decay_factor: float = 0.1
    seed: int = 0
    pairs: int = 100
    pair_size: int = 128
    measure_every: int = 1
    precision: str = "float32"
    channels_last: bool = False
    compiled: bool = False

    def __post_init__(self) -> None:
        """Check types and ranges, and fill in what the builder would."""
        for field in fields(self):
            object.__setattr__(self, field.name, _typed(field.name, getattr(self, field.name)))
        if self.model not in BUILDERS:
            raise ValueError(f"unknown model '{self.model}': choose one of {', '.join(BUILDERS)}.")
        if self.dataset not in datasets.NAMES:
            raise ValueError(f"unknown data set '{self.dataset}': choose one of {', '.join(datasets.NAMES)}.")
        for name, value in _filled(self.model, {name: getattr(self, name) for name in OPTIONS}).items():
            object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        check_schedule(self.learning_rate, self.epochs, self.batch_size, self.decay_at, self.decay_factor)
        if self.epochs < 1 or min(self.pool, self.pairs, self.pair_size) < 1 or self.measure_every < 0:
            raise ValueError(
                f"epochs, pool, pairs and pair_size must be at least 1 and measure_every at least 0, not "
                f"{self.epochs}, {self.pool}, {self.pairs}, {self.pair_size} and {self.measure_every}."
            )
        if not 0 <= self.seed < LARGEST_SEED:
            raise ValueError(f"seed must be at least 0 and less than 2^32, not {self.seed}.")
        if self.gain is not None and not 0 < self.gain < math.inf:
            raise ValueError(f"gain must be a positive number, not {self.gain}.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision '{self.precision}': choose one of {', '.join(PRECISIONS)}.")

    @property
    def key(self) -> str:
        """The name of the run, 16 hexadecimal digits, a hash of all values that are not the defaults of this class."""
        told = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """Return all values by name, for JSON."""
        return asdict(self) | {"decay_at": list(self.decay_at)}

    def load(self, folder: str | None = None) -> Dataset:
        """Return the data set on the CPU, from files in a folder if it has any."""
        return _read(self.dataset, folder, self.train_size, self.test_size, self.balanced, self.pool)

    def build(self, data: Dataset) -> nn.Module:
        """Return the network with the weights that the seed gives, on the CPU."""
        options = {name: value for name in OPTIONS if (value := getattr(self, name)) is not None}
        generator = torch.Generator().manual_seed(self.seed)
        return models.for_dataset(self.model, data)(self.depth, self.width, generator=generator, **options)


TYPES = typing.get_type_hints(Configuration)
REQUIRED = tuple(field.name for field in fields(Configuration) if field.default is MISSING)


def _typed(name: str, value: Any) -> Any:
    """Return the value in the type of its field, refusing what is none."""
    wanted = [kind for kind in typing.get_args(TYPES[name]) if TYPES[name].__class__ is types.UnionType] or [
        TYPES[name]
    ]
    if value is None and types.NoneType in wanted:
        return None
    kind = wanted[0]
    if typing.get_origin(kind) is tuple:
        if isinstance(value, list | tuple) and all(_is(share, float) for share in value):
            return tuple(float(share) for share in value)
    elif _is(value, kind):
        return kind(value)
    said = {int: "a whole number", float: "a number", bool: "true or false", str: "a name"}.get(
        kind, "a list of numbers"
    )
    raise TypeError(f"{name} must be {said}, not {value!r}.")


def _is(value: Any, kind: type) -> bool:
    """Tell whether a value is of a type, whole numbers being numbers and truth values being none."""
    accepted = (int, float) if kind is float else (kind,)
    return isinstance(value, accepted) and isinstance(value, bool) == (kind is bool)


def _filled(model: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a network with its builder's defaults, refusing those that it has not."""
    known = inspect.signature(BUILDERS[model]).parameters
    for name, value in options.items():
        if name not in known and value is not None:
            raise ValueError(f"{model} has no option {name}: leave it out.")
    return {name: known[name].default if value is None and name in known else value for name, value in options.items()}


@lru_cache(maxsize=2)
def _read(
    name: str, folder: str | None, train_size: int | None, test_size: int | None, balanced: bool, pool: int
) -> Dataset:
    """Load a data set, which a process reads once for all runs that share it."""
    data = datasets.load(name, folder=folder, train_size=train_size, test_size=test_size, balanced=balanced)
    return data if pool == 1 else _pooled(data, pool)


def _pooled(data: Dataset, pool: int) -> Dataset:
    """Average over neighbouring pixels, or numbers of a sequence."""
    average = {3: functional.avg_pool1d, 4: functional.avg_pool2d}[data.train_inputs.dim()]
    if min(data.train_inputs.shape[2:]) < pool:
        raise ValueError(f"inputs of shape {tuple(data.train_inputs.shape[1:])} cannot be averaged over {pool} pixels.")
    told = f"{data.provenance}, averaged over {pool} pixels in each direction"
    train_inputs, test_inputs = (average(inputs, pool) for inputs in (data.train_inputs, data.test_inputs))
    return replace(data, train_inputs=train_inputs, test_inputs=test_inputs, provenance=told)
