"""SegFlow: segmentation and flow that exchange their features (Cheng et al., ICCV 2017).

Each frame stands alone but for the next, to which its flow leads. The net learns from masks, from flow, or from both,
and, from the mask of a video's first frame, online (`jaxvos.inference.adapt`).
"""

import dataclasses
import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvos.errors import InputError
from jaxvos.losses import balanced_cross_entropy, end_point_loss, multiscale_flow_loss
from jaxvos.nets import BackboneName, FlowNetS, PWCNet, backbone
from jaxvos.ops import resize, resize_flow, resize_sparse_flow, synthesise_next_frame
from jaxvos.system import Adaptation, Clip, Frame, LossOutput, Prediction, System
from jaxvos.systems._frame_pairs import (
    FLOW_UNIT,
    FramePair,
    PairAugmentationConfig,
    augment_pair,
    mean_of_pairs,
    rounded_size,
    take_pairs,
    to_pixels,
)
from jaxvos.typing import Key, Masks, Variables

__all__ = ["NextFrameConfig", "SegFlowConfig", "segflow"]

_FLOW_MEAN = (0.45, 0.432, 0.411)  # of Flying Chairs, in the order that the PyTorch port applies it to RGB
_PWC_LITE: dict[str, Any] = {"widths": (16, 24, 32, 48, 64, 96), "decoder_widths": (96, 64, 48, 32), "dense": False,
                             "context_scale": 0.5, "normalize": True}  # fmt: skip
_PAIRS = {5: 4, 4: 3, 3: 2}  # which level of the flow decoder meets which stage of the encoder, an octave coarser
_CROP_OFFSETS = {5: 1, 4: 2, 3: 4}  # of the released code, in cells


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextFrameConfig:
    """The next frame of a clip of one frame, which is made by moving its objects (section 4.2)."""

    method: Literal["deform", "copy"] = "deform"
    """Move the objects, or show the frame again (the ablation `-fda`)."""
    rotation: float = 5.0
    """Largest rotation of the objects about their centre, degrees."""
    shift: float = 0.05
    """Largest movement, as a share of the sides of the objects' box."""
    scale: tuple[float, float] = (0.95, 1.05)
    """Smallest and largest growth."""
    hole: Literal["black", "mean", "inpaint"] = "black"
    """What is seen where the objects were."""
    background: float = 0.0
    """Largest movement of the rest, as a share of the frame."""
    elastic: float = 0.0
    """Largest bend of the objects, as a share of the sides of their box; up to 0.1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegFlowConfig:
    """The paper's setting, where it has one, and what its sheet recommends."""

    backbone: BackboneName = "resnet101"
    """Encoder of the segmentation branch."""
    backbone_width: int = 64
    """Channels of a ResNet's stem (64 as published)."""
    flow_net: Literal["flownets", "pwc_net", "pwc_net_lite"] = "flownets"
    """The flow branch: the published one, or a PWC-Net, which learns from little; as published, or `pwc-net-lite`'s."""
    flow_width: int = 64
    """Channels of FlowNetS's first convolution (64 as published)."""
    num_objects: int = 1
    """Objects that are told apart; of one, all that moves."""
    fusion: Literal["paper", "release", "none"] = "paper"
    """Segmentation features go into the flow decoder (paper); or flow has a head beside that of the masks, on the same
    features, and FlowNetS's own result is dropped (released code); or no branch sees the other."""
    inject: Literal["heads", "decoder"] = "heads"
    """With `paper`: only what predicts flow sees the features of the other branch, or the decoder as well."""
    flow_to_seg: bool = True
    """Masks are predicted from the features of both branches."""
    seg_to_flow: bool = True
    """So is flow."""
    skip_scale: tuple[float, float, float] = (1e-4, 1e-2, 1.0)
    """Factors of Res3, Res4 and Res5 before anything is predicted from them."""
    learn_skip_scale: bool = False
    """Learn these factors."""
    align: Literal["resize", "crop"] = "resize"
    """Bring flow features to the other grid, or cut it out of them as the released code does, 30 pixels off."""
    input_size: tuple[int, int] = (480, 854)
    """Height and width that frames are resized to for prediction; the flow branch rounds them up to multiples of 64."""
    bn: Literal["frozen", "train"] = "frozen"
    """Normalise by the stored statistics, or by those of the batch."""
    class_balance: Literal["hed", "none"] = "hed"
    """Eq. 1's weights, or every pixel alike as in the released code."""
    w_min: float = 0.0
    """Least weight of a class in Eq. 1."""
    flow_loss: Literal["epe", "sq", "charbonnier"] = "epe"
    """The end-point error, its square (Eq. 2), or a robust power of it."""
    flow_multiscale: bool = False
    """Judge all levels of the flow decoder, as FlowNetS was trained, not the last alone."""
    loss_reduction: Literal["mean", "sum"] = "mean"
    """Divide both losses by the number of pixels, or not, as the published learning rates want."""
    lambda_flow: float = 0.1
    """Weight of the flow where a clip has masks, too."""
    next_frame: NextFrameConfig = NextFrameConfig()
    """How clips of one frame get a next one."""
    augmentation: PairAugmentationConfig = PairAugmentationConfig()
    """Random changes of training pairs."""
    tta_flip: bool = False
    """Average the masks with those of the mirrored pair (`Ours2`)."""


