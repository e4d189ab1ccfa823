"""One file for each system: its configuration, its net, and a builder that returns a `System`."""

from jaxvos.systems._clusters import ClusterConfig, Clusters, cluster_masks, cluster_video
from jaxvos.systems._correspondence import Correspondence, CorrespondenceConfig, Look, correspondence_loss
from jaxvos.systems._dmm_candidates import FrameAugmentationConfig
from jaxvos.systems._dmm_matching import MatchedMasks, MatchingConfig, cosine_similarity, mask_overlap, match_masks
from jaxvos.systems._dmm_net import DMMNetConfig, dmm_net
from jaxvos.systems._frame_pairs import PairAugmentationConfig
from jaxvos.systems._long_term import LongTermConfig
from jaxvos.systems._mask_rcnn import DetectionAugmentation, MaskRCNNConfig, mask_rcnn
from jaxvos.systems._mask_vos import MaskVOSConfig, PropagationConfig, mask_vos, mask_vos_keys, value_from_frames
from jaxvos.systems._mask_vos_loss import MaskVOSLossConfig
from jaxvos.systems._mask_vos_net import MaskVOSNetConfig
from jaxvos.systems._pwc_net import PWCNetConfig, pwc_net
from jaxvos.systems._segflow import NextFrameConfig, SegFlowConfig, segflow
from jaxvos.systems._space_time import MemoryConfig
from jaxvos.systems._space_time_loss import MaskLossConfig
from jaxvos.systems._stcn import STCNConfig, stcn, stcn_keys
from jaxvos.systems._transportnet import AugmentationConfig, TransportNetConfig, transportnet
from jaxvos.systems._xmem import XMemConfig, xmem

__all__ = [
    "AugmentationConfig",
    "ClusterConfig",
    "Clusters",
    "Correspondence",
    "CorrespondenceConfig",
    "DMMNetConfig",
    "DetectionAugmentation",
    "FrameAugmentationConfig",
    "LongTermConfig",
    "Look",
    "MaskLossConfig",
    "MaskRCNNConfig",
    "MaskVOSConfig",
    "MaskVOSLossConfig",
    "MaskVOSNetConfig",
    "MatchedMasks",
    "MatchingConfig",
    "MemoryConfig",
    "NextFrameConfig",
    "PWCNetConfig",
    "PairAugmentationConfig",
    "PropagationConfig",
    "STCNConfig",
    "SegFlowConfig",
    "TransportNetConfig",
    "XMemConfig",
    "cluster_masks",
    "cluster_video",
    "correspondence_loss",
    "cosine_similarity",
    "dmm_net",
    "mask_overlap",
    "mask_rcnn",
    "mask_vos",
    "mask_vos_keys",
    "match_masks",
    "pwc_net",
    "segflow",
    "stcn",
    "stcn_keys",
    "transportnet",
    "value_from_frames",
    "xmem",
]
