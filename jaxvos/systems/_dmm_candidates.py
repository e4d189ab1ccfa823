"""Proposals as DMM-Net sees them: whole masks at the net's resolution, moved with their frame where it is augmented."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvos.ops import mask_boxes, paste_masks, random_affine, transform_image
from jaxvos.system import Proposals
from jaxvos.typing import Key

__all__ = ["Candidates", "FrameAugmentationConfig", "augment_clip", "paste", "paste_at"]

_TIGHT = 0.4  # a pasted proposal reaches as far as it exceeds this


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameAugmentationConfig:
    """Random changes of training frames, drawn inside the training step; proposals move with their frame."""

    flip: float = 0.5
    """Probability that a clip is mirrored."""
    rotation: float = 10.0
    """Largest rotation of a frame, degrees."""
    shift: float = 0.1
    """Largest shift of a frame, as a share of its sides."""
    shear: float = 0.1
    """Largest shear of a frame, degrees."""
    scale: tuple[float, float] = (0.7, 1.4)
    """Smallest and largest magnification of a frame."""


class Candidates(NamedTuple):
    """Proposals at the net's resolution."""

    masks: Float[Array, "m h w"]
    boxes: Float[Array, "m 4"]
    valid: Bool[Array, "m"]


def paste_at(proposals: Proposals | None, size: tuple[int, ...], net_size: tuple[int, int]) -> Candidates:
    if proposals is None:
        raise ValueError("DMM-Net needs proposals: give `proposals` in the Frame")
    (h, w), (y, x) = size, net_size
    return paste(proposals._replace(boxes=proposals.boxes * jnp.array([x / w, y / h, x / w, y / h])), size=net_size)


def paste(proposals: Proposals, *, size: tuple[int, ...]) -> Candidates:
    """Proposals whose boxes are in pixels of `size` as whole masks; of padding, whatever it holds, nothing is left."""
    valid = proposals.valid
    boxes = jnp.where(valid[:, None], proposals.boxes, 0)
    masks = jnp.where(valid[:, None, None], proposals.masks, 0)
    return Candidates(paste_masks(masks, boxes, size), boxes, valid)


def augment_clip(
    key: Key,
    images: Float[Array, "t h w 3"],
    truths: Float[Array, "t n h w"],
    candidates: Candidates,
    *,
    config: FrameAugmentationConfig,
) -> tuple[Float[Array, "t h w 3"], Float[Array, "t n h w"], Candidates]:
    """Mirrors a clip, and maps each of its frames anew; proposals that leave the frame are no longer valid."""
    if config == FrameAugmentationConfig(flip=0.0, rotation=0.0, shift=0.0, shear=0.0, scale=(1.0, 1.0)):
        return images, truths, candidates
    flip_key, key = jax.random.split(key)
    flipped = jax.random.bernoulli(flip_key, config.flip)

    def one(key: Key, image: Array, truth: Array, masks: Array) -> tuple[Array, Array, Array]:
        transform = random_affine(key, rotation=config.rotation, scale=config.scale, shear=config.shear,
                                  shift=config.shift)  # fmt: skip
        layers = jnp.concatenate([image, jnp.moveaxis(masks, 0, -1)], axis=-1)
        layers = jnp.where(flipped, layers[:, ::-1], layers)
        truth = jnp.moveaxis(jnp.where(flipped, truth[..., ::-1], truth), 0, -1)
        moved = transform_image(layers[..., :3], transform)
        masks = jnp.moveaxis(transform_image(layers[..., 3:], transform, border="constant"), -1, 0)
        return moved, jnp.moveaxis(transform_image(truth, transform, method="nearest", border="constant"), -1, 0), masks

    images, truths, masks = jax.vmap(one)(jax.random.split(key, len(images)), images, truths, candidates.masks)
    boxes = jax.vmap(functools.partial(mask_boxes, threshold=_TIGHT))(masks)
    return images, truths, Candidates(masks, boxes, candidates.valid & (boxes[..., 2] > boxes[..., 0]))
