"""A measurement's subject: model, loss and samples, checked once, before anything is computed."""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gradconf.refusals import refuse_batch_statistics, refuse_dropout, refuse_renormalisation
from gradconf.samples import Samples, call, check_usable, count, leaves, map_tensors, move, select

LossFunction = Callable[[Tensor, Samples], Tensor]


@dataclass(frozen=True)
class Problem:
    """Per-sample losses `f_1..f_N` of a model, as functions of some of its parameters.

    Attributes:
        model: the network.
        loss_fn: maps `(outputs, targets)` to one loss a sample, shape `(N,)`.
        inputs: samples of shape `(N, ...)`, on the CPU or the model's device.
        targets: samples of shape `(N, ...)`, likewise.
        params: the parameters differentiated, by name; P numbers in all.
        samples: N.
    """

    model: nn.Module
    loss_fn: LossFunction
    inputs: Samples
    targets: Samples
    params: dict[str, nn.Parameter]
    samples: int

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(iter(self.params.values())).device

    @property
    def dtype(self) -> torch.dtype:
        """float64 if any of the parameters is, else float32."""
        return torch.float64 if any(p.dtype == torch.float64 for p in self.params.values()) else torch.float32

    def take(self, rows: slice) -> tuple[Samples, Samples]:
        """Return copies of the inputs and targets of some samples, `(n, ...)` each, as a model may overwrite them."""
        inputs, targets = (move(select(samples, rows), self.device) for samples in (self.inputs, self.targets))
        return inputs, targets

    def double(self) -> "Problem":
        """Return the problem in float64, with a copy of the model."""
        inputs, targets = (map_tensors(_double, samples) for samples in (self.inputs, self.targets))
        model = copy.deepcopy(self.model).double()
        every = dict(model.named_parameters(remove_duplicate=False))
        params = {name: every[name] for name in self.params}
        return replace(self, model=model, inputs=inputs, targets=targets, params=params)

    def losses(self, rows: slice) -> Tensor:
        """Return the losses of some samples evaluated together, shape `(n,)`, with their autograd graph."""
        inputs, targets = self.take(rows)
        try:
            losses = self.loss_fn(call(self.model, inputs), targets)
        except RuntimeError as error:
            kinds = {v.dtype for v in leaves(inputs, "inputs") if v.is_floating_point()} - {self.dtype}
            if not kinds or "dtype" not in str(error):
                raise
            raise ValueError(
                f"the model is {_short(self.dtype)} and does not run on inputs that are "
                f"{' and '.join(map(_short, kinds))}: pass them as {_short(self.dtype)}."
            ) from error
        _check_losses(losses, count(inputs, targets), rows.start or 0)
        if torch.is_grad_enabled() and not losses.requires_grad:
            raise ValueError(
                "the loss does not depend on the model's parameters: look for .detach(), .item() or no_grad."
            )
        return losses


def pose(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Samples,
    targets: Samples,
    *,
    params: Iterable[str] | None = None,
) -> Problem:
    """Check model and samples and put them together.

    Args:
        model: a module whose parameters share one device and are float32 or float64.
        loss_fn: maps `(outputs, targets)` to one loss a sample, shape `(N,)`.
        inputs: samples of shape `(N, ...)`.
        targets: samples of shape `(N, ...)`.
        params: names from `model.named_parameters()`; all trainable ones by default.

    Returns:
        The problem.

    Raises:
        TypeError: if inputs or targets hold something other than tensors.
        ValueError: if the samples or parameters cannot be used, with the reason and the way out.
    """
    refuse_renormalisation(model)
    chosen = _choose(model, params)
    samples = count(inputs, targets)
    device = next(iter(chosen.values())).device
    for values, name in ((inputs, "inputs"), (targets, "targets")):
        check_usable(values, name, device)
    inputs, targets = (map_tensors(Tensor.detach, values) for values in (inputs, targets))
    return Problem(model, loss_fn, inputs, targets, chosen, samples)


