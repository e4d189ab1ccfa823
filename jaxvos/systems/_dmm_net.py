"""DMM-Net: templates of the first frame matched to mask proposals, and the matched masks refined (ICCV 2019).

Several objects, given by their masks on the first frame; proposals in every frame, from any detector. Nothing in the
parameters depends on the number of objects or proposals.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxvos.errors import InputError
from jaxvos.losses import best_matches, similarity_loss, soft_iou_loss
from jaxvos.nets import BackboneName, HeavyRefiner, LightRefiner, backbone
from jaxvos.ops import mask_boxes, resize, roi_mean
from jaxvos.system import Adaptation, Clip, Frame, LossOutput, Prediction, System
from jaxvos.systems._dmm_candidates import Candidates, FrameAugmentationConfig, augment_clip, paste, paste_at
from jaxvos.systems._dmm_matching import MatchedMasks, MatchingConfig, cosine_similarity, mask_overlap, match_masks
from jaxvos.typing import Key, Masks, Variables

__all__ = ["DMMNetConfig", "dmm_net"]

_LEVELS = (2, 3, 4, 5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DMMNetConfig:
    """The paper's setting for YouTube-VOS; where it says nothing, that of the released code."""

    backbone: BackboneName = "resnet50"
    """Encoder for matching and refinement."""
    backbone_width: int = 64
    """Channels of a ResNet's stem (64 as published)."""
    input_size: tuple[int, int] = (255, 448)
    """Height and width that a frame is resized to for prediction; the result comes back at the frame's own size."""
    match_width: int = 128
    """Channels, of each of the four levels, that templates and proposals are compared by."""
    roi_size: int = 14
    """Bins a side of a box, over which its features are averaged."""
    matching: MatchingConfig = MatchingConfig()
    """How templates find their proposals."""
    template_update: float = 0.0
    """Weight of a matched proposal's features in its template's from then on; 0, as published: the first ones stay."""
    refiner: Literal["none", "light", "heavy"] = "light"
    """What turns matched masks into the answer: nothing, four ConvLSTM layers (YouTube-VOS), or a U-Net with its own
    encoder (DAVIS, SegTrack)."""
    skip_widths: tuple[int, int, int, int] = (32, 64, 128, 128)
    """Channels that the light refiner sees of the levels at strides 4, 8, 16, 32."""
    light_widths: tuple[int, int, int, int] = (128, 64, 32, 16)
    """Hidden channels of the light refiner at strides 32, 16, 8, 4."""
    mask_fusion: Literal["average", "stack"] = "average"
    """The light refiner sees the latest, template and matched mask one by one, averaging (released), or stacked."""
    recurrence: Literal["temporal", "rvos"] = "temporal"
    """The light refiner's memory: over time (the paper's words), or from object to object too (released, as RVOS)."""
    heavy_width: int = 256
    """Channels of the heavy refiner's decoder."""
    iou_source: Literal["refined", "matched"] = "refined"
    """Which of the last frame's masks proposals are compared with: refined (released) or matched (the paper)."""
    slots: int = 5
    """Objects that are refined at once; more of them are refined one group after the other, in the same memory."""
    refined_weight: float = 1.0
    """Weight of the soft IoU loss of refined masks."""
    matched_weight: float = 1.0
    """Weight of the soft IoU loss of matched masks."""
    similarity_weight: float = 1.0
    """Weight of the squared error of the cosines against the best assignment."""
    entropy_weight: float = 0.0
    """Weight of the binary cross-entropy of refined masks, which absent objects learn from too (none as published)."""
    own_masks: float = 0.5
    """Probability that a training frame is given the net's own latest masks, not the true ones."""
    own_masks_from: int = 0
    """Step from which on it may be (released: after three epochs)."""
    bn: Literal["train", "frozen"] = "train"
    """Batch statistics of the encoder in training, or the stored ones; those of the heads are always trained."""
    augmentation: FrameAugmentationConfig = FrameAugmentationConfig()
    """Random changes of training frames."""


class _Memory(NamedTuple):
    templates: Float[Array, "n d"]  # features
    masks: Float[Array, "n h w"]  # of the first frame, at the net's resolution
    latest: Float[Array, "n h w"]  # where the objects were last seen
    reference: Any  # what the refiner keeps of the first frame, for each object
    state: Any  # of the refiner, for each object
    alive: Bool[Array, "n"]
    age: Int[Array, ""]  # frames seen


class _Seen(NamedTuple):
    """A frame, encoded."""

    image: Float[Array, "h w 3"]  # normalised
    skips: dict[int, Array]
    looks: dict[int, Array]


