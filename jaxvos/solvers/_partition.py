"""A map cut into groups of far-apart tokens or of neighbouring ones: padded, permuted, and put back exactly."""

import math
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Shaped

__all__ = ["Layout", "Stage", "group_mask", "merge", "merge_long", "merge_short", "split", "split_long", "split_short"]

Layout = Literal["grid", "raster"]
Stage = Literal["long", "short"]

# axes of the map cut into windows, (window row, row in it, window column, column in it, channel), as stages order them
_GRID = {"long": (1, 3, 0, 2, 4), "short": (0, 2, 1, 3, 4)}


def _margins(size: int, window: int) -> tuple[int, int]:
    """Cells to add before and after, so that `window` divides the size."""
    missing = -size % window
    return missing // 2, missing - missing // 2


def _windows(height: int, width: int, partition: tuple[int, int]) -> tuple[int, int, int, int]:
    rows, cols = partition
    return -(-height // rows), rows, -(-width // cols), cols


def split(
    x: Shaped[Array, "h w c"], stage: Stage, *, partition: tuple[int, int] = (2, 4), layout: Layout = "grid"
) -> Shaped[Array, "p q c"]:
    """Cuts a map into the groups of one stage; cells that padding adds are zero (see `group_mask`)."""
    h, w, c = x.shape
    if layout == "grid":
        windows = _windows(h, w, partition)
        x = jnp.pad(x, (_margins(h, partition[0]), _margins(w, partition[1]), (0, 0)))
        axes = _GRID[stage]
        x = x.reshape(*windows, c).transpose(axes)
        return x.reshape(x.shape[0] * x.shape[1], x.shape[2] * x.shape[3], c)
    if layout == "raster":
        size = math.prod(partition)
        x = jnp.pad(x.reshape(h * w, c), ((0, -(h * w) % size), (0, 0))).reshape(-1, size, c)
        return x.swapaxes(0, 1) if stage == "long" else x
    raise ValueError(f"unknown layout {layout!r}: 'grid' or 'raster'")


def merge(
    groups: Shaped[Array, "p q c"],
    stage: Stage,
    height: int,
    width: int,
    *,
    partition: tuple[int, int] = (2, 4),
    layout: Layout = "grid",
) -> Shaped[Array, "h w c"]:
    """Undoes `split` with the same arguments, and crops what it padded."""
    c = groups.shape[-1]
    if layout == "grid":
        windows, axes = _windows(height, width, partition), _GRID[stage]
        x = groups.reshape(*[(*windows, c)[axis] for axis in axes])
        x = x.transpose([axes.index(axis) for axis in range(5)])
        x = x.reshape(windows[0] * windows[1], windows[2] * windows[3], c)
        top, left = _margins(height, partition[0])[0], _margins(width, partition[1])[0]
        return x[top : top + height, left : left + width]
    if layout == "raster":
        x = groups.swapaxes(0, 1) if stage == "long" else groups
        return x.reshape(-1, c)[: height * width].reshape(height, width, c)
    raise ValueError(f"unknown layout {layout!r}: 'grid' or 'raster'")


def group_mask(
    height: int, width: int, stage: Stage, *, partition: tuple[int, int] = (2, 4), layout: Layout = "grid"
) -> Bool[Array, "p q"]:
    """Which cells of the groups of a stage lie on the map; the others are padding."""
    return split(jnp.ones((height, width, 1), bool), stage, partition=partition, layout=layout)[..., 0]


def split_long(
    x: Shaped[Array, "h w c"], *, partition: tuple[int, int] = (2, 4), layout: Layout = "grid"
) -> Shaped[Array, "p q c"]:
    """Cuts a map into `p` groups of `q` tokens far apart (TransportNet, ICCV 2021, section 3.3; `Q_L` of eq. 7).

    Args:
      x: `(h, w, c)`, of any size: a map that the partition does not divide is padded with zeros.
      partition: `(rows, columns)` of a window; `p` is their product.
      layout: `"grid"`: a group is the tokens with the same place in their window, that is, a strided copy of the map,
        padded on all sides alike. `"raster"`: the same on the map read as one row, padded at its end.

    Returns:
      `(p, q, c)` with `q` the number of windows.
    """
    return split(x, "long", partition=partition, layout=layout)


def merge_long(
    groups: Shaped[Array, "p q c"],
    height: int,
    width: int,
    *,
    partition: tuple[int, int] = (2, 4),
    layout: Layout = "grid",
) -> Shaped[Array, "h w c"]:
    """Undoes `split_long` of a `(height, width)` map, bit for bit: `(p, q, c)` to `(h, w, c)`, padding cropped."""
    return merge(groups, "long", height, width, partition=partition, layout=layout)


def split_short(
    x: Shaped[Array, "h w c"], *, partition: tuple[int, int] = (2, 4), layout: Layout = "grid"
) -> Shaped[Array, "q p c"]:
    """Cuts a map into `q` groups of `p` neighbours (TransportNet, ICCV 2021, section 3.3; `Q_S` of eq. 9).

    Args:
      x: `(h, w, c)`, of any size, padded as in `split_long`.
      partition: `(rows, columns)` of a window; `p` is their product.
      layout: `"grid"`: a group is one window. `"raster"`: a run of `p` tokens of the map read as one row.

    Returns:
      `(q, p, c)` with `q` the number of windows.
    """
    return split(x, "short", partition=partition, layout=layout)


def merge_short(
    groups: Shaped[Array, "q p c"],
    height: int,
    width: int,
    *,
    partition: tuple[int, int] = (2, 4),
    layout: Layout = "grid",
) -> Shaped[Array, "h w c"]:
    """Undoes `split_short` of a `(height, width)` map, bit for bit: `(q, p, c)` to `(h, w, c)`, padding cropped."""
    return merge(groups, "short", height, width, partition=partition, layout=layout)
