"""TransportNet: appearance and motion streams joined by optimal matching (Zhang et al., ICCV 2021).

One foreground per video, no first-frame mask, no memory: each frame stands alone but for its optical flow.
"""

import dataclasses
import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvos.errors import InputError
from jaxvos.losses import edge_cross_entropy, mask_cross_entropy
from jaxvos.nets import BackboneName, DecoderOutput, Transport, TransportConfig, UNetDecoder, backbone
from jaxvos.ops import (
    disc_edges,
    flow_to_color,
    random_affine,
    resize,
    resize_flow,
    sobel_edges,
    transform_flow,
    transform_image,
)
from jaxvos.system import Clip, Frame, LossOutput, Prediction, System, no_memory
from jaxvos.typing import Key, Variables

__all__ = ["AugmentationConfig", "TransportNetConfig", "transportnet"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Random changes of each training frame, drawn inside the training step."""

    flip: float = 0.5
    """Probability of a horizontal flip."""
    rotation: float = 10.0
    """Largest rotation, degrees."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest magnification (MATNet's code: 0.75, 1.25; the paper: none)."""
    flow: Literal["image", "vector"] = "image"
    """Move the flow like a picture, its hues pointing the old way (published practice), or turn its vectors too."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransportNetConfig:
    """The paper's setting, where it has one."""

    backbone_app: BackboneName = "resnet101"
    """Encoder of the image."""
    backbone_mot: BackboneName = "resnet50"
    """Encoder of the flow; of the same channels per stage as the other."""
    backbone_width: int = 64
    """Channels of a ResNet's stem (64 as published)."""
    input_size: tuple[int, int] = (512, 512)
    """Height and width that a frame is resized to for prediction; the result comes back at the frame's own size."""
    stages: tuple[Literal[3, 4, 5], ...] = (3, 4, 5)
    """Stages after which features are matched."""
    transport: TransportConfig = TransportConfig()
    """The matching."""
    trunk_update: bool = False
    """Feed matched features to the next stage of the encoders, not to the decoder alone."""
    decoder_width: int = 256
    """Channels of the decoder."""
    pyramid: Literal["none", "aspp"] = "none"
    """Dilated convolutions on each level before the decoder."""
    flow_repr: Literal["wheel", "wheel_fixed_radius", "uv_mag"] = "wheel"
    """Flow as a colour (radius: the frame's largest motion), with a fixed radius, or as (u, v, |(u, v)|)."""
    flow_radius: float = 20.0
    """Motion, in pixels of the frame given, that is full colour with a fixed radius and one unit in uv_mag."""
    edge_loss: bool = True
    """Train the boundary head."""
    edge_lambda: float = 1.0
    """Weight of the boundary term in Eq. 11."""
    edge_radius: int = 0
    """Boundary targets: 0 is the Sobel band (2 px), r > 0 the pixels with another label within r."""
    edge_pos_weight: Literal["none", "hed"] = "none"
    """Class balance of the boundary term."""
    bn: Literal["train", "frozen"] = "train"
    """Batch statistics in training (over the whole batch, on however many devices), or the stored ones."""
    tta_flip: bool = False
    """Average the prediction with that of the mirrored frame."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Random changes of training frames."""


class _TransportNet(nn.Module):
    """Two streams, matched stage by stage, and one decoder."""

    config: TransportNetConfig

    def setup(self):
        config = self.config
        self.appearance = backbone(config.backbone_app, width=config.backbone_width)
        self.motion = backbone(config.backbone_mot, width=config.backbone_width)
        self.transports = {str(number): Transport(config.transport) for number in config.stages}
        self.decoder = UNetDecoder(config.decoder_width, pyramid=config.pyramid)

    def __call__(
        self, images: Float[Array, "b h w 3"], motion: Float[Array, "b h w 3"], *, train: bool
    ) -> DecoderOutput:
        x_a = self.appearance.stem(_normalize(images, self.appearance), train=train)
        x_m = self.motion.stem(_normalize(motion, self.motion), train=train)
        levels = {}
        for number in (2, 3, 4, 5):
            x_a = y_a = self.appearance.stage(x_a, number, train=train)
            x_m = y_m = self.motion.stage(x_m, number, train=train)
            if number in self.config.stages:
                y_a, y_m = self.transports[str(number)](x_a, x_m)
                if self.config.trunk_update:
                    x_a, x_m = y_a, y_m
            levels[number] = jnp.concatenate([y_a, y_m], axis=-1)
        size = images.shape[1:3]
        masks, edges = self.decoder(levels, train=train)
        return DecoderOutput(resize(masks, size), resize(edges[..., None], size)[..., 0])


def _normalize(x: Float[Array, "b h w 3"], net: nn.Module) -> Float[Array, "b h w 3"]:
    mean, std = net.normalization  # type: ignore[attr-defined]
    return (x - jnp.array(mean, x.dtype)) / jnp.array(std, x.dtype)


def transportnet(config: TransportNetConfig = TransportNetConfig()) -> System:
    """Builds TransportNet as a `System`; it needs `flow` in every `Clip` and `Frame`, and segments two slots.

    All objects are one foreground: slot 1 of a prediction, and everything but slot 0 of the masks of a `Clip`.

    Raises:
      InputError: the two encoders have different channels in a stage, or the kernel is the raw similarity of features
        that may be negative.
    """
    net = _TransportNet(config)
    streams = [backbone(name, width=config.backbone_width) for name in (config.backbone_app, config.backbone_mot)]
    widths, matching = [stream.widths for stream in streams], config.transport.matcher != "none"
    if matching and any(widths[0][s] != widths[1][s] for s in config.stages):
        raise InputError(f"{config.backbone_app} and {config.backbone_mot} differ in width: {widths[0]}, {widths[1]}")
    signed = "efficientnet_lite0" in (config.backbone_app, config.backbone_mot)
    signed |= config.transport.center or config.transport.proj_dim is not None
    if matching and config.transport.kernel == "raw_sim" and signed:
        raise InputError("kernel raw_sim needs features that are never negative: ResNet streams, without center and "
                         "proj_dim; or take the gibbs kernel")  # fmt: skip

    def init(key: Key, clip: Clip) -> Variables:
        images = clip.images[:1, 0]
        return net.init(key, images, jnp.zeros_like(images), train=False)

    def loss(variables: Variables, clip: Clip, *, key: Key, step) -> LossOutput:
        del step
        images, flow, foreground, valid = _flatten(clip)
        keys = jax.random.split(key, len(images))
        augment = functools.partial(_augment, config=config.augmentation)
        images, flow, foreground = jax.vmap(augment)(keys, images, flow, foreground)
        motion = jax.vmap(functools.partial(_paint, config=config))(flow)
        mutable = ["batch_stats", "intermediates"]
        output, state = net.apply(variables, images, motion, train=config.bn == "train", mutable=mutable)
        state = dict(state)
        scalars = _frame_losses(output, foreground, valid, config) | _entropies(state.pop("intermediates", {}))
        total = scalars["mask_loss"]
        if config.edge_loss:
            total = total + config.edge_lambda * scalars["edge_loss"]
        return LossOutput(total, state, scalars)

    def predict(variables: Variables, memory, frame: Frame):
        image, flow = frame.image, _required(frame.flow)
        size = image.shape[:2]
        image, motion = resize(image, config.input_size), _paint(resize_flow(flow, config.input_size), config)
        images, motions = image[None], motion[None]
        if config.tta_flip:
            mirrored = _paint(resize_flow(flow, config.input_size)[:, ::-1] * jnp.array([-1.0, 1.0]), config)
            images, motions = jnp.stack([image, image[:, ::-1]]), jnp.stack([motion, mirrored])
        output: Any = net.apply(variables, images, motions, train=False)
        masks, edges = jax.nn.softmax(output.masks), jax.nn.sigmoid(output.edges)
        if config.tta_flip:
            masks, edges = _mirror_average(masks), _mirror_average(edges)
        return memory, Prediction(resize(masks[0], size), resize(edges[0][..., None], size)[..., 0])

    return System(init, loss, predict, no_memory, needs=("flow",))


def _required(flow: Array | None) -> Array:
    if flow is None:
        raise ValueError("TransportNet needs optical flow: give `flow` in the Clip or Frame")
    return flow


def _flatten(clip: Clip) -> tuple[Array, Array, Array, Float[Array, "n"]]:
    """Takes a clip apart into frames: images, flow, foreground (h, w) and the weight of each frame."""
    if clip.masks is None:
        raise ValueError("TransportNet is trained on masks: give `masks` in the Clip")
    frames = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
    images, flow = frames(clip.images), frames(_required(clip.flow))
    foreground = frames(1.0 - clip.masks[..., 0])
    valid = jnp.ones(len(images)) if clip.valid is None else frames(clip.valid).astype(jnp.float32)
    return images, flow, foreground, valid


def _augment(
    key: Key,
    image: Float[Array, "h w 3"],
    flow: Float[Array, "h w 2"],
    foreground: Float[Array, "h w"],
    config: AugmentationConfig,
) -> tuple[Float[Array, "h w 3"], Float[Array, "h w 2"], Float[Array, "h w"]]:
    if config.flip == 0 and config.rotation == 0 and config.scale == (1.0, 1.0):
        return image, flow, foreground
    transform = random_affine(key, flip=config.flip, rotation=config.rotation, scale=config.scale)
    foreground = transform_image(foreground[..., None], transform, method="nearest")[..., 0]
    flow = transform_flow(flow, transform, vectors=config.flow == "vector")
    return transform_image(image, transform), flow, foreground


def _paint(flow: Float[Array, "h w 2"], config: TransportNetConfig) -> Float[Array, "h w 3"]:
    """The motion stream's three channels, in [0, 1] where there is no other scale."""
    match config.flow_repr:
        case "wheel":
            return flow_to_color(flow)
        case "wheel_fixed_radius":
            return flow_to_color(flow, max_radius=config.flow_radius)
        case "uv_mag":
            radius = jnp.sqrt(jnp.sum(flow * flow, axis=-1, keepdims=True) + 1e-12)
            return 0.5 + 0.5 * jnp.concatenate([flow, radius], axis=-1) / config.flow_radius


def _frame_losses(
    output: DecoderOutput, foreground: Float[Array, "n h w"], valid: Float[Array, "n"], config: TransportNetConfig
) -> dict[str, Float[Array, ""]]:
    """Both terms of Eq. 11 and the region similarity of the thresholded masks, averaged over the valid frames."""

    def one(masks: Array, edges: Array, foreground: Array) -> tuple[Array, Array, Array]:
        radius = config.edge_radius
        targets = disc_edges(foreground, radius=radius) if radius else sobel_edges(foreground)
        predicted, actual = masks[..., 1] > masks[..., 0], foreground > 0.5
        union = jnp.sum(predicted | actual)
        return (
            mask_cross_entropy(masks, jnp.stack([1.0 - foreground, foreground], axis=-1)),
            edge_cross_entropy(edges, targets, pos_weight=config.edge_pos_weight),
            jnp.where(union > 0, jnp.sum(predicted & actual) / jnp.maximum(union, 1), 1.0),
        )

    values = jax.vmap(one)(output.masks, output.edges, foreground)
    mean = lambda x: jnp.sum(x * valid) / jnp.maximum(jnp.sum(valid), 1.0)  # noqa: E731
    return dict(zip(("mask_loss", "edge_loss", "region_similarity"), map(mean, values), strict=True))


def _entropies(intermediates: dict) -> dict[str, Float[Array, ""]]:
    """Mean plan entropy of each matched stage: near 1, matching has become an average over its groups."""
    return {
        f"entropy_{name.removeprefix('transports_')}": jnp.mean(sown["entropy"][0])
        for name, sown in intermediates.items()
        if name.startswith("transports_")
    }


def _mirror_average(x: Float[Array, "2 h w *c"]) -> Float[Array, "1 h w *c"]:
    """Averages a map with that of the mirrored frame."""
    return ((x[0] + x[1, :, ::-1]) / 2)[None]
