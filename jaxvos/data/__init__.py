"""Readers of videos, data sets, masks and flow."""

from jaxvos.data._augment import AffineRange, Augmentation, ClipSample, ColourRange, augment_clip, static_clip
from jaxvos.data._batches import Batches, FrameStore, load_frames, mixed_batches, shuffled_batches
from jaxvos.data._builder import Prepared, prepare_dataset
from jaxvos.data._clips import ClipConfig, ClipSource, sample_clip
from jaxvos.data._davis import DavisSequence, find_sequence, find_sequences, list_sequences
from jaxvos.data._flow import (
    FlowFrame,
    FlowProvider,
    LastFrame,
    dis_flow,
    flow_from_folder,
    flow_provider,
    with_flow,
)
from jaxvos.data._flow_files import read_flow, read_pfm, write_flow
from jaxvos.data._flow_source import FlowDataConfig, flow_batches
from jaxvos.data._images import read_image
from jaxvos.data._jitter import JitterConfig, jittered_proposals
from jaxvos.data._layouts import LAYOUTS, Layout, find_layout
from jaxvos.data._loader import clip_batches
from jaxvos.data._masks import check_mask_size, check_objects, davis_palette, read_annotation, read_mask, write_mask
from jaxvos.data._object_source import ObjectDataConfig, object_batches
from jaxvos.data._prepared import PreparedSequence, open_dataset
from jaxvos.data._processes import gather, rows_of, share_of
from jaxvos.data._proposal_cleaning import clean_proposals
from jaxvos.data._proposals import read_proposals, write_proposals
from jaxvos.data._rle import decode_rle, encode_rle
from jaxvos.data._sequences import AnnotatedSequence
from jaxvos.data._source import DataConfig, training_data
from jaxvos.data._synthetic import (
    SyntheticClip,
    SyntheticConfig,
    demo_video,
    synthetic_batch,
    synthetic_clip,
    synthetic_clips,
)
from jaxvos.data._unlabelled import UnlabelledVideo, VideoFolder, read_videos, unlabelled_batches
from jaxvos.data._video import Video, open_video
from jaxvos.data._video_proposals import VideoProposals, best_proposals

__all__ = [
    "LAYOUTS",
    "AffineRange",
    "AnnotatedSequence",
    "Augmentation",
    "Batches",
    "ClipConfig",
    "ClipSample",
    "ClipSource",
    "ColourRange",
    "DataConfig",
    "DavisSequence",
    "FlowDataConfig",
    "FlowFrame",
    "FlowProvider",
    "FrameStore",
    "JitterConfig",
    "LastFrame",
    "Layout",
    "ObjectDataConfig",
    "Prepared",
    "PreparedSequence",
    "SyntheticClip",
    "SyntheticConfig",
    "UnlabelledVideo",
    "Video",
    "VideoFolder",
    "VideoProposals",
    "augment_clip",
    "best_proposals",
    "check_mask_size",
    "check_objects",
    "clean_proposals",
    "clip_batches",
    "davis_palette",
    "decode_rle",
    "demo_video",
    "dis_flow",
    "encode_rle",
    "find_layout",
    "find_sequence",
    "find_sequences",
    "flow_batches",
    "flow_from_folder",
    "flow_provider",
    "gather",
    "jittered_proposals",
    "list_sequences",
    "load_frames",
    "mixed_batches",
    "object_batches",
    "open_dataset",
    "open_video",
    "prepare_dataset",
    "read_annotation",
    "read_flow",
    "read_image",
    "read_mask",
    "read_pfm",
    "read_proposals",
    "read_videos",
    "rows_of",
    "sample_clip",
    "share_of",
    "shuffled_batches",
    "static_clip",
    "synthetic_batch",
    "synthetic_clip",
    "synthetic_clips",
    "training_data",
    "unlabelled_batches",
    "with_flow",
    "write_flow",
    "write_mask",
    "write_proposals",
]
