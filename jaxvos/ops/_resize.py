"""Resizing of images, probabilities, masks and flow."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["resize", "resize_flow"]


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
