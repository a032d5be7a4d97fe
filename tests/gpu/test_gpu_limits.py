"""On a GPU too, memory is bounded, numbers come again, and TF32 neither enters a Gram matrix nor is left switched."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

from gradconf import gram, minibatch_gram, minibatches
from gradconf.models import cnn

cross_entropy = torch.nn.CrossEntropyLoss(reduction="none")
MIB = 2**20
LIBRARIES = 256 * MIB  # what cuDNN and cuBLAS may take to work in, which max_memory does not count

# A fresh process, as cuBLAS reads its setting once; it prints a hash of the matrices' bits.
REPEATABLE = """
import hashlib, torch, gradconf
torch.use_deterministic_algorithms(True)
loss_fn = torch.nn.CrossEntropyLoss(reduction="none")
g = torch.Generator().manual_seed(0)
x, y = torch.randn(64, 3, 16, 16, generator=g), torch.arange(64) % 10
x, y, bits = x.cuda(), y.cuda(), hashlib.sha256()
for build in (gradconf.models.cnn, gradconf.models.wrn):
    model = build(10, 1, generator=torch.Generator().manual_seed(0)).cuda()
    batches = list(zip(x.split(16), y.split(16)))
    bits.update(gradconf.minibatch_gram(model, loss_fn, batches).cpu().numpy().tobytes())
    bits.update(gradconf.gram(model.eval(), loss_fn, x, y).cpu().numpy().tobytes())
print(bits.hexdigest())
"""


def problem(gpu, samples, width=2):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(samples, 3, 32, 32, generator=g), torch.randint(10, (samples,), generator=g)
    return cnn(16, width, generator=g).to(gpu), x.to(gpu), y.to(gpu)


def peak(call):
    """Bytes that a call takes at its most, above what was taken before."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


@contextmanager
def tf32(products, convolutions):
    """Allow TF32 as users do, through the switches that all versions of torch have."""
    switches = (torch.backends.cuda.matmul, products), (torch.backends.cudnn, convolutions)
    before = [holder.allow_tf32 for holder, _ in switches]
    try:
        for holder, allowed in switches:
            holder.allow_tf32 = allowed
        yield
    finally:
        for (holder, _), allowed in zip(switches, before, strict=True):
            holder.allow_tf32 = allowed


@pytest.mark.parametrize("bound", [256 * MIB, 512 * MIB])
def test_a_gram_keeps_within_max_memory(bound, gpu):
    model, x, y = problem(gpu, 512)  # whose gradients take 1.3 GiB
    gram(model, cross_entropy, x[:8], y[:8])  # so that libraries have what they keep
    matrices = 4 * 8 * len(y) ** 2  # K itself, and what it is summed in
    assert peak(lambda: gram(model, cross_entropy, x, y, max_memory=bound)) <= bound + matrices + LIBRARIES


def test_a_minibatch_gram_keeps_within_max_memory(gpu):
    model, x, y = problem(gpu, 1024)
    batches = minibatches(x, y, batch_size=8, generator=torch.Generator().manual_seed(0))
    minibatch_gram(model, cross_entropy, batches[:2])
    bound = 160 * MIB  # half of the 128 gradients; those of the largest weights take 72 MiB
    activations = peak(lambda: cross_entropy(model(batches[0][0]), batches[0][1]).mean().backward())
    model.zero_grad(set_to_none=True)
    parameters = 4 * 4 * sum(p.numel() for p in model.parameters())  # copies, and one gradient, also as a row
    taken = peak(lambda: minibatch_gram(model, cross_entropy, batches, max_memory=bound))
    assert taken <= bound + activations + parameters + LIBRARIES


def test_numbers_come_again():
    settings = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    runs = [
        subprocess.run([sys.executable, "-c", REPEATABLE], env=settings, capture_output=True, text=True)
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    assert runs[0].stdout == runs[1].stdout


@pytest.mark.parametrize("products", [True, False])
@pytest.mark.parametrize("convolutions", [True, False])
def test_tf32_is_left_as_it_was_and_does_not_enter(products, convolutions, gpu):
    model, x, y = problem(gpu, 64)
    with tf32(False, False):
        expected = gram(model, cross_entropy, x, y)
    with tf32(products, convolutions):
        measured = gram(model, cross_entropy, x, y)
        assert torch.backends.cuda.matmul.allow_tf32 == products
        assert torch.backends.cudnn.allow_tf32 == convolutions
    lengths = expected.diagonal().sqrt()
    assert (measured - expected).abs().le(1e-5 * lengths[:, None] * lengths).all()


def test_that_would_have_been_seen(gpu):
    """TF32 in the layers changes outputs by far more than the tolerance above, where the card has it."""
    if torch.cuda.get_device_capability(gpu) < (8, 0):
        pytest.skip("this card has no TF32")
    model, x, _ = problem(gpu, 64)
    with torch.no_grad():
        with tf32(False, False):
            exact = model(x)
        with tf32(True, True):
            rounded = model(x)
    assert ((rounded - exact).norm() / exact.norm()).item() > 1e-4
