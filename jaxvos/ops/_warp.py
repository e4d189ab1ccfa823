"""Backward warping: the second of two images, seen from the first."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["warp", "warp_coverage"]


def warp(
    x: Float[Array, "h w c"], flow: Float[Array, "h w 2"], *, border: Literal["zero", "nearest"] = "zero"
) -> Float[Array, "h w c"]:
    """Fetches for every pixel `(column, row)` what lies at `(column + dx, row + dy)`, interpolated linearly.

    Args:
      x: what the flow points into.
      flow: `(dx, dy)` in pixels.
      border: beyond the frame lie zeros, which interpolation mixes in, or its own nearest pixel.
    """
    h, w, c = x.shape
    rows, columns = jnp.arange(h)[:, None] + flow[..., 1], jnp.arange(w) + flow[..., 0]
    top, left = jnp.floor(rows), jnp.floor(columns)
    pixels, total = x.reshape(h * w, c), jnp.zeros((), x.dtype)
    for row, row_weight in ((top, 1 - (rows - top)), (top + 1, rows - top)):
        for column, column_weight in ((left, 1 - (columns - left)), (left + 1, columns - left)):
            weight = row_weight * column_weight
            if border == "zero":
                weight = jnp.where((row >= 0) & (row < h) & (column >= 0) & (column < w), weight, 0)
            place = jnp.clip(row, 0, h - 1) * w + jnp.clip(column, 0, w - 1)
            total = total + weight[..., None] * pixels[place.astype(jnp.int32)]
    return total


def warp_coverage(flow: Float[Array, "h w 2"]) -> Float[Array, "h w"]:
    """Returns the share of what `warp` fetches that lies within the frame: 1 inside, less where it reaches out."""
    return warp(jnp.ones((*flow.shape[:2], 1), flow.dtype), flow)[..., 0]
