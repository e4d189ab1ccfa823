"""The two losses of masks that memory networks are trained by; both leave out slots that hold no object."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

__all__ = ["bootstrapped_cross_entropy", "dice_loss"]

_NEVER = -1e30  # logit of a slot that cannot be; finite, so that a pixel without any slot is too


def bootstrapped_cross_entropy(
    logits: Float[Array, "h w k"],
    masks: Float[Array, "h w k"],
    keep: float | Float[Array, ""],
    *,
    alive: Bool[Array, "k"] | None = None,
) -> Float[Array, ""]:
    """Mean cross-entropy of the hardest pixels (as STCN and XMem are trained, after Wu et al. 2016).

    The `ceil(keep h w)` pixels of the greatest loss count, exactly so many whatever the ties. Which they are has no
    gradient. Of frames that are labelled in part, the known pixels alone are ranked, and `h w` is their number.

    Args:
      logits: before the softmax over the live slots.
      masks: one-hot; all NaN where it is not known.
      keep: share of the pixels, in (0, 1]; may be traced, so that it can follow a schedule. 1 is the plain mean.
      alive: slots that count, the background among them; by default all. What the others hold does not matter.

    Returns:
      The mean; 0 where no pixel is known.
    """
    logits, masks, known = _live(logits, masks, alive)
    loss = -jnp.sum(jnp.where(masks > 0, masks * jax.nn.log_softmax(logits), 0), axis=-1)
    order = jnp.argsort(-lax.stop_gradient(loss).ravel())  # what is not known costs nothing, and comes last
    rank = jnp.zeros(order.size, jnp.int32).at[order].set(jnp.arange(order.size))
    pixels = jnp.sum(known).astype(jnp.float32)
    count = jnp.minimum(jnp.ceil(keep * pixels), pixels)
    return jnp.sum(jnp.where(rank.reshape(loss.shape) < count, loss, 0)) / jnp.maximum(count, 1)


def dice_loss(
    logits: Float[Array, "h w k"],
    masks: Float[Array, "h w k"],
    *,
    alive: Bool[Array, "k"] | None = None,
    smooth: float = 1.0,
) -> Float[Array, ""]:
    """One less the Dice coefficient `(2 sum p m + smooth) / (sum p + sum m + smooth)`, mean over the live slots.

    The background is a slot like the others (Milletari et al. 2016, without the squares of its denominator). XMem and
    the released code of correspondence learning add this loss to the cross-entropy.

    Args:
      logits: before the softmax over the live slots, whose probabilities are `p`.
      masks: one-hot `m`; all NaN where it is not known.
      alive: slots that count; by default all.
      smooth: pixels added to both sides, which makes a slot that is rightly empty cost nothing.

    Returns:
      The mean; 0 where no slot is alive.
    """
    logits, masks, known = _live(logits, masks, alive)
    p = jnp.where(known[..., None], jax.nn.softmax(logits), 0)
    both, either = jnp.sum(p * masks, axis=(0, 1)), jnp.sum(p + masks, axis=(0, 1))
    each = 1 - (2 * both + smooth) / (either + smooth)
    if alive is None:
        return jnp.mean(each)
    return jnp.sum(jnp.where(alive, each, 0)) / jnp.maximum(jnp.sum(alive), 1)


def _live(
    logits: Float[Array, "h w k"], masks: Float[Array, "h w k"], alive: Bool[Array, "k"] | None
) -> tuple[Float[Array, "h w k"], Float[Array, "h w k"], Bool[Array, "h w"]]:
    """Logits and masks without what is dead or unknown, and the pixels that are known."""
    logits, masks = logits.astype(jnp.float32), masks.astype(jnp.float32)
    if alive is not None:
        logits, masks = jnp.where(alive, logits, _NEVER), jnp.where(alive, masks, 0)
    known = jnp.isfinite(masks).all(axis=-1)
    return logits, jnp.where(known[..., None], masks, 0), known
