"""A measurement's subject: model, loss and samples, checked once, before anything is computed."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradconf.samples import Samples, call, count, map_tensors, place, select

LossFunction = Callable[[Tensor, Samples], Tensor]


@dataclass(frozen=True)
class Problem:
    """Per-sample losses `f_1..f_N` of a model, as functions of some of its parameters.

    Attributes:
        model: the network.
        loss_fn: maps `(outputs, targets)` to one loss a sample, shape `(N,)`.
        inputs: samples of shape `(N, ...)` on the model's device.
        targets: samples of shape `(N, ...)` on the model's device.
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
        inputs, targets = (map_tensors(torch.clone, select(s, rows)) for s in (self.inputs, self.targets))
        return inputs, targets

    def losses(self, rows: slice) -> Tensor:
        """Return the losses of some samples evaluated together, shape `(n,)`, with their autograd graph."""
        inputs, targets = self.take(rows)
        losses = self.loss_fn(call(self.model, inputs), targets)
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
        The problem, its samples on the model's device.

    Raises:
        TypeError: if inputs or targets hold something other than tensors.
        ValueError: if the samples or parameters cannot be used, with the reason and the way out.
    """
    refuse_renormalisation(model)
    chosen = _choose(model, params)
    samples = count(inputs, targets)
    device = next(iter(chosen.values())).device
    return Problem(model, loss_fn, place(inputs, "inputs", device), place(targets, "targets", device), chosen, samples)


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


def refuse_dropout(model: nn.Module) -> None:
    """Refuse a model with active dropout, whose loss is not a function of its parameters.

    Args:
        model: the model about to be measured.

    Raises:
        ValueError: naming the first such module.
    """
    for name, module in model.named_modules():
        if module.training and _is_random(module):
            raise ValueError(
                f"'{name or type(module).__name__}' ({type(module).__name__}) draws at random in training mode, "
                f"so the loss has no single gradient: call model.eval() first, or set its probability to 0."
            )


def refuse_renormalisation(model: nn.Module) -> None:
    """Refuse embeddings that rewrite their own weights when they are read.

    Args:
        model: the model about to be measured.

    Raises:
        ValueError: naming the first such module.
    """
    for name, module in model.named_modules():
        if getattr(module, "max_norm", None) is not None and isinstance(module, nn.Embedding | nn.EmbeddingBag):
            raise ValueError(
                f"'{name or type(module).__name__}' ({type(module).__name__}) has max_norm, so that reading it changes "
                f"its weights: set max_norm to None first."
            )


def refuse_batch_statistics(model: nn.Module) -> None:
    """Refuse a model with batch norm that uses batch statistics: it has no per-sample gradient.

    Args:
        model: the model about to be measured.

    Raises:
        ValueError: naming the first such module.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None):
            raise ValueError(
                f"'{name or type(module).__name__}' ({type(module).__name__}) normalises with the statistics of the "
                f"batch, so samples influence each other and a per-sample gradient does not exist: call model.eval() "
                f"after the running statistics have seen the data, or measure whole batches with minibatch_gram."
            )


def refuse_infinite(gram: Tensor, what: str) -> Tensor:
    """Refuse a Gram matrix that is not finite, which finite losses with NaN gradients give.

    Args:
        gram: K, shape `(N, N)`.
        what: what its rows are, e.g. `"sample"`.

    Returns:
        K.

    Raises:
        ValueError: naming the first such row.
    """
    if not bool(torch.isfinite(gram).all()):
        bad = (~torch.isfinite(gram.diagonal())).nonzero()
        raise ValueError(
            f"the gradient of {what} {bad[0].item() if len(bad) else 0} is NaN or infinite although its loss is not: "
            f"look for a square root, logarithm or division at zero."
        )
    return gram


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


def _is_random(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, nn.RNNBase):
        return module.dropout > 0 and module.num_layers > 1
    if isinstance(module, nn.MultiheadAttention):
        return module.dropout > 0
    return isinstance(module, nn.RReLU)


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
        if p._backward_hooks:
            raise ValueError(f"the parameter '{name}' has a hook that rewrites its gradient: remove the hook first.")
        if p.is_complex():
            raise ValueError(f"the parameter '{name}' is complex, and only real parameters can be measured.")
        if p.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"the parameter '{name}' is {str(p.dtype).removeprefix('torch.')}, too coarse for an exact Gram "
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
