"""Region similarity J: intersection over union."""

import numpy as np
from jaxtyping import Bool

__all__ = ["region_similarity"]


def region_similarity(annotation: Bool[np.ndarray, "h w"], segmentation: Bool[np.ndarray, "h w"], *,
                      void: Bool[np.ndarray, "h w"] | None = None) -> float:
    """Returns the Jaccard index J of one object in one frame.

    Equal to `db_eval_iou` of davis2017-evaluation: 1 where both masks are empty.

    Args:
        annotation: ground truth.
        segmentation: prediction.
        void: pixels that count neither way.

    Returns:
        J in [0, 1].
    """
    intersection, union = annotation & segmentation, annotation | segmentation
    if void is not None:
        intersection, union = intersection & ~void, union & ~void
    area = np.count_nonzero(union)
    return np.count_nonzero(intersection) / area if area else 1.0
