"""What is done to the output of a detector before it is matched: tight boxes, and no two proposals of one thing."""

import functools
import math
from typing import Any

import jax
import numpy as np

from jaxvos.data._video_proposals import best_proposals
from jaxvos.ops import crop_masks, mask_boxes, nms, paste_masks
from jaxvos.system import Proposals

__all__ = ["clean_proposals"]


def clean_proposals(proposals: Proposals, size: tuple[int, int], *, num_proposals: int = 50,
                    mask_threshold: float = 0.4, iou_threshold: float | None = 0.4) -> Proposals:
    """Prepares what a detector found, as the released loader of DMM-Net does (Zeng et al., ICCV 2019).

    In this order: each mask is spread over the frame, its box becomes the tight one of what is above `mask_threshold`,
    it is cropped to that box; of boxes that overlap the best by score is kept; the best `num_proposals` are kept.
    A mask that is nowhere above the threshold is dropped.

    Args:
        proposals: of one frame, or of several with their axis first.
        size: height and width of the frame in pixels.
        num_proposals: `m` of the result; fewer are padded.
        mask_threshold: pixels above it count for the tight box.
        iou_threshold: of two boxes that overlap more than this, the worse is dropped; None keeps both.

    Returns:
        NumPy arrays, the best first.
    """
    if np.ndim(proposals.valid) == 2:
        frames = zip(*map(np.asarray, proposals), strict=True)
        cleaned = [clean_proposals(Proposals(*frame), size, num_proposals=num_proposals,
                                   mask_threshold=mask_threshold, iou_threshold=iou_threshold) for frame in frames]
        stacked: Any = map(np.stack, zip(*cleaned, strict=True))
        return Proposals(*stacked)
    overlap = math.inf if iou_threshold is None else iou_threshold
    return best_proposals(_clean(proposals, size, num_proposals, mask_threshold, overlap), num_proposals=num_proposals)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _clean(proposals: Proposals, size: tuple[int, int], num_proposals: int, mask_threshold: float, iou_threshold: float
           ) -> Proposals:
    full = paste_masks(proposals.masks, proposals.boxes, size)
    boxes = mask_boxes(full, threshold=mask_threshold)
    valid = proposals.valid & (boxes[:, 2] > boxes[:, 0])
    kept, real = nms(boxes, proposals.scores, valid=valid, iou_threshold=iou_threshold, num_outputs=num_proposals)
    masks = crop_masks(full[kept], boxes[kept], size=proposals.masks.shape[-1])
    return Proposals(boxes[kept], masks, proposals.scores[kept], real)
