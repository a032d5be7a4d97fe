"""Right and wrong answers to the questions of assignment 1, each in a cell. ANSWER-KEY: stays with the teacher."""


# %% q1 right: two products of matrices
def linear_gram(activations, errors):
    return activations @ activations.T * (errors @ errors.T) + errors @ errors.T


# %% q1 right: the bias is a weight of a constant input
def linear_gram(activations, errors):
    ones = torch.ones(len(activations), 1, dtype=activations.dtype)
    extended = torch.cat([activations, ones], 1)
    return torch.einsum("ik,jk,il,jl->ij", extended, extended, errors, errors)


# %% q1 right: outer products, sample by sample
def linear_gram(activations, errors):
    rows = []
    for a, d in zip(activations, errors):
        rows.append(torch.cat([torch.outer(d, a).flatten(), d]))
    G = torch.stack(rows)
    return G @ G.T


# %% q1 wrong: measured with the package
def linear_gram(activations, errors):
    layer = torch.nn.Linear(activations.shape[1], errors.shape[1]).double()
    return gradconf.gram(layer, lambda z, d: (z * d).sum(1), activations, errors)


# %% q1 wrong: no bias
def linear_gram(activations, errors):
    return (activations @ activations.T) * (errors @ errors.T)


# %% q1 wrong: of the mean loss
def linear_gram(activations, errors):
    n = len(activations)
    return (activations @ activations.T + 1) * (errors @ errors.T) / n**2


# %% q1 wrong: matrix product in place of the elementwise one
def linear_gram(activations, errors):
    return (activations @ activations.T + 1) @ (errors @ errors.T)


# %% q1 wrong: sum in place of a product
def linear_gram(activations, errors):
    return activations @ activations.T + errors @ errors.T


# %% q2 right: one product
def changes(K, chosen, rate):
    weights = torch.zeros(len(K), dtype=K.dtype)
    weights[chosen] = 1 / len(chosen)
    return -rate * (K @ weights)


# %% q2 right: a loop
def changes(K, chosen, rate):
    out = []
    for i in range(len(K)):
        out.append(-rate * sum(K[i, j] for j in chosen) / len(chosen))
    return torch.stack(out)


# %% q2 wrong: sign
def changes(K, chosen, rate):
    return rate * K[:, chosen].mean(dim=1)


# %% q2 wrong: sum in place of the mean
def changes(K, chosen, rate):
    return -rate * K[:, chosen].sum(dim=1)


# %% q2 wrong: mean over all samples
def changes(K, chosen, rate):
    return -rate * K[:, chosen].sum(dim=1) / len(K)


# %% q2 wrong: cosines
def changes(K, chosen, rate):
    return -rate * gradconf.cosine(K)[:, chosen].mean(dim=1)


# %% q3 right: corners by an eigenbasis
def worst_data(labels, dimension):
    n = len(labels)
    centred = torch.eye(n, dtype=torch.float64) - 1 / n
    values, vectors = torch.linalg.eigh(centred)
    corners = vectors[:, 1:] * (n / (n - 1)) ** 0.5
    return F.pad(labels.double()[:, None] * corners, (0, dimension - n + 1))


# %% q3 right: one corner after the other
def worst_data(labels, dimension):
    n, c = len(labels), -1 / (len(labels) - 1)
    x = torch.zeros(n, max(dimension, n)).double()
    for i in range(n):
        for j in range(i):
            if x[j, j] > 1e-9:
                x[i, j] = (c - x[i, :j] @ x[j, :j]) / x[j, j]
        x[i, i] = (1 - x[i, :i].square().sum()).clamp(min=0).sqrt()
    x = x[:, :dimension]
    return x * labels[:, None]


# %% q3 right: Cholesky of the matrix that is wanted
def worst_data(labels, dimension):
    n = len(labels)
    wanted = torch.full((n, n), -1 / (n - 1)).double()
    wanted.fill_diagonal_(1.0)
    lengths, axes = torch.linalg.eigh(wanted)
    x = (axes * lengths.clamp(min=0).sqrt()).flip(1)[:, : n - 1]
    out = torch.zeros(n, dimension).double()
    out[:, : n - 1] = x * labels.double().reshape(-1, 1)
    return out


