"""Objects that were segmented one by one, made to share every pixel."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

__all__ = ["soft_aggregate", "tell_masks"]

_MARGIN = 1e-7


def soft_aggregate(
    probabilities: Float[Array, "h w o"], *, alive: Bool[Array, "o"] | None = None
) -> Float[Array, "h w k"]:
    """Logits over the background and the objects, of which a softmax gives the share of each (Oh et al. 2018).

    The background has the probability that no object is there; every probability becomes its log-odds, in float32:
    in half precision the largest would be infinite.

    Args:
      probabilities: of each object by itself.
      alive: which slots hold an object; the others have a logit of minus infinity and change nothing.
    """
    p = probabilities.astype(jnp.float32)
    if alive is not None:
        p = jnp.where(alive, p, 0)
    p = jnp.concatenate([jnp.prod(1 - p, axis=-1, keepdims=True), p], axis=-1)
    p = jnp.clip(p, _MARGIN, 1 - _MARGIN)
    logits = jnp.log(p) - jnp.log1p(-p)
    if alive is None:
        return logits
    return logits.at[..., 1:].set(jnp.where(alive, logits[..., 1:], -jnp.inf))


def tell_masks(masks: Float[Array, "h w k"], told: Float[Array, "h w k"]) -> Float[Array, "h w k"]:
    """Puts what a person marked in the place of what was found.

    A slot with a pixel in `told` is that from now on, and its pixels are taken from the others, which share the rest in
    the proportions they had. A slot without one keeps what is left to it; that of the background is never told.

    Args:
      masks: probabilities, summing to one over the slots.
      told: masks of the objects that are spoken of; the background's is not looked at.
    """
    told = told.at[..., 0].set(0)
    spoken = jnp.any(told > 0, axis=(0, 1))
    left = jnp.where(spoken, 0, masks)
    left = left.at[..., 0].add(_MARGIN)  # where nothing is left of a pixel, the background has it
    share = 1 - jnp.clip(told.sum(axis=-1, keepdims=True), 0, 1)
    return jnp.where(jnp.any(spoken), told + share * left / left.sum(axis=-1, keepdims=True), masks)