class _Head(nn.Module):
    """A 1x1 convolution of the features of one branch or of both side by side, at first zero."""

    features: int

    @nn.compact
    def __call__(self, own: Float[Array, "b h w c"], other: Float[Array, "b h w d"] | None) -> Float[Array, "b h w k"]:
        conv = functools.partial(nn.Conv, self.features, (1, 1), kernel_init=nn.initializers.zeros)
        score = conv(name="own")(own)
        return score if other is None else score + conv(use_bias=False, name="other")(other)


class _SegFlow(nn.Module):
    """Both branches and their exchange (section 3.1, sheet 2.3)."""

    config: SegFlowConfig

    def setup(self):
        config = self.config
        self.encoder = backbone(config.backbone, width=config.backbone_width)
        into_flow = config.fusion == "paper" and config.seg_to_flow
        levels = tuple(_PAIRS.values()) if into_flow else ()
        match config.flow_net:
            case "flownets":
                self.flow_net = FlowNetS(width=config.flow_width, injected=levels, inject=config.inject)
            case "pwc_net":
                self.flow_net = PWCNet(injected=levels)
            case "pwc_net_lite":
                self.flow_net = PWCNet(**_PWC_LITE, injected=levels)
        self.scores = {str(stage): _Head(1 + config.num_objects) for stage in _PAIRS}
        if config.fusion == "release":
            self.flow_scores = {str(stage): _Head(2) for stage in _PAIRS}
        if config.learn_skip_scale:
            self.skip_scale = self.param("skip_scale", lambda key: jnp.array(config.skip_scale))

    def __call__(
        self, images: Float[Array, "b h w 3"], next_images: Float[Array, "b h w 3"], *, train: bool
    ) -> tuple[Float[Array, "b h w k"], Float[Array, "b h w 2"], dict[int, Array]]:
        """Returns the logits of the masks, the flow in pixels, and the flow of all levels as `FlowNetS` gives it."""
        config, size = self.config, images.shape[1:3]
        stages = self._stages(images, train=train)
        pair = [resize(x, rounded_size(size)) for x in (images, next_images)]
        into_flow = config.fusion == "paper" and config.seg_to_flow
        extra = {level: stages[stage] for stage, level in _PAIRS.items()} if into_flow else None
        if isinstance(self.flow_net, FlowNetS):
            stacked = jnp.concatenate([x - jnp.array(_FLOW_MEAN) for x in pair], axis=-1)
            decoded = self.flow_net.decode(self.flow_net.encode(stacked), extra=extra)
        else:
            decoded = self.flow_net(*pair, extra=extra)
        from_flow = {stage: _halve(decoded.features[level]) for stage, level in _PAIRS.items()}
        maps, others = {}, {}
        for stage, x in stages.items():
            joined = config.fusion != "none" and config.flow_to_seg
            other = self._aligned(from_flow[stage], x, _CROP_OFFSETS[stage])
            maps[stage] = self.scores[str(stage)](x, other if joined else None)
            if config.fusion == "release":
                other = self._aligned(from_flow[stage], x, _CROP_OFFSETS[stage] if stage == 5 else 0)
                others[stage] = self.flow_scores[str(stage)](other, x if config.seg_to_flow else None)
        flow = to_pixels(decoded.flows[2], size)
        if config.fusion == "release":
            flow = _fuse(others, size)
        return _fuse(maps, size), flow, decoded.flows

    def _stages(self, images: Float[Array, "b h w 3"], *, train: bool) -> dict[int, Array]:
        mean, std = (jnp.array(x, images.dtype) for x in self.encoder.normalization)
        x, stages = self.encoder.stem((images - mean) / std, train=train), {}
        scales = self.skip_scale if self.config.learn_skip_scale else self.config.skip_scale
        for stage in (2, 3, 4, 5):
            x = self.encoder.stage(x, stage, train=train)
            if stage in _PAIRS:
                stages[stage] = x * scales[stage - 3]
        return stages

    def _aligned(self, x: Float[Array, "b y x c"], like: Float[Array, "b h w d"], offset: int) -> Array:
        h, w = like.shape[1:3]
        match self.config.align:
            case "resize":
                return resize(x, (h, w))
            case "crop":
                return x[:, offset : offset + h, offset : offset + w]


