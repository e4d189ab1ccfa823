"""One name for each encoder that can serve as a stream."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvos.nets._efficientnet import EfficientNetLite0
from jaxvos.nets._resnet import ResNet

__all__ = ["BackboneName", "backbone", "run_to_stride16"]

BackboneName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "efficientnet_lite0"]


def backbone(name: BackboneName, *, width: int = 64) -> ResNet | EfficientNetLite0:
    """Builds an encoder with `stem`, `stage(x, number)` and `widths`, stages numbered 2 to 5.

    Args:
      name: which one.
      width: channels of a ResNet's stem; 64 is the published net. EfficientNet has one width only, its own.
    """
    match name:
        case "resnet18":
            return ResNet(18, width)
        case "resnet34":
            return ResNet(34, width)
        case "resnet50":
            return ResNet(50, width)
        case "resnet101":
            return ResNet(101, width)
        case "efficientnet_lite0":
            return EfficientNetLite0()


def run_to_stride16(
    encoder: ResNet | EfficientNetLite0,
    images: Float[Array, "b h w 3"],
    *,
    extra: Float[Array, "b y x c"] | None = None,
) -> dict[int, Array]:
    """Features of stages 2 to 4 (strides 4, 8 and 16), normalised by the stored statistics.

    Args:
      encoder: of `backbone`, within the module that it belongs to.
      images: in [0, 1].
      extra: as for the encoder's `stem`.
    """
    mean, std = encoder.normalization
    x, levels = encoder.stem((images - jnp.array(mean)) / jnp.array(std), train=False, extra=extra), {}
    for number in (2, 3, 4):
        levels[number] = x = encoder.stage(x, number, train=False)
    return levels
