"""Scalars to minimise."""

from jaxvos.losses._detection import (
    box_regression_loss,
    object_cross_entropy,
    objectness_loss,
    region_mask_loss,
    smooth_l1,
)
from jaxvos.losses._matching import best_matches, similarity_loss, soft_iou_loss
from jaxvos.losses._segmentation import edge_cross_entropy, mask_cross_entropy

__all__ = [
    "best_matches",
    "box_regression_loss",
    "edge_cross_entropy",
    "mask_cross_entropy",
    "object_cross_entropy",
    "objectness_loss",
    "region_mask_loss",
    "similarity_loss",
    "smooth_l1",
    "soft_iou_loss",
]
