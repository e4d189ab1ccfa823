"""Slow NumPy loops of the losses of correspondence and of masks: one pixel, anchor or box at a time, in float64."""

import math

import numpy as np
from scipy.optimize import linear_sum_assignment


def l2(query, entry, selection=None, shrinkage=1.0):
    total = 0.0
    for c in range(len(query)):
        total += (1.0 if selection is None else selection[c]) * (float(query[c]) - float(entry[c])) ** 2
    return -shrinkage * total / math.sqrt(len(query))


def dot(query, entry, selection=None, shrinkage=1.0):
    return float(np.dot(query, entry))


def log_softmax(scores):
    scores = np.asarray(scores, np.float64)
    return scores - scores.max() - np.log(np.exp(scores - scores.max()).sum())


def scores(query, memory, place, anchors, score=l2):
    """Scores of one place `(clip, y, x)` and all anchors `(clip, anchor)`; keys are (key, shrinkage, selection)."""
    clips, w = len(anchors), memory[0].shape[2]
    table = np.zeros(anchors.shape)
    for b in range(clips):
        for a, index in enumerate(anchors[b]):
            there = (b, index // w, index % w)
            selection = None if query[2] is None else query[2][place]
            shrinkage = 1.0 if memory[1] is None else memory[1][there]
            table[b, a] = score(query[0][place], memory[0][there], selection, shrinkage)
    return table


def labels(first, remote, anchors, score=l2):
    """The anchor of its own clip that each pixel names."""
    named = np.zeros(first[0].shape[:3], int)
    for place in np.ndindex(named.shape):
        named[place] = scores(first, remote, place, anchors, score)[place[0]].argmax()
    return named


def pixel_consistency(first, second, remote, anchors, valid=None, score=l2):
    named, losses = labels(first, remote, anchors, score), []
    for place in np.ndindex(named.shape):
        if valid is None or valid[place]:
            chance = log_softmax(scores(second, remote, place, anchors, score).ravel())
            losses.append(-chance[place[0] * anchors.shape[1] + named[place]])
    return np.mean(losses) if losses else 0.0


def view_consistency(first, second, anchors, valid=None, score=l2):
    (clips, number), w, losses = anchors.shape, first[0].shape[2], []
    place = lambda b, a: (b, anchors[b, a] // w, anchors[b, a] % w)  # noqa: E731
    counts = [(b, a) for b in range(clips) for a in range(number) if valid is None or valid[place(b, a)]]
    for pair in counts:
        table = scores(first, second, place(*pair), anchors, score)
        losses.append(-log_softmax([table[other] for other in counts])[counts.index(pair)])
    return np.mean(losses) if losses else 0.0


def cosine(x, y):
    return float(np.dot(x, y) / np.linalg.norm(x) / np.linalg.norm(y))


def matches(first, second, first_valid, second_valid):
    """Of every clip, the pairs of boxes of the greatest total cosine."""
    found = []
    for b in range(len(first)):
        rows, columns = np.flatnonzero(first_valid[b]), np.flatnonzero(second_valid[b])
        cost = np.array([[-cosine(first[b, n], second[b, m]) for m in columns] for n in rows])
        pairs = zip(*linear_sum_assignment(cost.reshape(len(rows), len(columns))), strict=True)
        found.append([(rows[i], columns[j]) for i, j in pairs])
    return found


def object_coherence(first, second, first_valid, second_valid, temperature=0.1, near_duplicates=None):
    losses = []
    for b, pairs in enumerate(matches(first, second, first_valid, second_valid)):
        for n, m in pairs:
            positive, every = None, []
            for e in range(len(second)):
                for other in np.flatnonzero(second_valid[e]):
                    near = near_duplicates is not None and e == b and other != m and near_duplicates[b, m, other]
                    if not near:
                        every.append(cosine(first[b, n], second[e, other]) / temperature)
                    if (e, other) == (b, m):
                        positive = len(every) - 1
            losses.append(-log_softmax(every)[positive])
    return np.mean(losses) if losses else 0.0


def bootstrapped_cross_entropy(logits, masks, keep, alive):
    losses = []
    for place in np.ndindex(logits.shape[:2]):
        chance = log_softmax(logits[place][alive])
        losses.append(-sum(m * c for m, c in zip(masks[place][alive], chance, strict=True)))
    count = math.ceil(keep * len(losses))
    return sum(sorted(losses, reverse=True)[:count]) / count


def dice(logits, masks, alive, smooth=1.0):
    p = np.array([[np.exp(log_softmax(pixel[alive])) for pixel in row] for row in logits])
    terms = []
    for slot, k in enumerate(np.flatnonzero(alive)):
        both, either = (p[..., slot] * masks[..., k]).sum(), p[..., slot].sum() + masks[..., k].sum()
        terms.append(1 - (2 * both + smooth) / (either + smooth))
    return np.mean(terms)
