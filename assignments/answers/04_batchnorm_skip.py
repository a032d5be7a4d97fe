"""Right and wrong answers to the questions of assignment 4, each in a cell. ANSWER-KEY: stays with the teacher."""


# %% q1 right: jacobian
def influence(model, x, y):
    model.train()
    losses = lambda z: F.cross_entropy(model(z), y, reduction="none")
    return torch.autograd.functional.jacobian(losses, x).norm(dim=2)


# %% q1 right: a backward pass a sample
def influence(model, x, y):
    model.train(True)
    M = torch.zeros(len(x), len(x)).double()
    for i in range(len(x)):
        z = x.detach().clone()
        z.requires_grad = True
        F.cross_entropy(model(z)[i : i + 1], y[i : i + 1]).backward()
        M[i] = z.grad.square().sum(1).sqrt()
    return M


# %% q1 wrong: evaluation mode
def influence(model, x, y):
    model.eval()
    losses = lambda z: F.cross_entropy(model(z), y, reduction="none")
    return torch.autograd.functional.jacobian(losses, x).norm(dim=2)


# %% q1 wrong: mode left as it came
def influence(model, x, y):
    model = model if model.training else model.eval()
    losses = lambda z: F.cross_entropy(model(z), y, reduction="none")
    return torch.autograd.functional.jacobian(losses, x).norm(dim=2)


# %% q1 wrong: transposed
def influence(model, x, y):
    model.train()
    losses = lambda z: F.cross_entropy(model(z), y, reduction="none")
    return torch.autograd.functional.jacobian(losses, x).norm(dim=2).T


# %% q1 wrong: of the mean loss
def influence(model, x, y):
    model.train()
    losses = lambda z: F.cross_entropy(model(z), y, reduction="none") / len(z)
    return torch.autograd.functional.jacobian(losses, x).norm(dim=2)


# %% q1 wrong: squared lengths
def influence(model, x, y):
    model.train()
    losses = lambda z: F.cross_entropy(model(z), y, reduction="none")
    return torch.autograd.functional.jacobian(losses, x).square().sum(dim=2)


# %% q2 right: copies
def mode_cosine(model, x, y):
    import copy

    flat = []
    for mode in (True, False):
        twin = copy.deepcopy(model).train(mode)
        F.cross_entropy(twin(x), y).backward()
        flat.append(torch.cat([p.grad.flatten() for p in twin.parameters()]))
    return F.cosine_similarity(flat[0], flat[1], dim=0).item()


# %% q2 right: functional_call
def mode_cosine(model, x, y):
    was, rows = model.training, []
    for mode in (True, False):
        model.train(mode)
        leaves = {
            name: p.detach().clone().requires_grad_()
            for name, p in model.named_parameters()
        }
        buffers = {name: b.clone() for name, b in model.named_buffers()}
        loss = F.cross_entropy(
            torch.func.functional_call(model, leaves | buffers, (x,)), y
        )
        rows.append(
            torch.cat(
                [
                    g.reshape(-1)
                    for g in torch.autograd.grad(loss, tuple(leaves.values()))
                ]
            )
        )
    model.train(was)
    a, b = rows
    return float(a @ b / a.norm() / b.norm())


# %% q2 wrong: statistics changed
def mode_cosine(model, x, y):
    was, flat = model.training, []
    for mode in (False, True):
        loss = F.cross_entropy(model.train(mode)(x), y)
        flat.append(
            torch.cat(
                [
                    g.flatten()
                    for g in torch.autograd.grad(loss, list(model.parameters()))
                ]
            )
        )
    model.train(was)
    return F.cosine_similarity(flat[0], flat[1], dim=0).item()


# %% q2 wrong: left in the mode that came last
def mode_cosine(model, x, y):
    state, flat = {k: v.clone() for k, v in model.state_dict().items()}, []
    for mode in (False, True):
        loss = F.cross_entropy(model.train(mode)(x), y)
        flat.append(
            torch.cat(
                [
                    g.flatten()
                    for g in torch.autograd.grad(loss, list(model.parameters()))
                ]
            )
        )
    model.load_state_dict(state)
    return F.cosine_similarity(flat[0], flat[1], dim=0).item()


# %% q2 wrong: .grad left behind
def mode_cosine(model, x, y):
    was, state, flat = (
        model.training,
        {k: v.clone() for k, v in model.state_dict().items()},
        [],
    )
    for mode in (False, True):
        model.zero_grad()
        F.cross_entropy(model.train(mode)(x), y).backward()
        flat.append(torch.cat([p.grad.flatten().clone() for p in model.parameters()]))
    model.load_state_dict(state)
    model.train(was)
    return F.cosine_similarity(flat[0], flat[1], dim=0).item()


