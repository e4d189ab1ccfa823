"""How well proposals cover the objects of a frame, whatever their scores."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

__all__ = ["ProposalRecall", "proposal_recall"]


class ProposalRecall(NamedTuple):
    """Of the objects that are seen in a frame, in their order."""

    best_iou: Float64[np.ndarray, "n"]  # with the proposal that overlaps most; 0 without proposals
    recalled: Bool[np.ndarray, "n"]


def proposal_recall(
    proposals: Bool[np.ndarray, "m h w"], objects: Bool[np.ndarray, "k h w"], *, threshold: float = 0.5
) -> ProposalRecall:
    """Finds for each object the proposal that overlaps it most.

    The mean of `recalled` over all frames is the recall at `threshold`; that of `best_iou` is what the best choice of
    proposals would score, a bound for whoever chooses from them.

    Args:
        proposals: masks, as many as may be judged.
        objects: annotated masks; an empty one is an object not seen, and is left out.
        threshold: least overlap of an object that counts as found.
    """
    found, true = (masks.reshape(len(masks), masks[0].size if len(masks) else 0) for masks in (proposals, objects))
    true = true[true.any(axis=1)]
    if not len(found) or not len(true):
        best = np.zeros(len(true))
    else:
        both = true.astype(np.float32) @ found.T.astype(np.float32)
        union = true.sum(axis=1)[:, None] + found.sum(axis=1)[None] - both
        best = (both / union).max(axis=1).astype(np.float64)
    return ProposalRecall(best, best >= threshold)
