"""Slow NumPy statements of space-time memory: lists that grow, entries one by one."""

import numpy as np


def similarity(q, k, e=None, s=None):
    """Of each query and entry: `-s_i sum_c e_jc (k_ic - q_jc)^2 / sqrt(C)`, in float64."""
    scores = np.zeros((len(q), len(k)))
    for j in range(len(q)):
        for i in range(len(k)):
            square = (np.asarray(k[i], float) - np.asarray(q[j], float)) ** 2
            scores[j, i] = -np.sum(square if e is None else e[j] * square) / np.sqrt(q.shape[1])
            scores[j, i] *= 1 if s is None else s[i]
    return scores


def softmax(scores, known, top_k=None):
    """Weights of the known entries for each query, of its highest `top_k` scores alone."""
    weights = np.zeros(scores.shape)
    for j, row in enumerate(scores):
        entries = sorted(np.flatnonzero(known), key=lambda i: -row[i])[:top_k]
        if entries:
            weights[j, entries] = np.exp(row[entries] - row[entries].max())
            weights[j] /= weights[j].sum()
    return weights


def read(scores, values, known, top_k=None):
    """What each object has to say, `o q d`, and the mean usage over those that have anything."""
    weights = [softmax(scores, mask, top_k) for mask in known]
    spoken = [w.sum(axis=0) for w, mask in zip(weights, known, strict=True) if mask.any()]
    usage = np.mean(spoken, axis=0) if spoken else np.zeros(scores.shape[1])
    return np.stack([w @ v for w, v in zip(weights, values, strict=True)]), usage


class Entry:
    """A place of a frame, or a prototype."""

    def __init__(self, key, shrinkage, selection, values, known):
        self.key, self.shrinkage, self.selection = key, shrinkage, selection
        self.values, self.known = values, known  # of each object
        self.usage, self.life = 0.0, 1e-7

    @property
    def rate(self):
        return self.usage / self.life


class XMemory:
    """Working memory of at most `frames` frames and a long-term one, after the description of XMem."""

    def __init__(self, frames, min_frames, prototypes, capacity):
        self.frames, self.min_frames, self.prototypes, self.capacity = frames, min_frames, prototypes, capacity
        self.working, self.long = [], []  # (pinned, entries), the oldest first; entries

    def entries(self):
        return [entry for _, frame in self.working for entry in frame] + self.long

    def read(self, q, e, num_objects, width, top_k=None):
        entries = self.entries()
        if not entries:
            return np.zeros((num_objects, len(q), width))
        scores = similarity(q, np.stack([x.key for x in entries]), e, [x.shrinkage for x in entries])
        values = np.stack([x.values for x in entries], axis=1)
        found, usage = read(scores, values, np.stack([x.known for x in entries], axis=1), top_k)
        for entry, used in zip(entries, usage, strict=True):
            entry.usage, entry.life = entry.usage + used, entry.life + 1
        return found

    def write(self, entries, pinned):
        if len(self.working) == self.frames:
            self.working.pop(next((i for i, (kept, _) in enumerate(self.working) if not kept), 0))
        self.working.append((pinned, entries))
        if len(self.working) == self.frames:
            self.consolidate()

    def consolidate(self):
        free = [i for i, (pinned, _) in enumerate(self.working) if not pinned]
        goes = free[: max(len(free) - (self.min_frames - 1), 1)]
        if not goes:
            return
        candidates = [entry for i in goes for entry in self.working[i][1]]
        self.working = [frame for i, frame in enumerate(self.working) if i not in goes]
        chosen = sorted(candidates, key=lambda entry: -entry.rate)[: self.prototypes]
        keys, shrinkage = np.stack([x.key for x in candidates]), np.array([x.shrinkage for x in candidates])
        scores = similarity(np.stack([x.key for x in chosen]), keys, np.stack([x.selection for x in chosen]), shrinkage)
        known = np.stack([x.known for x in candidates], axis=1)
        values, _ = read(scores, np.stack([x.values for x in candidates], axis=1), known)
        sharpness = softmax(scores, np.ones(len(candidates), bool)) @ shrinkage
        self.make_room()
        for index, entry in enumerate(chosen):
            self.long.append(Entry(entry.key, sharpness[index], None, values[:, index], known.any(axis=1)))

    def make_room(self):
        """Evicts down to `capacity - prototypes`, and what is used as little as the last to go."""
        excess = len(self.long) - (self.capacity - self.prototypes)
        if excess > 0:
            last = sorted(entry.rate for entry in self.long)[excess - 1]
            self.long = [entry for entry in self.long if entry.rate > last]


class GrowingList:
    """The fold with a memory that keeps every frame it is told to, for the net of `toy_space_time`."""

    def __init__(self, *, every, top_k=None, include_last=False, hidden=None, sharpness=12.0):
        self.every, self.top_k, self.include_last = every, top_k, include_last
        self.hidden, self.sharpness = hidden, sharpness

    def run(self, images, masks, upsample):
        """Shares of all slots on each frame; `masks` are those of the first, `upsample` brings logits to full size."""
        kept, last, found = [], None, []
        h, w, k = masks.shape
        y, x = h // 16, w // 16
        state = None if self.hidden is None else np.zeros((k - 1, y, x, self.hidden))
        written = 0
        for t, image in enumerate(np.asarray(images, float)):
            deep, fine = _cells(image, 16), _cells(image, 4)
            key, e, s = (self.sharpness * deep).reshape(-1, 3), None, None
            if self.hidden is not None:
                e, s = (0.5 + deep / 2).reshape(-1, 3), 1 + deep[..., 0].ravel()
            seen, normal = np.asarray(masks, float), state
            if t > 0:
                entries = kept if last is None else [*kept, last]
                join = lambda parts: None if parts[0] is None else np.concatenate(parts)  # noqa: E731
                keys, sharpness, values = map(join, zip(*entries, strict=True))
                scores = similarity(key, keys, e, sharpness)
                values = np.moveaxis(values, 1, 0)
                answer, _ = read(scores, values, np.ones((k - 1, len(keys)), bool), self.top_k)
                logits = 12 * answer[..., 0].reshape(-1, y, x) - 6
                if state is not None:
                    logits, normal = logits + state.mean(axis=-1), 0.5 * state
                logits = logits.repeat(4, axis=1).repeat(4, axis=2) + fine[..., 0]
                seen = _share(1 / (1 + np.exp(-upsample(np.moveaxis(logits, 0, -1)))))
            own = np.stack([_cells(seen[..., o, None], 16)[..., 0] for o in range(1, k)])
            value = np.stack([own, own.sum(axis=0) - own], axis=-1)
            entry = (key, s, np.moveaxis(value.reshape(k - 1, -1, 2), 0, 1))
            due = t == 0 or t - written >= self.every
            last = entry if self.include_last and not due else None
            if due:
                kept, written = [*kept, entry], t
                state = None if state is None else state + value[..., :1]
            else:
                state = normal
            found.append(seen)
        return np.stack(found)


def _cells(x, n):
    h, w, c = x.shape
    return x.reshape(h // n, n, w // n, n, c).mean(axis=(1, 3))


def _share(p):
    p = np.concatenate([np.prod(1 - p, axis=-1, keepdims=True), p], axis=-1)
    odds = np.clip(p, 1e-7, 1 - 1e-7) / (1 - np.clip(p, 1e-7, 1 - 1e-7))
    return odds / odds.sum(axis=-1, keepdims=True)
