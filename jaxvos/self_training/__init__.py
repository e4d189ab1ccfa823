"""Learning from videos without a label: phases of training, and the clustering between them."""

from jaxvos.self_training._clusters import cluster_frames, cluster_videos
from jaxvos.self_training._config import SelfTrainingConfig
from jaxvos.self_training._phases import learn_from_videos
from jaxvos.self_training._small import small_net, small_recipe

__all__ = ["SelfTrainingConfig", "cluster_frames", "cluster_videos", "learn_from_videos", "small_net", "small_recipe"]