def _halve(x: Float[Array, "b h w c"]) -> Float[Array, "b y x c"]:
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))  # pyright: ignore[reportArgumentType]


def _fuse(maps: dict[int, Array], size: tuple[int, ...]) -> Float[Array, "b h w k"]:
    """Adds the maps from coarse to fine, enlarged linearly, as FCN-8s does."""
    total = maps[5]
    for stage in (4, 3):
        total = resize(total, maps[stage].shape[1:3]) + maps[stage]
    return resize(total, size)


def segflow(config: SegFlowConfig = SegFlowConfig()) -> System:
    """Builds SegFlow as a `System`; it needs `next_image` in every `Frame`, and learns from what a `Clip` has.

    A clip with `masks` teaches the segmentation, one with `flow` the flow, and one with both both; a clip of one frame
    gets a next one that is made of it. Freezing a branch is the optimizer's business: `flow_net` and `flow_scores`
    are the flow branch, `encoder` and `scores` the other.

    Raises:
      InputError: the multi-scale loss is asked of the head that has one scale, the decoder of a PWC-Net is to be
        injected into, or flow features are to be cut out for frames that are not 480x854.
    """
    if config.flow_multiscale and config.fusion == "release":
        raise InputError("fusion 'release' predicts flow at one scale: leave out flow_multiscale")
    if config.flow_net != "flownets" and config.inject == "decoder":
        raise InputError("inject 'decoder' is into FlowNetS's: set inject 'heads' or flow_net 'flownets'")
    if config.align == "crop" and config.input_size != (480, 854):
        raise InputError(f"align 'crop' is the released code's, for 480x854, not {config.input_size}: use 'resize'")
    net = _SegFlow(config)

    def init(key: Key, clip: Clip) -> Variables:
        images = clip.images[:1, 0]
        if config.align == "crop":  # nothing can be cut out of features of another size
            images = resize(images, config.input_size)
        return net.init(key, images, images, train=False)

    def loss(variables: Variables, clip: Clip, *, key: Key, step) -> LossOutput:
        del step
        pairs = _training_pairs(key, clip, config)
        output: Any = net.apply(variables, pairs.image, pairs.next_image, train=config.bn == "train",
                                mutable=["batch_stats"])  # fmt: skip
        (logits, flow, levels), state = output
        scalars, total = {}, jnp.zeros(())
        if pairs.masks is not None:
            alive = jnp.ones(logits.shape[-1], bool) if clip.alive is None or config.num_objects == 1 else clip.alive
            scalars |= _mask_losses(_without_dead(logits, alive), pairs.masks, pairs, config)
            total = scalars["mask_loss"]
        if pairs.flow is not None:
            scalars |= _flow_losses(flow, levels, pairs.flow, pairs, config)
            total = total + (config.lambda_flow if pairs.masks is not None else 1.0) * scalars["flow_loss"]
        if not scalars:
            raise ValueError("SegFlow learns from masks or from flow: give one of them in the Clip")
        return LossOutput(total, dict(state), scalars)

    def start(variables: Variables, frame: Frame, masks: Masks | None = None) -> Array:
        del variables, frame
        slots = 1 + config.num_objects
        return jnp.ones(slots, bool) if masks is None or slots == 2 else jnp.any(masks > 0, axis=(0, 1))

    def predict(variables: Variables, memory: Array, frame: Frame):
        if frame.next_image is None:
            raise ValueError("SegFlow needs the next frame: give `next_image` in the Frame")
        size = frame.image.shape[:2]
        images, next_images = (resize(x, config.input_size)[None] for x in (frame.image, frame.next_image))
        if config.tta_flip:
            images, next_images = (jnp.concatenate([x, x[:, :, ::-1]]) for x in (images, next_images))
        output: Any = net.apply(variables, images, next_images, train=False)
        masks = jax.nn.softmax(_without_dead(output[0], memory))
        masks = (masks[0] + masks[1, :, ::-1]) / 2 if config.tta_flip else masks[0]
        return memory, Prediction(resize(masks, size), flow=resize_flow(output[1][0], size))

    def prepare(variables: Variables, slots: int) -> tuple[System, Variables]:
        return segflow(dataclasses.replace(config, num_objects=slots - 1)), _with_objects(variables, slots - 1)

    adaptation = Adaptation(lr=1e-4, frozen=("flow_net",), heads=("flow_net", "encoder"), num_frames=1,
                            prepare=prepare)  # fmt: skip
    return System(init, loss, predict, start, needs=("next_image",), adaptation=adaptation)


