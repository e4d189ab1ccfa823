"""Random flips, rotations and scalings of a clip, on the device and from a key."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

from jaxvos.typing import Key

__all__ = ["Similarity", "random_similarity", "transform_flow", "transform_image"]


class Similarity(NamedTuple):
    """Where each pixel of the result comes from: `source - centre = matrix (target - centre)`, (x, y) order."""

    matrix: Float[Array, "2 2"]


def random_similarity(
    key: Key, *, flip: float = 0.0, rotation: float = 0.0, scale: tuple[float, float] = (1.0, 1.0)
) -> Similarity:
    """Draws a horizontal flip, then a rotation, then a zoom.

    Args:
      key: randomness.
      flip: probability of a horizontal flip.
      rotation: largest angle in degrees, either way.
      scale: smallest and largest magnification.
    """
    flip_key, rotation_key, scale_key = jax.random.split(key, 3)
    sign = jnp.where(jax.random.bernoulli(flip_key, flip), -1.0, 1.0)
    angle = jnp.deg2rad(jax.random.uniform(rotation_key, minval=-rotation, maxval=rotation))
    zoom = jax.random.uniform(scale_key, minval=scale[0], maxval=scale[1])
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rotate = jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])
    return Similarity(jnp.diag(jnp.stack([sign, jnp.ones(())])) @ rotate / zoom)


def transform_image(
    image: Float[Array, "h w c"],
    transform: Similarity,
    *,
    method: Literal["linear", "nearest"] = "linear",
    border: Literal["constant", "nearest"] = "nearest",
) -> Float[Array, "h w c"]:
    """Resamples an image; outside it lies zero (`constant`) or its own edge (`nearest`)."""
    h, w, _ = image.shape
    centre = jnp.array([(w - 1) / 2, (h - 1) / 2])
    grid = jnp.stack(jnp.meshgrid(jnp.arange(w), jnp.arange(h)), axis=-1) - centre
    x, y = jnp.moveaxis(grid @ transform.matrix.T + centre, -1, 0)
    order = 1 if method == "linear" else 0
    sample = lambda channel: map_coordinates(channel, (y, x), order, mode=border)  # noqa: E731
    return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)


def transform_flow(
    flow: Float[Array, "h w 2"], transform: Similarity, *, vectors: bool
) -> Float[Array, "h w 2"]:
    """Resamples a flow field; outside it lies no motion.

    Args:
      flow: pixels per frame.
      transform: the transform of the image that the flow belongs to.
      vectors: turn the vectors with the image (True), or leave them as they were, which is what turning a picture of
        the flow does and what published training code does (False).
    """
    moved = transform_image(flow, transform, border="constant")
    return moved @ jnp.linalg.inv(transform.matrix).T if vectors else moved