def pose_alone(
    model: nn.Module,
    loss_fn: LossFunction,
    inputs: Samples,
    targets: Samples,
    *,
    params: Iterable[str] | None = None,
) -> Problem:
    """Check model and samples as `pose` does, and that the samples can have gradients of their own.

    Args:
        model: as in `pose`.
        loss_fn: as in `pose`.
        inputs: as in `pose`.
        targets: as in `pose`.
        params: as in `pose`.

    Returns:
        The problem.

    Raises:
        TypeError: as in `pose`.
        ValueError: as in `pose`, or if the model uses batch statistics or dropout.
    """
    refuse_batch_statistics(model)
    refuse_dropout(model)
    return pose(model, loss_fn, inputs, targets, params=params)


def check_shape(losses: Tensor, n: int) -> Tensor:
    """Refuse losses that are not one number a sample.

    Args:
        losses: what a loss function returned.
        n: number of samples.

    Returns:
        The losses, shape `(n,)`.

    Raises:
        ValueError: if their shape is another.
    """
    if not isinstance(losses, Tensor) or losses.shape != (n,):
        got = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        raise ValueError(
            f'loss_fn must return one loss a sample, shape ({n},), but returned {got}: use reduction="none", '
            f"and sum over whatever a sample has besides."
        )
    return losses


def pairs(batches: Iterable[tuple[Samples, Samples]]) -> Iterator[tuple[Samples, Samples]]:
    """Iterate over batches, refusing what is not a pair.

    Args:
        batches: iterated once.

    Yields:
        Inputs and targets.

    Raises:
        ValueError: if a batch is not a pair.
    """
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise ValueError("every batch must be a pair (inputs, targets): look at what the loader serves.")
        yield batch


def _choose(model: nn.Module, names: Iterable[str] | None) -> dict[str, nn.Parameter]:
    every = dict(model.named_parameters(remove_duplicate=False))
    _check_parameters(every)
    if names is None:
        chosen = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not chosen:
            raise ValueError("the model has no trainable parameter: set requires_grad on those to be measured.")
        return chosen
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"params takes names, not {type(name).__name__}: those of model.named_parameters().")
        if name not in every:
            raise ValueError(f"the model has no parameter '{name}'; it has {', '.join(every)}.")
        if not every[name].requires_grad:
            raise ValueError(f"the parameter '{name}' is frozen: set its requires_grad before measuring it.")
    if not names:
        raise ValueError("params names no parameter: leave it out to measure all trainable ones.")
    first_names = {id(p): name for name, p in reversed(every.items())}  # a tied parameter counts once
    return {first_names[id(every[name])]: every[name] for name in names}


def _check_parameters(every: dict[str, nn.Parameter]) -> None:
    for name, p in every.items():
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise ValueError(f"the parameter '{name}' has no shape yet: run the model once on a sample first.")
        if p.is_inference():
            raise ValueError(f"the parameter '{name}' was made in torch.inference_mode(): build the model outside it.")
        if p._backward_hooks:
            raise ValueError(f"the parameter '{name}' has a hook that rewrites its gradient: remove the hook first.")
        if p.is_complex():
            raise ValueError(f"the parameter '{name}' is complex, and only real parameters can be measured.")
        if p.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"the parameter '{name}' is {_short(p.dtype)}, too coarse for an exact Gram "
                f"matrix: measure a float32 copy, copy.deepcopy(model).float()."
            )
    devices = sorted({str(p.device) for p in every.values()})
    if len(devices) > 1:
        raise ValueError(f"the model's parameters lie on {' and '.join(devices)}: move them to one device.")


def _check_losses(losses: Tensor, n: int, first: int) -> None:
    check_shape(losses, n)
    if not bool(torch.isfinite(losses).all()):
        bad = (~torch.isfinite(losses)).nonzero()[0].item() + first
        raise ValueError(f"the loss of sample {bad} is NaN or infinite: the model or its inputs have diverged.")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
