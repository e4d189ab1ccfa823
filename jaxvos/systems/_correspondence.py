"""Training that asks for correspondence, beside masks: of pixels and of objects (Zhang et al., CVPR 2023).

It belongs to no system: what it wants of one are keys, features at stride 16, and a way to look at other images.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvos.errors import InputError
from jaxvos.losses import draw_boxes, grid_anchors, object_coherence, pixel_consistency, view_consistency
from jaxvos.ops import Keys, box_iou, mask_boxes, roi_align
from jaxvos.system import Clip
from jaxvos.systems._ramp import ramp
from jaxvos.systems._views import random_view, warp_clips
from jaxvos.typing import Key

__all__ = ["Correspondence", "CorrespondenceConfig", "Look", "correspondence_loss"]

_STRIDE = 16


class Look(NamedTuple):
    """What a net sees in a frame, with whatever axes before those of the map."""

    keys: Keys
    deep: Float[Array, "*b y x c"]  # stride 16
    skips: tuple[Array, Array]  # strides 8 and 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorrespondenceConfig:
    """Which correspondence is asked for. The paper's weights are unknown; those of pixels are the released code's."""

    pixels: Literal["adjacent", "warped_view", "none"] = "adjacent"
    """Two views in which a pixel shows the same: the last two frames of a clip, which must follow one another
    (`data.adjacent`; the paper), or each frame and a mirrored crop of it (released)."""
    pixel_weight: float = 0.2
    """Weight of pixel-level consistency."""
    view_weight: float = 0.04
    """Weight of the released regulariser, which keeps places of a frame apart; with `warped_view` alone."""
    grid: int = 8
    """Anchors along each side of a frame."""
    view_grid: int = 4
    """Places along each side that the regulariser keeps apart."""
    second_key: bool = False
    """Compare pixels by keys of a convolution of their own (released), which prediction does not use."""
    boxes: Literal["masks", "random", "proposals", "none"] = "masks"
    """What objects are compared: those with masks, boxes drawn at several scales, or the clip's proposals."""
    object_weight: float = 0.04
    """Weight of object-level coherence."""
    num_boxes: int = 8
    """Boxes of the first frame, drawn from all there are."""
    num_candidates: int = 32
    """Boxes of the last frame that they are matched to; of masks, as many as there are objects."""
    min_box: float = 32.0
    """Shortest side of a box, pixels."""
    matcher: Literal["hungarian", "greedy", "sinkhorn", "pgd", "qp"] = "hungarian"
    """How boxes are matched; the plans of the last three are soft targets."""
    temperature: float = 0.1
    """Of the softmax over cosines of boxes."""
    projection: tuple[int, int] = (256, 128)
    """Channels of the two layers that boxes are embedded by."""
    ramp: tuple[int, int] = (30_000, 90_000)
    """Steps between which all of this comes in."""

    def __post_init__(self) -> None:
        if self.pixels == "none" and self.boxes == "none":
            raise InputError("correspondence of nothing: name pixels or boxes, or leave correspondence out")
        if min(self.pixel_weight, self.view_weight, self.object_weight) < 0 or self.temperature <= 0:
            raise InputError(f"weights {self.pixel_weight}, {self.view_weight}, {self.object_weight}, temperature "
                             f"{self.temperature}: want no negative weight, and a positive temperature")  # fmt: skip
        if min(self.num_boxes, self.num_candidates) < 1 or not 0 <= self.ramp[0] <= self.ramp[1]:
            raise InputError(f"{self.num_boxes} of {self.num_candidates} boxes, ramp {self.ramp}: want numbers from 1 "
                             "on, and steps in order")  # fmt: skip


