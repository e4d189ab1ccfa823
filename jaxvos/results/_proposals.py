"""Proposals as a picture."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from jaxvos.data import Video, VideoProposals
from jaxvos.drawing import overlay
from jaxvos.ops import paste_masks
from jaxvos.results._sheet import Sheet

__all__ = ["proposal_sheet"]


def proposal_sheet(video: Video, proposals: VideoProposals, *, best: int = 10) -> UInt8[np.ndarray, "h w 3"]:
    """Draws the best proposals of some frames, the better over the worse, each in a colour of its own.

    Args:
      video: the frames.
      proposals: of these frames.
      best: how many of a frame.
    """
    sheet = Sheet()
    for index, (name, image) in enumerate(video.items()):
        found = proposals.frame(index)
        masks, boxes = (jnp.asarray(field[:best]) for field in (found.masks, found.boxes))
        drawn = np.asarray(paste_masks(masks, boxes, proposals.size)) > 0.5
        labels = np.zeros(proposals.size, np.uint8)
        for place in reversed(np.flatnonzero(found.valid[:best])):
            labels[drawn[place]] = place + 1
        sheet.add(name, overlay(image, labels))
    return sheet.draw()
