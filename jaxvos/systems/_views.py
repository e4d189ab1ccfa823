"""Another view of the same frames: a crop, perhaps mirrored, whose places are known."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvos.ops import Affine, transform_image
from jaxvos.typing import Key

__all__ = ["random_view", "warp_clips"]


def random_view(key: Key) -> Affine:
    """A crop of half the side to all of it, perhaps mirrored."""
    flip_key, scale_key, shift_key = jax.random.split(key, 3)
    scale = jax.random.uniform(scale_key, minval=0.5, maxval=1.0)
    shift = jax.random.uniform(shift_key, (2,), minval=-1.0, maxval=1.0) * (1 - scale) / 2
    diagonal = scale * jnp.stack([jnp.where(jax.random.bernoulli(flip_key), -1.0, 1.0), jnp.ones(())])
    return Affine(jnp.diag(diagonal), -shift / diagonal)


def warp_clips(
    x: Float[Array, "b t h w c"], warps: Affine, *, method: Literal["linear", "nearest"]
) -> Float[Array, "b t h w c"]:
    """Shows every frame of a clip in the view of the clip; what lies outside is zero."""
    one = lambda frame, to: transform_image(frame, to, method=method, border="constant")  # noqa: E731
    return jax.vmap(jax.vmap(one, (0, None)))(x, warps)