class Correspondence(nn.Module):
    """What training alone needs beside a host: the embedding of boxes, and perhaps keys of its own."""

    config: CorrespondenceConfig
    key_width: int = 64

    def setup(self):
        if self.config.boxes != "none":
            self.hidden, self.embedding = (nn.Dense(width) for width in self.config.projection)
        if self.config.second_key:
            self.second_key = nn.Conv(self.key_width, (3, 3), kernel_init=nn.initializers.orthogonal())

    def embed(self, deep: Float[Array, "y x c"], boxes: Float[Array, "n 4"]) -> Float[Array, "n d"]:
        """Vectors of boxes in pixels (Eq. 8)."""
        regions = roi_align(deep, boxes, output_size=(7, 7), scale=1 / _STRIDE)
        return self.embedding(nn.relu(self.hidden(regions))).mean(axis=(-3, -2))

    def keys(self, look: Look) -> Keys:
        return Keys(self.second_key(look.deep)) if self.config.second_key else look.keys

    def __call__(self, look: Look) -> None:
        """Touches every parameter."""
        self.keys(look)
        if self.config.boxes != "none":
            self.embed(look.deep[0], jnp.array([[0.0, 0.0, 32.0, 32.0]]))


def correspondence_loss(
    key: Key, variables: Any, clip: Clip, looks: Look, *, look: Callable[[Float[Array, "n h w 3"]], Look],
    config: CorrespondenceConfig, step: Any,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:  # fmt: skip
    """What Eq. 12 adds to the loss of a host, with the ramp of the released code.

    Args:
      key: randomness.
      variables: of `Correspondence`.
      clip: of at least two frames.
      looks: of all its frames, with axes b t.
      look: looks at other images, for `warped_view`.
      config: what is asked for.
      step: traced; for the ramp.

    Returns:
      The weighted sum, and its parts for the log.
    """
    module = Correspondence(config, looks.keys.key.shape[-1])
    pixel_key, box_key = jax.random.split(key)
    keys = module.apply(variables, looks, method="keys")
    parts, total = {}, jnp.zeros(())
    match config.pixels:
        case "adjacent":
            parts["pixels"] = _adjacent(pixel_key, keys, config)
        case "warped_view":
            other = lambda images: module.apply(variables, look(images), method="keys")  # noqa: E731
            parts["pixels"], parts["views"] = _warped(pixel_key, clip.images, keys, other, config)
            total += config.view_weight * parts["views"]
        case "none":
            pass
    if config.pixels != "none":
        total += config.pixel_weight * parts["pixels"]
    if config.boxes != "none":
        parts["objects"] = _objects(box_key, variables, module, clip, looks.deep)
        total += config.object_weight * parts["objects"]
    return ramp(step, config.ramp) * total, parts


# ---- pixels ----------------------------------------------------------------------------------------------------
def _adjacent(key: Key, keys: Keys, config: CorrespondenceConfig) -> Float[Array, ""]:
    """The last two frames against anchors of the first."""
    frame = lambda t: jax.tree.map(lambda x: x[:, t], keys)  # noqa: E731
    return pixel_consistency(frame(-2), frame(-1), frame(0), _anchors(key, keys, config.grid))


def _anchors(key: Key, keys: Keys, grid: int) -> Array:
    b, _, y, x, _ = keys.key.shape
    draw = lambda key: grid_anchors(key, size=(y, x), grid=min(grid, y, x))  # noqa: E731
    return jax.vmap(draw)(jax.random.split(key, b))


def _warped(
    key: Key, images: Float[Array, "b t h w 3"], keys: Keys, look: Callable[[Array], Keys], config: CorrespondenceConfig
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Each frame after the first against a mirrored crop of it; and the regulariser, of the first."""
    b, t = images.shape[:2]
    warp_key, anchor_key, view_key = jax.random.split(key, 3)
    warps = jax.vmap(random_view)(jax.random.split(warp_key, b))
    warp = functools.partial(warp_clips, warps=warps)

    seen = look(warp(images, method="linear").reshape(b * t, *images.shape[2:]))
    seen = jax.tree.map(lambda x: x.reshape(b, t, *x.shape[1:]), seen)
    moved = Keys(*(None if x is None else warp(x if x.ndim == 5 else x[..., None], method="nearest") for x in keys))
    if moved.shrinkage is not None:
        moved = moved._replace(shrinkage=moved.shrinkage[..., 0])
    inside = warp(jnp.ones((b, 1, *keys.key.shape[2:4], 1)), method="nearest")[:, 0, ..., 0] > 0.5
    frame = lambda keys, t: jax.tree.map(lambda x: x[:, t], keys)  # noqa: E731
    anchors = _anchors(anchor_key, keys, config.grid)
    each = [pixel_consistency(frame(seen, i), frame(moved, i), frame(keys, 0), anchors, valid=inside)
            for i in range(1, t)]  # fmt: skip
    places = _anchors(view_key, keys, config.view_grid)
    return sum(each, jnp.zeros(())) / len(each), view_consistency(frame(seen, 0), frame(moved, 0), places)


# ---- objects ---------------------------------------------------------------------------------------------------
def _objects(
    key: Key, variables: Any, module: Correspondence, clip: Clip, deep: Float[Array, "b t y x c"]
) -> Float[Array, ""]:
    """Boxes of the first frame against those of the last."""
    config, b = module.config, deep.shape[0]
    first_key, last_key, draw_key = jax.random.split(key, 3)
    first, first_there = _boxes(first_key, clip, 0, config)
    last, last_there = _boxes(last_key, clip, -1, config)
    draw = lambda key, there: draw_boxes(key, there, min(config.num_boxes, len(there)))  # noqa: E731
    index, drawn = jax.vmap(draw)(jax.random.split(draw_key, b), first_there)
    first = jnp.take_along_axis(first, index[..., None], axis=1)
    embed = jax.vmap(lambda deep, boxes: module.apply(variables, deep, boxes, method="embed"))
    twins = (jax.vmap(box_iou)(last, last) > 0.7) & ~jnp.eye(last.shape[1], dtype=bool)
    return object_coherence(
        embed(deep[:, 0], first), embed(deep[:, -1], last), first_valid=drawn, second_valid=last_there,
        temperature=config.temperature, method=config.matcher, near_duplicates=twins,
    )  # fmt: skip


def _boxes(
    key: Key, clip: Clip, t: int, config: CorrespondenceConfig
) -> tuple[Float[Array, "b n 4"], Bool[Array, "b n"]]:
    """Boxes of one frame of each clip, and which are there."""
    b, h, w = clip.images.shape[0], *clip.images.shape[2:4]
    match config.boxes:
        case "masks":
            assert clip.masks is not None
            boxes = jax.vmap(mask_boxes)(jnp.moveaxis(clip.masks[:, t, ..., 1:], -1, 1))
            there = jnp.ones(boxes.shape[:2], bool) if clip.alive is None else clip.alive[:, 1:]
        case "random":
            size_key, aspect_key, place_key = jax.random.split(key, 3)
            shape = (b, config.num_candidates)
            side = min(h, w) * jnp.exp2(jax.random.uniform(size_key, shape, minval=-2.0, maxval=0.0))
            root = jnp.exp2(jax.random.uniform(aspect_key, shape, minval=-0.5, maxval=0.5))
            size = jnp.minimum(jnp.stack([side * root, side / root], axis=-1), jnp.array([w, h]))
            corner = jax.random.uniform(place_key, (*shape, 2)) * (jnp.array([w, h]) - size)
            boxes, there = jnp.concatenate([corner, corner + size], axis=-1), jnp.ones(shape, bool)
        case "proposals":
            if clip.proposals is None:
                raise ValueError("boxes of proposals need them in the Clip: give proposals, or other boxes")
            boxes, there = clip.proposals.boxes[:, t], clip.proposals.valid[:, t]
            boxes, there = boxes[:, : config.num_candidates], there[:, : config.num_candidates]
        case "none":
            raise AssertionError
    large = jnp.min(boxes[..., 2:] - boxes[..., :2], axis=-1) >= config.min_box
    return jnp.where((there & large)[..., None], boxes, jnp.array([0.0, 0.0, 1.0, 1.0])), there & large
