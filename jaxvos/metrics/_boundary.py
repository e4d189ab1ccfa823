"""Contour accuracy F: boundaries matched within a small distance of each other."""

import functools

import numpy as np
from jaxtyping import Bool, UInt8

__all__ = ["boundary_map", "boundary_measure"]


def boundary_map(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Returns the one pixel wide boundary of a mask, half a pixel towards the origin (`seg2bmap` of Martin, 2003).

    A pixel is on the boundary where it differs from its neighbour to the right, below, or diagonally below. The last
    row looks only to the right, the last column only down, and the last corner is never on it; so a mask that fills
    the frame has no boundary.
    """
    boundary = np.zeros_like(mask)
    here, right, below, diagonal = mask[:-1, :-1], mask[:-1, 1:], mask[1:, :-1], mask[1:, 1:]
    boundary[:-1, :-1] = (here ^ right) | (here ^ below) | (here ^ diagonal)
    boundary[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    boundary[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return boundary


def boundary_measure(annotation: Bool[np.ndarray, "h w"], segmentation: Bool[np.ndarray, "h w"], *,
                     void: Bool[np.ndarray, "h w"] | None = None, bound_th: int | float = 0.008) -> float:
    """Returns the boundary F-measure of one object in one frame.

    Equal, bit for bit, to `db_eval_boundary` of davis2017-evaluation, and computed only where the masks are: the
    boundaries and their dilations are exact inside the box around both masks, one pixel wider.

    Args:
        annotation: ground truth.
        segmentation: prediction.
        void: pixels that are taken out of both masks before their boundaries are drawn.
        bound_th: how far two boundaries may lie apart: below 1 a fraction of the frame's diagonal, rounded up to whole
            pixels; from 1 on, pixels.

    Returns:
        The harmonic mean of precision and recall, in [0, 1]: 1 where neither mask has a boundary, 0 where one has none.
    """
    import cv2

    if void is not None:
        annotation, segmentation = annotation & ~void, segmentation & ~void
    box = _bounding_box(annotation | segmentation)
    truth, drawn = boundary_map(annotation[box]), boundary_map(segmentation[box])
    n_truth, n_drawn = np.count_nonzero(truth), np.count_nonzero(drawn)
    if n_truth == 0 or n_drawn == 0:
        return float(n_truth == n_drawn)
    disk = _disk(_radius(annotation.shape, bound_th))
    near_truth = cv2.dilate(truth.view(np.uint8), disk).view(bool)
    near_drawn = cv2.dilate(drawn.view(np.uint8), disk).view(bool)
    precision = np.count_nonzero(drawn & near_truth) / n_drawn
    recall = np.count_nonzero(truth & near_drawn) / n_truth
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _radius(shape: tuple[int, ...], bound_th: int | float) -> float:
    """Returns how many pixels two boundaries of a frame of this size may lie apart."""
    return float(bound_th if bound_th >= 1 else np.ceil(bound_th * np.linalg.norm(shape)))


def _bounding_box(mask: Bool[np.ndarray, "h w"]) -> tuple[slice, slice]:
    """Returns the rows and columns of a mask with a margin of one pixel, within the frame; all where it is empty."""
    def span(across: int) -> slice:
        where = np.flatnonzero(mask.any(axis=across))
        return slice(max(int(where[0]) - 1, 0), int(where[-1]) + 2) if where.size else slice(None)

    return span(1), span(0)


@functools.lru_cache(maxsize=16)
def _disk(radius: float) -> UInt8[np.ndarray, "d d"]:
    """Returns the disk x^2 + y^2 <= radius^2 (scikit-image's `disk`)."""
    offsets = np.arange(-radius, radius + 1)
    return (offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2).astype(np.uint8)