class _DMMNet(nn.Module):
    """Encoder with its heads, and the refiner."""

    config: DMMNetConfig

    def setup(self):
        config = self.config
        self.encoder = backbone(config.backbone, width=config.backbone_width)
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), use_bias=False, kernel_init=nn.initializers.he_normal())
        norm = functools.partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)
        widths = dict(zip(_LEVELS, config.skip_widths, strict=True))
        if config.refiner == "light":
            self.skip_convs = {str(level): conv(widths[level]) for level in _LEVELS}
            self.skip_norms = {str(level): norm() for level in _LEVELS}
        self.look_convs = {str(level): (conv(widths[level]), conv(config.match_width)) for level in _LEVELS}
        self.look_norms = {str(level): (norm(), norm()) for level in _LEVELS}
        self.refiner = _refiner(config)

    def encode(self, images: Float[Array, "b h w 3"], *, train: bool) -> _Seen:
        """Features of frames, with a leading axis on every field."""
        mean, std = self.encoder.normalization
        images = (images - jnp.array(mean)) / jnp.array(std)
        x = self.encoder.stem(images, train=train and self.config.bn == "train")
        skips, looks = {}, {}
        for level in _LEVELS:
            name, still = str(level), {"use_running_average": not train}
            x = self.encoder.stage(x, level, train=train and self.config.bn == "train")
            first, second = self.look_convs[name]
            first_norm, second_norm = self.look_norms[name]
            looks[level] = second_norm(second(nn.relu(first_norm(first(x), **still))), **still)
            if self.config.refiner == "light":
                skips[level] = self.skip_norms[name](self.skip_convs[name](x), **still)
        return _Seen(images, skips, looks)

    def reference(self, image: Float[Array, "h w 3"], template: Float[Array, "h w"]) -> Any:
        return () if self.refiner is None else self.refiner.reference(image, template)

    def refine(self, seen: _Seen, masks: Float[Array, "3 h w"], reference: Any, state: Any, **spatial: Any) -> Any:
        """Logits of one object at the net's resolution, and the refiner's new state."""
        assert self.refiner is not None
        return self.refiner(seen.image, seen.skips, masks, reference, state, **spatial)

    def __call__(self, images: Float[Array, "b h w 3"]) -> None:
        """Touches every parameter."""
        seen = jax.tree.map(lambda x: x[0], self.encode(images, train=False))
        if self.refiner is not None:
            masks = jnp.zeros((3, *images.shape[1:3]))
            self.refine(seen, masks, self.reference(seen.image, masks[0]), self.refiner.initial_state(seen.skips))


def _refiner(config: DMMNetConfig) -> LightRefiner | HeavyRefiner | None:
    match config.refiner:
        case "none":
            return None
        case "light":
            return LightRefiner(config.light_widths, config.mask_fusion, config.recurrence)
        case "heavy":
            return HeavyRefiner(config.backbone, config.backbone_width, config.heavy_width)


def _initial_state(config: DMMNetConfig, seen: _Seen) -> Any:
    refiner = _refiner(config)
    return () if refiner is None else refiner.initial_state(seen.skips)


