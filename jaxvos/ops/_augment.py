"""Random flips, rotations, scalings, shears and shifts of a clip, on the device and from a key."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

from jaxvos.typing import Key

__all__ = ["Affine", "random_affine", "transform_flow", "transform_image"]


class Affine(NamedTuple):
    """Where each pixel of the result comes from, in (x, y) order.

    `source - centre = matrix (target - centre - offset * (width, height))`: `matrix` turns about the centre of the
    frame, then the result is moved by `offset`, a share of the frame, so that one transform fits frames of any size.
    """

    matrix: Float[Array, "2 2"]
    offset: Float[Array, "2"]


def random_affine(
    key: Key,
    *,
    flip: float = 0.0,
    rotation: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    shear: float = 0.0,
    shift: float = 0.0,
) -> Affine:
    """Draws a horizontal flip, a rotation, a zoom, a shear along x and a shift.

    Each has randomness of its own: leaving one out leaves the others as they were for the same key.

    Args:
      key: randomness.
      flip: probability of a horizontal flip.
      rotation: largest angle in degrees, either way.
      scale: smallest and largest magnification.
      shear: largest angle in degrees, either way, by which vertical lines are slanted.
      shift: largest movement along each axis, either way, as a share of the frame's width and height.
    """
    flip_key, rotation_key, scale_key = jax.random.split(key, 3)
    sign = jnp.where(jax.random.bernoulli(flip_key, flip), -1.0, 1.0)
    angle = jnp.deg2rad(jax.random.uniform(rotation_key, minval=-rotation, maxval=rotation))
    zoom = jax.random.uniform(scale_key, minval=scale[0], maxval=scale[1])
    slant = jnp.tan(jnp.deg2rad(jax.random.uniform(jax.random.fold_in(key, 1), minval=-shear, maxval=shear)))
    offset = jax.random.uniform(jax.random.fold_in(key, 2), (2,), minval=-shift, maxval=shift)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rotate = jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])
    matrix = jnp.diag(jnp.stack([sign, jnp.ones(())])) @ rotate / zoom
    return Affine(jnp.stack([matrix[:, 0], matrix[:, 1] + slant * matrix[:, 0]], axis=1), offset)


def transform_image(
    image: Float[Array, "h w c"],
    transform: Affine,
    *,
    method: Literal["linear", "nearest"] = "linear",
    border: Literal["constant", "nearest"] = "nearest",
) -> Float[Array, "h w c"]:
    """Resamples an image; outside it lies zero (`constant`) or its own edge (`nearest`)."""
    h, w, _ = image.shape
    centre = jnp.array([(w - 1) / 2, (h - 1) / 2])
    grid = jnp.stack(jnp.meshgrid(jnp.arange(w), jnp.arange(h)), axis=-1) - centre
    target = grid - transform.offset * jnp.array([w, h])
    x, y = jnp.moveaxis(target @ transform.matrix.T + centre, -1, 0)
    order = 1 if method == "linear" else 0
    sample = lambda channel: map_coordinates(channel, (y, x), order, mode=border)  # noqa: E731
    return jax.vmap(sample, in_axes=-1, out_axes=-1)(image)


def transform_flow(flow: Float[Array, "h w 2"], transform: Affine, *, vectors: bool) -> Float[Array, "h w 2"]:
    """Resamples a flow field; outside it lies no motion.

    Args:
      flow: pixels per frame.
      transform: the transform of the image that the flow belongs to.
      vectors: turn the vectors with the image (True), or leave them as they were, which is what turning a picture of
        the flow does and what published training code does (False).
    """
    moved = transform_image(flow, transform, border="constant")
    return moved @ jnp.linalg.inv(transform.matrix).T if vectors else moved
