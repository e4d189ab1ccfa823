"""Resizing of images, probabilities, masks and flow."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

__all__ = ["known_flow", "resize", "resize_flow", "resize_sparse_flow"]

_UNKNOWN = 1e9  # a component beyond this, infinite or NaN marks an unknown vector
_KNOWN_SHARE = 1e-3  # of what a resized vector is made of must be known


def resize(
    x: Float[Array, "*b h w c"], size: tuple[int, ...], *, method: Literal["linear", "nearest"] = "linear"
) -> Float[Array, "*b y x c"]:
    """Resizes the last three axes but the channels to `size` (height, width), half-pixel centres.

    Shrinking averages over the pixels that fall together (antialiasing), as an image library would.
    """
    if x.shape[-3:-1] == size:
        return x
    return jax.image.resize(x, (*x.shape[:-3], *size, x.shape[-1]), method)


def resize_flow(flow: Float[Array, "*b h w 2"], size: tuple[int, ...]) -> Float[Array, "*b y x 2"]:
    """Resizes a flow field and scales its vectors, which are in pixels, with it."""
    h, w = flow.shape[-3:-1]
    return resize(flow, size) * jnp.array([size[1] / w, size[0] / h], flow.dtype)


def known_flow(flow: Float[Array, "*b h w 2"]) -> Bool[Array, "*b h w"]:
    """Tells which vectors are known: finite, and no component beyond 1e9 (Middlebury's mark of unknown ones)."""
    return jnp.all(jnp.abs(flow) < _UNKNOWN, axis=-1)  # false for NaN too


def resize_sparse_flow(flow: Float[Array, "*b h w 2"], size: tuple[int, ...]) -> Float[Array, "*b y x 2"]:
    """As `resize_flow`, of a field with unknown vectors: from the known ones alone, and NaN where there are none."""
    if flow.shape[-3:-1] == size:
        return flow
    known = known_flow(flow)[..., None]
    share = resize(known.astype(flow.dtype), size)
    mean = resize_flow(jnp.where(known, flow, 0), size) / jnp.maximum(share, _KNOWN_SHARE)
    return jnp.where(share > _KNOWN_SHARE, mean, jnp.nan)
