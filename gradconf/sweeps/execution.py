"""One run, from its configuration to a row of the table."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from gradconf.datasets import Dataset
from gradconf.isolation import float32_products
from gradconf.sweeps.configurations import Configuration
from gradconf.sweeps.machine import forget_peak, peak_memory, place, provenance
from gradconf.sweeps.protocol import measure_batches
from gradconf.sweeps.tables import Row
from gradconf.training import Run, train

FINISHED, DIVERGED, FAILED = "finished", "diverged", "failed"


def execute(
    configuration: Configuration, *, folder: str | None = None, device: str | None = None, progress: bool = False
) -> Row:
    """Train and measure one network: a pure function of its configuration, up to time, place and rounding.

    Args:
        configuration: what to run.
        folder: where the files of its data set are, if it has any.
        device: `cpu` or `cuda`; the first GPU if there is one, else the CPU, by default.
        progress: whether to show a bar.

    Returns:
        For JSON, the configuration and its `key`; `status`, `finished`, `diverged` or `failed`, and why; in `epochs`
        losses, accuracies and measurements of every epoch; `cosines` of the pairs at the end; the number of
        `parameters`; the `data`'s provenance; `provenance`; `seconds`; and `peak_memory` in bytes.

    Raises:
        ValueError: if there is no such device.
    """
    where = place(device)
    row: Row = {"key": configuration.key, "configuration": configuration.as_dict()}
    start = time.perf_counter()
    forget_peak(where)
    try:
        row |= _trained(configuration, folder, where, progress)
    except Exception as error:
        row |= failure(error)
    return row | {
        "provenance": provenance(where),
        "seconds": round(time.perf_counter() - start, 2),
        "peak_memory": peak_memory(where),
    }


def failure(error: BaseException) -> Row:
    """Return what a row holds of a run that raised an error."""
    return {"status": FAILED, "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def _trained(configuration: Configuration, folder: str | None, device: torch.device, progress: bool) -> Row:
    c = configuration
    data = c.load(folder).to(device)
    model = _prepared(c, data, device)
    cosines: list[float] = []

    def measure(model: nn.Module, epoch: int) -> dict[str, float]:
        if not _is_measured(c, epoch):
            return {}
        with torch.compiler.set_stance("force_eager") if c.compiled else nullcontext():
            numbers, cosines[:] = measure_batches(
                model, loss_fn, data, pairs=c.pairs, batch_size=c.pair_size, seed=1_000_003 * (c.seed + 1) + epoch
            )
        return numbers

    loss_fn = nn.CrossEntropyLoss(reduction="none")
    schedule = {
        name: getattr(c, name) for name in ("learning_rate", "epochs", "batch_size", "decay_at", "decay_factor")
    }
    with _precision(c.precision, device):
        run = train(model, loss_fn, data, seed=c.seed, measure=measure, progress=progress, **schedule)
    told = {"parameters": sum(p.numel() for p in model.parameters()), "data": data.provenance}
    kept = [round(x, 4) for x in cosines if not math.isnan(x)]  # a gradient of zero has no cosine
    return _outcome(run) | ({} if run.diverged else {"cosines": kept}) | told


def _prepared(configuration: Configuration, data: Dataset, device: torch.device) -> nn.Module:
    """Return the network as it is to be trained, on its device."""
    check_precision(configuration, device)
    model = configuration.build(data).to(device)
    if configuration.channels_last and data.train_inputs.dim() == 4:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if configuration.compiled:
        model.compile()
    return model


def check_precision(configuration: Configuration, device: torch.device) -> None:
    """Refuse to train in a precision that a device does not have."""
    if configuration.precision == "tf32" and device.type != "cuda":
        raise ValueError(f"the {device} has no tf32: choose float32 or bf16.")


def _outcome(run: Run) -> Row:
    """Return how a run ended, and its history."""
    reason = f"the loss exploded or became NaN in epoch {run.diverged_at}" if run.diverged else None
    epochs = [_numbers(epoch) for epoch in run.history.to_dict("records")]
    return {"status": DIVERGED if run.diverged else FINISHED, "reason": reason, "epochs": epochs}


def _numbers(epoch: Mapping[Any, float]) -> dict[str, float | None]:
    """Return the numbers of an epoch to six digits; what was not measured is left out, infinity becomes None."""
    kept = {str(name): value for name, value in epoch.items() if not math.isnan(value)}
    return {name: _rounded(value) for name, value in kept.items()}


def _rounded(value: float) -> float | None:
    if math.isinf(value):
        return None
    return int(value) if value == int(value) else float(f"{value:.6g}")


def _is_measured(configuration: Configuration, epoch: int) -> bool:
    every = configuration.measure_every
    return epoch == configuration.epochs or (every > 0 and epoch % every == 0)


@contextmanager
def _precision(precision: str, device: torch.device) -> Iterator[None]:
    """Compute products as asked for, and cuDNN's always in the same order."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    try:
        cudnn.deterministic, cudnn.benchmark = True, False
        with (
            float32_products("tf32" if precision == "tf32" else "ieee"),
            # Without its cache, which would keep the weights of the first step.
            torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False),
        ):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
