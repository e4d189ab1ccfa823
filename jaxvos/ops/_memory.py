"""Reading of a space-time memory: how well each query fits each entry, and what the entries then say."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

__all__ = ["Keys", "Readout", "read_memory", "similarity"]


class Keys(NamedTuple):
    """What pixels are compared by; entries of a memory have a shrinkage, and queries a selection, or neither has."""

    key: Float[Array, "*b c"]
    shrinkage: Float[Array, "*b"] | None = None  # how sharply an entry is matched, at least 1
    selection: Float[Array, "*b c"] | None = None  # which channels a query looks at, in [0, 1]


class Readout(NamedTuple):
    """What a memory says to each query."""

    values: Float[Array, "o q d"]
    usage: Float[Array, "n"]  # weights of each entry, summed over the queries; the mean over objects that differ


def similarity(query: Keys, memory: Keys) -> Float[Array, "q n"]:
    """Anisotropic L2 similarity `-s_i sum_c e_jc (k_ic - q_jc)^2 / sqrt(C)` of XMem, in float32.

    Without shrinkage `s` and selection `e` these are ones: the negative squared distance of STCN. No term
    of the square is dropped: the one of the query alone is the same for all entries only where `s` is.

    Args:
      query: keys `(q, c)` with their selection.
      memory: keys `(n, c)` with their shrinkage.
    """
    q, k = query.key.astype(jnp.float32), memory.key.astype(jnp.float32)
    e = jnp.ones_like(q) if query.selection is None else query.selection.astype(jnp.float32)
    product = lambda a, b: jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)  # noqa: E731
    distance = jnp.sum(e * q * q, axis=-1, keepdims=True) - 2 * product(e * q, k)
    distance += jnp.sum(k * k, axis=-1) if query.selection is None else product(e, k * k)
    if memory.shrinkage is not None:
        distance = distance * memory.shrinkage.astype(jnp.float32)
    return -distance / jnp.sqrt(q.shape[-1])


def read_memory(
    scores: Float[Array, "q n"],
    values: Float[Array, "o n d"],
    *,
    valid: Bool[Array, "n"] | Bool[Array, "o n"],
    top_k: int | None = None,
) -> Readout:
    """Averages the values of valid entries, weighed by the softmax of their scores for each query.

    Args:
      scores: of `similarity`.
      values: of each object `o`.
      valid: which entries count, for all objects or for each. Where the objects differ, they are read one by one;
        objects without any valid entry read zeros, or what the others have.
      top_k: softmax over so many entries of the highest score, which equals a softmax over all but those masked.
    """
    if valid.ndim == 1:
        return _read(scores, values, valid, top_k)
    used, some = valid.any(axis=1), valid.any(axis=0)

    def one(each: tuple[Array, Array]) -> Readout:
        return _read(scores, each[0][None], each[1], top_k)

    def together(_: None) -> Readout:
        return _read(scores, values, some, top_k)

    def apart(_: None) -> Readout:
        read = jax.lax.map(one, (values, valid))
        usage = jnp.sum(jnp.where(used[:, None], read.usage, 0), axis=0) / jnp.maximum(jnp.sum(used), 1)
        return Readout(read.values[:, 0], usage)

    return jax.lax.cond(jnp.all((valid == some) | ~used[:, None]), together, apart, None)


def _read(scores: Array, values: Array, valid: Array, top_k: int | None) -> Readout:
    scores = jnp.where(valid, scores, -jnp.inf)
    if top_k is None or top_k >= scores.shape[1]:
        weights = _softmax(scores)
        return Readout(jnp.einsum("qn,ond->oqd", weights, values), weights.sum(axis=0))
    best, index = jax.lax.top_k(scores, top_k)
    weights = _softmax(best)
    usage = jnp.zeros(scores.shape[1]).at[index].add(weights)
    gather = lambda each: jnp.einsum("qt,qtd->qd", weights, each[index])  # noqa: E731
    return Readout(jax.lax.map(gather, values), usage)  # one by one: what is gathered is large


def _softmax(scores: Float[Array, "q n"]) -> Float[Array, "q n"]:
    """Softmax whose weights are 0 where a query has no entry at all."""
    most = jnp.max(scores, axis=-1, keepdims=True)
    exponentials = jnp.exp(scores - jax.lax.stop_gradient(jnp.where(jnp.isfinite(most), most, 0)))
    return exponentials / jnp.maximum(exponentials.sum(axis=-1, keepdims=True), 1e-30)
