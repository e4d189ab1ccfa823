"""Object boundaries of masks, as training targets."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["disc_edges", "sobel_edges"]


def sobel_edges(mask: Float[Array, "h w"]) -> Float[Array, "h w"]:
    """Marks pixels where the Sobel response of a binary mask is not zero: a band two pixels wide.

    `1[|sobel_x * G| + |sobel_y * G| > 0]` with edge-replicated borders (TransportNet, Eq. 11's target).
    """
    padded = jnp.pad(mask, 1, mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    sobel_x, sobel_y = rows[:, 2:] - rows[:, :-2], columns[2:] - columns[:-2]
    return (jnp.abs(sobel_x) + jnp.abs(sobel_y) > 0).astype(mask.dtype)


def disc_edges(mask: Float[Array, "h w"], *, radius: int) -> Float[Array, "h w"]:
    """Marks pixels of a binary mask whose disc of `radius` pixels holds another label (MATNet's boundary)."""
    offsets = [
        (dy, dx)
        for dy in range(-radius, radius + 1)
        for dx in range(-radius, radius + 1)
        if 0 < dy * dy + dx * dx <= radius * radius
    ]
    h, w = mask.shape
    padded = jnp.pad(mask, radius, mode="edge")
    shifted = [jax.lax.slice(padded, (radius + y, radius + x), (radius + y + h, radius + x + w)) for y, x in offsets]
    differs = sum((s != mask).astype(jnp.int32) for s in shifted)
    return (jnp.asarray(differs) > 0).astype(mask.dtype)
