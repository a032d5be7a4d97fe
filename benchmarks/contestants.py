"""Ways to compute K, one function each: given a problem, it prepares what may be prepared and returns the call to time.

Every contestant gets a model of its own. All products are formed from whole parameters, `sum_p J_p J_p^T`, which needs
less memory than one matrix J and lets BackPACK's hook free a layer's gradients before the next layer's are made.
"""

import copy
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import gradconf
from benchmarks.models import Problem, has_batch_norm

MIB = 2**20
CHUNKS = (8, 16, 32, 64)  # samples that vmap takes together, besides all of them


class LeftOut(Exception):
    """Why a contestant does not take part."""


@dataclass(frozen=True)
class Contestant:
    """A way to compute K.

    Attributes:
        label: for tables and figures.
        prepare: maps a problem, and a chunk size where `chunked`, to the call that is timed.
        rows: which gradients it holds at a time, `all` of them, those of one `layer`, or `none`.
        chunked: whether it has a chunk size to choose.
    """

    label: str
    prepare: Callable[..., Callable[[], Tensor | None]]
    rows: str = "all"
    chunked: bool = False


def yardstick(problem: Problem) -> Callable[[], None]:
    """One forward and backward pass of the summed loss: what training costs, and no Gram matrix."""
    params = list(problem.model.parameters())

    def call() -> None:
        losses = problem.loss_fn(problem.model(problem.inputs), problem.targets)
        torch.autograd.grad(losses.sum(), params)

    return call


def ours(problem: Problem) -> Callable[[], Tensor]:
    """`gradconf.gram` as it comes, checks included."""
    return lambda: gradconf.gram(problem.model, problem.loss_fn, problem.inputs, problem.targets)


def ours_in_256_mib(problem: Problem) -> Callable[[], Tensor]:
    """`gradconf.gram` told to work within 256 MiB."""
    everything = problem.model, problem.loss_fn, problem.inputs, problem.targets
    return lambda: gradconf.gram(*everything, max_memory=256 * MIB)


def loop(problem: Problem) -> Callable[[], Tensor]:
    """One backward pass a sample, as in `gradconf.reference`, but in the model's precision."""
    params = list(problem.model.parameters())

    def call() -> Tensor:
        rows = _empty_rows(problem)
        for i in range(len(problem.inputs)):
            one = slice(i, i + 1)
            loss = problem.loss_fn(problem.model(problem.inputs[one]), problem.targets[one]).sum()
            for row, gradient in zip(rows, torch.autograd.grad(loss, params), strict=True):
                row[i] = gradient.flatten()
        return products(rows)

    return call


