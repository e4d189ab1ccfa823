"""Optical flow as colours: the direction is the hue, the speed is the saturation, white is no motion."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["flow_to_color"]

_UNKNOWN = 1e9  # Middlebury's mark of an unknown vector is any component beyond this
_STEPS = (15, 6, 4, 11, 13, 6)  # bins from red to yellow, green, cyan, blue, magenta and back to red


def _color_wheel() -> Float[np.ndarray, "55 3"]:
    """Returns the hues of the Middlebury wheel, 0..1 in whole levels of 255: one channel rises or falls at a time."""
    corners = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 0, 0]])
    parts = []
    for start, end, steps in zip(corners[:-1], corners[1:], _STEPS, strict=True):
        level = np.floor(255 * np.arange(steps)[:, None] / steps)
        parts.append(np.where(end > start, level, np.where(end < start, 255 - level, 255 * start)))
    return (np.concatenate(parts) / 255).astype(np.float32)


_WHEEL = _color_wheel()


def flow_to_color(flow: Float[Array, "h w 2"], *, max_radius: float | None = None) -> Float[Array, "h w 3"]:
    """Paints a flow field with the Middlebury colour wheel.

    Written unbatched and free of data-dependent shapes: `jax.vmap` and `jax.jit` apply (`max_radius` is static).
    Vectors that are not finite, or beyond 1e9 (Middlebury's "unknown"), count as no motion.

    Args:
        flow: `(dx, dy)` in pixels.
        max_radius: the speed, in pixels, that is painted in full colour; what is faster is darkened by a quarter. With
            `None` it is the largest speed of this field, so that colours of two fields do not compare and the noise of
            a still frame is blown up.

    Returns:
        RGB in [0, 1], float32.

    Source: Baker et al., "A Database and Evaluation Methodology for Optical Flow" (IJCV 2011), `colorcode.cpp`; equal
    to the Python package flow_vis 0.1 to one grey level.
    """
    flow = flow.astype(jnp.float32)
    known = jnp.all(jnp.isfinite(flow) & (jnp.abs(flow) < _UNKNOWN), axis=-1, keepdims=True)
    flow = jnp.where(known, flow, 0.0)
    radius = jnp.linalg.norm(flow, axis=-1)
    largest = jnp.max(radius, initial=0.0) if max_radius is None else max_radius
    radius = radius / (largest + 1e-5)

    angle = jnp.arctan2(-flow[..., 1], -flow[..., 0]) / jnp.pi  # -1..1: red, at either end, is motion to the right
    position = (angle + 1) / 2 * (len(_WHEEL) - 1)
    low = jnp.clip(jnp.floor(position).astype(jnp.int32), 0, len(_WHEEL) - 1)
    fraction = (position - low)[..., None]
    wheel = jnp.asarray(_WHEEL)
    hue = (1 - fraction) * wheel[low] + fraction * wheel[(low + 1) % len(_WHEEL)]

    radius = radius[..., None]
    return jnp.clip(jnp.where(radius <= 1, 1 - radius * (1 - hue), 0.75 * hue), 0.0, 1.0)
