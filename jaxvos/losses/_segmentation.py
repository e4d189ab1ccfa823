"""Cross-entropies of masks and boundaries."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["edge_cross_entropy", "mask_cross_entropy"]


def mask_cross_entropy(logits: Float[Array, "h w k"], masks: Float[Array, "h w k"]) -> Float[Array, ""]:
    """Mean over pixels of the cross-entropy over all slots `k`, background included (TransportNet, Eq. 11).

    The paper writes the foreground's term alone, which "foreground everywhere" would minimise.
    """
    return -jnp.mean(jnp.sum(masks * jax.nn.log_softmax(logits.astype(jnp.float32)), axis=-1))


def edge_cross_entropy(
    logits: Float[Array, "h w"], edges: Float[Array, "h w"], *, pos_weight: Literal["none", "hed"] = "none"
) -> Float[Array, ""]:
    """Mean over pixels of the binary cross-entropy of a boundary map.

    Args:
      logits: before the sigmoid.
      edges: 1 on boundaries.
      pos_weight: `none`, or `hed`: each class weighs as much as the other has pixels (Xie and Tu 2015, Eq. 2).
    """
    logits = logits.astype(jnp.float32)
    positive, negative = edges * jax.nn.log_sigmoid(logits), (1 - edges) * jax.nn.log_sigmoid(-logits)
    match pos_weight:
        case "none":
            return -jnp.mean(positive + negative)
        case "hed":
            share = jnp.mean(edges)
            return -jnp.mean((1 - share) * positive + share * negative)
