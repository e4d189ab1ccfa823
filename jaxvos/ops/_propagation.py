"""Propagation from reference frames: what the cells most like a query hold, with and without the whole affinity."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxvos.ops._memory import _softmax, read_memory

__all__ = ["propagate"]

Backend = Literal["dense", "scan", "window", "online"]


class _Map(NamedTuple):
    """The cells of a frame, and how far from itself a query looks."""

    size: tuple[int, ...]
    radius: float

    def limit(
        self, scores: Float[Array, "q p"], cells: Int[Array, "q"], anywhere: Bool[Array, ""]
    ) -> Float[Array, "q p"]:
        """Scores of some cells with all of a frame, -inf beyond the radius unless it counts anywhere."""
        if self.radius == math.inf:
            return scores
        columns, every = self.size[1], jnp.arange(scores.shape[1])
        dy = cells[:, None] // columns - every // columns
        dx = cells[:, None] % columns - every % columns
        return jnp.where(anywhere | (dy * dy + dx * dx < self.radius**2), scores, -jnp.inf)

    def disc(self) -> Int[np.ndarray, "n 2"]:
        """The offsets `(dy, dx)` within the radius that some cell of the map can take, in reading order."""
        rows, columns = self.size
        dy, dx = np.mgrid[1 - rows : rows, 1 - columns : columns]
        inside = dy * dy + dx * dx < self.radius**2
        return np.stack([dy[inside], dx[inside]], axis=1)


def propagate(
    query: Float[Array, "p c"],
    keys: Float[Array, "s p c"],
    values: Float[Array, "o s p d"],
    *,
    size: tuple[int, ...],
    valid: Bool[Array, "s"] | Bool[Array, "o s"] | None = None,
    far: Bool[Array, "s"] | None = None,
    temperature: float = 0.05,
    top_k: int | None = 10,
    radius: float | None = 12.0,
    backend: Backend = "scan",
    chunk: int = 2048,
) -> Float[Array, "o p d"]:
    """Averages the values of reference frames, weighed for each query by the softmax of `query . key / temperature`.

    The softmax of a query `q` is over cells of all references together, so that its weights sum to one; a query
    without any candidate reads zeros. Products are summed in float32 or wider. The gradient is that of the softmax
    with respect to all three arrays, for the best as they stand. All but `"dense"` compute the scores again backward.

    All backends give the same answer:
      dense: from all `p s p` scores at once. For training on small maps.
      scan: looks through one frame after another, `chunk` queries at a time, and keeps the best. Needs `top_k`.
      window: like `scan`, but looks only at the cells of the disc where the radius holds. Needs `top_k` and `radius`.
      online: frame after frame with a running maximum and sum, for the softmax over all candidates: no `top_k`.

    Args:
      query: features of the cells of a map, in reading order.
      keys: the same of each reference frame `s`.
      values: what each cell of each frame holds for each object `o`.
      size: `(rows, columns)` of the map; `p` is their product.
      valid: frames that count, for all objects or for each; all by default. Where the objects differ, they are read one
        by one, which takes as many times as long.
      far: frames in which a query looks everywhere, whatever the radius, such as those whose masks were told; none by
        default.
      temperature: of the softmax.
      top_k: softmax over so many candidates of the highest score alone; over all of them if None.
      radius: cells of a frame count if they are less than so many cells away from the query; all of them if None.
      backend: how it is computed.
      chunk: the most queries that are compared with a whole frame at once; memory goes with it, the result does not.

    Raises:
      ValueError: for shapes that do not fit, options out of range, and a backend without what it needs.

    Source: Li et al., "Unified Mask Embedding and Correspondence Learning for Self-Supervised Video Segmentation" (CVPR
    2023), Eq. 6; best and radius as Jabri et al., "Space-Time Correspondence as a Contrastive Random Walk" (NeurIPS
    2020).
    """
    _check(query.shape, keys.shape, values.shape, size)
    _check_options(temperature, top_k, radius, backend, chunk)
    frames, cells = keys.shape[0], _Map(size, math.inf if radius is None else radius)
    valid = jnp.ones(frames, bool) if valid is None else valid
    far = jnp.zeros(frames, bool) if far is None else far
    match backend:
        case "dense":
            read = _dense(query, keys, far, cells, temperature, top_k)
        case "scan" | "window":
            if top_k is None:
                raise ValueError(f"propagate: backend {backend!r} keeps the best: give top_k, or take 'online'")
            look = _look_in_window if backend == "window" else _look
            read = partial(_read_best, query, keys, far, cells, temperature, top_k, chunk, look)
        case "online":
            read = partial(_read_online, query, keys, far, cells, temperature, chunk)
    if valid.ndim == 1:
        return read(values, valid)
    used, some = valid.any(axis=1), valid.any(axis=0)

    def together(_: None) -> Array:
        return read(values, some)

    def apart(_: None) -> Array:
        return lax.map(lambda each: read(each[0][None], each[1])[0], (values, valid))

    found = lax.cond(jnp.all((valid == some) | ~used[:, None]), together, apart, None)
    return jnp.where(used[:, None, None], found, 0)


# ------------------------------------------------------------------------------------------------------------- dense


def _dense(
    query: Array, keys: Array, far: Array, cells: _Map, temperature: float, top_k: int | None
) -> Callable[[Array, Array], Array]:
    p, frames = query.shape[0], keys.shape[0]
    scores = _scores(query, keys.reshape(frames * p, -1)).reshape(p, frames, p) / temperature
    scores = jax.vmap(cells.limit, (1, None, 0), 1)(scores, jnp.arange(p), far).reshape(p, -1)

    def read(values: Array, valid: Array) -> Array:
        values = values.reshape(values.shape[0], frames * p, -1)
        return read_memory(scores, values, valid=jnp.repeat(valid, p), top_k=top_k).values

    return read


# ---------------------------------------------------------------------------------------------------- scan and window


def _read_best(
    query: Array, keys: Array, far: Array, cells: _Map, temperature: float, top_k: int, chunk: int,
    look: Callable[..., tuple[Array, Array]], values: Array, valid: Array,
) -> Float[Array, "o p d"]:  # fmt: skip
    """Finds the best, without a gradient, and compares and reads them again, with it."""
    look = partial(look, cells=cells, top_k=top_k, chunk=chunk)
    best, index = _search(look, *lax.stop_gradient((query, keys)), far, valid, top_k)
    keys, values = keys.reshape(-1, keys.shape[-1]), values.reshape(values.shape[0], -1, values.shape[-1])

    def weigh(query: Array, best: Array, index: Array) -> Array:
        scores = _scores(query[:, None], keys[index])[:, 0] / temperature
        return _softmax(jnp.where(best > -jnp.inf, scores, -jnp.inf))

    weights = _in_chunks(weigh, chunk, query, best, index)

    def read(values: Array) -> Array:
        gather = lambda weights, index: jnp.einsum("qt,qtd->qd", weights, values[index])  # noqa: E731
        return _in_chunks(gather, chunk, weights, index)

    return lax.map(read, values)


def _search(
    look: Callable[..., tuple[Array, Array]], query: Array, keys: Array, far: Array, valid: Array, top_k: int
) -> tuple[Float[Array, "p k"], Int[Array, "p k"]]:
    """The highest scores of each query in the valid frames, -inf where there are fewer, and the entries they are of."""
    frames, p, _ = keys.shape

    def step(best: Any, frame: Any) -> Any:
        number, key, counts, anywhere = frame

        def merge(best: Any) -> Any:
            scores, cell = look(query, key, anywhere)
            scores, place = lax.top_k(jnp.concatenate([best[0], scores], axis=1), top_k)
            index = jnp.concatenate([best[1], number * p + cell], axis=1)
            return scores, jnp.take_along_axis(index, place, axis=1)

        return lax.cond(counts, merge, lambda best: best, best), None

    start = jnp.full((p, top_k), -jnp.inf, _wide(query, keys)), jnp.zeros((p, top_k), jnp.int32)
    return lax.scan(step, start, (jnp.arange(frames), keys, valid, far))[0]


def _look(
    query: Array, key: Array, anywhere: Array, *, cells: _Map, top_k: int, chunk: int
) -> tuple[Float[Array, "p k"], Int[Array, "p k"]]:
    """The highest scores of each query in one frame, and the cells they are of."""

    def look(query: Array, cell: Array) -> tuple[Array, Array]:
        scores, index = lax.top_k(cells.limit(_scores(query, key), cell, anywhere), min(top_k, len(key)))
        return scores, index

    return _in_chunks(look, chunk, query, jnp.arange(len(query)))


def _look_in_window(
    query: Array, key: Array, anywhere: Array, *, cells: _Map, top_k: int, chunk: int
) -> tuple[Float[Array, "p k"], Int[Array, "p k"]]:
    """As `_look`, by one product of the map with the shifted frame for each offset of the disc."""
    (rows, columns), offsets = cells.size, cells.disc()
    count = min(top_k, len(key))

    def window(_: None) -> tuple[Array, Array]:
        margin = np.abs(offsets).max(axis=0)
        padded = jnp.pad(key.reshape(rows, columns, -1), [*((m, m) for m in margin), (0, 0)])
        here = query.reshape(rows, columns, -1).astype(_wide(query, key))

        def product(corner: Array) -> Array:
            there = lax.dynamic_slice(padded, (*corner, 0), here.shape)
            return jnp.sum(here * there.astype(here.dtype), axis=-1)

        scores = lax.map(product, jnp.array(margin + offsets)).reshape(len(offsets), -1).T
        cell, shift = jnp.arange(len(query))[:, None], jnp.array(offsets)
        y, x = cell // columns + shift[:, 0], cell % columns + shift[:, 1]
        scores = jnp.where((0 <= y) & (y < rows) & (0 <= x) & (x < columns), scores, -jnp.inf)
        best, place = lax.top_k(scores, min(count, len(offsets)))
        index = cell + (shift @ jnp.array([columns, 1]))[place]
        missing = ((0, 0), (0, count - best.shape[1]))
        return jnp.pad(best, missing, constant_values=-jnp.inf), jnp.pad(index, missing)

    whole = partial(_look, query, key, anywhere, cells=cells._replace(radius=math.inf), top_k=top_k, chunk=chunk)
    return lax.cond(anywhere, lambda _: whole(), window, None)


# ------------------------------------------------------------------------------------------------------------ online


def _read_online(
    query: Array, keys: Array, far: Array, cells: _Map, temperature: float, chunk: int, values: Array, valid: Array
) -> Float[Array, "o p d"]:
    frames, p, _ = keys.shape

    def read(query: Array, cell: Array) -> Array:
        def step(carry: Any, frame: Any) -> Any:
            number, key, counts, anywhere = frame

            def add(carry: Any) -> Any:
                top, total, out = carry
                scores = cells.limit(_scores(query, key), cell, anywhere) / temperature
                new = jnp.maximum(top, lax.stop_gradient(scores).max(axis=1))
                E, kept = jnp.exp(scores - new[:, None]), jnp.exp(top - new)
                moved = jnp.einsum("qp,opd->qod", E, lax.dynamic_index_in_dim(values, number, 1, keepdims=False))
                return new, kept * total + E.sum(axis=1), kept[:, None, None] * out + moved

            return lax.cond(counts, add, lambda carry: carry, carry), None

        top = jnp.full(len(query), -jnp.inf, _wide(query, keys))
        out = jnp.zeros((len(query), *values.shape[::3]), _wide(query, keys, values))
        start = top, jnp.zeros_like(top), out
        (_, total, out), _ = lax.scan(jax.checkpoint(step), start, (jnp.arange(frames), keys, valid, far))
        return out / jnp.maximum(total, 1e-30)[:, None, None]

    return jnp.moveaxis(_in_chunks(read, chunk, query, jnp.arange(p)), 0, 1)


# ------------------------------------------------------------------------------------------------------------ shared


def _scores(query: Float[Array, "*b q c"], keys: Float[Array, "*b n c"]) -> Float[Array, "*b q n"]:
    keys = jnp.swapaxes(keys, -1, -2)
    return jnp.matmul(query, keys, precision=lax.Precision.HIGHEST, preferred_element_type=_wide(query, keys))


def _wide(*arrays: Array) -> Any:
    return jnp.result_type(jnp.float32, *arrays)


def _in_chunks(function: Callable[..., Any], chunk: int, *arrays: Array) -> Any:
    """A function of queries, of at most so many at a time; the backward pass runs it again."""
    p, function = len(arrays[0]), jax.checkpoint(function)
    count = -(-p // chunk)
    if count == 1:
        return function(*arrays)
    size = -(-p // count)
    padded = [jnp.pad(x, ((0, count * size - p), *((0, 0),) * (x.ndim - 1))) for x in arrays]
    chunks = [x.reshape(count, size, *x.shape[1:]) for x in padded]
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:p], lax.map(lambda each: function(*each), chunks))


def _check(query: tuple[int, ...], keys: tuple[int, ...], values: tuple[int, ...], size: tuple[int, ...]) -> None:
    if size[0] * size[1] != query[0]:
        raise ValueError(f"propagate: a map of size={size} has {size[0] * size[1]} cells, and the query has {query[0]}")
    if keys[1:] != query or values[1:3] != keys[:2]:
        raise ValueError(
            f"propagate needs query (p, c), keys (s, p, c) and values (o, s, p, d), got {query}, {keys}, {values}"
        )


def _check_options(temperature: float, top_k: int | None, radius: float | None, backend: str, chunk: int) -> None:
    if backend not in get_args(Backend):
        raise ValueError(f"propagate: unknown backend {backend!r}: {', '.join(map(repr, get_args(Backend)))}")
    if backend == "window" and radius is None:
        raise ValueError("propagate: backend 'window' looks within a radius: give one, or take 'scan'")
    if backend == "online" and top_k is not None:
        raise ValueError("propagate: backend 'online' reads all candidates: give top_k=None, or take 'scan'")
    for name, value in (("top_k", top_k), ("chunk", chunk)):
        if value is not None and value < 1:
            raise ValueError(f"propagate: {name} must be at least one, got {value}")
    for name, value in (("temperature", temperature), ("radius", radius)):
        if value is not None and not value > 0:
            raise ValueError(f"propagate: {name} must be above zero, got {value}")
