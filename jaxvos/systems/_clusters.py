"""Space-time clustering: the cells of a video in a few clusters, the smaller of which are taken for objects.

Pseudo masks of Mask-VOS (Li et al., "Unified Mask Embedding and Correspondence Learning", CVPR 2023, equation 4).
"""

import dataclasses
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxvos.errors import InputError
from jaxvos.ops import resize
from jaxvos.solvers import kmeans, ot_clustering
from jaxvos.typing import Key

__all__ = ["ClusterConfig", "Clusters", "cluster_masks", "cluster_video"]

_CODE_WIDTH = 126  # 21 sines and cosines for each of time, rows and columns
_BOX = (0.02, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """The paper's five clusters by k-means; how positions enter, which it leaves open, is what measured best."""

    num_clusters: int = 5
    """Clusters of a video, 2 to 255."""
    method: Literal["kmeans", "ot"] = "kmeans"
    """k-means, or optimal transport between cells and centres, which need not cut a large background to pieces."""
    marginals: Literal["learned", "balanced", "box"] = "learned"
    """Of `ot`: sizes of clusters are learned, all equal, or each at least 0.02 of the video."""
    epsilon: float = 0.05
    """Of `ot`: strength of the entropy, relative to the mean squared distance between cells and centres."""
    num_iters: int = 100
    """Of `kmeans`: steps at most."""
    num_restarts: int = 4
    """Starts, of which the best is taken."""
    position: Literal["concat", "add", "none"] = "concat"
    """How a cell's place in space and time enters: as channels beside its features, added to them (the literal
    reading), or not at all."""
    position_weight: float = 0.5
    """Norm of the code of a place, where features have norm 1. The paper's sines and cosines as they are have about 8,
    which leaves clusters of place alone."""
    max_share: float = 0.4
    """Clusters of a larger share of the video's cells are background."""

    def __post_init__(self) -> None:
        most = int(1 / _BOX[0]) if self.method == "ot" and self.marginals == "box" else 255
        if not 2 <= self.num_clusters <= most or min(self.num_iters, self.num_restarts) < 1:
            raise InputError(f"{self.num_clusters} clusters from {self.num_restarts} starts in {self.num_iters} steps: "
                             f"want 2 to {most} clusters, and a start and a step at least")  # fmt: skip
        if self.epsilon <= 0 or self.position_weight < 0 or not 0 < self.max_share <= 1:
            raise InputError(f"epsilon {self.epsilon}, position_weight {self.position_weight}, max_share "
                             f"{self.max_share}: want a positive epsilon, no negative weight, and a share above 0 and "
                             "up to 1")  # fmt: skip


class Clusters(NamedTuple):
    """Clusters `m` of the cells of a video.

    Attributes:
      labels: the cluster of every cell, also of frames that do not count.
      kept: clusters that are taken for objects: not empty, and not too large.
      shares: of the cells of the frames that count; they sum to 1.
      centers: in features of unit norm with the code of places.
    """

    labels: Int[Array, "t y x"]
    kept: Bool[Array, "m"]
    shares: Float[Array, "m"]
    centers: Float[Array, "m d"]


def cluster_video(
    key: Key,
    features: Float[Array, "t y x c"],
    config: ClusterConfig = ClusterConfig(),
    *,
    valid: Bool[Array, "t"] | None = None,
    previous: Int[Array, "t y x"] | None = None,
) -> Clusters:
    """Clusters the cells of all frames of a video at once.

    Under `jax.vmap` all videos run until the slowest is done.

    Args:
      key: for the starts; unused where `previous` is given.
      features: of every cell, at any scale: they are brought to unit norm.
      config: how.
      valid: frames that count, all by default. Others change nothing, whatever they hold, and are labelled.
      previous: labels to start from, with no other start: centres begin as the means of the features under them. A
        cluster that has no cell begins at the mean of all cells, from where it takes those nearest to it; labels from
        `num_clusters` on are those of no cluster.

    Returns:
      The clusters, in no order.

    Raises:
      InputError: where a code is to be added to features of fewer than six channels, or of an odd number.
    """
    t, rows, columns, _ = features.shape
    valid = jnp.ones(t, bool) if valid is None else valid
    points = _with_places(jnp.where(valid[:, None, None, None], features, 0), config).reshape(t * rows * columns, -1)
    weights = jnp.repeat(valid, rows * columns).astype(points.dtype)
    num_clusters, num_restarts = config.num_clusters, config.num_restarts
    init = None if previous is None else _means(points, weights, previous.reshape(-1), num_clusters)
    match config.method:
        case "kmeans":
            solution = kmeans(key, points, num_clusters, weights=weights, num_iters=config.num_iters,
                              num_restarts=num_restarts, init=init)  # fmt: skip
        case "ot":
            # k-means would cut what transport had joined
            warm_up = 10 if previous is None else 0
            solution = ot_clustering(key, points, num_clusters, marginals=config.marginals, epsilon=config.epsilon,
                                     bounds=_BOX, weights=weights, warm_up=warm_up, num_restarts=num_restarts,
                                     init=init)  # fmt: skip
    counts = weights @ jax.nn.one_hot(solution.labels, num_clusters, dtype=weights.dtype)
    shares = counts / jnp.maximum(weights.sum(), 1)
    kept = (shares > 0) & (shares <= config.max_share)
    return Clusters(solution.labels.reshape(t, rows, columns), kept, shares, solution.centers)


def cluster_masks(clusters: Clusters, *, size: tuple[int, ...], frame: int | None = None) -> UInt8[Array, "..."]:
    """Draws the kept clusters at full resolution.

    Args:
      clusters: of a video.
      size: height and width of the masks.
      frame: draw this one alone; all by default.

    Returns:
      `(t, *size)`, or `size` for one frame: the kept clusters as 1, 2, ... from the largest to the smallest, others 0.

    Raises:
      ValueError: for a frame that the video has not.
    """
    labels, kept, shares, _ = clusters
    slots = len(kept) + 1
    order = jnp.argsort(jnp.where(kept, -shares, jnp.inf))
    numbers = jnp.where(kept, jnp.argsort(order) + 1, 0)

    def draw(labels: Int[Array, "y x"]) -> UInt8[Array, "h w"]:
        masks = resize(jax.nn.one_hot(numbers[labels], slots), size)
        return jnp.argmax(masks, axis=-1).astype(jnp.uint8)

    if frame is None:
        return lax.map(draw, labels)  # one by one: the masks before they are labels are large
    if not 0 <= frame < len(labels):
        raise ValueError(f"cluster_masks: no frame {frame} in a video of {len(labels)}")
    return draw(labels[frame])


def _with_places(features: Float[Array, "t y x c"], config: ClusterConfig) -> Float[Array, "t y x d"]:
    """Features of unit norm (zeros stay), with a code of their place of norm `position_weight`."""
    features = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    norms = jnp.linalg.norm(features, axis=-1, keepdims=True)
    features = features / jnp.maximum(norms, jnp.finfo(features.dtype).tiny)
    shape, channels = features.shape[:-1], features.shape[-1]
    match config.position:
        case "none":
            return features
        case "concat":
            code = config.position_weight * _places(shape, _CODE_WIDTH)
            return jnp.concatenate([features, code.astype(features.dtype)], axis=-1)
        case "add":
            if channels < 6 or channels % 2:
                raise InputError(f"no code of places is {channels} channels wide, which must be even, and 6 at least: "
                                 "use position='concat'")  # fmt: skip
            return features + config.position_weight * _places(shape, channels).astype(features.dtype)


def _places(shape: tuple[int, ...], width: int) -> Float[Array, "t y x d"]:
    """Sines and cosines of frame, row and column, of wavelengths from 2 pi to 10,000 times that; of unit norm."""
    waves = width // 2
    codes = []
    for axis, length in enumerate(shape):
        share = (waves + axis) // 3
        angles = jnp.arange(length)[:, None] * 10_000.0 ** (-jnp.arange(share) / share)
        code = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        code = jnp.expand_dims(code, [other for other in range(3) if other != axis])
        codes.append(jnp.broadcast_to(code, (*shape, 2 * share)))
    return jnp.concatenate(codes, axis=-1) / math.sqrt(waves)


def _means(
    points: Float[Array, "n d"], weights: Float[Array, "n"], labels: Int[Array, "n"], num_clusters: int
) -> Float[Array, "m d"]:
    """Means under labels, or of all points where a label has none."""
    plan = jax.nn.one_hot(labels, num_clusters, dtype=points.dtype) * weights[:, None]
    mass, total = plan.sum(axis=0)[:, None], jnp.maximum(weights.sum(), 1)
    return jnp.where(mass > 0, plan.T @ points / jnp.maximum(mass, 1), weights @ points / total)