def _training_pairs(key: Key, clip: Clip, config: SegFlowConfig) -> FramePair:
    """The pairs of a clip as the net is to see them."""
    pairs = take_pairs(clip, merge=config.num_objects == 1)
    moved_key, next_key = jax.random.split(key)
    keys = lambda key: jax.random.split(key, len(pairs.image))  # noqa: E731
    pairs = jax.vmap(functools.partial(augment_pair, config=config.augmentation))(keys(moved_key), pairs)
    if clip.images.shape[1] > 1:
        return pairs
    if pairs.masks is None:
        raise ValueError("a clip of one frame teaches SegFlow its masks: give `masks` in the Clip")
    if config.next_frame.method == "copy":
        return pairs._replace(next_image=pairs.image)
    options = dataclasses.asdict(config.next_frame)
    del options["method"]
    make = functools.partial(synthesise_next_frame, **options)
    objects = jnp.nan_to_num(1 - pairs.masks[..., 0])
    return pairs._replace(next_image=jax.vmap(make)(keys(next_key), pairs.image, objects).image)


def _without_dead(logits: Float[Array, "*b h w k"], alive: Bool[Array, "*c k"]) -> Float[Array, "*b h w k"]:
    return jnp.where(alive[..., None, None, :], logits, -1e9)


def _mask_losses(
    logits: Float[Array, "n h w k"], masks: Float[Array, "n h w k"], pairs: FramePair, config: SegFlowConfig
) -> dict[str, Float[Array, ""]]:
    """Eq. 1, and the region similarity of all objects taken as one, averaged over the pairs."""
    each = functools.partial(balanced_cross_entropy, balance=config.class_balance, w_min=config.w_min,
                             reduction=config.loss_reduction)  # fmt: skip
    truth = jnp.nan_to_num(1 - masks[..., 0]) > 0.5
    found = (jnp.argmax(logits, axis=-1) > 0) & jnp.isfinite(masks[..., 0])
    union = jnp.sum(truth | found, axis=(1, 2))
    overlap = jnp.where(union > 0, jnp.sum(truth & found, axis=(1, 2)) / jnp.maximum(union, 1), 1.0)
    return {
        "mask_loss": mean_of_pairs(jax.vmap(each)(logits, masks), pairs),
        "region_similarity": mean_of_pairs(overlap, pairs),
    }


def _flow_losses(
    flow: Float[Array, "n h w 2"],
    levels: dict[int, Array],
    target: Float[Array, "n h w 2"],
    pairs: FramePair,
    config: SegFlowConfig,
) -> dict[str, Float[Array, ""]]:
    """Eq. 2 or what stands for it, and the end-point error, averaged over the pairs."""
    if config.flow_multiscale:
        each = functools.partial(multiscale_flow_loss, scale=FLOW_UNIT, kind=config.flow_loss)
        losses = jax.vmap(each)(levels, resize_sparse_flow(target, rounded_size(target.shape[1:3])))
    else:
        each = functools.partial(end_point_loss, kind=config.flow_loss, reduction="sum")
        losses = jax.vmap(each)(flow, target)
        if config.loss_reduction == "mean":
            losses = losses / (flow.shape[1] * flow.shape[2])
    return {
        "flow_loss": mean_of_pairs(losses, pairs),
        "epe": mean_of_pairs(jax.vmap(end_point_loss)(flow, target), pairs),
    }


def _with_objects(variables: Variables, num_objects: int) -> Variables:
    """Gives every object the score of the one foreground, so that together they are as likely as it was."""

    def grow(name: str, leaf: Array) -> Array:
        grown = jnp.concatenate([leaf[..., :1], *[leaf[..., 1:2]] * num_objects], axis=-1)
        return grown.at[1:].add(-jnp.log(num_objects)) if name == "bias" else grown

    params = dict(variables["params"])
    for head in (f"scores_{stage}" for stage in _PAIRS):
        params[head] = {part: {name: grow(name if head == "scores_3" else "", leaf) for name, leaf in leaves.items()}
                        for part, leaves in params[head].items()}  # fmt: skip
    return {**variables, "params": params}
