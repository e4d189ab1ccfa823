"""Clusters of videos in the features of a net."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from tqdm import tqdm

from jaxvos.data import UnlabelledVideo
from jaxvos.ops import resize
from jaxvos.systems import ClusterConfig, Clusters, MaskVOSConfig, cluster_video, mask_vos_keys
from jaxvos.typing import Key, Variables

__all__ = ["cluster_frames", "cluster_videos"]

_STRIDE, _CHUNK = 8, 12  # frames that are encoded at once; videos are padded to a multiple, so that few shapes compile

_cluster = jax.jit(cluster_video, static_argnames="config")


@functools.partial(jax.jit, static_argnums=0)
def _keys(config: MaskVOSConfig, variables: Variables, frames: UInt8[Array, "b h w 3"]) -> Float[Array, "b y x c"]:
    size = tuple(max(1, round(side / _STRIDE)) * _STRIDE for side in frames.shape[1:3])
    return mask_vos_keys(config, variables, resize(frames.astype(jnp.float32) / 255, size))


def cluster_frames(
    key: Key, frames: UInt8[np.ndarray, "t h w 3"], config: MaskVOSConfig, variables: Variables,
    clusters: ClusterConfig, *, previous: Int[np.ndarray, "t y x"] | None = None,
) -> Clusters:  # fmt: skip
    """Clusters one video.

    Args:
      key: randomness of the starts.
      frames: of the video, all in memory.
      config: of the net.
      variables: of the net.
      clusters: how to cluster.
      previous: labels to begin from.

    Returns:
      Its clusters, labels at a stride of 8 pixels.
    """
    t = len(frames)
    padding = -t % _CHUNK
    padded = np.concatenate([frames, np.repeat(frames[-1:], padding, axis=0)])
    features = jnp.concatenate([_keys(config, variables, jnp.asarray(padded[start : start + _CHUNK]))
                                for start in range(0, len(padded), _CHUNK)])  # fmt: skip
    valid = jnp.arange(len(padded)) < t
    begin = None if previous is None else jnp.pad(jnp.asarray(previous, jnp.int32), ((0, padding), (0, 0), (0, 0)))
    found = _cluster(key, features, config=clusters, valid=valid, previous=begin)
    return found._replace(labels=found.labels[:t])


def cluster_videos(
    key: Key, videos: Sequence[UnlabelledVideo], config: MaskVOSConfig, variables: Variables,
    clusters: ClusterConfig, *, previous: Sequence[Int[np.ndarray, "_ _ _"]] | None = None,
    progress: bool = True,
) -> list[Clusters]:  # fmt: skip
    """Clusters each video by itself; arguments as for `cluster_frames`, as NumPy arrays for each."""
    found = []
    bar = tqdm(videos, unit="video", desc="clustering", leave=False, disable=None if progress else True)
    for index, video in enumerate(bar):
        before = None if previous is None else previous[index]
        own = jax.random.fold_in(key, index)
        each = cluster_frames(own, video.frames, config, variables, clusters, previous=before)
        found.append(jax.tree.map(np.asarray, each))
    return found
