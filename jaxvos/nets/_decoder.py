"""A U-Net decoder over a feature pyramid, with a mask head and a boundary head."""

from functools import partial
from typing import Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvos.ops import resize

__all__ = ["DecoderOutput", "UNetDecoder"]

_conv3x3 = partial(nn.Conv, kernel_size=(3, 3), kernel_init=nn.initializers.he_normal())


class DecoderOutput(NamedTuple):
    """Logits at the size of the finest level."""

    masks: Float[Array, "b h w k"]
    edges: Float[Array, "b h w"]


class _ConvNorm(nn.Module):
    features: int
    size: int = 3
    dilation: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w d"]:
        x = nn.Conv(self.features, (self.size, self.size), kernel_dilation=self.dilation, use_bias=False,
                    kernel_init=nn.initializers.he_normal())(x)  # fmt: skip
        return nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x))


class UNetDecoder(nn.Module):
    """Fuses levels from coarse to fine, each time at the finer one's size.

    Attributes:
      width: channels of every level.
      slots: channels of the mask head.
      pyramid: `none`, or `aspp`: four 3x3 convolutions with dilations 1, 3, 5, 7 beside one another on each level.
    """

    width: int = 256
    slots: int = 2
    pyramid: Literal["none", "aspp"] = "none"

    @nn.compact
    def __call__(self, levels: dict[int, Float[Array, "b _h _w _c"]], *, train: bool) -> DecoderOutput:
        """Decodes feature maps by stage number; the lowest number is the finest."""
        x = None
        for number in sorted(levels, reverse=True):
            level = _ConvNorm(self.width, 1, name=f"lateral_{number}")(self._pyramid(levels[number], number, train),
                                                                     train=train)  # fmt: skip
            x = level if x is None else jnp.concatenate([resize(x, level.shape[1:3]), level], axis=-1)
            for i in (0, 1):
                x = _ConvNorm(self.width, name=f"block_{number}_{i}")(x, train=train)
        assert x is not None
        edges = _conv3x3(1, name="edge_head")(x)
        return DecoderOutput(_conv3x3(self.slots, name="mask_head")(x), edges[..., 0])

    def _pyramid(self, x: Float[Array, "b h w c"], number: int, train: bool) -> Float[Array, "b h w d"]:
        match self.pyramid:
            case "none":
                return x
            case "aspp":
                branches = [
                    _ConvNorm(self.width // 4, dilation=d, name=f"aspp_{number}_{d}")(x, train=train)
                    for d in (1, 3, 5, 7)
                ]
                return jnp.concatenate(branches, axis=-1)
