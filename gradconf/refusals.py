"""What cannot be measured is refused in one sentence, with the way out."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def refuse_dropout(model: nn.Module) -> None:
    """Refuse a model with active dropout, whose loss is not a function of its parameters.

    Args:
        model: the model about to be measured.

    Raises:
        ValueError: naming the first such module.
    """
    _refuse(
        model,
        lambda module: module.training and _is_random(module),
        "draws at random in training mode, so the loss has no single gradient: call model.eval() first, or set its "
        "probability to 0.",
    )


def refuse_renormalisation(model: nn.Module) -> None:
    """Refuse embeddings that rewrite their own weights when they are read.

    Args:
        model: the model about to be measured.

    Raises:
        ValueError: naming the first such module.
    """
    _refuse(
        model,
        lambda module: isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None,
        "has max_norm, so that reading it changes its weights: set max_norm to None first.",
    )


def refuse_batch_statistics(model: nn.Module) -> None:
    """Refuse a model with batch norm that uses batch statistics: it has no per-sample gradient.

    Args:
        model: the model about to be measured.

    Raises:
        ValueError: naming the first such module.
    """
    _refuse(
        model,
        lambda module: (
            isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None)
        ),
        "normalises with the statistics of the batch, so samples influence each other and a per-sample gradient does "
        "not exist: call model.eval() after the running statistics have seen the data, or measure whole batches with "
        "minibatch_gram.",
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
    if not bool(torch.isfinite(gram.sum())):
        bad = (~torch.isfinite(gram.diagonal())).nonzero()
        raise ValueError(
            f"the gradient of {what} {bad[0].item() if len(bad) else 0} is NaN or infinite although its loss is not: "
            f"look for a square root, logarithm or division at zero."
        )
    return gram


def _refuse(model: nn.Module, refused: Callable[[nn.Module], bool], why: str) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"the model must be a torch.nn.Module, not a {type(model).__name__}.")
    for name, module in model.named_modules():
        if refused(module):
            raise ValueError(f"'{name or type(module).__name__}' ({type(module).__name__}) {why}")


def _is_random(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, nn.RNNBase):
        return module.dropout > 0 and module.num_layers > 1
    if isinstance(module, nn.MultiheadAttention):
        return module.dropout > 0
    return isinstance(module, nn.RReLU)
