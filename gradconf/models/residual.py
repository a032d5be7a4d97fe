"""Fully connected networks with batch norm and skip connections, to take either away."""

from collections import OrderedDict

from torch import Generator, Tensor, nn

from gradconf.models.initialization import build


class PreActivationBlock(nn.Module):
    """`h + W_2 relu(norm(W_1 relu(norm(h))))`, the sum and the norms as asked for."""

    def __init__(self, width: int, *, batch_norm: bool, skip: bool) -> None:
        """Make the layers."""
        super().__init__()
        self.skip = skip
        self.norm_1, self.linear_1 = _norm(width, batch_norm), nn.Linear(width, width, bias=not batch_norm)
        self.norm_2, self.linear_2 = _norm(width, batch_norm), nn.Linear(width, width, bias=not batch_norm)

    def forward(self, h: Tensor) -> Tensor:
        """Map `(N, width)` to `(N, width)`."""
        branch = self.linear_1(self.norm_1(h).relu())
        branch = self.linear_2(self.norm_2(branch).relu())
        return h + branch if self.skip else branch


class PostActivationBlock(nn.Module):
    """`h + relu(norm(W h))`: one layer, and a sum that only grows."""

    def __init__(self, width: int, *, batch_norm: bool) -> None:
        """Make the layers."""
        super().__init__()
        self.linear, self.norm = nn.Linear(width, width, bias=not batch_norm), _norm(width, batch_norm)

    def forward(self, h: Tensor) -> Tensor:
        """Map `(N, width)` to `(N, width)`."""
        return h + self.norm(self.linear(h)).relu()


def residual_mlp(
    depth: int,
    width: int,
    *,
    in_features: int,
    out_features: int,
    batch_norm: bool = True,
    skip: bool = True,
    init: str = "he",
    gain: float = 1.0,
    generator: Generator | None = None,
) -> nn.Sequential:
    """Build a network of pre-activation blocks of two layers, as in wide residual networks, but fully connected.

    `h_0 = W_0 x`, `h_{k+1} = h_k + W_{2k+2} s(norm(W_{2k+1} s(norm(h_k))))`, `g_W(x) = W_beta s(norm(h))` with
    `s = relu`. Without skip connections `h_k +` is missing, without batch norm `norm` is the identity. The same
    generator gives all four variants the same matrices.

    Args:
        depth: beta = 2 n + 1 for n blocks; there are beta + 1 weight matrices.
        width: l, units in each hidden layer.
        in_features: d, numbers in one input; inputs of shape `(N, ...)` are flattened to `(N, d)`.
        out_features: outputs, shape `(N, out_features)`.
        batch_norm: whether blocks normalise; hidden layers have biases where they do not.
        skip: whether blocks have skip connections.
        init: `he`, `glorot`, `lecun` or `orthogonal`, see `gradconf.models.initialization.build`.
        gain: factor on every weight.
        generator: CPU generator of the weights; the global one by default.

    Returns:
        The network.

    Raises:
        ValueError: if depth is not odd and positive, a size is below 1, or `init` is unknown.

    Source: He et al. 2016 (pre-activation); Sankararaman et al. 2020, Section 7 (the ablation, on convolutional
    networks).
    """
    blocks, rest = divmod(depth - 1, 2)
    if blocks < 0 or rest:
        raise ValueError(f"blocks have two layers, so depth is 1, 3, 5, ...: use {max(1, depth + 1)}, not {depth}.")
    _check_sizes(width, in_features, out_features)

    def make() -> nn.Sequential:
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            flatten=nn.Flatten(), stem=nn.Linear(in_features, width, bias=not batch_norm)
        )
        for k in range(blocks):
            layers[f"block_{k}"] = PreActivationBlock(width, batch_norm=batch_norm, skip=skip)
        layers |= OrderedDict(norm=_norm(width, batch_norm), relu=nn.ReLU(), head=nn.Linear(width, out_features))
        return nn.Sequential(layers)

    return build(make, init=init, gain=gain, generator=generator)


def post_activation_mlp(
    depth: int,
    width: int,
    *,
    in_features: int,
    out_features: int,
    batch_norm: bool = True,
    init: str = "he",
    gain: float = 1.0,
    generator: Generator | None = None,
) -> nn.Sequential:
    """Build a network of skip connections round one layer each, with the activation on the branch's output.

    `h_0 = s(norm(W_0 x))`, `h_{k+1} = h_k + s(norm(W_{k+1} h_k))`, `g_W(x) = W_beta h` with `s = relu`. As `s >= 0`,
    every block adds to h and none takes away: the counter-example to `residual_mlp`.

    Args:
        depth: beta >= 1; there are beta + 1 weight matrices.
        width: l, units in each hidden layer.
        in_features: d, numbers in one input; inputs of shape `(N, ...)` are flattened to `(N, d)`.
        out_features: outputs, shape `(N, out_features)`.
        batch_norm: whether blocks normalise; hidden layers have biases where they do not.
        init: `he`, `glorot`, `lecun` or `orthogonal`.
        gain: factor on every weight.
        generator: CPU generator of the weights; the global one by default.

    Returns:
        The network.

    Raises:
        ValueError: if a size is below 1, or `init` is unknown.

    Source: our own, after He et al. 2016, who compare places for the activation.
    """
    if depth < 1:
        raise ValueError(f"the network has at least one hidden layer, so depth is at least 1, not {depth}.")
    _check_sizes(width, in_features, out_features)

    def make() -> nn.Sequential:
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            flatten=nn.Flatten(), stem=nn.Linear(in_features, width, bias=not batch_norm)
        )
        layers |= OrderedDict(norm=_norm(width, batch_norm), relu=nn.ReLU())
        for k in range(depth - 1):
            layers[f"block_{k}"] = PostActivationBlock(width, batch_norm=batch_norm)
        layers["head"] = nn.Linear(width, out_features)
        return nn.Sequential(layers)

    return build(make, init=init, gain=gain, generator=generator)


def _norm(width: int, batch_norm: bool) -> nn.Module:
    return nn.BatchNorm1d(width) if batch_norm else nn.Identity()


def _check_sizes(width: int, in_features: int, out_features: int) -> None:
    if min(width, in_features, out_features) < 1:
        raise ValueError(
            f"sizes must be at least 1, not width {width}, in_features {in_features}, out_features {out_features}."
        )
