"""A system over a video: by `lax.scan` for a clip in memory, frame by frame for a stream of any length."""

from jaxvos.inference._adapt import OnlineConfig, adapt
from jaxvos.inference._fold import fold, fold_clip, jitted_predict
from jaxvos.inference._inputs import ProposalProvider, estimate_flow, open_flow, open_proposals, propose, propose_video
from jaxvos.inference._objects import FirstMask, read_first_mask
from jaxvos.inference._stream import SegmentedFrame, segment, stream

__all__ = ["FirstMask", "OnlineConfig", "ProposalProvider", "SegmentedFrame", "adapt", "estimate_flow", "fold",
           "fold_clip", "jitted_predict", "open_flow", "open_proposals", "propose", "propose_video",
           "read_first_mask", "segment", "stream"]
