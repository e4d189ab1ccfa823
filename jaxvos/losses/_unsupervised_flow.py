"""Losses of optical flow that need no known flow: what it fetches must look alike, and it must be smooth."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvos.ops import warp, warp_coverage

__all__ = ["photometric_loss", "smoothness_loss"]

_INSIDE = 0.999  # of what is fetched must lie within the frame
_GREY = (0.299, 0.587, 0.114)
_CENSUS_RADIUS = 3


def photometric_loss(
    image: Float[Array, "h w 3"],
    other: Float[Array, "h w 3"],
    flow: Float[Array, "h w 2"],
    *,
    occluded: Bool[Array, "h w"] | None = None,
    kind: Literal["charbonnier", "census", "ssim"] = "census",
) -> Float[Array, ""]:
    """Compares an image with what the flow fetches from the other, where the flow stays within the frame.

    `census` and `ssim` look at windows; a pixel counts only if its window lies within the frame in both images.

    Args:
      image: in [0, 1].
      other: the image that the flow leads to.
      flow: pixels.
      occluded: what not to compare, since the other image hides it.
      kind: `charbonnier`, a robust distance of colours; `census`, of the signs of the differences to the pixels around,
        which added brightness does not change (Meister et al., "UnFlow", AAAI 2018); `ssim`, `(1 - SSIM) / 2` of 3x3
        windows.

    Returns:
      The mean over the pixels that are compared; 0 if there are none.
    """
    fetched = warp(other, flow, border="nearest")
    inside = warp_coverage(flow) >= _INSIDE
    match kind:
        case "charbonnier":
            radius = 0
            distance = jnp.mean(jnp.sqrt((image - fetched) ** 2 + 1e-6), axis=-1)
        case "census":
            radius = _CENSUS_RADIUS
            squared = (_census(image) - _census(fetched)) ** 2
            distance = jnp.mean(squared / (0.1 + squared), axis=-1)
        case "ssim":
            radius = 1
            distance = jnp.mean(_dissimilarity(image, fetched), axis=-1)
    counts = _windows_within(inside, radius)
    if occluded is not None:
        counts = counts & ~occluded
    counts = jax.lax.stop_gradient(counts.astype(distance.dtype))
    return jnp.sum(distance * counts) / jnp.maximum(jnp.sum(counts), 1.0)


def smoothness_loss(
    flow: Float[Array, "h w 2"], image: Float[Array, "h w 3"], *, order: Literal[1, 2] = 1, edge_weight: float = 10.0
) -> Float[Array, ""]:
    """Mean size of the derivatives of a flow field, less where the image changes.

    Args:
      flow: pixels.
      image: in [0, 1].
      order: of the derivatives; the second allows slanted surfaces and growth.
      edge_weight: `k` of the factors `exp(-k |image gradient|)`; 0 for none.
    """
    total = jnp.zeros(())
    for axis in (0, 1):
        steps, edges = jnp.diff(flow, axis=axis), jnp.mean(jnp.abs(jnp.diff(image, axis=axis)), axis=-1, keepdims=True)
        if order == 2:
            steps = jnp.diff(steps, axis=axis)
            ahead, behind = (jax.lax.slice_in_dim(edges, start, start + steps.shape[axis], axis=axis)
                             for start in (0, 1))  # fmt: skip
            edges = jnp.maximum(ahead, behind)
        total = total + jnp.mean(jnp.exp(-edge_weight * edges) * jnp.sqrt(steps**2 + 1e-6))
    return total


def _windows_within(inside: Bool[Array, "h w"], radius: int) -> Bool[Array, "h w"]:
    """Whether all of the square window around a pixel is inside."""
    side = 2 * radius + 1
    return jax.lax.reduce_window(jnp.pad(inside, radius), True, jax.lax.bitwise_and, (side, side), (1, 1), "VALID")


def _census(image: Float[Array, "h w 3"]) -> Float[Array, "h w n"]:
    """Differences of grey values (0..255) to those around, squashed to (-1, 1)."""
    grey = 255 * (image @ jnp.array(_GREY, image.dtype))
    h, w = grey.shape
    padded = jnp.pad(grey, _CENSUS_RADIUS, mode="edge")
    side = range(2 * _CENSUS_RADIUS + 1)
    differences = jnp.stack([padded[y : y + h, x : x + w] - grey for y in side for x in side], axis=-1)
    return differences / jnp.sqrt(0.81 + differences**2)


def _dissimilarity(a: Float[Array, "h w c"], b: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """`(1 - SSIM) / 2` of 3x3 windows (Wang et al., 2004)."""

    def mean(x: Array) -> Array:
        padded = jnp.pad(x, ((1, 1), (1, 1), (0, 0)), mode="edge")
        return sum(padded[y : y + x.shape[0], c : c + x.shape[1]] for y in range(3) for c in range(3)) / 9  # pyright: ignore[reportReturnType]

    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    ssim = ((2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)) / (
        (mean_a**2 + mean_b**2 + 1e-4) * (variances + 9e-4)
    )
    return (1 - ssim) / 2
