"""Readers of videos, data sets, masks and flow."""

from jaxvos.data._batches import Batches, FrameStore, load_frames, mixed_batches, shuffled_batches
from jaxvos.data._davis import DavisSequence, find_sequence, find_sequences, list_sequences, read_annotation
from jaxvos.data._flow import (
    FlowFrame,
    FlowProvider,
    LastFrame,
    dis_flow,
    flow_from_folder,
    flow_provider,
    with_flow,
)
from jaxvos.data._flow_files import read_flow, write_flow
from jaxvos.data._images import read_image
from jaxvos.data._masks import check_mask_size, check_objects, davis_palette, read_mask, write_mask
from jaxvos.data._source import DataConfig, training_data
from jaxvos.data._synthetic import (
    SyntheticClip,
    SyntheticConfig,
    demo_video,
    synthetic_batch,
    synthetic_clip,
    synthetic_clips,
)
from jaxvos.data._video import Video, open_video

__all__ = [
    "Batches",
    "DataConfig",
    "DavisSequence",
    "FlowFrame",
    "FlowProvider",
    "FrameStore",
    "LastFrame",
    "SyntheticClip",
    "SyntheticConfig",
    "Video",
    "check_mask_size",
    "check_objects",
    "davis_palette",
    "demo_video",
    "dis_flow",
    "find_sequence",
    "find_sequences",
    "flow_from_folder",
    "flow_provider",
    "list_sequences",
    "load_frames",
    "mixed_batches",
    "open_video",
    "read_annotation",
    "read_flow",
    "read_image",
    "read_mask",
    "shuffled_batches",
    "synthetic_batch",
    "synthetic_clip",
    "synthetic_clips",
    "training_data",
    "with_flow",
    "write_flow",
    "write_mask",
]
