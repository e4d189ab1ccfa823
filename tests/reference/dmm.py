"""Slow NumPy algorithm 1 of DMM-Net, eager, one instance at a time: what `pgd_matching` and `dykstra` must equal."""

import numpy as np


def rows(x):
    return x - (x.sum(1, keepdims=True) - 1) / x.shape[1]


def columns(x, cap=1.0):
    return x - np.maximum(x.sum(0) - cap, 0) / x.shape[0]


def columns_printed(x, cap=1.0):
    return x - (x.sum(0) - cap) / x.shape[0] if (x.sum(0) > cap).any() else x


def nonnegative(x):
    return np.maximum(x, 0)


def simplex(x, total=1.0):
    """By sorting."""
    ordered = np.sort(x)[::-1]
    thresholds = (np.cumsum(ordered) - total) / np.arange(1, len(x) + 1)
    return np.maximum(x - thresholds[np.flatnonzero(ordered > thresholds)[-1]], 0)


def dykstra(x, projections, num_iters, corrections=None):
    corrections = list(corrections or [np.zeros_like(x) for _ in projections])
    for _ in range(num_iters):
        for index, project in enumerate(projections):
            corrected = x + corrections[index]
            x = project(corrected)
            corrections[index] = corrected - x
    return x, corrections


def best_pairs(cost):
    """Each row takes the cheapest of the columns that are cheapest for it, else the first; float64 one-hot rows."""
    n, m = cost.shape
    start = np.zeros((n, m))
    for i in range(n):
        column, least = 0, cost.max()
        for j in range(m):
            if cost[:, j].argmin() == i and cost[i, j] < least:
                column, least = j, cost[i, j]
        start[i, column] = 1
    return start


def matching(cost, variant="per_column", alpha=0.1, num_iters=40, num_projections=5):
    """The mean and the last iterate, for at least as many columns as rows."""
    cost, corrections = np.asarray(cost, np.float64), None
    if variant == "released":
        order, x = (nonnegative, columns, rows), best_pairs(cost)
        points = [x]
    else:
        order = (rows, columns if variant == "per_column" else columns_printed, nonnegative)
        x, points = np.full(cost.shape, 1 / cost.shape[1]), []
    for _ in range(num_iters):
        moved = x - alpha * cost
        x, left = dykstra(moved, order, num_projections, corrections)
        if variant == "released":
            corrections = left
        points.append(moved if variant == "released" else x)
    return np.mean(points, 0), x