def dmm_net(config: DMMNetConfig = DMMNetConfig()) -> System:
    """Builds DMM-Net as a `System`; it needs `proposals` in every `Clip` and `Frame`, and masks for `start`.

    The slots of a prediction are those of the masks given to `start`, of any number; a pixel belongs to an object where
    its own probability is above one half and the largest: masks are the softmax of the objects' logits and a zero for
    the background. Memory is the templates' features and masks, the latest masks and the refiner's state.

    Raises:
      InputError: the heavy refiner with an encoder that is no ResNet.
    """
    if config.refiner == "heavy" and not config.backbone.startswith("resnet"):
        raise InputError(f"the heavy refiner needs a ResNet, not {config.backbone}: name one or take the light refiner")
    net = _DMMNet(config)

    def init(key: Key, clip: Clip) -> Variables:
        return net.init(key, clip.images[:1, 0])

    def features(seen: _Seen, boxes: Float[Array, "m 4"]) -> Float[Array, "m d"]:
        """Averages each level over each box; levels know their own scale, which is not a power of two at odd sizes."""
        h, w = seen.image.shape[:2]
        pooled = []
        for level in _LEVELS:
            y, x = seen.looks[level].shape[:2]
            scaled = boxes * jnp.array([x / w, y / h, x / w, y / h])
            size = (config.roi_size, config.roi_size)
            pooled.append(roi_mean(seen.looks[level], scaled, scale=1.0, output_size=size))
        return jnp.concatenate(pooled, axis=-1)

    def begin(variables: Variables, seen: _Seen, masks: Float[Array, "n h w"]) -> _Memory:
        most = jnp.max(masks, axis=(1, 2))
        alive = most > 0
        masks = masks / jnp.where(alive, most, 1)[:, None, None]  # an object of less than a pixel has one pixel
        reference = jax.vmap(lambda mask: net.apply(variables, seen.image, mask, method="reference"))(masks)
        one = _initial_state(config, seen)
        state = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(masks), *x.shape)), one)
        templates = features(seen, mask_boxes(masks))
        return _Memory(templates, masks, masks, reference, state, alive, jnp.int32(0))

    def refine(variables: Variables, seen: _Seen, memory: _Memory, matched: Float[Array, "n h w"]) -> Any:
        if config.refiner == "none":
            return jax.scipy.special.logit(jnp.clip(matched, 1e-3, 1 - 1e-3)), memory.state
        apply = functools.partial(net.apply, variables, seen, method="refine")
        masks = jnp.stack([memory.latest, memory.masks, matched], axis=1)
        if config.refiner == "light" and config.recurrence == "rvos":

            def following(spatial: Any, each: Any) -> tuple[Any, Any]:
                masks, reference, state, alive = each
                logits, state = apply(masks, reference, state, spatial=spatial)
                return jax.tree.map(lambda new, old: jnp.where(alive, new, old), state, spatial), (logits, state)

            objects = masks, memory.reference, memory.state, memory.alive
            return jax.lax.scan(following, _initial_state(config, seen), objects)[1]
        objects = masks, memory.reference, memory.state
        if len(masks) <= config.slots:
            return jax.vmap(apply)(*objects)
        return jax.lax.map(lambda each: apply(*each), objects, batch_size=config.slots)

    def advance(
        variables: Variables, seen: _Seen, candidates: Candidates, memory: _Memory, *, train: bool
    ) -> tuple[_Memory, Float[Array, "n h w"], MatchedMasks, Float[Array, "n m"]]:
        """One frame: compare, match, refine. Returns memory, logits, what was matched, and the cosines."""
        looks = features(seen, candidates.boxes)
        similarity = cosine_similarity(memory.templates, looks)
        iou = mask_overlap(memory.latest, candidates.masks)
        found = match_masks(similarity, iou, candidates.masks, alive=memory.alive, valid=candidates.valid,
                            config=config.matching, train=train)  # fmt: skip
        logits, state = refine(variables, seen, memory, found.masks)
        latest = jax.nn.sigmoid(logits) if config.iou_source == "refined" else found.masks
        weight = config.template_update * found.weights
        templates = (1 - weight.sum(1, keepdims=True)) * memory.templates + weight @ looks
        memory = memory._replace(templates=templates, latest=latest, state=state, age=memory.age + 1)
        return memory, logits, found, similarity

    def start(variables: Variables, frame: Frame, masks: Masks | None = None) -> _Memory:
        if masks is None:
            raise ValueError("DMM-Net follows objects that it is told: give their masks on the first frame")
        image = resize(frame.image, config.input_size)
        seen = jax.tree.map(lambda x: x[0], net.apply(variables, image[None], train=False, method="encode"))
        return begin(variables, seen, jnp.moveaxis(resize(masks, config.input_size)[..., 1:], -1, 0))

    def predict(variables: Variables, memory: _Memory, frame: Frame) -> tuple[_Memory, Prediction]:
        size, given = frame.image.shape[:2], memory.age == 0  # the first frame is answered with what was told of it
        image = resize(frame.image, config.input_size)
        candidates = paste_at(frame.proposals, size, config.input_size)
        seen = jax.tree.map(lambda x: x[0], net.apply(variables, image[None], train=False, method="encode"))
        after, logits, *_ = advance(variables, seen, candidates, memory, train=False)
        after = after._replace(latest=jnp.where(given, memory.masks, after.latest),
                               templates=jnp.where(given, memory.templates, after.templates))  # fmt: skip
        logits = jnp.where(given, 20.0 * (memory.masks - 0.5), logits)
        logits = jnp.where(memory.alive, resize(jnp.moveaxis(logits, 0, -1), size), -jnp.inf)
        background = jnp.zeros((*size, 1))
        return after, Prediction(jax.nn.softmax(jnp.concatenate([background, logits], axis=-1)))

    def loss(variables: Variables, clip: Clip, *, key: Key, step: Any) -> LossOutput:
        if clip.masks is None or clip.proposals is None:
            raise ValueError("DMM-Net is trained on masks and proposals: give both in the Clip")
        shape = clip.images.shape[:2]
        augment_key, own_key = jax.random.split(key)
        told = jnp.moveaxis(clip.masks[..., 1:], -1, 2)
        if clip.alive is not None:
            told = told * clip.alive[:, None, 1:, None, None]
        pasted = jax.vmap(jax.vmap(functools.partial(paste, size=clip.images.shape[2:4])))(clip.proposals)
        augment = jax.vmap(functools.partial(augment_clip, config=config.augmentation))
        images, truths, candidates = augment(jax.random.split(augment_key, shape[0]), clip.images, told, pasted)
        flat = images.reshape(-1, *images.shape[2:])
        seen, state = net.apply(variables, flat, train=True, method="encode", mutable=["batch_stats"])
        seen = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), seen)
        own = jax.random.bernoulli(own_key, config.own_masks, shape) & (step >= config.own_masks_from)
        valid = jnp.ones(shape, bool) if clip.valid is None else clip.valid
        values = jax.vmap(functools.partial(unroll, variables))(seen, truths, candidates, own.at[:, 0].set(False))
        weights = valid / jnp.maximum(jnp.sum(valid), 1)
        scalars = {name: jnp.sum(value * weights) for name, value in values.items()}
        return LossOutput(shape[1] * sum(_weighted(scalars, config)), dict(state), scalars)

    def unroll(
        variables: Variables,
        seen: _Seen,
        truths: Float[Array, "t n h w"],
        candidates: Candidates,
        own: Bool[Array, "t"],
    ) -> dict[str, Float[Array, "t"]]:
        """The losses of every frame of one clip; `own` frames are given the net's own latest masks."""
        memory = begin(variables, jax.tree.map(lambda x: x[0], seen), truths[0])

        def frame(memory: _Memory, each: Any) -> tuple[_Memory, dict[str, Array]]:
            seen, truth, before, candidates, own = each
            memory = memory._replace(latest=jnp.where(own, memory.latest, before))
            memory, logits, found, similarity = advance(variables, seen, candidates, memory, train=True)
            return memory, _frame_losses(logits, found, similarity, truth, candidates, memory.alive)

        before = jnp.concatenate([truths[:1], truths[:-1]])
        frames = seen, truths, before, candidates, own
        return jax.lax.scan(frame, memory, frames, unroll=len(truths))[1]  # XLA convolves slowly in loops on a CPU

    adaptation = Adaptation(lr=1e-4, num_frames=3)
    return System(init, loss, predict, start, needs=("masks", "proposals"), adaptation=adaptation)


