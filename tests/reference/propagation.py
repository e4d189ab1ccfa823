"""Slow NumPy propagation: one object, query, frame and cell at a time, in float64."""

import numpy as np


def weights(query, keys, *, size, valid, far, temperature, top_k, radius):
    """Of one object's valid frames, `p s p`: what share each query takes of each cell."""
    frames, p, _ = keys.shape
    found = np.zeros((p, frames, p))
    for q in range(p):
        candidates = []
        for s in np.flatnonzero(valid):
            for cell in range(p):
                away = np.hypot(q // size[1] - cell // size[1], q % size[1] - cell % size[1])
                if radius is None or far[s] or away < radius:
                    score = float(np.dot(query[q].astype(float), keys[s, cell].astype(float))) / temperature
                    candidates.append((score, s, cell))
        best = sorted(candidates, key=lambda candidate: -candidate[0])[:top_k]
        for score, s, cell in best:
            found[q, s, cell] = np.exp(score - best[0][0])
        found[q] /= max(found[q].sum(), 1e-30)
    return found


def propagate(query, keys, values, *, valid, **options):
    """What each object reads, `o p d`; `valid` is `o s`."""
    return np.stack([np.einsum("qsp,spd->qd", weights(query, keys, valid=each, **options), value)
                     for each, value in zip(valid, values, strict=True)])  # fmt: skip
