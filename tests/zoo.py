"""Small float64 models, at least one a way in which a parameter can be used, for the engine behind `gradconf.gram`."""

import torch
import torch.nn.functional as F
from cases import CLASSES, Apply, Squared, case
from torch import nn
from torch.nn.utils import parametrizations


def parameter(*shape):
    return nn.Parameter(torch.randn(shape, dtype=torch.float64))


def apply(function, /, *shape, **rest):
    """A case of a function of the model's members and the inputs; `inputs`, `n` and `loss_fn` go to `case`."""
    options = {name: rest.pop(name) for name in ("inputs", "n", "loss_fn") if name in rest}
    return case(Apply(function, **rest), *shape, **options)


def squares(outputs, targets):
    return (outputs.flatten(1) - targets[:, None]).square().sum(1)


def layer(module, *shape, **options):
    """A layer between others, so that its input has a gradient, and a loss that all of its outputs enter."""
    made = case(module.eval(), *shape, loss_fn=squares, **options)
    made.model = Apply(lambda m, x: m.layer((x * m.before).tanh()).tanh(), before=parameter(1), layer=made.model)
    return made


def tokens(*shape):
    return torch.randint(7, shape)


def statistics(norm, *shape):
    made = layer(norm, *shape)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    return made


def affine(norm, *shape):
    for p in norm.parameters():
        nn.init.normal_(p)
    return layer(norm, *shape)


def rms(m, x):
    return m.w * (x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()).to(x.dtype)


def grouped_queries(m, x):
    q, k, v = (torch.einsum(f"ntd,{g}de->n{g}te", x, w) for g, w in (("h", m.q), ("g", m.k), ("g", m.v)))
    k, v = (z.repeat_interleave(2, 1) for z in (k, v))
    return m.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).mean((1, 2)))


def transformer(**options):
    inner = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, **options)
    first = options.get("batch_first")
    return apply(lambda m, x: m.f(x).mean(1) if first else m.f(x.transpose(0, 1)).mean(0), 3, 4, f=inner.eval())


def rnn(kind):
    return apply(lambda m, x: m.out(m.rnn(x)[0][:, -1]), 4, 2, rnn=kind(2, 3, batch_first=True), out=nn.Linear(3, 3))


def attention(m, x):
    return m.out(m.f(x, x, x, need_weights=False)[0].mean(1))


def conv(kind, *arguments, size, **options):
    return lambda: layer(kind(*arguments, **options), arguments[0], *size)


C1, C2, C3, T1, T2, T3 = nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d

CONVOLUTIONS = {
    "conv1d": conv(C1, 2, 3, 3, size=[7]),
    "conv1d_pointwise_short": conv(C1, 12, 12, 1, size=[1]),
    "conv2d_groups": conv(C2, 4, 6, 3, size=[5, 5], groups=2, bias=False),
    "conv2d_depthwise": conv(C2, 4, 8, 3, size=[5, 4], groups=4, padding=1),
    "conv2d_stride_dilation": conv(C2, 2, 3, (3, 2), size=[9, 8], stride=(2, 3), dilation=(2, 1), padding=(1, 2)),
    "conv3d": conv(C3, 2, 2, 2, size=[4, 3, 4], stride=(1, 1, 2), padding=(0, 1, 0)),
    "same": conv(C2, 2, 3, (4, 3), size=[5, 6], padding="same", dilation=(1, 2)),
    "valid": conv(C1, 2, 3, 4, size=[6], padding="valid"),
    "reflect": conv(C2, 2, 3, 3, size=[5, 5], padding=1, padding_mode="reflect"),
    "circular": conv(C1, 2, 3, 3, size=[5], padding=2, padding_mode="circular"),
    "transposed1d": conv(T1, 4, 2, 3, size=[4], stride=2, output_padding=1, groups=2, padding=1),
    "transposed1d_square": conv(T1, 12, 12, 2, size=[2]),
    "transposed2d": conv(T2, 2, 3, (3, 2), size=[4, 3], stride=(2, 1), dilation=(1, 2), padding=(1, 0)),
    "transposed3d": conv(T3, 2, 2, 2, size=[2, 3, 2], stride=2, output_padding=(1, 0, 1), bias=False),
    "channels_last": lambda: layer(
        Apply(lambda m, x: m.f(x.to(memory_format=torch.channels_last)), f=C2(2, 3, 3)), 2, 5, 5
    ),
}

NORMS = {
    "layer_norm": lambda: affine(nn.LayerNorm(4), 3, 4),
    "layer_norm_2d_no_bias": lambda: affine(nn.LayerNorm((3, 4), bias=False), 2, 3, 4),
    "group_norm": lambda: affine(nn.GroupNorm(2, 4), 4, 3, 3),
    "instance_norm_overwritten": lambda: affine(
        nn.Sequential(nn.InstanceNorm2d(3, affine=True), nn.LeakyReLU(inplace=True)), 3, 3, 3
    ),
    "instance_norm": lambda: affine(nn.InstanceNorm2d(3, affine=True), 3, 3, 3),
    "rms_norm": lambda: affine(nn.RMSNorm(4), 3, 4),
    "batch_norm_1d": lambda: statistics(nn.BatchNorm1d(3), 3),
    "batch_norm_1d_positions": lambda: statistics(nn.BatchNorm1d(3), 3, 5),
    "batch_norm_2d": lambda: statistics(nn.BatchNorm2d(3), 3, 4, 4),
    "hugging_face_rms": lambda: apply(lambda m, x: m.f(rms(m, x)).mean(1), 4, 3, w=parameter(3), f=nn.Linear(3, 3)),
}

