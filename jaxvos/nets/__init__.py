"""Linen blocks that several systems share."""

from jaxvos.nets._backbones import BackboneName, Stride8, backbone, run_to_stride8, run_to_stride16
from jaxvos.nets._conv_gru import ConvGRU
from jaxvos.nets._conv_lstm import ConvLSTM, ConvLSTMState
from jaxvos.nets._decoder import DecoderOutput, UNetDecoder
from jaxvos.nets._depthwise import DepthwiseConv, depthwise_conv
from jaxvos.nets._detection_heads import BoxHead, MaskHead, RegionHead
from jaxvos.nets._efficientnet import EfficientNetLite0
from jaxvos.nets._flow_output import FlowOutput
from jaxvos.nets._flownets import FlowNetS
from jaxvos.nets._fpn import FPN, pyramid_roi_align
from jaxvos.nets._frame_mask_encoder import FrameMaskEncoder
from jaxvos.nets._fusion import CBAM, FusionBlock, ResBlock
from jaxvos.nets._heavy_refiner import HeavyRefiner
from jaxvos.nets._light_refiner import LightRefiner
from jaxvos.nets._pretrained import pretrained
from jaxvos.nets._pwc_net import PWCNet
from jaxvos.nets._resnet import ResNet
from jaxvos.nets._skip_decoder import SkipDecoder
from jaxvos.nets._torch_detection import mask_rcnn_from_torch
from jaxvos.nets._torch_flow import flownets_from_torch, pwc_net_from_torch
from jaxvos.nets._torch_space_time import stcn_from_torch, xmem_from_torch
from jaxvos.nets._torch_weights import efficientnet_lite0_from_torch, read_torch, resnet_from_torch
from jaxvos.nets._transport import Matcher, Transport, TransportConfig
from jaxvos.nets._up_conv import UpConv

__all__ = [
    "CBAM",
    "FPN",
    "BackboneName",
    "BoxHead",
    "ConvGRU",
    "ConvLSTM",
    "ConvLSTMState",
    "DecoderOutput",
    "DepthwiseConv",
    "EfficientNetLite0",
    "FlowNetS",
    "FlowOutput",
    "FrameMaskEncoder",
    "FusionBlock",
    "HeavyRefiner",
    "LightRefiner",
    "MaskHead",
    "Matcher",
    "PWCNet",
    "RegionHead",
    "ResBlock",
    "ResNet",
    "SkipDecoder",
    "Stride8",
    "Transport",
    "TransportConfig",
    "UNetDecoder",
    "UpConv",
    "backbone",
    "depthwise_conv",
    "efficientnet_lite0_from_torch",
    "flownets_from_torch",
    "mask_rcnn_from_torch",
    "pretrained",
    "pwc_net_from_torch",
    "pyramid_roi_align",
    "read_torch",
    "resnet_from_torch",
    "run_to_stride8",
    "run_to_stride16",
    "stcn_from_torch",
    "xmem_from_torch",
]
