"""Mask R-CNN on a feature pyramid (He et al., ICCV 2017), of one class: whatever may be an object of a frame.

DMM-Net (Zeng et al., ICCV 2019, section 3.1) takes its proposals from such a net. Each frame stands alone.
"""

import dataclasses
import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvos.errors import InputError
from jaxvos.losses import box_regression_loss, object_cross_entropy, objectness_loss, region_mask_loss
from jaxvos.nets import FPN, BackboneName, BoxHead, MaskHead, RegionHead, backbone, pyramid_roi_align
from jaxvos.ops import box_iou, clip_boxes, decode_boxes, nms, paste_masks, random_affine, resize, transform_image
from jaxvos.system import Clip, Frame, LossOutput, Prediction, Proposals, System, no_memory
from jaxvos.systems._mask_rcnn_targets import (
    ANCHOR_WEIGHTS,
    REGION_WEIGHTS,
    Objects,
    Regions,
    Samples,
    anchor_boxes,
    find_objects,
    sample_anchors,
    sample_regions,
)
from jaxvos.typing import Key, Variables

__all__ = ["DetectionAugmentation", "MaskRCNNConfig", "mask_rcnn"]

Level = Literal[2, 3, 4, 5, 6]
Pyramid = dict[int, Float[Array, "b _h _w c"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionAugmentation:
    """Random changes of each training frame, drawn inside the training step."""

    flip: float = 0.5
    """Probability of a horizontal flip."""
    rotation: float = 0.0
    """Largest rotation, degrees."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest magnification."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskRCNNConfig:
    """The setting of DMM-Net's proposals where it is stated, and of Mask R-CNN elsewhere."""

    backbone: BackboneName = "resnet101"
    """Encoder (published: ResNeXt-101 32x8d, for which there is no net here)."""
    backbone_width: int = 64
    """Channels of a ResNet's stem (64 as published)."""
    input_size: tuple[int, int] = (480, 864)
    """Height and width that a frame is resized to."""
    fpn_width: int = 256
    """Channels of the pyramid."""
    levels: tuple[Level, ...] = (2, 3, 4, 5, 6)
    """Levels with anchors; a pixel of level l stands for 2**l of the input."""
    roi_levels: tuple[Level, ...] = (2, 3, 4, 5)
    """Levels that regions are sampled from, each from the one of its size."""
    canonical_size: float = 224.0
    """Side of a region, in pixels of the input, that belongs to level 4."""
    anchor_sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    """Side of a square anchor, one for each level, in pixels of the input."""
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Heights of the anchors relative to their widths."""
    num_anchors_sampled: int = 256
    """Anchors of an image that count in the loss, at most half of them positive."""
    pre_nms: int = 2000
    """Regions of the highest scores, of all levels together, that go into suppression."""
    rpn_nms: float = 0.7
    """Overlap above which the worse of two regions is suppressed."""
    post_nms: int = 1000
    """Regions left for the second stage."""
    num_rois: int = 512
    """Regions of an image that count in the loss, at most a quarter of them positive."""
    roi_size: int = 7
    """Cells, each way, of a region's features for its box."""
    mask_roi_size: int = 14
    """Cells, each way, of a region's features for its mask, which has twice as many."""
    roi_aligned: bool = True
    """Sample regions where they are; torchvision's weights were trained half a cell off (False)."""
    box_head_width: int = 1024
    """Width of the two hidden layers that classify a region."""
    mask_head_width: int = 256
    """Channels of the layers that draw a mask."""
    mask_head_layers: int = 4
    """Their number."""
    num_classes: int = 1
    """Classes besides the background (COCO's weights: 80 or 90); they all count as an object in the loss."""
    num_proposals: int = 50
    """Proposals of a frame, the best."""
    score_threshold: float = 0.0
    """Least score of a proposal."""
    nms: float = 0.5
    """Overlap of boxes above which the worse of two proposals is suppressed."""
    bn: Literal["train", "frozen"] = "frozen"
    """Batch statistics in training, or the stored ones, as detectors have it."""
    augmentation: DetectionAugmentation = DetectionAugmentation()
    """Random changes of training frames."""


class _MaskRCNN(nn.Module):
    """The layers, with nothing in between: what is sampled and suppressed is decided outside."""

    config: MaskRCNNConfig

    def setup(self):
        config, classes = self.config, self.config.num_classes + 1
        self.backbone = backbone(config.backbone, width=config.backbone_width)
        self.fpn = FPN(tuple(sorted({*config.levels, *config.roi_levels})), config.fpn_width)
        self.rpn = RegionHead(len(config.aspect_ratios))
        self.box_head = BoxHead(classes, config.box_head_width)
        self.mask_head = MaskHead(classes, config.mask_head_width, config.mask_head_layers)

    def __call__(self, images: Float[Array, "b h w 3"]) -> None:
        pyramid, *_ = self.regions(images, train=False)
        region = jnp.zeros((len(images), 1, 4))
        self.boxes(pyramid, region)
        self.masks(pyramid, region)

    def regions(
        self, images: Float[Array, "b h w 3"], *, train: bool
    ) -> tuple[Pyramid, Float[Array, "b n"], Float[Array, "b n 4"]]:
        """First stage: the pyramid, and logits and deltas of every anchor."""
        mean, std = self.backbone.normalization
        pyramid = self.fpn(self.backbone((images - jnp.array(mean)) / jnp.array(std), train=train))
        logits, deltas = zip(*(self.rpn(pyramid[level]) for level in self.config.levels), strict=True)
        pyramid = {level: pyramid[level] for level in self.config.roi_levels}
        return pyramid, jnp.concatenate(logits, axis=1), jnp.concatenate(deltas, axis=1)

    def boxes(
        self, pyramid: Pyramid, regions: Float[Array, "b m 4"]
    ) -> tuple[Float[Array, "b m n"], Float[Array, "b m n 4"]]:
        """Second stage: logits and deltas of each class."""
        logits, deltas = self.box_head(self._sample(pyramid, regions, self.config.roi_size))
        shape = regions.shape[:2]
        return logits.reshape(*shape, -1), deltas.reshape(*shape, -1, 4)

    def masks(self, pyramid: Pyramid, regions: Float[Array, "b m 4"]) -> Float[Array, "b m y x n"]:
        """Second stage: logits of the mask of each class."""
        logits = self.mask_head(self._sample(pyramid, regions, self.config.mask_roi_size))
        return logits.reshape(*regions.shape[:2], *logits.shape[1:])

    def _sample(
        self, pyramid: Pyramid, regions: Float[Array, "b m 4"], size: int
    ) -> Float[Array, "bm y x c"]:
        one = functools.partial(pyramid_roi_align, output_size=(size, size), aligned=self.config.roi_aligned,
                                canonical_size=self.config.canonical_size)  # fmt: skip
        features = jax.vmap(one)(pyramid, regions)
        return features.reshape(-1, *features.shape[2:])


def mask_rcnn(config: MaskRCNNConfig = MaskRCNNConfig()) -> System:
    """Builds Mask R-CNN as a `System` that proposes objects; it is trained on `masks` and needs nothing but the image.

    All objects are one class. A prediction has `proposals` and, in slot 1 of its masks, the probability that a pixel
    belongs to any of them: one less the product of what each leaves over.

    Raises:
      InputError: the levels, or the sizes of the anchors, do not fit together.
    """
    _check(config)
    net, size = _MaskRCNN(config), config.input_size
    anchors = anchor_boxes(size, config.levels, config.anchor_sizes, config.aspect_ratios)

    def init(key: Key, clip: Clip) -> Variables:
        return net.init(key, clip.images[:1, 0])

    def loss(variables: Variables, clip: Clip, *, key: Key, step) -> LossOutput:
        del step
        images, masks, alive, valid = _flatten(clip)
        augment_keys, anchor_keys, region_keys = (jax.random.split(k, len(images)) for k in jax.random.split(key, 3))
        images, masks = jax.vmap(functools.partial(_augment, config=config))(augment_keys, images, masks)
        objects = jax.vmap(find_objects)(masks, alive)
        (pyramid, logits, deltas), state = net.apply(
            variables, images, train=config.bn == "train", mutable=["batch_stats"], method="regions"
        )
        draw = functools.partial(sample_anchors, number=config.num_anchors_sampled)
        samples = jax.vmap(draw, in_axes=(0, None, 0))(anchor_keys, jnp.asarray(anchors), objects)
        propose = functools.partial(_propose, jnp.asarray(anchors), config)
        boxes, kept = jax.lax.stop_gradient(jax.vmap(propose)(logits, deltas))
        draw = functools.partial(sample_regions, number=config.num_rois, mask_size=2 * config.mask_roi_size)
        regions = jax.vmap(draw)(region_keys, boxes, kept, objects)
        samples, regions = (x._replace(sampled=x.sampled & valid[:, None]) for x in (samples, regions))
        classes, moves = net.apply(variables, pyramid, regions.boxes, method="boxes")
        drawn = net.apply(variables, pyramid, regions.boxes[:, : regions.masks.shape[1]], method="masks")
        scalars = _anchor_losses(logits, deltas, samples) | _region_losses(classes, moves, drawn, regions)
        total = sum(scalars.values(), start=jnp.zeros(()))
        return LossOutput(total, state, scalars | {"recall": _recall(boxes, kept, objects, valid)})

    def predict(variables: Variables, memory, frame: Frame):
        h, w = frame.image.shape[:2]
        pyramid, logits, deltas = net.apply(variables, resize(frame.image, size)[None], train=False, method="regions")
        boxes, kept = _propose(jnp.asarray(anchors), config, logits[0], deltas[0])
        classes, moves = net.apply(variables, pyramid, boxes[None], method="boxes")
        boxes, scores, index, kept = _detect(boxes, kept, classes[0], moves[0], config)
        masks = net.apply(variables, pyramid, boxes[None], method="masks")[0]
        masks = jax.nn.sigmoid(jnp.take_along_axis(masks, index[:, None, None, None], axis=-1)[..., 0])
        foreground = 1 - jnp.prod(1 - scores[:, None, None] * paste_masks(masks, boxes, size), axis=0)
        foreground = resize(foreground[..., None], (h, w))
        boxes = boxes * jnp.array([w / size[1], h / size[0]] * 2)
        proposals = Proposals(boxes, jnp.where(kept[:, None, None], masks, 0.0), scores, kept)
        return memory, Prediction(jnp.concatenate([1 - foreground, foreground], axis=-1), proposals=proposals)

    return System(init, loss, predict, no_memory)


def _check(config: MaskRCNNConfig) -> None:
    levels = sorted({*config.levels, *config.roi_levels})
    if len(config.anchor_sizes) != len(config.levels):
        raise InputError(f"{len(config.anchor_sizes)} anchor_sizes for levels {config.levels}: give one for each")
    if levels != list(range(levels[0], levels[-1] + 1)) or levels == [6]:
        raise InputError(f"levels and roi_levels leave a gap in {levels}: take neighbours, and 5 with 6")
    if config.num_proposals > config.post_nms or config.post_nms > config.pre_nms:
        raise InputError(f"num_proposals {config.num_proposals}, post_nms {config.post_nms}, pre_nms {config.pre_nms}: "
                         "each must be at most the next")  # fmt: skip


def _flatten(clip: Clip) -> tuple[Array, Array, Bool[Array, "n k"], Bool[Array, "n"]]:
    """Takes a clip apart into frames: images, masks of the objects (h, w, k), which are alive, which frames count."""
    if clip.masks is None:
        raise ValueError("Mask R-CNN is trained on masks: give `masks` in the Clip")
    frames = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
    images, masks = frames(clip.images), frames(clip.masks[..., 1:])
    b, t, *_, k = clip.masks.shape
    alive = jnp.ones((b, k), bool) if clip.alive is None else clip.alive
    valid = jnp.ones((b, t), bool) if clip.valid is None else clip.valid
    return images, masks, jnp.repeat(alive[:, 1:], t, axis=0), frames(valid[..., None])[:, 0]


def _augment(
    key: Key, image: Float[Array, "h w 3"], masks: Float[Array, "h w k"], config: MaskRCNNConfig
) -> tuple[Float[Array, "y x 3"], Float[Array, "y x k"]]:
    """Moves an image and its masks, and brings them to the size of the input."""
    change = config.augmentation
    if change.flip > 0 or change.rotation > 0 or change.scale != (1.0, 1.0):
        transform = random_affine(key, flip=change.flip, rotation=change.rotation, scale=change.scale)
        image = transform_image(image, transform)
        masks = transform_image(masks, transform, method="nearest", border="constant")
    return resize(image, config.input_size), resize(masks, config.input_size)


def _propose(
    anchors: Float[Array, "n 4"], config: MaskRCNNConfig, logits: Float[Array, "n"], deltas: Float[Array, "n 4"]
) -> tuple[Float[Array, "m 4"], Bool[Array, "m"]]:
    """The regions of an image, best first, and which of them are any (Faster R-CNN, section 3.3)."""
    scores, index = jax.lax.top_k(logits, min(config.pre_nms, len(anchors)))
    boxes = decode_boxes(deltas[index], anchors[index], weights=ANCHOR_WEIGHTS)
    boxes = clip_boxes(boxes, config.input_size)
    index, kept = nms(boxes, scores, valid=_extended(boxes), iou_threshold=config.rpn_nms, num_outputs=config.post_nms)
    return boxes[index], kept


def _detect(
    boxes: Float[Array, "m 4"],
    kept: Bool[Array, "m"],
    logits: Float[Array, "m n"],
    deltas: Float[Array, "m n 4"],
    config: MaskRCNNConfig,
) -> tuple[Float[Array, "k 4"], Float[Array, "k"], Array, Bool[Array, "k"]]:
    """The best boxes of an image, moved, with their scores, their classes, and which are any; others are zero."""
    probabilities = jax.nn.softmax(logits)[:, 1:]
    scores, best = jnp.max(probabilities, axis=1), jnp.argmax(probabilities, axis=1) + 1
    deltas = jnp.take_along_axis(deltas, best[:, None, None], axis=1)[:, 0]
    boxes = clip_boxes(decode_boxes(deltas, boxes, weights=REGION_WEIGHTS), config.input_size)
    valid = kept & _extended(boxes) & (scores >= config.score_threshold)
    index, kept = nms(boxes, scores, valid=valid, iou_threshold=config.nms, num_outputs=config.num_proposals)
    boxes, scores = boxes[index] * kept[:, None], scores[index] * kept
    return boxes, scores, best[index], kept


def _extended(boxes: Float[Array, "m 4"]) -> Bool[Array, "m"]:
    return jnp.all(boxes[:, 2:] - boxes[:, :2] > 1e-3, axis=1)


def _anchor_losses(logits: Float[Array, "b n"], deltas: Float[Array, "b n 4"], samples: Samples) -> dict[str, Array]:
    logits = jnp.take_along_axis(logits, samples.indices, axis=1)
    deltas = jnp.take_along_axis(deltas, samples.indices[..., None], axis=1)
    return {
        "anchor_loss": objectness_loss(logits, samples.positive, samples.sampled),
        "anchor_box_loss": box_regression_loss(deltas, samples.targets, samples.positive, samples.sampled),
    }


def _region_losses(
    logits: Float[Array, "b m n"], deltas: Float[Array, "b m n 4"], masks: Float[Array, "b p y x n"], regions: Regions
) -> dict[str, Array]:
    """Boxes and masks are those of each region's best class."""
    best = jnp.argmax(logits[..., 1:], axis=-1) + 1
    deltas = jnp.take_along_axis(deltas, best[..., None, None], axis=2)[:, :, 0]
    top = masks.shape[1]
    masks = jnp.take_along_axis(masks, best[:, :top, None, None, None], axis=-1)[..., 0]
    drawn = (regions.positive & regions.sampled)[:, :top]
    return {
        "class_loss": object_cross_entropy(logits, regions.positive, regions.sampled),
        "box_loss": box_regression_loss(deltas, regions.targets, regions.positive, regions.sampled),
        "mask_loss": region_mask_loss(masks, regions.masks, drawn),
    }


def _recall(
    boxes: Float[Array, "b m 4"], kept: Bool[Array, "b m"], objects: Objects, valid: Bool[Array, "b"]
) -> Float[Array, ""]:
    """Share of the objects that a region overlaps by half."""
    overlap = jnp.where(kept[..., None], jax.vmap(box_iou)(boxes, objects.boxes), 0.0)
    real = objects.real & valid[:, None]
    return jnp.sum(real & jnp.any(overlap >= 0.5, axis=1)) / jnp.maximum(jnp.sum(real), 1)
