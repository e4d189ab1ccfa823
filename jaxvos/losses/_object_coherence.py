"""Objects of two distant frames must find each other again (Zhang et al., CVPR 2023, Eq. 8-11).

`b` clips, `n` boxes of the first frame, `m` of the second, `d` channels of their embeddings.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxvos.solvers import match
from jaxvos.typing import Key

__all__ = ["draw_boxes", "object_coherence"]

_NEVER = -1e30  # score of a pair that cannot be; finite, so that rows without any pair are too


def draw_boxes(key: Key, valid: Bool[Array, "n"], num: int) -> tuple[Int[Array, "num"], Bool[Array, "num"]]:
    """Draws different boxes of a clip, each as likely as the others.

    Args:
      key: randomness, another one for each clip.
      valid: boxes that exist.
      num: how many to draw.

    Returns:
      Indices of `num` boxes, and which of them were drawn: all, or as many as exist, first.
    """
    shuffled = jax.random.permutation(key, len(valid))
    index = shuffled[jnp.argsort(~valid[shuffled], stable=True)][:num]
    index = jnp.pad(index, (0, num - len(index)))
    return index, jnp.arange(num) < jnp.sum(valid)


def object_coherence(
    first: Float[Array, "b n d"],
    second: Float[Array, "b m d"],
    *,
    first_valid: Bool[Array, "b n"],
    second_valid: Bool[Array, "b m"],
    temperature: float = 0.1,
    method: Literal["hungarian", "greedy", "sinkhorn", "pgd", "qp"] = "hungarian",
    near_duplicates: Bool[Array, "b m m"] | None = None,
) -> Float[Array, ""]:
    """InfoNCE of the boxes of the first frame, whose positives are their matches in the second frame of their clip.

    Within a clip, boxes are matched at the greatest total cosine, without gradient. The boxes of the second frames of
    all clips are the negatives: clips must be of different videos. Boxes that have no match, because their clip has
    fewer in the second frame, do not count.

    Args:
      first: embeddings, of any length.
      second: embeddings, of any length.
      first_valid: boxes that exist. What the others hold, NaN included, does not matter.
      second_valid: boxes that exist.
      temperature: of the softmax over cosines.
      method: of `jaxvos.solvers.match`. The targets of the soft ones, `sinkhorn`, `pgd` and `qp`, are their plans, with
        rows that are made to sum to 1.
      near_duplicates: pairs of boxes of a second frame that overlap so much (an IoU above 0.7) that the one is no
        negative of the other. A row is not compared with those of its match.

    Returns:
      The mean over the matched boxes; 0 if there are none.

    Source: Zhang et al., "Boosting Video Object Segmentation via Space-time Correspondence Learning" (CVPR 2023), Eq.
    8-11. The loss of unmatched rows, the scale `temperature` and `near_duplicates` are not in the paper's text.
    """
    (b, n, _), m = first.shape, second.shape[1]
    first, second = _unit(first, first_valid), _unit(second, second_valid)
    cosines = jnp.einsum("bnd,emd->bnem", first, second, precision=lax.Precision.HIGHEST)
    own = cosines[jnp.arange(b), :, jnp.arange(b)]
    solve = lambda cost, rows, columns: match(cost, method=method, row_mask=rows, col_mask=columns)  # noqa: E731
    solution = jax.vmap(solve)(-lax.stop_gradient(own), first_valid, second_valid)
    compared, target = jnp.broadcast_to(second_valid[:, None], (b, n, m)), solution.plan
    if near_duplicates is not None:
        column = solution.assignment[..., None]
        alike = jnp.take_along_axis(near_duplicates, column, axis=1) & (jnp.arange(m) != column)
        compared = compared & ~alike
        target = jnp.where(alike, 0, target)
    counts = solution.matched
    target = target / jnp.maximum(target.sum(axis=-1, keepdims=True), 1e-9)
    every = jnp.broadcast_to(second_valid, (b, n, b, m)).at[jnp.arange(b), :, jnp.arange(b)].set(compared)
    scores = jnp.where(every, cosines / temperature, _NEVER)
    chance = scores - jax.nn.logsumexp(scores, axis=(2, 3), keepdims=True)
    loss = -jnp.sum(jnp.where(target > 0, target * chance[jnp.arange(b), :, jnp.arange(b)], 0), axis=-1)
    return jnp.sum(jnp.where(counts, loss, 0)) / jnp.maximum(jnp.sum(counts), 1)


def _unit(x: Float[Array, "b n d"], valid: Bool[Array, "b n"]) -> Float[Array, "b n d"]:
    """Vectors of length 1 in float32; 0 where there is none."""
    x = jnp.where(valid[..., None], x, 0).astype(jnp.float32)
    return x * lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))
