"""Region similarity J: intersection over union."""

import numpy as np
from jaxtyping import Bool

__all__ = ["region_similarity"]


def region_similarity(
    annotation: Bool[np.ndarray, "h w"],
    segmentation: Bool[np.ndarray, "h w"],
    *,
    void: Bool[np.ndarray, "h w"] | None = None,
) -> float:
    """Returns the Jaccard index J of one object in one frame.

    Equal to `db_eval_iou` of davis2017-evaluation: 1 where both masks are empty.

    Args:
        annotation: ground truth.
        segmentation: prediction.
        void: pixels that count neither way.

    Returns:
        J in [0, 1].
    """
    if void is not None:
        annotation, segmentation = annotation & ~void, segmentation & ~void
    intersection = np.count_nonzero(annotation & segmentation)
    union = np.count_nonzero(annotation) + np.count_nonzero(segmentation) - intersection
    return intersection / union if union else 1.0
