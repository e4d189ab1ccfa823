"""Which anchors and regions a Mask R-CNN learns from, one image at a time.

Nothing here depends on the order of the objects or on slots that hold none: a region is drawn by a number of its own.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxvos.ops import box_iou, encode_boxes, mask_boxes, roi_align
from jaxvos.typing import Key

__all__ = ["ANCHOR_WEIGHTS", "REGION_WEIGHTS", "Objects", "Regions", "Samples", "anchor_boxes", "find_objects",
           "sample_anchors", "sample_regions"]

# scales of the encoded boxes
ANCHOR_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
REGION_WEIGHTS = (10.0, 10.0, 5.0, 5.0)

_POSITIVE_ANCHOR, _NEGATIVE_ANCHOR, _POSITIVE_REGION = 0.7, 0.3, 0.5  # overlaps with an object
_ANCHOR_SHARE, _REGION_SHARE = 0.5, 0.25  # largest shares of positives


class Objects(NamedTuple):
    """What is to be found in an image."""

    masks: Float[Array, "h w k"]
    boxes: Float[Array, "k 4"]
    real: Bool[Array, "k"]


class Samples(NamedTuple):
    """Anchors that count in the loss."""

    indices: Int[Array, "s"]
    targets: Float[Array, "s 4"]  # encoded boxes of their objects
    positive: Bool[Array, "s"]
    sampled: Bool[Array, "s"]


class Regions(NamedTuple):
    """Regions that count in the loss, positives first; masks are those of the first `p`, as many as may be positive."""

    boxes: Float[Array, "s 4"]
    targets: Float[Array, "s 4"]
    masks: Float[Array, "p y x"]
    positive: Bool[Array, "s"]
    sampled: Bool[Array, "s"]


def anchor_boxes(
    size: tuple[int, int], levels: tuple[int, ...], sizes: tuple[float, ...], ratios: tuple[float, ...]
) -> Float[np.ndarray, "n 4"]:
    """Lays anchors over an image, level by level, row by row, pixel by pixel, ratio by ratio.

    Args:
      size: height and width of the image.
      levels: of the pyramid; a pixel of level `l` stands for `2 ** l` of the image.
      sizes: side of the square that an anchor has the area of, one for each level.
      ratios: height to width.
    """
    height_per_side = np.sqrt(np.array(ratios))
    anchors = []
    for level, side in zip(levels, sizes, strict=True):
        stride = 2**level
        width, height = side / height_per_side, side * height_per_side
        base = np.round(np.stack([-width, -height, width, height], axis=-1) / 2)
        y, x = (stride * np.arange(-(-length // stride)) for length in size)
        corner = np.stack(np.broadcast_arrays(x[None, :], y[:, None], x[None, :], y[:, None]), axis=-1)
        anchors.append((corner[:, :, None] + base).reshape(-1, 4))
    return np.concatenate(anchors).astype(np.float32)


def find_objects(masks: Float[Array, "h w k"], alive: Bool[Array, "k"]) -> Objects:
    """Finds the boxes of masks; an object that is not to be seen is not real."""
    boxes = mask_boxes(jnp.moveaxis(masks, -1, 0))
    return Objects(masks, boxes, alive & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))


def sample_anchors(key: Key, anchors: Float[Array, "n 4"], objects: Objects, *, number: int) -> Samples:
    """Draws anchors, at most half of them positive (Faster R-CNN, section 3.1.2).

    Positive is an anchor that overlaps an object by 0.7, or none less than any other does; negative one that overlaps
    each by less than 0.3.
    """
    overlap = jnp.where(objects.real, box_iou(anchors, objects.boxes), 0.0)
    most, index = jnp.max(overlap, axis=1), jnp.argmax(overlap, axis=1)
    best = jnp.any((overlap == jnp.max(overlap, axis=0)) & (overlap > 0), axis=1)
    positive = best | (most >= _POSITIVE_ANCHOR)
    negative = ~positive & (most < _NEGATIVE_ANCHOR)
    priority = jax.random.uniform(key, (len(anchors),))
    indices, positive, sampled = _draw(priority, positive, negative, number=number, most=_share(number, _ANCHOR_SHARE))
    targets = encode_boxes(_matched(objects, index[indices]), anchors[indices], weights=ANCHOR_WEIGHTS)
    return Samples(indices, targets, positive, sampled)


def sample_regions(
    key: Key,
    boxes: Float[Array, "n 4"],
    valid: Bool[Array, "n"],
    objects: Objects,
    *,
    number: int,
    mask_size: int,
) -> Regions:
    """Draws regions, at most a quarter of them positive: they overlap an object by half (Fast R-CNN, section 2.3).

    The objects' own boxes are candidates too, small ones first, where proposals leave room.

    Args:
      key: randomness.
      boxes: proposals.
      valid: which of them are any.
      objects: of the image.
      number: regions to draw.
      mask_size: height and width of the masks to learn.
    """
    area = objects.masks.shape[0] * objects.masks.shape[1]
    size = objects.boxes[:, 2:] - objects.boxes[:, :2]
    priority = jnp.concatenate([1 + jax.random.uniform(key, (len(boxes),)), 1 - size[:, 0] * size[:, 1] / area]) / 2
    boxes, valid = jnp.concatenate([boxes, objects.boxes]), jnp.concatenate([valid, objects.real])
    overlap = jnp.where(objects.real, box_iou(boxes, objects.boxes), 0.0)
    most, index = jnp.max(overlap, axis=1), jnp.argmax(overlap, axis=1)
    positive, negative = valid & (most >= _POSITIVE_REGION), valid & (most < _POSITIVE_REGION)
    top = min(_share(number, _REGION_SHARE), len(boxes))
    indices, positive, sampled = _draw(priority, positive, negative, number=number, most=top)
    boxes, index = boxes[indices], index[indices]
    targets = encode_boxes(_matched(objects, index), boxes, weights=REGION_WEIGHTS)
    masks = roi_align(objects.masks, boxes[:top], output_size=(mask_size, mask_size))
    masks = jnp.take_along_axis(masks, index[:top, None, None, None], axis=-1)[..., 0]
    return Regions(boxes, targets, (masks >= 0.5).astype(jnp.float32), positive, sampled)


def _matched(objects: Objects, index: Int[Array, "s"]) -> Float[Array, "s 4"]:
    """Boxes of the objects matched; of nothing, where nothing is real, a box that can be encoded all the same."""
    return jnp.where(objects.real[index, None], objects.boxes[index], jnp.array([0.0, 0.0, 1.0, 1.0]))


def _share(number: int, share: float) -> int:
    return max(int(share * number), 1)


def _draw(
    priority: Float[Array, "n"], positive: Bool[Array, "n"], negative: Bool[Array, "n"], *, number: int, most: int
) -> tuple[Int[Array, "s"], Bool[Array, "s"], Bool[Array, "s"]]:
    """Takes at most so many positives, then negatives, both by priority (of 0 to 1).

    Returns:
      Indices, positives first; which are positive; and which are drawn at all.
    """
    number, most = min(number, len(priority)), min(most, len(priority))
    value, index = jax.lax.top_k(jnp.where(positive, priority, -1.0), most)
    positive = jnp.zeros_like(positive).at[index].set(value >= 0)
    value, index = jax.lax.top_k(jnp.where(positive, 2 + priority, jnp.where(negative, priority, -1.0)), number)
    return index, positive[index], value >= 0
