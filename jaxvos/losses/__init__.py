"""Scalars to minimise."""

from jaxvos.losses._bootstrapped import bootstrapped_cross_entropy, dice_loss
from jaxvos.losses._detection import (
    box_regression_loss,
    object_cross_entropy,
    objectness_loss,
    region_mask_loss,
    smooth_l1,
)
from jaxvos.losses._flow import end_point_loss, multiscale_flow_loss
from jaxvos.losses._matching import best_matches, similarity_loss, soft_iou_loss
from jaxvos.losses._object_coherence import draw_boxes, object_coherence
from jaxvos.losses._pixel_consistency import grid_anchors, pixel_consistency, view_consistency
from jaxvos.losses._segmentation import balanced_cross_entropy, edge_cross_entropy, mask_cross_entropy
from jaxvos.losses._self_supervision import cycle_consistency, reconstruction_loss
from jaxvos.losses._unsupervised_flow import photometric_loss, smoothness_loss

__all__ = [
    "balanced_cross_entropy",
    "best_matches",
    "bootstrapped_cross_entropy",
    "box_regression_loss",
    "cycle_consistency",
    "dice_loss",
    "draw_boxes",
    "edge_cross_entropy",
    "end_point_loss",
    "grid_anchors",
    "mask_cross_entropy",
    "multiscale_flow_loss",
    "object_coherence",
    "object_cross_entropy",
    "objectness_loss",
    "photometric_loss",
    "pixel_consistency",
    "reconstruction_loss",
    "region_mask_loss",
    "similarity_loss",
    "smooth_l1",
    "smoothness_loss",
    "soft_iou_loss",
    "view_consistency",
]
