"""Models of the shapes that a data set asks for, so that the same code runs on numbers, sequences and images."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from gradconf.datasets import Dataset
from gradconf.models.convolutional import cnn, wrn
from gradconf.models.dense import linear_net, mlp
from gradconf.models.residual import post_activation_mlp, residual_mlp

BUILDERS = {build.__name__: build for build in (mlp, linear_net, residual_mlp, post_activation_mlp, cnn, wrn)}


def for_dataset(name: str, dataset: Dataset) -> Callable[..., nn.Module]:
    """Return a model builder that knows the shapes of a data set's inputs and outputs.

    Args:
        name: `mlp`, `linear_net`, `residual_mlp`, `post_activation_mlp`, `cnn` or `wrn`.
        dataset: whose inputs the model takes, one output a class.

    Returns:
        The builder, to be called with `(depth, width, ...)`.

    Raises:
        ValueError: if there is no such builder.

    Example:
        >>> from gradconf.datasets import load
        >>> for_dataset("mlp", load("digits"))(2, 16)[1]
        Linear(in_features=64, out_features=16, bias=True)
    """
    if name not in BUILDERS:
        raise ValueError(f"unknown model '{name}': choose one of {', '.join(BUILDERS)}.")
    build = BUILDERS[name]
    shape: dict[str, Any] = {"in_features": dataset.features}
    if "in_channels" in inspect.signature(build).parameters:
        shape = {"in_channels": dataset.train_inputs.shape[1], "dims": dataset.train_inputs.dim() - 2}
    return partial(build, out_features=dataset.classes, **shape)
