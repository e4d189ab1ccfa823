"""Masks as polygons."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from jaxvos.errors import InputError

__all__ = ["fill_polygons", "is_numbers"]

_HUGE = 1e9  # no coordinate is as large


def fill_polygons(polygons: Any, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Fills polygons: a pixel is inside where its centre is, by the even-odd rule; several polygons are joined.

    Args:
        polygons: lists `[x, y, x, y, ...]` in pixels, as COCO has them; pixel i covers [i, i + 1).
        size: height and width of the mask.

    Raises:
        InputError: if it is not a list of such lists, with three or more points each and finite numbers.
    """
    mask = np.zeros(size, bool)
    for polygon in polygons if isinstance(polygons, list) else [[]]:
        if not is_numbers(polygon) or len(polygon) < 6 or len(polygon) % 2:
            raise InputError("a segmentation must be run lengths, or polygons of three points or more, each a list "
                             "[x, y, x, y, ...] of numbers in pixels")
        mask |= _inside(np.array(polygon, float).reshape(-1, 2), size)
    return mask


def is_numbers(values: Any) -> bool:
    """Tells whether this is a list of numbers as JSON has them, none of them infinite, NaN or beyond any image."""
    return isinstance(values, list) and all(type(value) in (int, float) and abs(value) < _HUGE for value in values)


def _inside(points: Float64[np.ndarray, "n 2"], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    h, w = size
    y = np.arange(h) + 0.5
    (x0, y0), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
    row, edge = np.nonzero((y0 <= y[:, None]) != (y1 <= y[:, None]))
    crossing = x0[edge] + (y[row] - y0[edge]) / (y1 - y0)[edge] * (x1 - x0)[edge]
    crossings = np.zeros((h, w + 1), int)  # counted at the first pixel whose centre is not left of them
    np.add.at(crossings, (row, np.clip(np.ceil(crossing - 0.5), 0, w).astype(int)), 1)
    return np.cumsum(crossings, axis=1)[:, :w] % 2 == 1