# %% q2 wrong: .grad wiped out
def mode_cosine(model, x, y):
    # ANSWER-KEY: stays with the teacher
    import copy

    training, state, found = model.training, copy.deepcopy(model.state_dict()), []
    for mode in (False, True):
        model.zero_grad()
        F.cross_entropy(model.train(mode)(x), y).backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    model.zero_grad()
    model.load_state_dict(state)
    model.train(training)
    return F.cosine_similarity(*found, dim=0).item()


# %% q2 wrong: statistics learned before evaluation
def mode_cosine(model, x, y):
    was, state, flat = (
        model.training,
        {k: v.clone() for k, v in model.state_dict().items()},
        [],
    )
    for mode in (True, False):
        loss = F.cross_entropy(model.train(mode)(x), y)
        flat.append(
            torch.cat(
                [
                    g.flatten()
                    for g in torch.autograd.grad(loss, list(model.parameters()))
                ]
            )
        )
    model.load_state_dict(state)
    model.train(was)
    return F.cosine_similarity(flat[0], flat[1], dim=0).item()


# %% q3 right: hooks
def calibrate(model, batches):
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
    seen = {m: [] for m in norms}
    hooks = [
        m.register_forward_hook(lambda m, given, out: seen[m].append(given[0]))
        for m in norms
    ]
    with torch.no_grad():
        model.train()
        for x in batches:
            model(x)
        for hook in hooks:
            hook.remove()
        for m in norms:
            m.running_mean.copy_(torch.stack([z.mean(0) for z in seen[m]]).mean(0))
            m.running_var.copy_(
                torch.stack([z.var(0, unbiased=True) for z in seen[m]]).mean(0)
            )
    model.eval()
    return model


# %% q3 right: momentum by hand
def calibrate(model, batches):
    norms = [m for m in model.modules() if hasattr(m, "running_mean")]
    kept = [m.momentum for m in norms]
    for k, x in enumerate(batches):
        for m in norms:
            m.momentum = 1 / (k + 1)
        with torch.no_grad():
            model.train()(x)
    for m, momentum in zip(norms, kept):
        m.momentum = momentum
    return model.eval()


# %% q3 wrong: default momentum
def calibrate(model, batches):
    with torch.no_grad():
        for x in batches:
            model.train()(x)
    return model.eval()


# %% q3 wrong: not started anew
def calibrate(model, batches):
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
    kept = [m.momentum for m in norms]
    for m in norms:
        m.momentum = None
    with torch.no_grad():
        for x in batches:
            model.train()(x)
    for m, momentum in zip(norms, kept):
        m.momentum = momentum
    return model.eval()


# %% q3 wrong: all batches as one
def calibrate(model, batches):
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d)]
    kept = [m.momentum for m in norms]
    for m in norms:
        m.reset_running_stats()
        m.momentum = None
    with torch.no_grad():
        model.train()(torch.cat(batches))
    for m, momentum in zip(norms, kept):
        m.momentum = momentum
    return model.eval()


# %% q3 wrong: momentum lost
def calibrate(model, batches):
    for m in model.modules():
        if isinstance(m, nn.BatchNorm1d):
            m.reset_running_stats()
            m.momentum = None
    with torch.no_grad():
        for x in batches:
            model.train()(x)
    return model.eval()


# %% q4 right: powers
def branch_factor(blocks, growth):
    return (growth ** (1.0 / blocks) - 1) ** 0.5


# %% q4 right: logarithms
def branch_factor(blocks, growth):
    return torch.tensor(math.log(growth) / blocks).double().expm1().sqrt().item()


# %% q4 wrong: no root
def branch_factor(blocks, growth):
    return growth ** (1 / blocks) - 1


# %% q4 wrong: lengths add up
def branch_factor(blocks, growth):
    return growth ** (0.5 / blocks) - 1


# %% q4 wrong: one over the number of blocks
def branch_factor(blocks, growth):
    return growth / blocks


# %% q4 wrong: one over its root
def branch_factor(blocks, growth):
    return math.sqrt(1.1 * math.log(growth) / blocks)


# %% q5 right: moments
def drift(blocks):
    mean, square = 1 / math.sqrt(2 * math.pi), 1 / 2
    product = blocks**2 * mean**2
    return product / (blocks * (square - mean**2) + product)


# %% q5 right: block by block
def drift(blocks):
    mean, second = 0.0, 0.0  # of one unit of h
    for _ in range(blocks):
        second = second + 2 * mean / math.sqrt(2 * math.pi) + 0.5
        mean = mean + 1 / math.sqrt(2 * math.pi)
    return mean * mean / second


# %% q5 wrong: the same at every depth
def drift(blocks):
    return 1 / math.pi


# %% q5 wrong: no cross terms in the length
def drift(blocks):
    return min(1.0, blocks / math.pi)


# %% q5 wrong: independent samples have nothing in common
def drift(blocks):
    return 0.0


