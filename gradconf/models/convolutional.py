"""Wide residual networks WRN-beta-l, and CNN-beta-l: the same without skip connections and batch norm."""

from collections import OrderedDict

from torch import Generator, Tensor, nn

from gradconf.models.initialization import build

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
POOLS = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d}


class Block(nn.Module):
    """Two 3-wide convolutions, each after batch norm and ReLU, and a skip connection around them.

    `h -> s(h) + conv(relu(norm(conv(relu(norm(h))))))`, where s is the identity, or a 1-wide convolution of the
    activated input where the shape changes, or 0 without a skip connection.
    """

    def __init__(self, channels: tuple[int, int], *, stride: int, dims: int, batch_norm: bool, skip: bool) -> None:
        """Make the layers.

        Args:
            channels: channels in and out.
            stride: of the first convolution.
            dims: 1 or 2.
            batch_norm: whether activations are normalised; convolutions have biases where they are not.
            skip: whether there is a skip connection.
        """
        super().__init__()
        c_in, c_out = channels
        conv, bias = CONVOLUTIONS[dims], not batch_norm
        self.norm_1 = NORMS[dims](c_in) if batch_norm else nn.Identity()
        self.conv_1 = conv(c_in, c_out, 3, stride=stride, padding=1, bias=bias)
        self.norm_2 = NORMS[dims](c_out) if batch_norm else nn.Identity()
        self.conv_2 = conv(c_out, c_out, 3, padding=1, bias=bias)
        self.skip = skip
        reshapes = skip and (stride != 1 or c_in != c_out)
        self.shortcut = conv(c_in, c_out, 1, stride=stride, bias=bias) if reshapes else None

    def forward(self, h: Tensor) -> Tensor:
        """Map `(N, channels in, length...)` to `(N, channels out, length / stride...)`."""
        activated = self.norm_1(h).relu()
        residual = self.conv_2(self.norm_2(self.conv_1(activated)).relu())
        if not self.skip:
            return residual
        return residual + (h if self.shortcut is None else self.shortcut(activated))


def wrn(
    depth: int,
    width: int,
    *,
    batch_norm: bool = True,
    skip: bool = True,
    in_channels: int = 3,
    out_features: int = 10,
    dims: int = 2,
    init: str = "he",
    gain: float = 1.0,
    generator: Generator | None = None,
) -> nn.Sequential:
    """Build WRN-beta-l: three stages of `n = (beta - 4) / 6` blocks with 16 l, 32 l and 64 l channels.

    A 3-wide convolution to 16 channels comes first, the second and third stage start with stride 2, and ReLU,
    global average pooling and a linear layer come last.

    Args:
        depth: beta = 6 n + 4, at least 10.
        width: the width factor l.
        batch_norm: whether blocks normalise; convolutions have biases where they do not.
        skip: whether blocks have skip connections.
        in_channels: channels of the inputs, shape `(N, in_channels, height, width)` or `(N, in_channels, length)`.
        out_features: outputs, shape `(N, out_features)`.
        dims: 2 for images, 1 for sequences.
        init: `he`, `glorot`, `lecun` or `orthogonal`, see `gradconf.models.initialization.build`.
        gain: factor on every weight.
        generator: CPU generator of the weights; the global one by default.

    Returns:
        The network.

    Raises:
        ValueError: if depth is not of the form 6 n + 4, or a size is out of range.

    Source: Zagoruyko & Komodakis 2016; Sankararaman et al. 2020, Section 7.
    """
    blocks = _blocks_per_stage(depth)
    if min(width, in_channels, out_features) < 1 or dims not in CONVOLUTIONS:
        raise ValueError(
            f"sizes must be at least 1 and dims 1 or 2, not width {width}, in_channels {in_channels}, "
            f"out_features {out_features}, dims {dims}."
        )
    widths = [16, 16 * width, 32 * width, 64 * width]

    def make() -> nn.Sequential:
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv=CONVOLUTIONS[dims](in_channels, 16, 3, padding=1, bias=not batch_norm)
        )
        for stage in (1, 2, 3):
            for k in range(blocks):
                channels = (widths[stage - 1] if k == 0 else widths[stage], widths[stage])
                stride = 2 if k == 0 and stage > 1 else 1
                layers[f"stage_{stage}_block_{k}"] = Block(
                    channels, stride=stride, dims=dims, batch_norm=batch_norm, skip=skip
                )
        layers["norm"] = NORMS[dims](widths[3]) if batch_norm else nn.Identity()
        layers |= OrderedDict(relu=nn.ReLU(), pool=POOLS[dims](1), flatten=nn.Flatten())
        layers["linear"] = nn.Linear(widths[3], out_features)
        return nn.Sequential(layers)

    return build(make, init=init, gain=gain, generator=generator)


def _blocks_per_stage(depth: int) -> int:
    blocks, rest = divmod(depth - 4, 6)
    if blocks < 1 or rest:
        near = 6 * max(1, round((depth - 4) / 6)) + 4
        raise ValueError(
            f"a wide residual network has depth 6 n + 4, that is 10, 16, 22, ...: use {near}, not {depth}."
        )
    return blocks


def cnn(
    depth: int,
    width: int,
    *,
    in_channels: int = 3,
    out_features: int = 10,
    dims: int = 2,
    init: str = "he",
    gain: float = 1.0,
    generator: Generator | None = None,
) -> nn.Sequential:
    """Build CNN-beta-l: WRN-beta-l without skip connections and without batch norm, with biases.

    Args:
        depth: beta = 6 n + 4, at least 10.
        width: the width factor l.
        in_channels: channels of the inputs.
        out_features: outputs, shape `(N, out_features)`.
        dims: 2 for images, 1 for sequences.
        init: `he`, `glorot`, `lecun` or `orthogonal`.
        gain: factor on every weight.
        generator: CPU generator of the weights; the global one by default.

    Returns:
        The network.

    Raises:
        ValueError: if depth is not of the form 6 n + 4, or a size is out of range.

    Source: Sankararaman et al. 2020, Section 7.
    """
    return wrn(
        depth,
        width,
        batch_norm=False,
        skip=False,
        in_channels=in_channels,
        out_features=out_features,
        dims=dims,
        init=init,
        gain=gain,
        generator=generator,
    )
