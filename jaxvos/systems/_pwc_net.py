"""PWC-Net as a system: it segments nothing, and gives the flow from each frame to the next (Sun et al., CVPR 2018)."""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvos.errors import InputError
from jaxvos.losses import end_point_loss, multiscale_flow_loss, photometric_loss, smoothness_loss
from jaxvos.nets import PWCNet
from jaxvos.ops import forward_backward_occlusion, resize, resize_sparse_flow
from jaxvos.system import Clip, Frame, LossOutput, Prediction, System, no_memory
from jaxvos.systems._frame_pairs import (
    FLOW_MULTIPLE,
    FLOW_UNIT,
    FramePair,
    PairAugmentationConfig,
    augment_pair,
    mean_of_pairs,
    rounded_size,
    take_pairs,
    to_pixels,
)
from jaxvos.typing import Key, Variables

__all__ = ["PWCNetConfig", "pwc_net"]



@dataclasses.dataclass(frozen=True, kw_only=True)
class PWCNetConfig:
    """The published net."""

    widths: tuple[int, ...] = (16, 32, 64, 96, 128, 196)
    """Channels of the six levels of features."""
    decoder_widths: tuple[int, ...] = (128, 128, 96, 64, 32)
    """Channels of the convolutions that estimate the flow of a level."""
    dense: bool = True
    """Each of these sees what all before it saw."""
    context_scale: float = 1.0
    """Channels of the dilated convolutions that refine the last level, relative to the published; 0 for none."""
    radius: int = 4
    """Reach of the correlation, in pixels of a level."""
    normalize: bool = False
    """Normalise the channels of features before they are correlated: not as published; learns faster from scratch."""
    input_size: tuple[int, int] | None = None
    """Height and width that frames are resized to; their own, rounded to multiples of 64, if left out."""
    supervision: Literal["flow", "images"] = "flow"
    """Learn from known flow, or from the images alone: what the flow fetches must look alike, where it is seen."""
    loss: Literal["epe", "sq", "charbonnier"] = "epe"
    """How the distance to the known flow counts."""
    photometric: Literal["charbonnier", "census", "ssim"] = "census"
    """How looks are compared, without known flow."""
    smoothness: float = 0.1
    """Weight of the smoothness of the flow within objects, without known flow."""
    smoothness_order: Literal[1, 2] = 1
    """Punish its first or its second derivatives."""
    occlusion: bool = True
    """Leave out what the other frame hides, without known flow; found by a check of the flow back."""
    occlusion_from: int = 0
    """Steps after which that begins: of an untrained net's flow, all seems hidden."""
    augmentation: PairAugmentationConfig = PairAugmentationConfig(rotation=10.0, scale=(0.9, 1.5), shift=0.1)
    """Random changes of training pairs."""


