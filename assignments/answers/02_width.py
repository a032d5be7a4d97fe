"""Right and wrong answers to the questions of assignment 2, each in a cell. ANSWER-KEY: stays with the teacher."""


# %% q1 right: unit by unit
def expected_squared_length(width, squared_norm, first, last):
    total = 0.0
    for _ in range(width):
        total += 0.5 * first * squared_norm  # by v
        total += 0.5 * last * squared_norm  # by W
    return total


# %% q1 right: as tensors
def expected_squared_length(width, squared_norm, first, last):
    by_v = torch.full((width,), first * squared_norm / 2).double().sum()
    by_W = torch.full((width,), last * squared_norm / 2).double().sum()
    return by_v + by_W


# %% q1 wrong: no ReLU
def expected_squared_length(width, squared_norm, first, last):
    return width * squared_norm * (first + last)


# %% q1 wrong: last layer only
def expected_squared_length(width, squared_norm, first, last):
    return width * squared_norm * first / 2


# %% q1 wrong: the input does not reach the first layer's gradient
def expected_squared_length(width, squared_norm, first, last):
    return width * squared_norm * first / 2 + width * last / 2


# %% q1 wrong: of the output in place of the gradient
def expected_squared_length(width, squared_norm, first, last):
    return width * squared_norm * first * last / 2


# %% q2 right: one fraction
def predicted_cosine(K, batch_size):
    n = len(K)
    off = K[~torch.eye(n, dtype=torch.bool)].mean()
    return batch_size * off / (K.diagonal().mean() + (batch_size - 1) * off)


# %% q2 right: trace of the unbiased covariance
def predicted_cosine(K, batch_size):
    n = len(K)
    centred = K - K.mean(0) - K.mean(1, keepdim=True) + K.mean()
    noise = centred.trace() / (n - 1)
    signal = K.mean() - noise / n
    return (signal / (signal + noise / batch_size)).item()


# %% q2 wrong: measured with the package
def predicted_cosine(K, batch_size):
    return 1 / (1 + gradconf.confusion(K).noise_scale / batch_size)


# %% q2 wrong: diagonal included
def predicted_cosine(K, batch_size):
    signal = K.mean()
    noise = K.trace() / len(K) - signal
    return signal / (signal + noise / batch_size)


# %% q2 wrong: noise with the signal in it
def predicted_cosine(K, batch_size):
    n = len(K)
    signal = (K.sum() - K.trace()) / (n * (n - 1))
    return signal / (signal + K.trace() / n / batch_size)


# %% q2 wrong: square of the batch size
def predicted_cosine(K, batch_size):
    n = len(K)
    signal = (K.sum() - K.trace()) / (n * (n - 1))
    noise = K.trace() / n - signal
    return signal / (signal + noise / batch_size**2)


# %% q2 wrong: mean cosine of the samples
def predicted_cosine(K, batch_size):
    return torch.as_tensor(gradconf.confusion(K).mean)


# %% q3 right: step by step
def expected_minimum(K, pairs):
    lengths = K.diagonal().sqrt()
    C = K / (lengths[:, None] * lengths)
    values = sorted(C[i, j].item() for i in range(len(K)) for j in range(i))
    total, still = 0.0, 1.0  # still: probability that no smaller cosine is drawn
    for k, value in enumerate(values):
        left = len(values) - k
        drawn = min(1.0, pairs / left)
        total += still * drawn * value
        still *= 1 - drawn
    return total


# %% q3 right: tail probabilities
def expected_minimum(K, pairs):
    i, j = torch.tril_indices(len(K), len(K), -1)
    c = gradconf.cosine(K)[i, j].sort().values
    n = len(c)
    beyond = torch.tensor(
        [math.comb(n - k, pairs) / math.comb(n, pairs) for k in range(n + 1)]
    ).double()
    return ((beyond[:-1] - beyond[1:]) * c).sum()


# %% q3 wrong: with replacement
def expected_minimum(K, pairs):
    i, j = torch.tril_indices(len(K), len(K), -1)
    c = gradconf.cosine(K)[i, j].sort().values
    n = len(c)
    beyond = torch.tensor([((n - k) / n) ** pairs for k in range(n + 1)]).double()
    return ((beyond[:-1] - beyond[1:]) * c).sum()


# %% q3 wrong: diagonal included
def expected_minimum(K, pairs):
    i, j = torch.tril_indices(len(K), len(K), 0)
    c = gradconf.cosine(K)[i, j].sort().values.tolist()
    return sum(
        v * math.comb(len(c) - k, pairs - 1) for k, v in enumerate(c, 1)
    ) / math.comb(len(c), pairs)