def vmapped(problem: Problem, chunk: int) -> Callable[[], Tensor]:
    """`vmap(grad(loss))` over `chunk` samples at a time, written into one array a parameter."""
    params = {name: p.detach() for name, p in problem.model.named_parameters()}
    buffers = dict(problem.model.named_buffers())

    def loss(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        outputs = functional_call(problem.model, (params, buffers), (x.unsqueeze(0),))
        return problem.loss_fn(outputs, y.unsqueeze(0)).sum()

    each = vmap(grad(loss), in_dims=(None, 0, 0))

    def call() -> Tensor:
        n = len(problem.inputs)
        if chunk >= n:
            return products(g.flatten(1) for g in each(params, problem.inputs, problem.targets).values())
        rows = _empty_rows(problem)
        for start in range(0, n, chunk):
            some = slice(start, start + chunk)
            for row, gradient in zip(
                rows, each(params, problem.inputs[some], problem.targets[some]).values(), strict=True
            ):
                row[some] = gradient.flatten(1)
        return products(rows)

    return call


def opacus(problem: Problem, mode: str = "hooks") -> Callable[[], Tensor]:
    """Opacus' `GradSampleModule`. It acts on modules in training mode only, so it cannot measure frozen batch norm."""
    wrap_model = _import("opacus.grad_sample").wrap_model
    if has_batch_norm(problem.model):
        raise LeftOut("per-sample gradients exist in evaluation mode only, where Opacus computes none")
    model = wrap_model(problem.model.train(), grad_sample_mode=mode, batch_first=True, loss_reduction="sum")

    def call() -> Tensor:
        problem.loss_fn(model(problem.inputs), problem.targets).sum().backward()
        K = products(p.grad_sample.flatten(1) for p in model.parameters())
        for p in model.parameters():
            p.grad = p.grad_sample = None
        return K

    return call


def opacus_ew(problem: Problem) -> Callable[[], Tensor]:
    """Opacus with PyTorch's expanded weights."""
    return opacus(problem, "ew")


def backpack(problem: Problem) -> Callable[[], Tensor]:
    """BackPACK's `BatchGrad`, each layer's products formed and its gradients freed in a hook, as Cockpit does.

    BackPACK refuses containers that it does not know. They are let through here, and a parameter that no hook has
    seen is noticed instead.
    """
    package = _import("backpack")
    extension = _import("backpack.extensions").BatchGrad()
    extension._fail_mode = "SILENT"
    model = package.extend(problem.model)
    missing, parts = set(), []

    def hook(module: nn.Module) -> None:
        for p in module.parameters(recurse=False):
            if hasattr(p, "grad_batch"):
                parts.append(products([p.grad_batch.flatten(1)]))
                missing.discard(p)
                del p.grad_batch

    def call() -> Tensor:
        missing.update(model.parameters())
        parts.clear()
        losses = problem.loss_fn(model(problem.inputs), problem.targets)
        with package.backpack(extension, extension_hook=hook):
            losses.sum().backward()
        model.zero_grad()
        if missing:
            names = {type(m).__name__ for m in model.modules() if missing & set(m.parameters(recurse=False))}
            raise LeftOut(f"BackPACK has no rule for {' and '.join(sorted(names))}")
        return sum(parts)

    return call


CONTESTANTS = {
    "yardstick": Contestant("forward + backward", yardstick, rows="none"),
    "gradconf": Contestant("gradconf", ours, rows="none"),
    "gradconf_256": Contestant("gradconf, 256 MiB", ours_in_256_mib, rows="none"),
    "vmap": Contestant("vmap(grad)", vmapped, chunked=True),
    "loop": Contestant("loop", loop),
    "opacus": Contestant("Opacus, hooks", opacus),
    "opacus_ew": Contestant("Opacus, ew", opacus_ew),
    "backpack": Contestant("BackPACK", backpack, rows="layer"),
}


def prepare(name: str, problem: Problem, chunk: int | None = None) -> Callable[[], Tensor | None]:
    """Prepare a contestant on a copy of the model."""
    own = Problem(copy.deepcopy(problem.model), problem.loss_fn, problem.inputs, problem.targets)
    contestant = CONTESTANTS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peers on their own deprecations
        return contestant.prepare(own, chunk or len(problem.inputs)) if contestant.chunked else contestant.prepare(own)


def products(rows: Iterable[Tensor]) -> Tensor:
    """Compute `sum_p J_p J_p^T` in float64 from float32 products, `J_p` of shape `(N, numbers in p)`."""
    return sum((part @ part.T).double() for part in rows)


def fair_surroundings() -> None:
    """Use one thread, keep TF32 out of everybody's arithmetic as gradconf does, and silence notes that peers cause."""
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for note in ("Full backward hook is firing", "There is a performance drop"):
        warnings.filterwarnings("ignore", note)


def disagreement(K: Tensor, other: Tensor) -> float:
    """Compute the largest `|other_ij - K_ij| / sqrt(K_ii K_jj)`, which sees wrong scales as well as wrong cosines."""
    norms = K.diagonal().sqrt()
    return ((other.to(K) - K) / (norms[:, None] * norms)).abs().max().item()


def _empty_rows(problem: Problem) -> list[Tensor]:
    n = len(problem.inputs)
    return [p.new_empty(n, p.numel(), requires_grad=False) for p in problem.model.parameters()]


def _import(name: str) -> object:
    try:
        return __import__(name, fromlist=["_"])
    except ImportError as error:
        raise LeftOut(f"{name.split('.')[0]} is not installed") from error
