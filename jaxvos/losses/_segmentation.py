"""Cross-entropies of masks and boundaries."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["balanced_cross_entropy", "edge_cross_entropy", "mask_cross_entropy"]


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


def balanced_cross_entropy(
    logits: Float[Array, "h w k"],
    masks: Float[Array, "h w k"],
    *,
    balance: Literal["hed", "none"] = "hed",
    w_min: float = 0.0,
    reduction: Literal["mean", "sum"] = "mean",
) -> Float[Array, ""]:
    """Cross-entropy in which every slot weighs one less its share of the known pixels (SegFlow, Eq. 1).

    With foreground and background, `w` being the share of the foreground, this is
    `-(1 - w) sum_fg log p_1 - w sum_bg log p_0`. The paper calls `w` a ratio of the two; that would exceed 1 for large
    objects, and the released code computes the share.

    Args:
      logits: before the softmax.
      masks: one-hot; all NaN where it is not known.
      balance: as said, or every pixel alike.
      w_min: least weight of a slot; the paper's 0 lets a frame of background alone teach nothing.
      reduction: `mean` divides by `h w`, neither by the weights nor by the known pixels, so that it is `sum` but for
        a constant.
    """
    known = jnp.isfinite(masks).all(axis=-1, keepdims=True)
    masks = jnp.where(known, masks, 0)
    each = -jnp.sum(masks * jax.nn.log_softmax(logits.astype(jnp.float32)), axis=(0, 1))
    if balance == "hed":
        share = jnp.sum(masks, axis=(0, 1)) / jnp.maximum(jnp.sum(known), 1)
        each = each * jnp.maximum(1 - share, w_min)
    total = jnp.sum(each)
    return total / (logits.shape[0] * logits.shape[1]) if reduction == "mean" else total