DENSE = {
    "linear": lambda: layer(nn.Linear(4, 3), 4),
    "linear_3d": lambda: layer(nn.Linear(4, 3), 5, 4),
    "linear_3d_contracted": lambda: layer(nn.Linear(20, 20), 2, 20),
    "flattened": lambda: apply(lambda m, x: m.f(x.reshape(-1, 4)).view(len(x), -1, 3).mean(1), 5, 4, f=nn.Linear(4, 3)),
    "used_on_two_inputs": lambda: apply(
        lambda m, x, y: m.f(x) * m.f(y), inputs=tuple(torch.randn(2, 5, 4).double()), f=nn.Linear(4, 3)
    ),
    "used_twice": lambda: apply(lambda m, x: m.f(m.f(x).tanh()), 3, f=nn.Linear(3, 3)),
    "matmul": lambda: apply(lambda m, x: x @ m.w, 4, w=parameter(4, 3)),
    "matmul_3d": lambda: apply(lambda m, x: torch.matmul(x, m.w).mean(1), 2, 4, w=parameter(4, 3)),
    "addmm_flattened": lambda: layer(
        Apply(
            lambda m, x: torch.addmm(m.b, x.reshape(-1, 4), m.w).view(*x.shape[:2], 3),
            w=parameter(4, 3),
            b=parameter(3),
        ),
        5,
        4,
    ),
    "addmm_square": lambda: layer(Apply(lambda m, x: torch.addmm(m.b, x, m.w), w=parameter(4, 4), b=parameter(4)), 4),
    "a_slice": lambda: apply(lambda m, x: F.linear(x, m.w[:3]) + m.f(x), 4, w=parameter(5, 4), f=nn.Linear(4, 3)),
    "a_transpose": lambda: apply(lambda m, x: F.linear(x, m.w.T, m.b), 4, w=parameter(4, 3), b=parameter(3)),
    "weight_norm": lambda: apply(lambda m, x: m.f(x), 4, f=parametrizations.weight_norm(nn.Linear(4, 3))),
    "spectral_norm": lambda: apply(lambda m, x: m.f(x), 4, f=parametrizations.spectral_norm(nn.Linear(4, 3)).eval()),
    "bilinear": lambda: apply(
        lambda m, x, y: m.f(x, y), inputs=tuple(torch.randn(2, 5, 4).double()), f=nn.Bilinear(4, 4, 3)
    ),
    "frozen": lambda: apply(
        lambda m, x: m.g(m.f(x).relu()), 4, f=nn.Linear(4, 3).requires_grad_(False), g=nn.Linear(3, 3)
    ),
    "unused": lambda: apply(lambda m, x: m.f(x), 4, f=nn.Linear(4, 3), idle=nn.Linear(2, 2)),
    "tuple_output": lambda: case(
        Apply(lambda m, x: (m.f(x), x), f=nn.Linear(4, 3)), 4, loss_fn=lambda o, t: squares(o[0], t)
    ),
    "custom_function": lambda: apply(lambda m, x: Squared.apply(m.f(x)), 4, f=nn.Linear(4, 3)),
    "custom_function_of_a_parameter": lambda: apply(
        lambda m, x: m.f(x) * Squared.apply(m.p), 4, f=nn.Linear(4, 3), p=parameter(3)
    ),
    "custom_function_first": lambda: apply(
        lambda m, x: m.f(x * Squared.apply(m.p)), 4, f=nn.Linear(4, 3), p=parameter(4)
    ),
    "dropout_without_effect": lambda: case(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.0), nn.Linear(4, 3)).train(), 4),
}

