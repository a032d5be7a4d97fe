"""Fully connected networks `g_W(x) = W_beta s(W_{beta-1} ... s(W_0 x))`."""

from collections import OrderedDict

from torch import Generator, nn

from gradconf.models.initialization import build

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "identity": nn.Identity}


def mlp(
    depth: int,
    width: int,
    *,
    in_features: int,
    out_features: int,
    activation: str = "relu",
    bias: bool = True,
    init: str = "he",
    gain: float = 1.0,
    generator: Generator | None = None,
) -> nn.Sequential:
    """Build a multi-layer perceptron of `depth` hidden layers, all of the same width.

    `g_W(x) = W_beta s(W_{beta-1} ... s(W_0 x))`, with a bias added at each matrix unless `bias=False`. The theory of
    the paper has no bias and puts s on the output too; its experiments do neither, and nor do we.

    Args:
        depth: beta, the number of hidden layers; there are beta + 1 weight matrices. 0 gives a linear model.
        width: units l in each hidden layer.
        in_features: d, numbers in one input; inputs of shape `(N, ...)` are flattened to `(N, d)`.
        out_features: outputs, shape `(N, out_features)`.
        activation: s, one of `relu`, `tanh`, `identity`.
        bias: whether layers have biases (initially 0).
        init: `he`, `glorot`, `lecun` or `orthogonal`, see `gradconf.models.initialization.build`.
        gain: factor on every weight.
        generator: CPU generator of the weights; the global one by default.

    Returns:
        The network, with its layers called `linear_0` to `linear_beta`.

    Raises:
        ValueError: if depth is negative, a size is below 1, or a name is unknown.

    Source: Sankararaman et al. 2020, Section 4 (the network of the theory) and Appendix A (experiments).
    """
    if depth < 0 or min(width, in_features, out_features) < 1:
        raise ValueError(
            f"a network needs depth >= 0 and sizes >= 1, not depth {depth}, width {width}, "
            f"in_features {in_features}, out_features {out_features}."
        )
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation '{activation}': choose one of {', '.join(ACTIVATIONS)}.")
    sizes = [in_features] + [width] * depth + [out_features]

    def make() -> nn.Sequential:
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for k in range(depth + 1):
            layers[f"linear_{k}"] = nn.Linear(sizes[k], sizes[k + 1], bias=bias)
            if k < depth:
                layers[f"{activation}_{k}"] = ACTIVATIONS[activation]()
        return nn.Sequential(layers)

    return build(make, init=init, gain=gain, generator=generator)


def linear_net(
    depth: int,
    width: int,
    *,
    in_features: int,
    out_features: int = 1,
    init: str = "orthogonal",
    gain: float = 1.0,
    generator: Generator | None = None,
) -> nn.Sequential:
    """Build a deep linear network `g_W(x) = W_beta ... W_0 x`, without biases.

    With orthogonal matrices, a scalar output and `width >= in_features`, the cosine of two per-sample gradients is
    that of the inputs up to sign, at any depth.

    Args:
        depth: beta, the number of hidden layers; there are beta + 1 weight matrices.
        width: units l in each hidden layer.
        in_features: d, numbers in one input.
        out_features: outputs, shape `(N, out_features)`.
        init: `he`, `glorot`, `lecun` or `orthogonal`.
        gain: factor on every weight.
        generator: CPU generator of the weights; the global one by default.

    Returns:
        The network, with its layers called `linear_0` to `linear_beta`.

    Raises:
        ValueError: if depth is negative, a size is below 1, or `init` is unknown.

    Source: Sankararaman et al. 2020, Section 6 (orthogonal initialisation).
    """
    return mlp(
        depth,
        width,
        in_features=in_features,
        out_features=out_features,
        activation="identity",
        bias=False,
        init=init,
        gain=gain,
        generator=generator,
    )
