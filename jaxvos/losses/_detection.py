"""The terms of Mask R-CNN (Ren et al. 2015, He et al. 2017), as means over what was sampled.

Leading axes `*s` are samples of any number of images; the means are over all of them together.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

__all__ = ["box_regression_loss", "object_cross_entropy", "objectness_loss", "region_mask_loss", "smooth_l1"]


def smooth_l1(errors: Float[Array, "*s"], *, beta: float) -> Float[Array, "*s"]:
    """Absolute errors less `beta / 2`, but `errors**2 / (2 beta)` where they are below `beta` (Fast R-CNN, Eq. 3)."""
    size = jnp.abs(errors)
    return jnp.where(size < beta, 0.5 * errors * errors / beta, size - 0.5 * beta)


def objectness_loss(
    logits: Float[Array, "*s"], positive: Bool[Array, "*s"], sampled: Bool[Array, "*s"]
) -> Float[Array, ""]:
    """Binary cross-entropy of the sampled anchors (Faster R-CNN, Eq. 1, first term); zero if there is none.

    Args:
      logits: that an anchor holds an object.
      positive: whether it does.
      sampled: the anchors that count.
    """
    return _mean(_binary_cross_entropy(logits, positive), sampled)


def object_cross_entropy(
    logits: Float[Array, "*s n"], positive: Bool[Array, "*s"], sampled: Bool[Array, "*s"]
) -> Float[Array, ""]:
    """Cross-entropy between background and any object, of the sampled regions; zero if there is none.

    With two classes it is the usual cross-entropy. With more, all but the first are one: the net may share out an
    object's probability among them as it likes.

    Args:
      logits: of classes, the first of which is the background.
      positive: whether a region holds an object.
      sampled: the regions that count.
    """
    logits = logits.astype(jnp.float32)
    objects = jax.nn.logsumexp(logits[..., 1:], axis=-1)
    return _mean(_binary_cross_entropy(objects - logits[..., 0], positive), sampled)


def box_regression_loss(
    deltas: Float[Array, "*s 4"],
    targets: Float[Array, "*s 4"],
    positive: Bool[Array, "*s"],
    sampled: Bool[Array, "*s"],
    *,
    beta: float = 1 / 9,
) -> Float[Array, ""]:
    """Smooth L1 distance of encoded boxes: a sum over the positives, divided by the number of all samples.

    Args:
      deltas: predicted.
      targets: of the positives; what stands elsewhere does not count, unless it is NaN.
      positive: which samples hold an object.
      sampled: the samples that count.
      beta: where the quadratic becomes a straight line.
    """
    error = jnp.sum(smooth_l1((deltas - targets).astype(jnp.float32), beta=beta), axis=-1)
    total = jnp.sum(jnp.where(positive & sampled, error, 0.0))
    return total / jnp.maximum(jnp.sum(sampled), 1)


def region_mask_loss(
    logits: Float[Array, "*s y x"], targets: Float[Array, "*s y x"], positive: Bool[Array, "*s"]
) -> Float[Array, ""]:
    """Binary cross-entropy of masks inside their boxes, over the positives' pixels; zero if there is none."""
    return _mean(jnp.mean(_binary_cross_entropy(logits, targets), axis=(-2, -1)), positive)


def _binary_cross_entropy(logits: Float[Array, "*s"], labels: Array) -> Float[Array, "*s"]:
    logits = logits.astype(jnp.float32)
    return jax.nn.softplus(logits) - labels * logits


def _mean(values: Float[Array, "*s"], sampled: Bool[Array, "*s"]) -> Float[Array, ""]:
    return jnp.sum(jnp.where(sampled, values, 0.0)) / jnp.maximum(jnp.sum(sampled), 1)