# %% q3 wrong: labels forgotten
def worst_data(labels, dimension):
    n = len(labels)
    _, _, v = torch.linalg.svd(torch.eye(n).double() - 1 / n)
    return F.pad(F.normalize(v[: n - 1].T, dim=1), (0, dimension - n + 1))


# %% q3 wrong: not of length one
def worst_data(labels, dimension):
    n = len(labels)
    _, _, v = torch.linalg.svd(torch.eye(n).double() - 1 / n)
    return F.pad(labels[:, None] * v[: n - 1].T, (0, dimension - n + 1))


# %% q3 wrong: needs one dimension too many
def worst_data(labels, dimension):
    n = len(labels)
    corners = F.normalize(torch.eye(n).double() - 1 / n, dim=1)
    return (labels[:, None] * F.pad(corners, (0, max(0, dimension - n))))[:, :dimension]


# %% q3 wrong: two opposite camps
def worst_data(labels, dimension):
    x = torch.zeros(len(labels), dimension).double()
    x[:, 0] = labels * torch.tensor([(-1.0) ** i for i in range(len(labels))]).double()
    x[:, -1] += 0.5
    return F.normalize(x, dim=1)


# %% q4 right: differences are a matrix
def mended(wrong):
    n = len(wrong)
    D = torch.eye(n).double() - torch.diag(torch.ones(n - 1).double(), -1)
    return n**2 * D @ wrong @ D.T


# %% q4 right: solve for the gradients' sums
def mended(wrong):
    n = len(wrong)
    L = torch.ones(n, n, dtype=torch.float64).tril() / n
    half = torch.linalg.solve(L, wrong)
    return torch.linalg.solve(L, half.T).T


# %% q4 right: entry by entry
def mended(wrong):
    n = len(wrong)
    S = F.pad(wrong, (1, 0, 1, 0))
    K = torch.zeros_like(wrong)
    for i in range(n):
        for j in range(n):
            K[i, j] = S[i + 1, j + 1] - S[i, j + 1] - S[i + 1, j] + S[i, j]
    return K * n * n


# %% q4 wrong: only the mean
def mended(wrong):
    return len(wrong) ** 2 * wrong


# %% q4 wrong: only the sums
def mended(wrong):
    z = wrong.new_zeros(1, len(wrong))
    return torch.diff(torch.diff(wrong, dim=0, prepend=z), dim=1, prepend=z.T)


# %% q4 wrong: N in place of its square
def mended(wrong):
    z = wrong.new_zeros(1, len(wrong))
    return len(wrong) * torch.diff(
        torch.diff(wrong, dim=0, prepend=z), dim=1, prepend=z.T
    )


# %% q4 wrong: differences of rows only
def mended(wrong):
    return len(wrong) ** 2 * torch.diff(
        wrong, dim=0, prepend=wrong.new_zeros(1, len(wrong))
    )


# %% q5 right: autograd on one number a sample
def final_losses(lengths, order, rate):
    m = [torch.tensor(0.0).double() for _ in lengths]
    for i in order:
        z = m[i].clone().requires_grad_()
        F.softplus(-z).backward()
        m[i] = m[i] - rate * lengths[i] ** 2 * z.grad
    return torch.stack([F.softplus(-z) for z in m])


# %% q5 right: count the visits
def final_losses(lengths, order, rate):
    losses = []
    for i, length in enumerate(lengths.tolist()):
        margin = 0.0
        for _ in range(order.count(i)):
            margin += rate * length * length / (1 + math.exp(margin))
        losses.append(math.log(1 + math.exp(-margin)))
    return torch.tensor(losses).double()


# %% q5 wrong: length in place of its square
def final_losses(lengths, order, rate):
    m = torch.zeros(len(lengths)).double()
    for i in order:
        m[i] += rate * lengths[i] * torch.sigmoid(-m[i])
    return F.softplus(-m)


# %% q5 wrong: rate of the mean loss
def final_losses(lengths, order, rate):
    m = torch.zeros(len(lengths)).double()
    for i in order:
        m[i] += rate / len(lengths) * lengths[i] ** 2 * torch.sigmoid(-m[i])
    return F.softplus(-m)


# %% q5 wrong: sign
def final_losses(lengths, order, rate):
    m = torch.zeros(len(lengths)).double()
    for i in order:
        m[i] -= rate * lengths[i] ** 2 * torch.sigmoid(-m[i])
    return F.softplus(-m)


