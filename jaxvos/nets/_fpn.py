"""A feature pyramid: coarse meaning brought to fine resolutions (Lin et al. 2017, Feature Pyramid Networks)."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvos.ops import roi_align

__all__ = ["FPN", "pyramid_roi_align"]

_conv = partial(nn.Conv, kernel_init=nn.initializers.lecun_normal())


class FPN(nn.Module):
    """Turns the stages of an encoder into levels of equal width; level `l` has the stride `2 ** l`.

    Each stage goes through a 1x1 convolution (`inner`), is added to the level above at twice its size, and the sum goes
    through a 3x3 convolution (`layer`). Level 6 is every second pixel of level 5.

    Attributes:
      levels: which levels to make, without gaps, of 2 to 6; 6 needs 5.
      width: channels of every level.
    """

    levels: tuple[int, ...] = (2, 3, 4, 5, 6)
    width: int = 256

    @nn.compact
    def __call__(self, stages: dict[int, Float[Array, "b _h _w _c"]]) -> dict[int, Float[Array, "b _h _w d"]]:
        """Makes the levels, by number, from the feature maps of an encoder, by stage number."""
        above, pyramid = None, {}
        for level in sorted((level for level in self.levels if level in stages), reverse=True):
            x = _conv(self.width, (1, 1), name=f"inner_{level}")(stages[level])
            x = above = x if above is None else x + _double(above, x.shape[1:3])
            pyramid[level] = _conv(self.width, (3, 3), padding=1, name=f"layer_{level}")(x)
        if 6 in self.levels:
            pyramid[6] = pyramid[5][:, ::2, ::2]
        return {level: pyramid[level] for level in self.levels}


def pyramid_roi_align(
    pyramid: dict[int, Float[Array, "_h _w c"]],
    boxes: Float[Array, "m 4"],
    *,
    output_size: tuple[int, int],
    canonical_size: float = 224.0,
    sampling: int = 2,
    aligned: bool = True,
) -> Float[Array, "m y x c"]:
    """Samples each box from the level that suits its size: `floor(4 + log2(sqrt(area) / canonical_size))` (Eq. 1).

    Args:
      pyramid: features of one image by level, of stride `2 ** level`; larger and smaller boxes take the last level.
      boxes: in pixels of the image.
      output_size: cells per box, vertically and horizontally.
      canonical_size: side of a box that belongs to level 4.
      sampling: as for `ops.roi_align`.
      aligned: as for `ops.roi_align`.
    """
    side = jnp.sqrt(jnp.maximum((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), 1e-6))
    own = jnp.clip(jnp.floor(4 + jnp.log2(side / canonical_size) + 1e-6), min(pyramid), max(pyramid))
    aligned_at = {
        level: roi_align(x, boxes, output_size=output_size, scale=2.0**-level, sampling=sampling, aligned=aligned)
        for level, x in pyramid.items()
    }
    return sum(
        (jnp.where((own == level)[:, None, None, None], x, 0.0) for level, x in aligned_at.items()),
        start=jnp.zeros((), boxes.dtype),
    )


def _double(x: Float[Array, "b h w c"], size: tuple[int, ...]) -> Float[Array, "b y x c"]:
    """Repeats every pixel twice in both directions; a finer map of odd size has no use for the last ones."""
    x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return x[:, : size[0], : size[1]]
