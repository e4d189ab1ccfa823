"""Losses of matched masks and of the similarities that they are matched by (DMM-Net, ICCV 2019, as released)."""

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float

from jaxvos.solvers import hungarian

__all__ = ["best_matches", "similarity_loss", "soft_iou_loss"]


def soft_iou_loss(probabilities: Float[Array, "h w"], mask: Float[Array, "h w"]) -> Float[Array, ""]:
    """One minus the intersection over union with sums in place of counts: `1 - sum(p t) / sum(p + t - p t)`.

    The paper states no loss; this is the released one, of refined and of matched masks. Where the mask is empty it is 1
    whatever the probabilities are, with a gradient of 0.
    """
    both = jnp.sum(probabilities * mask)
    return 1 - both / (jnp.sum(probabilities) + jnp.sum(mask) - both + 1e-6)


def best_matches(
    iou: Float[Array, "n m"], *, row_mask: Bool[Array, "n"], col_mask: Bool[Array, "m"], min_iou: float = 0.3
) -> tuple[Float[Array, "n m"], Bool[Array, "n"]]:
    """Says which proposal each object should be matched to: the assignment of the greatest total overlap.

    Args:
      iou: overlap of the true masks with the proposals.
      row_mask: objects that exist.
      col_mask: proposals that exist.
      min_iou: an object that no proposal overlaps by so much has no match. (The released code sends such rows to an
        arbitrary proposal.)

    Returns:
      The assignment, rows of 0 and 1 without gradient, and the objects that have a match.
    """
    iou = stop_gradient(iou)
    near = jnp.where(col_mask, iou, 0).max(1, initial=0) >= min_iou
    solution = hungarian(-iou, row_mask=row_mask & near, col_mask=col_mask, null_cost=-min_iou)
    return stop_gradient(solution.plan), solution.matched


def similarity_loss(
    similarity: Float[Array, "n m"],
    target: Float[Array, "n m"],
    *,
    row_mask: Bool[Array, "n"],
    col_mask: Bool[Array, "m"],
) -> Float[Array, ""]:
    """Mean square of `similarity - target` over the pairs that exist; 0 if there are none."""
    pairs = row_mask[:, None] & col_mask
    return jnp.sum(jnp.where(pairs, (similarity - target) ** 2, 0)) / jnp.maximum(jnp.sum(pairs), 1)