# %% q5 wrong: every visit reaches every sample
def final_losses(lengths, order, rate):
    m = torch.zeros(len(lengths)).double()
    for i in order:
        m += rate * lengths * lengths[i] * torch.sigmoid(-m[i])
    return F.softplus(-m)


# %% q6 right: step by step
def guaranteed_steps(n, smoothness, mu, eta, rate, start, target):
    rho = 1 - (2 * mu / n) * (rate - n * smoothness * rate**2 / 2)
    floor = rate * eta / (1 - rho)
    if floor >= target:
        return math.inf
    steps = 0
    while rho**steps * start + floor > target:
        steps += 1
    return steps


# %% q6 right: bisection
def guaranteed_steps(n, smoothness, mu, eta, rate, start, target):
    rho = 1 - 2 * mu * rate / n + mu * smoothness * rate**2
    bound = lambda T: rho**T * start + rate * eta / (1 - rho)
    if bound(0) <= target:
        return 0
    if bound(10**9) >= target:
        return math.inf
    low, high = 0, 10**9
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bound(middle) <= target else (middle, high)
    return high


# %% q6 wrong: no floor
def guaranteed_steps(n, smoothness, mu, eta, rate, start, target):
    rho = 1 - 2 * mu / n * (rate - n * smoothness * rate**2 / 2)
    return max(0, math.ceil(math.log(target / start) / math.log(rho)))


# %% q6 wrong: the floor is alpha eta
def guaranteed_steps(n, smoothness, mu, eta, rate, start, target):
    rho = 1 - 2 * mu / n * (rate - n * smoothness * rate**2 / 2)
    if target <= rate * eta:
        return math.inf
    return max(0, math.ceil(math.log((target - rate * eta) / start) / math.log(rho)))


# %% q6 wrong: one step short
def guaranteed_steps(n, smoothness, mu, eta, rate, start, target):
    rho = 1 - 2 * mu / n * (rate - n * smoothness * rate**2 / 2)
    floor = rate * eta / (1 - rho)
    if target <= floor:
        return math.inf
    return max(0, math.floor(math.log((target - floor) / start) / math.log(rho)))


# %% q6 wrong: endless where the target is below the floor
def guaranteed_steps(n, smoothness, mu, eta, rate, start, target):
    rho = 1 - 2 * mu / n * (rate - n * smoothness * rate**2 / 2)
    steps = 0
    while rho**steps * start + rate * eta / (1 - rho) > target:
        steps += 1
    return steps


# %% q6 wrong: N forgotten in rho
def guaranteed_steps(n, smoothness, mu, eta, rate, start, target):
    rho = 1 - 2 * mu * (rate - smoothness * rate**2 / 2)
    floor = rate * eta / (1 - rho)
    if target <= floor:
        return math.inf
    return max(0, math.ceil(math.log((target - floor) / start) / math.log(rho)))


# %% q7 right: a matrix that averages
def batch_gram(K, batches):
    A = torch.zeros(len(batches), len(K), dtype=K.dtype)
    for row, batch in zip(A, batches):
        row[batch] = 1 / len(batch)
    return A @ K @ A.T


# %% q7 right: loops
def batch_gram(K, batches):
    out = torch.zeros(len(batches), len(batches), dtype=torch.float64)
    for a, first in enumerate(batches):
        for b, second in enumerate(batches):
            for i in first:
                for j in second:
                    out[a, b] += K[i, j] / (len(first) * len(second))
    return out


# %% q7 wrong: sum in place of the mean
def batch_gram(K, batches):
    return torch.stack(
        [torch.stack([K[a][:, b].sum() for b in batches]) for a in batches]
    )


# %% q7 wrong: a sample's product with itself left out
def batch_gram(K, batches):
    K = K - torch.diag(K.diagonal())
    return torch.stack(
        [torch.stack([K[a][:, b].mean() for b in batches]) for a in batches]
    )


# %% q7 wrong: all samples of a mini-batch counted once
def batch_gram(K, batches):
    return torch.stack(
        [torch.stack([K[a][:, b].sum() / len(a) for b in batches]) for a in batches]
    )


# %% q7 wrong: mean of cosines
def batch_gram(K, batches):
    C = gradconf.cosine(K)
    return torch.stack(
        [torch.stack([C[a][:, b].mean() for b in batches]) for a in batches]
    )
