"""Slow NumPy Sinkhorn, and the factorised form written as dense N x N matrices: what `jaxvos.solvers` must equal."""

import numpy as np
from scipy.special import logsumexp


def sinkhorn(cost, a, b, epsilon, num_iters):
    """The log domain in float64, columns first; positive marginals."""
    L, f, g = -np.asarray(cost, np.float64) / epsilon, np.zeros(len(a)), np.zeros(len(b))
    for _ in range(num_iters):
        g = np.log(b) - logsumexp(L + f[:, None], axis=0)
        f = np.log(a) - logsumexp(L + g, axis=1)
    return np.exp(L + f[:, None] + g)


def group_of_tokens(height, width, partition, layout, stage):
    """The group of every token of a map in reading order, by the definition rather than by reshapes."""
    rows, cols = partition
    groups = []
    for i in range(height):
        for j in range(width):
            if layout == "raster":
                window, place = divmod(i * width + j, rows * cols)
            else:
                top, left = (-height % rows) // 2, (-width % cols) // 2
                i2, j2 = i + top, j + left
                window, place = (i2 // rows, j2 // cols), (i2 % rows, j2 % cols)
            groups.append(place if stage == "long" else window)
    return groups


def factorized_plan(x, y, epsilon, num_iters, partition, layout, stage):
    """The dense plan of one stage: zero between tokens of different groups, Sinkhorn within a group."""
    h, w, c = x.shape
    x, y = (np.asarray(z, np.float64).reshape(-1, c) for z in (x, y))
    x, y = (z / np.sqrt((z**2).sum(-1, keepdims=True) + 1e-12) for z in (x, y))
    groups = group_of_tokens(h, w, partition, layout, stage)
    plan = np.zeros((h * w, h * w))
    for group in set(groups):
        tokens = np.array([index for index, other in enumerate(groups) if other == group])
        ones = np.ones(len(tokens))
        plan[np.ix_(tokens, tokens)] = sinkhorn(1 - x[tokens] @ y[tokens].T, ones, ones, epsilon, num_iters)
    return plan


def factorized(x, y, epsilon, num_iters, partition, layout, order):
    """Both maps after the stages of `order`, and the dense plan of each stage."""
    shape, plans = x.shape, []
    for stage in order:
        plans.append(factorized_plan(x, y, epsilon, num_iters, partition, layout, stage))
        x, y = ((plans[-1] @ np.asarray(z, np.float64).reshape(-1, shape[-1])).reshape(shape) for z in (x, y))
    return x, y, plans
