"""Frames with those that follow them, as the systems that look at motion are trained on."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvos.ops import random_affine, resize, transform_flow, transform_image
from jaxvos.system import Clip
from jaxvos.typing import Key

__all__ = ["FLOW_MULTIPLE", "FLOW_UNIT", "FramePair", "PairAugmentationConfig", "augment_pair", "mean_of_pairs",
           "rounded_size", "take_pairs", "to_pixels"]

FLOW_MULTIPLE = 64  # of the height and width that flow networks want: they halve their input six times
FLOW_UNIT = 20.0  # pixels: what flow networks call 1

_INSIDE = 0.999  # of what a transformed pixel is made of must lie within the frame


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairAugmentationConfig:
    """Random changes of each pair, both frames alike, drawn inside the training step."""

    flip: float = 0.5
    """Probability of a horizontal flip."""
    rotation: float = 5.0
    """Largest rotation, degrees."""
    scale: tuple[float, float] = (0.95, 1.05)
    """Smallest and largest magnification."""
    shift: float = 0.05
    """Largest shift along each axis, as a share of the frame."""
    probability: float = 1.0
    """Share of the pairs that are changed at all."""


class FramePair(NamedTuple):
    """A frame, the next, and what is known of them."""

    image: Float[Array, "*b h w 3"]
    next_image: Float[Array, "*b h w 3"]
    flow: Float[Array, "*b h w 2"] | None  # pixels; not finite, or beyond 1e9, where it is unknown
    masks: Float[Array, "*b h w k"] | None  # one-hot, slot 0 is the background; NaN where they are unknown
    weight: Float[Array, "*b"]  # 0 where either frame is padding


def take_pairs(clip: Clip, *, merge: bool = True) -> FramePair:
    """Lists the pairs of successive frames of all clips; a clip of one frame is paired with itself, without flow.

    With `merge`, all objects are one.
    """
    alone = clip.images.shape[1] == 1
    here, there = (slice(None), slice(None)) if alone else (slice(None, -1), slice(1, None))
    listed = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
    masks = None if clip.masks is None else listed(clip.masks[:, here])
    if masks is not None and merge:
        masks = jnp.concatenate([masks[..., :1], 1 - masks[..., :1]], axis=-1)
    valid = jnp.ones(clip.images.shape[:2]) if clip.valid is None else clip.valid.astype(jnp.float32)
    return FramePair(
        image=listed(clip.images[:, here]),
        next_image=listed(clip.images[:, there]),
        flow=None if clip.flow is None or alone else listed(clip.flow[:, here]),
        masks=masks,
        weight=listed(valid[:, here] * valid[:, there]),
    )


def augment_pair(key: Key, pair: FramePair, config: PairAugmentationConfig) -> FramePair:
    """Moves both frames of one pair, its flow and its mask alike; what comes from outside the frame is unknown.

    The vectors turn, grow and flip with the image (SegFlow, sheet 4.2).
    """
    chosen_key, key = jax.random.split(key)
    transform = random_affine(key, flip=config.flip, rotation=config.rotation, scale=config.scale, shift=config.shift)
    h, w, _ = pair.image.shape
    inside = transform_image(jnp.ones((h, w, 1)), transform, border="constant") >= _INSIDE
    moved = pair._replace(
        image=transform_image(pair.image, transform), next_image=transform_image(pair.next_image, transform)
    )
    if pair.flow is not None:
        moved = moved._replace(flow=jnp.where(inside, transform_flow(pair.flow, transform, vectors=True), jnp.nan))
    if pair.masks is not None:
        masks = transform_image(pair.masks, transform, method="nearest")
        moved = moved._replace(masks=jnp.where(inside, masks, jnp.nan))
    chosen = jax.random.bernoulli(chosen_key, config.probability)
    return jax.tree.map(lambda new, old: jnp.where(chosen, new, old), moved, pair)


def mean_of_pairs(values: Float[Array, "b"], pairs: FramePair) -> Float[Array, ""]:
    """Averages over the pairs that are no padding."""
    return jnp.sum(values * pairs.weight) / jnp.maximum(jnp.sum(pairs.weight), 1.0)


def rounded_size(size: tuple[int, ...]) -> tuple[int, ...]:
    """The next height and width that flow networks want."""
    return tuple(-(-side // FLOW_MULTIPLE) * FLOW_MULTIPLE for side in size)


def to_pixels(flow: Float[Array, "*b y x 2"], size: tuple[int, ...]) -> Float[Array, "*b h w 2"]:
    """Brings what a flow network says, in units of 20 pixels of its input whose quarter it is, to pixels of a frame."""
    y, x = flow.shape[-3:-1]
    return resize(flow, size) * (FLOW_UNIT * jnp.array([size[1] / (4 * x), size[0] / (4 * y)]))
