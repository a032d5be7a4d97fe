"""Right and wrong answers to the questions of assignment 3, each in a cell. ANSWER-KEY: stays with the teacher."""


# %% q1 right: add layers while they fit
def deepest(budget, width, features, outputs):
    depth, spent = 0, outputs * (width + 1) + width * (features + 1)
    while spent <= budget:
        depth, spent = depth + 1, spent + width * (width + 1)
    return depth


# %% q1 right: build networks
def deepest(budget, width, features, outputs):
    depth = 0
    while True:
        net = models.mlp(depth + 1, width, in_features=features, out_features=outputs)
        if sum(p.numel() for p in net.parameters()) > budget:
            return depth
        depth += 1


# %% q1 wrong: depth is the number of matrices
def deepest(budget, width, features, outputs):
    ends = (features + 1) * width + (width + 1) * outputs
    return max(0, (budget - ends) // ((width + 1) * width) + 2)


# %% q1 wrong: one too shallow
def deepest(budget, width, features, outputs):
    ends = (features + 1) * width + (width + 1) * outputs
    return max(0, (budget - ends) // ((width + 1) * width))


# %% q1 wrong: no biases
def deepest(budget, width, features, outputs):
    ends = features * width + width * outputs
    return max(0, (budget - ends) // width**2 + 1)


# %% q1 wrong: rounded to the nearest
def deepest(budget, width, features, outputs):
    ends = (features + 1) * width + (width + 1) * outputs
    return max(0, round((budget - ends) / ((width + 1) * width)) + 1)


# %% q2 right: products with multi_dot, layer by layer
def linear_net_gram(matrices, x, r):
    K = torch.zeros(len(x), len(x), dtype=x.dtype)
    for p in range(len(matrices)):
        h, b = x.T, torch.ones(1, dtype=x.dtype)
        for W in matrices[:p]:
            h = W @ h
        for W in matrices[:p:-1]:
            b = b @ W
        K += (b @ b) * (h.T @ h)
    return torch.outer(r, r) * K


# %% q2 right: hidden vectors first
def linear_net_gram(matrices, x, r):
    hidden = [x]
    for W in matrices[:-1]:
        hidden.append(hidden[-1] @ W.T)
    errors = r[:, None]  # (N, 1), then (N, l)
    K = 0
    for W, h in zip(matrices[::-1], hidden[::-1]):
        K = K + (errors @ errors.T) * (h @ h.T)
        errors = errors @ W
    return K


# %% q2 wrong: without the last matrix
def linear_net_gram(matrices, x, r):
    errors, hidden = r[:, None] @ matrices[-1], [x]
    for W in matrices[:-1]:
        hidden.append(hidden[-1] @ W.T)
    K = torch.zeros(len(x), len(x)).double()
    for W, h in zip(matrices[-2::-1], hidden[-2::-1]):
        K = K + (errors @ errors.T) * (h @ h.T)
        errors = errors @ W
    return K


# %% q2 wrong: without the first matrix
def linear_net_gram(matrices, x, r):
    errors, hidden = r[:, None], [x]
    for W in matrices[:-1]:
        hidden.append(hidden[-1] @ W.T)
    K = torch.zeros(len(x), len(x)).double()
    for W, h in zip(matrices[:0:-1], hidden[:0:-1]):
        K = K + (errors @ errors.T) * (h @ h.T)
        errors = errors @ W
    return K


# %% q2 wrong: r forgotten
def linear_net_gram(matrices, x, r):
    errors, hidden = torch.ones(len(x), 1).double(), [x]
    for W in matrices[:-1]:
        hidden.append(hidden[-1] @ W.T)
    K = 0
    for W, h in zip(matrices[::-1], hidden[::-1]):
        K = K + (errors @ errors.T) * (h @ h.T)
        errors = errors @ W
    return K


# %% q2 wrong: as if the matrices were orthogonal
def linear_net_gram(matrices, x, r):
    return len(matrices) * r[:, None] * r * (x @ x.T)


# %% q3 right: inverse square root
def nearest_orthogonal(W):
    if W.shape[0] < W.shape[1]:
        return nearest_orthogonal(W.T).T
    values, vectors = torch.linalg.eigh(W.T @ W)
    return W @ vectors @ torch.diag(values.rsqrt()) @ vectors.T


# %% q3 right: Newton's iteration
def nearest_orthogonal(W):
    X = W / torch.linalg.matrix_norm(W, 2)
    for _ in range(60):
        X = 1.5 * X - 0.5 * X @ X.T @ X
    return X


# %% q3 wrong: QR
def nearest_orthogonal(W):
    if W.shape[0] < W.shape[1]:
        return torch.linalg.qr(W.T)[0].T
    return torch.linalg.qr(W)[0]


# %% q3 wrong: columns of length one
def nearest_orthogonal(W):
    return (
        W / W.norm(dim=0, keepdim=True)
        if W.shape[0] >= W.shape[1]
        else W / W.norm(dim=1, keepdim=True)
    )


# %% q3 wrong: largest stretch one
def nearest_orthogonal(W):
    return W / torch.linalg.matrix_norm(W, 2)


# %% q3 wrong: transposed
def nearest_orthogonal(W):
    left, _, right = torch.linalg.svd(W, full_matrices=False)
    return (left @ right).T


# %% q4 right: every pair
def silence(counts):
    labels = [c for c, n in enumerate(counts) for _ in range(n)]
    off = -1 / (len(counts) - 1)
    pairs = [
        1.0 if labels[i] == labels[j] else off
        for i in range(len(labels))
        for j in range(i)
    ]
    return min(pairs), sum(pairs) / len(pairs), sum(p < 0 for p in pairs) / len(pairs)


# %% q4 right: from probabilities
def silence(counts):
    n = sum(counts)
    same = sum(c / n * (c - 1) / (n - 1) for c in counts)
    low = 1 / (1 - len(counts))
    return torch.tensor([low, same + (1 - same) * low, 1 - same]).double()


# %% q4 wrong: -1 over the number of classes
def silence(counts):
    n, low = sum(counts), -1 / len(counts)
    same = sum(c * (c - 1) for c in counts) / (n * (n - 1))
    return low, same + (1 - same) * low, 1 - same


# %% q4 wrong: diagonal included
def silence(counts):
    n, low = sum(counts), -1 / (len(counts) - 1)
    same = sum(c * c for c in counts) / n**2
    return low, same + (1 - same) * low, 1 - same


# %% q4 wrong: as if classes were balanced
def silence(counts):
    C, n = len(counts), sum(counts)
    same = (n / C - 1) / (n - 1)
    return -1 / (C - 1), same - (1 - same) / (C - 1), 1 - same


# %% q4 wrong: zero between classes
def silence(counts):
    n = sum(counts)
    same = sum(c * (c - 1) for c in counts) / (n * (n - 1))
    return 0.0, same, 0.0


# %% q5 right: logarithms
def layers_to_silence(gain, fraction):
    if gain**2 >= 2:
        return float("inf")
    return math.floor(math.log(fraction) / math.log(gain**2 / 2)) + 1


# %% q5 right: multiply on
def layers_to_silence(gain, fraction):
    square, n = 1.0, 0
    while square >= fraction:
        if gain * gain / 2 >= 1:
            return math.inf
        square, n = square * gain * gain / 2, n + 1
    return n


# %% q5 wrong: no ReLU
def layers_to_silence(gain, fraction):
    if gain**2 >= 1:
        return math.inf
    return math.floor(math.log(fraction) / math.log(gain**2)) + 1


# %% q5 wrong: of the length in place of its square
def layers_to_silence(gain, fraction):
    if gain**2 >= 2:
        return math.inf
    return math.floor(2 * math.log(fraction) / math.log(gain**2 / 2)) + 1


# %% q5 wrong: one layer short
def layers_to_silence(gain, fraction):
    if gain**2 >= 2:
        return math.inf
    return math.floor(math.log(fraction) / math.log(gain**2 / 2))


# %% q5 wrong: gain not squared
def layers_to_silence(gain, fraction):
    if gain >= 2:
        return math.inf
    return math.floor(math.log(fraction) / math.log(gain / 2)) + 1


# %% q6 right: rows scaled by their largest entry
def cosines(gradients):
    scaled = gradients / gradients.abs().amax(dim=1, keepdim=True)
    return F.normalize(scaled, dim=1) @ F.normalize(scaled, dim=1).T


# %% q6 right: numpy in double precision
def cosines(gradients):
    import numpy as np

    G = gradients.numpy().astype(np.float64)
    K = G @ G.T
    return torch.tensor(K / np.sqrt(np.outer(np.diag(K), np.diag(K))))


# %% q6 wrong: measured with the package
def cosines(gradients):
    gradients = gradients.double()
    return gradconf.cosine(gradients @ gradients.T)


# %% q6 wrong: F.cosine_similarity
def cosines(gradients):
    return F.cosine_similarity(gradients[:, None], gradients, dim=-1)


# %% q6 wrong: no eps, but float32
def cosines(gradients):
    K = gradients @ gradients.T
    return K / torch.outer(K.diagonal().sqrt(), K.diagonal().sqrt())


# %% q6 wrong: a factor for all
def cosines(gradients):
    G = gradients / gradients.abs().max()
    G = G / G.norm(dim=1, keepdim=True)
    return G @ G.T


# %% q6 wrong: double precision, too late
def cosines(gradients):
    K = (gradients @ gradients.T).double()
    lengths = K.diagonal().sqrt().clamp(min=1e-300)
    return K / (lengths[:, None] * lengths)


# %% q7 right: from the theorem
free_of_depth = {"A": True, "B": False, "C": False, "D": False, "E": True}


# %% q7 right: measured
def moved(kind, width, length, init):
    def one(depth):
        g = torch.Generator().manual_seed(0)
        x = length * F.normalize(torch.randn(30, 16, generator=g), dim=1).double()
        y = torch.randn(30, generator=g).sign().double()
        shape = {
            "in_features": 16,
            "out_features": 1,
            "bias": False,
            "init": init,
            "activation": kind,
        }
        net = models.mlp(depth, width, generator=g, **shape).double()
        return gradconf.cosine(
            gradconf.gram(net, lambda z, t: F.softplus(-t * z[:, 0]), x, y)
        )

    return (one(1) - one(16)).abs().max().item() < 1e-4


free_of_depth = {
    "A": moved("identity", 64, 1, "orthogonal"),
    "B": moved("identity", 8, 1, "orthogonal"),
    "C": moved("relu", 64, 1, "orthogonal"),
    "D": moved("identity", 64, 1, "lecun"),
    "E": moved("identity", 16, 5, "orthogonal"),
}


# %% q7 wrong: narrow is enough
free_of_depth = {"A": True, "B": True, "C": False, "D": False, "E": True}


# %% q7 wrong: long inputs are not allowed
free_of_depth = {"A": True, "B": False, "C": False, "D": False, "E": False}


# %% q7 wrong: ReLU, too
free_of_depth = {"A": True, "B": False, "C": True, "D": False, "E": True}


# %% q7 wrong: only partly answered
free_of_depth = {"A": True, "B": False, "C": False, "D": False, "E": None}