# %% q3 wrong: inner products in place of cosines
def expected_minimum(K, pairs):
    i, j = torch.tril_indices(len(K), len(K), -1)
    c = K[i, j].sort().values.tolist()
    return sum(
        v * math.comb(len(c) - k, pairs - 1) for k, v in enumerate(c, 1)
    ) / math.comb(len(c), pairs)


# %% q3 wrong: off by one
def expected_minimum(K, pairs):
    i, j = torch.tril_indices(len(K), len(K), -1)
    c = gradconf.cosine(K)[i, j].sort().values.tolist()
    return sum(
        v * math.comb(len(c) - k, pairs - 1) for k, v in enumerate(c)
    ) / math.comb(len(c), pairs)


# %% q4 right: read by eye
reading = {"shared direction": "D", "ranks": {"A": 200, "B": 10, "C": 40}}


# %% q4 right: measured
reading = {"shared direction": "D", "ranks": {}}
for name in "ABC":
    pairs = shown[name][~torch.eye(120, dtype=torch.bool)]
    reading["ranks"][name] = 1 / pairs.var().item()


# %% q4 wrong: the sharpest shares a direction
reading = {"shared direction": "A", "ranks": {"B": 12, "C": 48, "D": 64}}


# %% q4 wrong: order turned round
reading = {"shared direction": "D", "ranks": {"A": 12, "B": 192, "C": 48}}


# %% q4 wrong: text in place of numbers
reading = {"shared direction": "D", "ranks": {"A": "192", "B": "12", "C": "48"}}


# %% q4 wrong: no square
reading = {"shared direction": "D", "ranks": {"A": 14, "B": 3.5, "C": 7}}


# %% q5 right: loop over pairs of epochs
def value_at_loss(losses, values, target):
    if losses[0] <= target:
        return values[0]
    for (a, b), (u, v) in zip(zip(losses, losses[1:]), zip(values, values[1:])):
        if b <= target:
            return u * (target - b) / (a - b) + v * (a - target) / (a - b)
    return float("nan")


# %% q5 right: numpy
def value_at_loss(losses, values, target):
    import numpy as np

    below = np.flatnonzero(np.asarray(losses) <= target)
    if len(below) == 0:
        return np.nan
    k = below[0]
    if k == 0:
        return values[0]
    return np.interp(target, [losses[k], losses[k - 1]], [values[k], values[k - 1]])


# %% q5 wrong: no interpolation
def value_at_loss(losses, values, target):
    for loss, value in zip(losses, values):
        if loss <= target:
            return value
    return math.nan


# %% q5 wrong: the last time
def value_at_loss(losses, values, target):
    if losses[0] <= target:
        return values[0]
    found = math.nan
    for k in range(1, len(losses)):
        if losses[k] <= target < losses[k - 1]:
            found = values[k - 1] + (losses[k - 1] - target) / (
                losses[k - 1] - losses[k]
            ) * (values[k] - values[k - 1])
    return found


# %% q5 wrong: sorted by loss
def value_at_loss(losses, values, target):
    import numpy as np

    order = np.argsort(losses)
    if target < min(losses):
        return math.nan
    return float(np.interp(target, np.array(losses)[order], np.array(values)[order]))


# %% q5 wrong: weights the wrong way round
def value_at_loss(losses, values, target):
    if losses[0] <= target:
        return values[0]
    for k in range(1, len(losses)):
        if losses[k] <= target:
            share = (losses[k - 1] - target) / (losses[k - 1] - losses[k])
            return share * values[k - 1] + (1 - share) * values[k]
    return math.nan


# %% q6 right: rows as dictionaries
def sweep(widths, seeds):
    def one(width, seed):
        g = torch.Generator()
        g.manual_seed(seed)
        x = F.normalize(torch.randn(40, 10, generator=g), dim=1).double()
        y = torch.randn(40, generator=g).sign().double()
        net = models.mlp(
            2,
            width,
            in_features=10,
            out_features=1,
            activation="tanh",
            init="lecun",
            generator=g,
        ).double()
        rows = gradconf.reference.per_sample_gradients(net, logistic, x, y)
        K = rows @ rows.T
        pairs = gradconf.cosine(K)[*torch.triu_indices(40, 40, 1)]
        eta = max(0.0, -K.min().item())
        row = {
            "q01": pairs.quantile(0.01).item(),
            "std": gradconf.confusion(K).std,
            "eta": eta,
        }
        return (
            {"width": width, "seed": seed}
            | row
            | {"relative": eta / rows.square().sum(1).mean().item()}
        )

    return pd.DataFrame([one(width, seed) for width in widths for seed in seeds])