RAW = {
    "added": lambda: apply(lambda m, x: m.f(x + m.p), 4, p=parameter(4), f=nn.Linear(4, 3)),
    "multiplied": lambda: apply(lambda m, x: m.f(x * m.p), 4, p=parameter(1), f=nn.Linear(4, 3)),
    "scalar": lambda: apply(lambda m, x: m.f(x) * m.p, 4, p=parameter(), f=nn.Linear(4, 3)),
    "broadcast": lambda: layer(
        Apply(lambda m, x: m.p * x[:, None] + m.q, p=parameter(3, 1, 1), q=parameter(1, 1, 2)), 2, 2
    ),
    "layer_scale": lambda: apply(lambda m, x: x + m.p * m.f(x).tanh(), 3, p=parameter(3), f=nn.Linear(3, 3)),
    "positions": lambda: apply(lambda m, x: m.f(x + m.p).tanh().mean(1), 4, 3, p=parameter(1, 4, 3), f=nn.Linear(3, 3)),
    "class_token": lambda: apply(
        lambda m, x: m.f(torch.cat([m.p.expand(len(x), -1, -1), x], 1)).tanh().mean(1),
        *(4, 3),
        p=parameter(1, 1, 3),
        f=nn.Linear(3, 3),
    ),
    "class_token_alone": lambda: apply(
        lambda m, x: torch.cat([m.p.expand(len(x), 1, 3), x], 1).sin().mean(1), 4, 3, p=parameter(1, 1, 3)
    ),
    "list": lambda: apply(lambda m, x: x * m.ps[0] + m.ps[1], 3, ps=nn.ParameterList([parameter(3), parameter(3)])),
    "prelu_of_channels": lambda: layer(nn.PReLU(3), 3, 2, 2),
    "prelu_of_all": lambda: layer(nn.PReLU(), 3, 2, 2),
    "prelu": lambda: layer(Apply(lambda m, x: m.g(m.f(x)), f=nn.Linear(4, 3), g=nn.PReLU(3)), 4),
    "in_place_relu": lambda: layer(nn.Sequential(C2(2, 3, 3), nn.ReLU(inplace=True), C2(3, 3, 3)), 2, 6, 6),
    "changed_after_use": lambda: apply(changed, 3, p=parameter(3)),
    "pixel_shuffle": lambda: layer(nn.Sequential(C2(2, 4, 3, padding=1), nn.PixelShuffle(2), C2(1, 2, 2)), 2, 4, 4),
    "max_pool": lambda: layer(nn.Sequential(C2(2, 3, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)), 2, 6, 6),
    "exponential_alone": lambda: apply(lambda m, x: x * m.p.exp(), 3, p=parameter(3)),
}


def changed(m, x):
    h = x.clone()
    out = h + m.p
    again = out * m.p
    h.zero_()
    return again + h


SEQUENCES = {
    "embedding": lambda: apply(
        lambda m, x: m.f(m.e(x).mean(1)), inputs=tokens(5, 4), e=nn.Embedding(7, 3, padding_idx=2), f=nn.Linear(3, 3)
    ),
    "embedding_negative_padding": lambda: apply(
        lambda m, x: m.e(x).tanh().mean(1), inputs=tokens(5, 4), e=nn.Embedding(7, 3, padding_idx=-1)
    ),
    "embedding_tied": lambda: apply(
        lambda m, x: F.linear(m.e(x).tanh().mean(1), m.e.weight)[:, :CLASSES], inputs=tokens(5, 4), e=nn.Embedding(7, 3)
    ),
    "embedding_of_positions": lambda: apply(
        lambda m, x: m.f(m.e(x) + m.p(torch.arange(6, device=x.device))).tanh().mean(1),
        inputs=tokens(5, 6),
        e=nn.Embedding(7, 3),
        p=nn.Embedding(6, 3),
        f=nn.Linear(3, 3),
    ),
    "embedding_of_positions_in_one_row": lambda: apply(
        lambda m, x: m.f(m.e(x) + m.p(torch.arange(6, device=x.device)[None])).tanh().mean(1),
        inputs=tokens(5, 6),
        e=nn.Embedding(7, 3),
        p=nn.Embedding(9, 3),
        f=nn.Linear(3, 3),
    ),
    "class_token": lambda: apply(
        lambda m, x: m.f(torch.cat([m.token.expand(len(x), -1, -1), x], 1)).tanh().mean(1),
        3,
        4,
        token=parameter(1, 1, 4),
        f=nn.Linear(4, 3),
    ),
    "embedding_bag": lambda: apply(
        lambda m, x: m.f(m.e(x)), inputs=tokens(5, 4), e=nn.EmbeddingBag(7, 3), f=nn.Linear(3, 3)
    ),
    "attention": lambda: apply(attention, 3, 4, f=nn.MultiheadAttention(4, 2, batch_first=True), out=nn.Linear(4, 3)),
    "transformer": lambda: transformer(batch_first=True),
    "transformer_norm_first": lambda: transformer(batch_first=True, norm_first=True),
    "transformer_sequence_first": lambda: transformer(),
    "lstm": lambda: rnn(nn.LSTM),
    "gru": lambda: rnn(nn.GRU),
    "lstm_alone": lambda: apply(lambda m, x: m.f(x)[0][:, -1], 4, 2, f=nn.LSTM(2, 3, batch_first=True)),
    "grouped_queries": lambda: apply(
        grouped_queries, 3, 4, q=parameter(4, 4, 2), k=parameter(2, 4, 2), v=parameter(2, 4, 2), o=nn.Linear(2, 3)
    ),
    "einsum_alone": lambda: apply(lambda m, x: torch.einsum("nk,kc->nc", x, m.w), 4, w=parameter(4, 3)),
}

ZOO = DENSE | CONVOLUTIONS | NORMS | RAW | SEQUENCES