def _frame_losses(
    logits: Float[Array, "n h w"],
    found: MatchedMasks,
    similarity: Float[Array, "n m"],
    truth: Float[Array, "n h w"],
    candidates: Candidates,
    alive: Bool[Array, "n"],
) -> dict[str, Float[Array, ""]]:
    """The terms of the loss, and how good the masks and the assignment are, averaged over the objects of the clip."""
    mean = lambda x, where: jnp.sum(jnp.where(where, x, 0)) / jnp.maximum(jnp.sum(where), 1)  # noqa: E731
    iou = mask_overlap(truth, candidates.masks)
    target, findable = best_matches(iou, row_mask=alive, col_mask=candidates.valid)
    probabilities = jax.nn.sigmoid(logits)
    entropy = -jnp.mean(truth * jax.nn.log_sigmoid(logits) + (1 - truth) * jax.nn.log_sigmoid(-logits), axis=(1, 2))
    present = alive & jnp.any(truth > 0.5, axis=(1, 2))
    own = lambda masks: jax.vmap(lambda a, b: mask_overlap(a[None], b[None])[0, 0])(masks, truth)  # noqa: E731
    return {
        "refined_loss": mean(jax.vmap(soft_iou_loss)(probabilities, truth), alive),
        "matched_loss": mean(jax.vmap(soft_iou_loss)(found.masks, truth), alive),
        "similarity_loss": similarity_loss(similarity, target, row_mask=findable, col_mask=candidates.valid),
        "entropy_loss": mean(entropy, alive),
        "refined_iou": mean(own(probabilities), present),
        "matched_iou": mean(own(found.masks), present),
        "right_matches": mean(found.assignment == jnp.argmax(target, axis=1), findable),
    }


def _weighted(scalars: dict[str, Float[Array, ""]], config: DMMNetConfig) -> list[Float[Array, ""]]:
    return [getattr(config, f"{term}_weight") * scalars[f"{term}_loss"]
            for term in ("refined", "matched", "similarity", "entropy")]  # fmt: skip