# %% q6 right: seeds outside
def sweep(widths, seeds):
    table = []
    for seed in seeds:
        for width in widths:
            g = torch.Generator().manual_seed(seed)
            x, y = (
                F.normalize(torch.randn(40, 10, generator=g), dim=1),
                torch.randn(40, generator=g).sign(),
            )
            net = models.mlp(
                2,
                width,
                in_features=10,
                out_features=1,
                activation="tanh",
                init="lecun",
                generator=g,
            )
            K = gradconf.gram(net.double(), logistic, x.double(), y.double())
            m = gradconf.confusion(K).row()
            table.append(
                [
                    width,
                    seed,
                    m["q01"],
                    m["std"],
                    m["eta"],
                    m["eta"] * 40 / K.trace().item(),
                ]
            )
    return pd.DataFrame(
        table, columns=["width", "seed", "q01", "std", "eta", "relative"]
    )


# %% q6 wrong: one generator for all
def sweep(widths, seeds):
    rows = []
    for width in widths:
        g = torch.Generator().manual_seed(seeds[0])
        for seed in seeds:
            x, y = (
                F.normalize(torch.randn(40, 10, generator=g), dim=1),
                torch.randn(40, generator=g).sign(),
            )
            net = models.mlp(
                2,
                width,
                in_features=10,
                out_features=1,
                activation="tanh",
                init="lecun",
                generator=g,
            )
            K = gradconf.gram(net.double(), logistic, x.double(), y.double())
            m = gradconf.confusion(K)
            rows.append(
                [width, seed, m.q01, m.std, m.eta, m.eta * 40 / K.trace().item()]
            )
    return pd.DataFrame(
        rows, columns=["width", "seed", "q01", "std", "eta", "relative"]
    )


# %% q6 wrong: diagonal in the standard deviation
def sweep(widths, seeds):
    rows = []
    for width in widths:
        for seed in seeds:
            g = torch.Generator().manual_seed(seed)
            x, y = (
                F.normalize(torch.randn(40, 10, generator=g), dim=1),
                torch.randn(40, generator=g).sign(),
            )
            net = models.mlp(
                2,
                width,
                in_features=10,
                out_features=1,
                activation="tanh",
                init="lecun",
                generator=g,
            )
            K = gradconf.gram(net.double(), logistic, x.double(), y.double())
            m = gradconf.confusion(K)
            rows.append(
                [
                    width,
                    seed,
                    m.q01,
                    gradconf.cosine(K).std().item(),
                    m.eta,
                    m.eta * 40 / K.trace().item(),
                ]
            )
    return pd.DataFrame(
        rows, columns=["width", "seed", "q01", "std", "eta", "relative"]
    )


# %% q6 wrong: relative to the sum of squares
def sweep(widths, seeds):
    rows = []
    for width in widths:
        for seed in seeds:
            g = torch.Generator().manual_seed(seed)
            x, y = (
                F.normalize(torch.randn(40, 10, generator=g), dim=1),
                torch.randn(40, generator=g).sign(),
            )
            net = models.mlp(
                2,
                width,
                in_features=10,
                out_features=1,
                activation="tanh",
                init="lecun",
                generator=g,
            )
            K = gradconf.gram(net.double(), logistic, x.double(), y.double())
            m = gradconf.confusion(K)
            rows.append([width, seed, m.q01, m.std, m.eta, m.eta / K.trace().item()])
    return pd.DataFrame(
        rows, columns=["width", "seed", "q01", "std", "eta", "relative"]
    )


# %% q6 wrong: one depth less
def sweep(widths, seeds):
    rows = []
    for width in widths:
        for seed in seeds:
            g = torch.Generator().manual_seed(seed)
            x, y = (
                F.normalize(torch.randn(40, 10, generator=g), dim=1),
                torch.randn(40, generator=g).sign(),
            )
            net = models.mlp(
                1,
                width,
                in_features=10,
                out_features=1,
                activation="tanh",
                init="lecun",
                generator=g,
            )
            K = gradconf.gram(net.double(), logistic, x.double(), y.double())
            m = gradconf.confusion(K)
            rows.append(
                [width, seed, m.q01, m.std, m.eta, m.eta * 40 / K.trace().item()]
            )
    return pd.DataFrame(
        rows, columns=["width", "seed", "q01", "std", "eta", "relative"]
    )