def pwc_net(config: PWCNetConfig = PWCNetConfig()) -> System:
    """Builds PWC-Net as a `System`; it needs `next_image` in every `Frame`, and two frames or more in a `Clip`.

    A prediction has `flow`, and one slot of `masks`, the background, everywhere.

    Raises:
      InputError: the input's sides are no multiples of 64, or there are not six levels.
    """
    if config.input_size is not None and any(side % FLOW_MULTIPLE or side == 0 for side in config.input_size):
        raise InputError(f"input_size {config.input_size}: PWC-Net halves its input six times; use multiples of 64")
    if len(config.widths) != 6:
        raise InputError(f"widths {config.widths}: PWC-Net has six levels of features; give six numbers")
    net = PWCNet(widths=config.widths, decoder_widths=config.decoder_widths, dense=config.dense,
                 context_scale=config.context_scale, radius=config.radius, normalize=config.normalize)  # fmt: skip

    def init(key: Key, clip: Clip) -> Variables:
        image = jnp.zeros((1, FLOW_MULTIPLE, FLOW_MULTIPLE, 3), clip.images.dtype)
        return net.init(key, image, image)

    def loss(variables: Variables, clip: Clip, *, key: Key, step) -> LossOutput:
        pairs = _fit_net(_pairs(clip, need_flow=config.supervision == "flow"))
        keys = jax.random.split(key, len(pairs.image))
        pairs = jax.vmap(functools.partial(augment_pair, config=config.augmentation))(keys, pairs)
        forward = _flows(net.apply(variables, pairs.image, pairs.next_image))
        scalars = {}
        if pairs.flow is not None:
            error = jax.vmap(end_point_loss)(_full(forward, pairs.image), pairs.flow)
            scalars["epe"] = mean_of_pairs(error, pairs)
        if config.supervision == "flow" and pairs.flow is not None:
            each = functools.partial(multiscale_flow_loss, scale=FLOW_UNIT, kind=config.loss)
            total = mean_of_pairs(jax.vmap(each)(forward, pairs.flow), pairs)
        else:
            backward = _flows(net.apply(variables, pairs.next_image, pairs.image))
            total, more = _unsupervised(pairs, forward, backward, config, step)
            scalars |= more
        return LossOutput(total, {}, scalars)

    def predict(variables: Variables, memory, frame: Frame):
        if frame.next_image is None:
            raise ValueError("PWC-Net needs the next frame: give `next_image` in the Frame")
        size = frame.image.shape[:2]
        net_size = config.input_size or rounded_size(size)
        inputs = (resize(x, net_size)[None] for x in (frame.image, frame.next_image))
        found = _flows(net.apply(variables, *inputs))
        known = jnp.ones((*size, 1), frame.image.dtype)
        return memory, Prediction(known, flow=to_pixels(found[2][0], size))

    return System(init, loss, predict, no_memory, needs=("next_image",))


def _flows(output: Any) -> dict[int, Array]:
    return output.flows


def _fit_net(pairs: FramePair) -> FramePair:
    """Brings the frames, and the flow with them, to sides that the net can halve six times."""
    size = rounded_size(pairs.image.shape[1:3])
    flow = None if pairs.flow is None else resize_sparse_flow(pairs.flow, size)
    return pairs._replace(image=resize(pairs.image, size), next_image=resize(pairs.next_image, size), flow=flow)


def _pairs(clip: Clip, *, need_flow: bool) -> FramePair:
    if clip.images.shape[1] < 2:
        raise ValueError("PWC-Net is trained on pairs: give two frames or more in the Clip")
    if need_flow and clip.flow is None:
        raise ValueError("PWC-Net is trained on known flow: give `flow` in the Clip, or supervision='images'")
    return take_pairs(clip)._replace(masks=None)


def _full(flows: dict[int, Array], image: Float[Array, "b h w 3"]) -> Float[Array, "b h w 2"]:
    return to_pixels(flows[2], image.shape[1:3])


def _unsupervised(
    pairs: FramePair, forward: dict[int, Array], backward: dict[int, Array], config: PWCNetConfig, step: Any
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The looks of what the flow fetches, and its smoothness (UnFlow, Meister et al., AAAI 2018), at full size."""
    there, back = _full(forward, pairs.image), _full(backward, pairs.image)
    hidden = jnp.zeros(there.shape[:3], bool)
    if config.occlusion:
        hidden = jax.lax.stop_gradient(jax.vmap(forward_backward_occlusion)(there, back))
        hidden = hidden & (step >= config.occlusion_from)

    def one(image: Array, other: Array, flow: Array, hidden: Array) -> tuple[Array, Array]:
        looks = photometric_loss(image, other, flow, occluded=hidden, kind=config.photometric)
        return looks, smoothness_loss(flow, image, order=config.smoothness_order)

    looks, roughness = (mean_of_pairs(x, pairs) for x in jax.vmap(one)(pairs.image, pairs.next_image, there, hidden))
    scalars = {"photometric": looks, "roughness": roughness, "occluded": jnp.mean(hidden)}
    return looks + config.smoothness * roughness, scalars
