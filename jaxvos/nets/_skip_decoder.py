"""From what a memory says at stride 16 to a mask at stride 4."""

import functools

import flax.linen as nn
from jaxtyping import Array, Float

from jaxvos.nets._fusion import ResBlock
from jaxvos.ops import resize

__all__ = ["SkipDecoder"]

_conv3x3 = functools.partial(nn.Conv, kernel_size=(3, 3), kernel_init=nn.initializers.lecun_normal())
_small = nn.initializers.normal(1e-2)  # masks start undecided: a saturated one has no gradient


class _Up(nn.Module):
    """Twice the size, with the frame's own features added."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "h w c"], skip: Float[Array, "y x d"]) -> Float[Array, "y x e"]:
        skip = _conv3x3(x.shape[-1], name="skip_conv")(skip)
        return ResBlock(self.features, name="out_conv")(skip + resize(x, skip.shape[:2]))


class SkipDecoder(nn.Module):
    """Two steps up with the frame's features at strides 8 and 4, and one logit (STCN).

    Attributes:
      widths: channels at strides 8 and 4.
    """

    widths: tuple[int, int] = (256, 256)

    @nn.compact
    def __call__(
        self, deep: Float[Array, "h w c"], skips: tuple[Float[Array, "y8 x8 c8"], Float[Array, "y4 x4 c4"]]
    ) -> tuple[Float[Array, "y4 x4 d"], Float[Array, "y8 x8 e"], Float[Array, "y4 x4"]]:
        """Returns the features at strides 4 and 8, and the logit at stride 4."""
        x8 = _Up(self.widths[0], name="up_16_8")(deep, skips[0])
        x4 = _Up(self.widths[1], name="up_8_4")(x8, skips[1])
        return x4, x8, _conv3x3(1, kernel_init=_small, name="pred")(nn.relu(x4))[..., 0]
