"""One name for each encoder that can serve as a stream."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvos.nets._efficientnet import EfficientNetLite0
from jaxvos.nets._resnet import ResNet
from jaxvos.ops import resize

__all__ = ["BackboneName", "Stride8", "backbone", "run_to_stride8", "run_to_stride16"]

BackboneName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "efficientnet_lite0"]


def backbone(name: BackboneName, *, width: int = 64, stride8: bool = False) -> ResNet | EfficientNetLite0:
    """Builds an encoder with `stem`, `stage(x, number)` and `widths`, stages numbered 2 to 5.

    Args:
      name: which one.
      width: channels of a ResNet's stem; 64 is the published net. EfficientNet has one width only, its own.
      stride8: a ResNet's last stages keep the size of Res3, without dilation, as networks for correspondence do (Jabri
        et al. 2020). EfficientNet is not changed: `run_to_stride8` enlarges what it has.
    """
    keep = (False, stride8, stride8)
    match name:
        case "resnet18":
            return ResNet(18, width, keep_size=keep)
        case "resnet34":
            return ResNet(34, width, keep_size=keep)
        case "resnet50":
            return ResNet(50, width, keep_size=keep)
        case "resnet101":
            return ResNet(101, width, keep_size=keep)
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


class Stride8(NamedTuple):
    """Features of frames, and those of stages before."""

    top: Float[Array, "b y x c"]  # at stride 8
    skips: tuple[Float[Array, "b y x d"], Float[Array, "b y4 x4 e"]]  # at strides 8 and 4


def run_to_stride8(
    encoder: ResNet | EfficientNetLite0,
    images: Float[Array, "b h w 3"],
    *,
    train: bool = False,
    deepest: bool = True,
    extra: Float[Array, "b y x c"] | None = None,
) -> Stride8:
    """Features at stride 8: of the last stage that is used, or, of EfficientNet, of stages 3 and 4 side by side.

    Args:
      encoder: of `backbone(..., stride8=True)`, within the module that it belongs to.
      images: in [0, 1].
      train: whether to normalise by the statistics of the batch.
      deepest: whether ResNet-18 and -34 run all stages; the others end with Res4.
      extra: as for the encoder's `stem`.
    """
    mean, std = encoder.normalization
    x, levels = encoder.stem((images - jnp.array(mean)) / jnp.array(std), train=train, extra=extra), {}
    shallow = isinstance(encoder, ResNet) and encoder.depth < 50
    for number in (2, 3, 4, 5) if shallow and deepest else (2, 3, 4):
        levels[number] = x = encoder.stage(x, number, train=train)
    if isinstance(encoder, EfficientNetLite0):
        return Stride8(jnp.concatenate([levels[3], resize(x, levels[3].shape[1:3])], axis=-1), (levels[3], levels[2]))
    return Stride8(x, (levels[4 if shallow else 3], levels[2]))
