"""Pure array functions on images, masks and flow."""

from jaxvos.ops._aggregate import soft_aggregate, tell_masks
from jaxvos.ops._augment import Affine, random_affine, transform_flow, transform_image
from jaxvos.ops._boxes import box_iou, clip_boxes, decode_boxes, encode_boxes, nms
from jaxvos.ops._correlation import correlation
from jaxvos.ops._edges import disc_edges, sobel_edges
from jaxvos.ops._flow_color import flow_to_color
from jaxvos.ops._instance_masks import crop_masks, mask_boxes, mask_iou, paste_masks
from jaxvos.ops._memory import Keys, Readout, read_memory, similarity
from jaxvos.ops._next_frame import NextFrame, synthesise_next_frame
from jaxvos.ops._occlusion import forward_backward_occlusion
from jaxvos.ops._padding import centre_crop, centre_pad
from jaxvos.ops._propagation import propagate
from jaxvos.ops._resize import known_flow, resize, resize_flow, resize_sparse_flow
from jaxvos.ops._roi_align import roi_align, roi_mean
from jaxvos.ops._warp import warp, warp_coverage

__all__ = [
    "Affine",
    "Keys",
    "NextFrame",
    "Readout",
    "box_iou",
    "centre_crop",
    "centre_pad",
    "clip_boxes",
    "correlation",
    "crop_masks",
    "decode_boxes",
    "disc_edges",
    "encode_boxes",
    "flow_to_color",
    "forward_backward_occlusion",
    "known_flow",
    "mask_boxes",
    "mask_iou",
    "nms",
    "paste_masks",
    "propagate",
    "random_affine",
    "read_memory",
    "resize",
    "resize_flow",
    "resize_sparse_flow",
    "roi_align",
    "roi_mean",
    "similarity",
    "sobel_edges",
    "soft_aggregate",
    "synthesise_next_frame",
    "tell_masks",
    "transform_flow",
    "transform_image",
    "warp",
    "warp_coverage",
]
