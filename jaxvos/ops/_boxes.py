"""Boxes as `(left, top, right, bottom)`: edges in pixels, of which pixel i has i and i + 1."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

__all__ = ["box_iou", "clip_boxes", "decode_boxes", "encode_boxes", "nms"]

_MAX_LOG_GROWTH = math.log(1000 / 16)  # a decoded box is at most 62.5 times as wide and as high as its anchor
_MIN_SIZE = 1e-3  # pixels: what an empty box counts as where its size divides or goes into a logarithm


def box_iou(a: Float[Array, "n 4"], b: Float[Array, "m 4"]) -> Float[Array, "n m"]:
    """Intersection over union of every pair of boxes; 0 where both are empty."""
    left_top = jnp.maximum(a[:, None, :2], b[None, :, :2])
    right_bottom = jnp.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = jnp.prod(jnp.maximum(right_bottom - left_top, 0), axis=-1)
    union = _area(a)[:, None] + _area(b)[None, :] - intersection
    return jnp.where(union > 0, intersection / jnp.where(union > 0, union, 1), 0)


def encode_boxes(
    boxes: Float[Array, "m 4"], anchors: Float[Array, "m 4"], *, weights: tuple[float, float, float, float]
) -> Float[Array, "m 4"]:
    """Writes boxes as `(dx, dy, dw, dh)` relative to anchors (R-CNN, Girshick et al. 2014, Appendix C).

    `dx = (x - x_a) / w_a` and `dw = log(w / w_a)` for centres x and widths w, and likewise for y and heights, each
    times its weight. Empty boxes and anchors count as one thousandth of a pixel wide, so that the result is finite.

    Args:
      boxes: what to write.
      anchors: the box that each is written relative to.
      weights: of dx, dy, dw and dh.
    """
    centre, size = _centre_size(boxes)
    anchor_centre, anchor_size = _centre_size(anchors)
    anchor_size = jnp.maximum(anchor_size, _MIN_SIZE)
    shift = (centre - anchor_centre) / anchor_size
    growth = jnp.log(jnp.maximum(size, _MIN_SIZE) / anchor_size)
    return jnp.concatenate([shift, growth], axis=-1) * jnp.array(weights, boxes.dtype)


def decode_boxes(
    deltas: Float[Array, "m 4"], anchors: Float[Array, "m 4"], *, weights: tuple[float, float, float, float]
) -> Float[Array, "m 4"]:
    """Undoes `encode_boxes`; `dw` and `dh` are held at most log(1000 / 16), so that no box overflows.

    Args:
      deltas: `(dx, dy, dw, dh)`, weighted.
      anchors: the boxes that the deltas are relative to.
      weights: those of `encode_boxes`.
    """
    deltas = deltas / jnp.array(weights, deltas.dtype)
    anchor_centre, anchor_size = _centre_size(anchors)
    anchor_size = jnp.maximum(anchor_size, _MIN_SIZE)
    centre = anchor_centre + deltas[:, :2] * anchor_size
    half = jnp.exp(jnp.minimum(deltas[:, 2:], _MAX_LOG_GROWTH)) * anchor_size / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def clip_boxes(boxes: Float[Array, "m 4"], size: tuple[int, int]) -> Float[Array, "m 4"]:
    """Cuts boxes at the edges of an image of this size (height, width); a box outside becomes empty."""
    h, w = size
    return jnp.clip(boxes, 0, jnp.array([w, h, w, h], boxes.dtype))


def nms(
    boxes: Float[Array, "m 4"],
    scores: Float[Array, "m"],
    *,
    valid: Bool[Array, "m"] | None = None,
    iou_threshold: float,
    num_outputs: int,
) -> tuple[Int[Array, "k"], Bool[Array, "k"]]:
    """Greedy non-maximum suppression: keeps the best box, drops what overlaps it, and so on with what is left.

    Exact, with fixed shapes: it takes `num_outputs` steps and as much memory as there are boxes. Nothing is
    differentiated.

    Args:
      boxes: candidates.
      scores: of each box; of equal scores the first box wins.
      valid: boxes that take part; all by default.
      iou_threshold: a box whose overlap with a kept one is above this is dropped.
      num_outputs: `k`, how many boxes to return.

    Returns:
      The indices of the boxes kept, the best first, and which of these are real: where fewer than `k` boxes are left
      the index is 0 and the flag False.
    """
    boxes, scores = jax.lax.stop_gradient((boxes, scores))
    order = jnp.argsort(-scores, stable=True)
    boxes = boxes[order]

    def keep_next(alive: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        best, kept = jnp.argmax(alive), jnp.any(alive)
        overlaps = box_iou(boxes[best][None], boxes)[0] > iou_threshold
        return alive & ~overlaps & (jnp.arange(len(alive)) != best), (jnp.where(kept, order[best], 0), kept)

    alive = jnp.ones(len(scores), bool) if valid is None else valid[order]
    _, (indices, kept) = jax.lax.scan(keep_next, alive, length=num_outputs)
    return indices, kept


def _area(boxes: Float[Array, "m 4"]) -> Float[Array, "m"]:
    return jnp.prod(jnp.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=-1)


def _centre_size(boxes: Float[Array, "m 4"]) -> tuple[Float[Array, "m 2"], Float[Array, "m 2"]]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
