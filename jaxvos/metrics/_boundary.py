"""Contour accuracy F: boundaries matched within a small distance of each other."""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8, UInt64

__all__ = ["boundary_map", "boundary_measure"]

_BOUND_TH = 0.008
_Bits = UInt64[np.ndarray, "words n h"]
_Counts = Int64[np.ndarray, "*_"]


def boundary_map(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Returns the one pixel wide boundary of a mask, half a pixel towards the origin (`seg2bmap` of Martin, 2003).

    A pixel is on the boundary where it differs from its neighbour to the right, below, or diagonally below. The last
    row looks only to the right, the last column only down, and the last corner is never on it; so a mask that fills
    the frame has no boundary.
    """
    bits = _outline(_pack((mask,)), mask.shape[1])
    packed = np.moveaxis(bits[:, 0], 0, -1).copy().view(np.uint8)
    return np.unpackbits(packed, axis=-1, count=mask.shape[1], bitorder="little").view(bool)


def boundary_measure(
    annotation: Bool[np.ndarray, "h w"],
    segmentation: Bool[np.ndarray, "h w"],
    *,
    void: Bool[np.ndarray, "h w"] | None = None,
    bound_th: int | float = _BOUND_TH,
) -> float:
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
    if void is not None:
        annotation, segmentation = annotation & ~void, segmentation & ~void
    box = _bounding_box((annotation, segmentation))
    return _matched((annotation[box], segmentation[box]), _radius(annotation.shape, bound_th))


def _matched(masks: tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]], radius: float) -> float:
    """Returns the F-measure of two masks that have been cropped."""
    bits = _outline(_pack(masks), masks[0].shape[1])
    near = _dilate(bits, radius)
    counts = np.concatenate([_count(bits), _count(bits & near[:, ::-1])])
    return float(_f_measure(*counts[:, None])[0])


def _radius(shape: tuple[int, ...], bound_th: int | float = _BOUND_TH) -> float:
    """Returns how many pixels two boundaries of a frame of this size may lie apart."""
    return float(bound_th if bound_th >= 1 else np.ceil(bound_th * np.linalg.norm(shape)))


def _bounding_box(masks: Sequence[Bool[np.ndarray, "h w"]]) -> tuple[slice, slice]:
    """Returns the rows and columns around masks with a margin of one pixel in the frame; a corner if all are empty.

    The masks are not merged first: a temporary of the size of a frame costs more than looking twice.
    """

    def span(masks: Sequence[Bool[np.ndarray, "h w"]], across: int) -> slice:
        lines = np.logical_or.reduce([mask.any(axis=across) for mask in masks])
        first, last = int(lines.argmax()), len(lines) - 1 - int(lines[::-1].argmax())
        return slice(max(first - 1, 0), min(last + 2, len(lines))) if lines[first] else slice(0, 1)

    rows = span(masks, 1)
    return rows, span([mask[rows] for mask in masks], 0)


def _f_measure(
    n_truth: _Counts, n_drawn: _Counts, truth_matched: _Counts, drawn_matched: _Counts
) -> Float64[np.ndarray, "*_"]:
    """Returns F from the pixels of two boundaries and from those of each that lie near the other."""
    precision, recall = drawn_matched / np.maximum(n_drawn, 1), truth_matched / np.maximum(n_truth, 1)
    total = precision + recall
    return np.where(n_truth + n_drawn == 0, 1.0, 2 * precision * recall / np.where(total > 0, total, 1.0))


def _pack(maps: Sequence[Bool[np.ndarray, "h w"]]) -> _Bits:
    """Returns maps with 64 pixels of a row in a word, the first in the lowest bit: what follows is a word at a time."""
    height, width = maps[0].shape
    words = -(-width // 64)
    padded = np.zeros((len(maps), height, 64 * words), bool)
    for row, each in zip(padded, maps, strict=True):
        row[:, :width] = each
    packed = np.packbits(padded, bitorder="little").view("<u8")
    return np.moveaxis(packed.reshape(len(maps), height, words), -1, 0).copy()


def _count(bits: _Bits) -> _Counts:
    """Returns how many pixels are set in each packed map."""
    return np.bitwise_count(bits).sum((0, -1), dtype=np.int64)


def _outline(bits: _Bits, width: int) -> _Bits:
    """Returns the boundaries of packed masks; what lies beyond the last row or column is what lies in it."""
    right = _shift(bits, -1)
    right[-1] |= bits[-1] & np.uint64(1 << (width - 1) % 64)
    here, below, diagonal = bits[..., :-1], bits[..., 1:], right[..., 1:]
    outline = bits ^ right
    outline[..., :-1] |= (here ^ below) | (here ^ diagonal)
    return outline


def _dilate(bits: _Bits, radius: float) -> _Bits:
    """Dilates packed maps with a disk: runs along the rows, from the disk's shortest to its longest, are put together.

    Pixels beyond the width of the maps may be set too. A run grows by no more than half of its length at a time, so
    that nothing is lost at the ends of a row. Empty rows are put before the first, so that maps can move by rows as one
    flat array, which is more than twice as fast.
    """
    disk = _disk(radius)
    size, above = len(disk), len(disk) // 2
    run, near = np.zeros((2, *bits.shape[:-1], above + bits.shape[-1]), np.uint64)
    run[..., above:] = bits
    flat, length = near.reshape(-1), 1
    if size % 2 == 0:  # one more before the pixel than after
        run, length = run | _shift(run, 1), 2
    for top, wanted in enumerate(disk.sum(1, dtype=int)[: (size + 1) // 2].tolist()):
        while length < wanted:
            step = min((length + 1) // 2, (wanted - length) // 2, 63)
            run = run | _shift(run, step) | _shift(run, -step)
            length += 2 * step
        if wanted:
            flat[above - top :] |= run.reshape(-1)[: flat.size - above + top]
            up = size - 1 - top - above
            flat[: flat.size - up] |= run.reshape(-1)[up:]
    return near[..., above:]


def _shift(bits: _Bits, columns: int) -> _Bits:
    """Moves packed maps by fewer than 64 columns, to the right or (negative) to the left."""
    if columns > 0:
        moved = bits << columns
        moved[1:] |= bits[:-1] >> (64 - columns)
    else:
        moved = bits >> -columns
        moved[:-1] |= bits[1:] << (64 + columns)
    return moved


@functools.lru_cache(maxsize=16)
def _disk(radius: float) -> UInt8[np.ndarray, "d d"]:
    """Returns the disk x^2 + y^2 <= radius^2 (scikit-image's `disk`)."""
    offsets = np.arange(-radius, radius + 1)
    return (offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2).astype(np.uint8)