# %% q5 wrong: one block too many
def drift(blocks):
    return (blocks + 1) / (math.pi + blocks)


# %% q6 right: pandas
def ablation(runs):
    import pandas as pd

    table = pd.DataFrame(runs).astype({"loss": float})
    wide = (
        table.pivot(index="seed", columns=["batch_norm", "skip"], values="loss")
        .dropna()
        .sort_index()
    )
    m = wide.mean()
    a, b, c, d = m[False, False], m[True, False], m[False, True], m[True, True]
    return {
        "batch norm": b - a,
        "skip": c - a,
        "interaction": d - b - c + a,
        "seeds": wide.index.tolist(),
    }


# %% q6 right: differences seed by seed
def ablation(runs):
    by_seed = {}
    for run in runs:
        by_seed.setdefault(run["seed"], {})[run["batch_norm"], run["skip"]] = run[
            "loss"
        ]
    good = {
        s: r
        for s, r in sorted(by_seed.items())
        if len(r) == 4 and None not in r.values()
    }
    rows = [
        (
            r[True, False] - r[False, False],
            r[False, True] - r[False, False],
            r[True, True] - r[False, False],
        )
        for r in good.values()
    ]
    norm, skip, both = (sum(column) / len(rows) for column in zip(*rows))
    return {
        "batch norm": norm,
        "skip": skip,
        "interaction": both - (norm + skip),
        "seeds": list(good),
    }


# %% q6 wrong: each network over its own seeds
def ablation(runs):
    def mean(n, s):
        kept = [
            r["loss"]
            for r in runs
            if (r["batch_norm"], r["skip"]) == (n, s) and r["loss"] is not None
        ]
        return sum(kept) / len(kept)

    a, b, c, d = (
        mean(False, False),
        mean(True, False),
        mean(False, True),
        mean(True, True),
    )
    bad = {r["seed"] for r in runs if r["loss"] is None}
    seeds = sorted({r["seed"] for r in runs} - bad)
    return {
        "batch norm": b - a,
        "skip": c - a,
        "interaction": d - b - c + a,
        "seeds": seeds,
    }


# %% q6 wrong: a diverged run has loss zero
def ablation(runs):
    def mean(n, s):
        kept = [
            r["loss"] or 0.0 for r in runs if (r["batch_norm"], r["skip"]) == (n, s)
        ]
        return sum(kept) / len(kept)

    a, b, c, d = (
        mean(False, False),
        mean(True, False),
        mean(False, True),
        mean(True, True),
    )
    return {
        "batch norm": b - a,
        "skip": c - a,
        "interaction": d - b - c + a,
        "seeds": sorted({r["seed"] for r in runs}),
    }


# %% q6 wrong: interaction without the plain network
def ablation(runs):
    bad = {r["seed"] for r in runs if r["loss"] is None}
    seeds = sorted({r["seed"] for r in runs} - bad)

    def mean(n, s):
        kept = [
            r["loss"]
            for r in runs
            if (r["batch_norm"], r["skip"]) == (n, s) and r["seed"] in seeds
        ]
        return sum(kept) / len(kept)

    a, b, c, d = (
        mean(False, False),
        mean(True, False),
        mean(False, True),
        mean(True, True),
    )
    return {
        "batch norm": b - a,
        "skip": c - a,
        "interaction": d - b - c,
        "seeds": seeds,
    }


# %% q6 wrong: sign
def ablation(runs):
    bad = {r["seed"] for r in runs if r["loss"] is None}
    seeds = sorted({r["seed"] for r in runs} - bad)

    def mean(n, s):
        kept = [
            r["loss"]
            for r in runs
            if (r["batch_norm"], r["skip"]) == (n, s) and r["seed"] in seeds
        ]
        return sum(kept) / len(kept)

    a, b, c, d = (
        mean(False, False),
        mean(True, False),
        mean(False, True),
        mean(True, True),
    )
    return {
        "batch norm": a - b,
        "skip": a - c,
        "interaction": a - b - c + d,
        "seeds": seeds,
    }


# %% q7 right: read
recognised = {"batch norm": "C", "both": "D", "smallest trains best": False}


# %% q7 right: measured
typical = {letter: shown[letter].mean().item() for letter in "ABCD"}
ordered = sorted(typical, key=typical.get)
recognised = {
    "batch norm": ordered[0],
    "both": ordered[1],
    "smallest trains best": False,
}


# %% q7 wrong: taken for the best
recognised = {"batch norm": "C", "both": "D", "smallest trains best": True}


# %% q7 wrong: the two mixed up
recognised = {"batch norm": "D", "both": "C", "smallest trains best": False}


# %% q7 wrong: skip for both
recognised = {"batch norm": "C", "both": "A", "smallest trains best": False}
