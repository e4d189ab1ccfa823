"""Linen blocks that several systems share."""

from jaxvos.nets._backbones import BackboneName, backbone
from jaxvos.nets._decoder import DecoderOutput, UNetDecoder
from jaxvos.nets._depthwise import DepthwiseConv, depthwise_conv
from jaxvos.nets._efficientnet import EfficientNetLite0
from jaxvos.nets._pretrained import pretrained
from jaxvos.nets._resnet import ResNet
from jaxvos.nets._torch_weights import efficientnet_lite0_from_torch, read_torch, resnet_from_torch
from jaxvos.nets._transport import Matcher, Transport, TransportConfig

__all__ = [
    "BackboneName",
    "DecoderOutput",
    "DepthwiseConv",
    "EfficientNetLite0",
    "Matcher",
    "ResNet",
    "Transport",
    "TransportConfig",
    "UNetDecoder",
    "backbone",
    "depthwise_conv",
    "efficientnet_lite0_from_torch",
    "pretrained",
    "read_torch",
    "resnet_from_torch",
]
