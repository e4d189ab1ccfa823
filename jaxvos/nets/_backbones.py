"""One name for each encoder that can serve as a stream."""

from typing import Literal

from jaxvos.nets._efficientnet import EfficientNetLite0
from jaxvos.nets._resnet import ResNet

__all__ = ["BackboneName", "backbone"]

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
