"""Frames of any size made multiples of a net's stride."""

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["centre_crop", "centre_pad"]


def centre_pad(x: Float[Array, "h w c"], multiple: int, *, value: tuple[float, ...] = (0.0,)) -> Float[Array, "y x c"]:
    """Pads height and width to the next multiple, by as much before as after (one more after where it is odd).

    Args:
      x: an image, masks or features.
      multiple: of both sides of the result.
      value: of the padding, per channel or one for all.
    """
    before_after = [(-n % multiple // 2, -n % multiple - -n % multiple // 2) for n in x.shape[:2]]
    fill = jnp.array(value, x.dtype)
    return jnp.pad(x - fill, (*before_after, (0, 0))) + fill


def centre_crop(x: Float[Array, "h w c"], size: tuple[int, ...]) -> Float[Array, "y x c"]:
    """Undoes `centre_pad` of something of `size` (height, width)."""
    top, left = ((n - m) // 2 for n, m in zip(x.shape[:2], size, strict=True))
    return x[top : top + size[0], left : left + size[1]]
