"""A system over a video: by `lax.scan` for a clip in memory, frame by frame for a stream of any length, or exported."""

from jaxvos.inference._adapt import OnlineConfig, adapt
from jaxvos.inference._export import export_model
from jaxvos.inference._exported import ExportedModel, load_exported, save_exported
from jaxvos.inference._fold import fold, fold_clip, jitted_predict
from jaxvos.inference._inputs import ProposalProvider, estimate_flow, open_flow, open_proposals, propose, propose_video
from jaxvos.inference._objects import ToldMask, read_told_mask
from jaxvos.inference._stream import segment, stream
from jaxvos.inference._tracker import SegmentedFrame, Tracker

__all__ = ["ExportedModel", "OnlineConfig", "ProposalProvider", "SegmentedFrame", "ToldMask", "Tracker", "adapt",
           "estimate_flow", "export_model", "fold", "fold_clip", "jitted_predict", "load_exported", "open_flow",
           "open_proposals", "propose", "propose_video", "read_told_mask", "save_exported", "segment", "stream"]
