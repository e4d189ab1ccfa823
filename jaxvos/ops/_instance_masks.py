"""Masks of instances: their boxes, their overlap, and the way between a frame and a small grid over each box.

Of a box of width W, cell j of an `s x s` grid covers `[left + j W / s, left + (j + 1) W / s]`. Both ways are products
of one matrix for the rows and one for the columns of each box: no gathers, so that they stay matrix products.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

__all__ = ["crop_masks", "mask_boxes", "mask_iou", "paste_masks"]


def mask_boxes(masks: Float[Array, "m h w"] | Bool[Array, "m h w"], *, threshold: float = 0.5) -> Float[Array, "m 4"]:
    """The tight boxes of what lies above a threshold; an empty mask has the box (0, 0, 0, 0).

    Args:
      masks: full-frame masks, soft or not.
      threshold: pixels above it are in the mask.
    """
    inside = masks > threshold
    left, right = _extent(jnp.any(inside, axis=1))
    top, bottom = _extent(jnp.any(inside, axis=2))
    return jnp.stack([left, top, right, bottom], axis=-1).astype(jnp.float32)


def mask_iou(
    a: Float[Array, "n h w"] | Bool[Array, "n h w"], b: Float[Array, "m h w"] | Bool[Array, "m h w"]
) -> Float[Array, "n m"]:
    """Intersection over union of every pair of masks of zeros and ones; the union has 1e-6 added.

    Args:
      a: masks; soft ones are taken as they are (intersection = sum of products), so threshold them first.
      b: masks of the same frame.
    """
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    intersection = jnp.einsum("nhw,mhw->nm", a, b, precision=lax.Precision.HIGHEST)
    union = a.sum((1, 2))[:, None] + b.sum((1, 2))[None, :] - intersection
    return intersection / (union + 1e-6)


def paste_masks(
    masks: Float[Array, "m s s"], boxes: Float[Array, "m 4"], size: tuple[int, int]
) -> Float[Array, "m h w"]:
    """Spreads each small mask over its box in an empty frame, as Mask R-CNN does (He et al. 2017).

    Bilinear between the centres of the cells, with a ring of zero cells around the mask: at the edge of the box the
    mask is down to half, and half a cell further out to zero. An empty box pastes nothing.

    Args:
      masks: probabilities, or any number.
      boxes: where each mask lies in the frame, in pixels.
      size: height and width of the frame.
    """
    h, w = size
    s = masks.shape[-1]
    rows, columns = (_spread(boxes[:, axis], boxes[:, axis + 2], s, n) for axis, n in ((1, h), (0, w)))
    return jnp.einsum("mys,mst,mxt->myx", rows, masks, columns, precision=lax.Precision.HIGHEST)


def crop_masks(masks: Float[Array, "m h w"], boxes: Float[Array, "m 4"], *, size: int = 28) -> Float[Array, "m s s"]:
    """Averages each full-frame mask over the cells of its own box: the way back from `paste_masks`.

    The averages are exact for pixels as unit squares; outside the frame a mask is zero, and so is an empty box.

    Args:
      masks: full-frame masks, soft or not.
      boxes: one for each mask, in pixels.
      size: `s`, cells per side.
    """
    h, w = masks.shape[1:]
    rows, columns = (_average(boxes[:, axis], boxes[:, axis + 2], size, n) for axis, n in ((1, h), (0, w)))
    return jnp.einsum("msy,myx,mtx->mst", rows, masks, columns, precision=lax.Precision.HIGHEST)


def _extent(occupied: Bool[Array, "m n"]) -> tuple[Array, Array]:
    """Returns the first index and one after the last, both 0 where there is none."""
    n = occupied.shape[1]
    after_last = n - jnp.argmax(occupied[:, ::-1], axis=1)
    return jnp.argmax(occupied, axis=1), jnp.where(jnp.any(occupied, axis=1), after_last, 0)


def _spread(start: Float[Array, "m"], end: Float[Array, "m"], s: int, n: int) -> Float[Array, "m n s"]:
    """Returns the bilinear weight of each of s cells in each of n pixels along one axis."""
    real, length = _length(start, end)
    position = (jnp.arange(n) + 0.5 - start[:, None]) / length[:, None] * s - 0.5
    weights = jnp.maximum(1 - jnp.abs(position[..., None] - jnp.arange(s)), 0)
    return weights * real[:, None, None]


def _average(start: Float[Array, "m"], end: Float[Array, "m"], s: int, n: int) -> Float[Array, "m s n"]:
    """Returns the share of each of n pixels in each of s cells along one axis."""
    real, length = _length(start, end)
    step = length[:, None, None] / s
    low = start[:, None, None] + jnp.arange(s)[:, None] * step
    pixel = jnp.arange(n)
    overlap = jnp.minimum(pixel + 1, low + step) - jnp.maximum(pixel, low)
    return jnp.maximum(overlap, 0) / step * real[:, None, None]


def _length(start: Float[Array, "m"], end: Float[Array, "m"]) -> tuple[Bool[Array, "m"], Float[Array, "m"]]:
    """Returns whether there is anything between the edges, and how much (1 where there is nothing, to divide by)."""
    real = end > start
    return real, jnp.where(real, end - start, 1)
