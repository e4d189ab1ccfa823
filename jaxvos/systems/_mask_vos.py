"""Mask-VOS: correspondence and masks learned from videos without a label (Li et al., CVPR 2023)."""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvos.errors import InputError
from jaxvos.ops import propagate
from jaxvos.system import Clip, System
from jaxvos.systems._correspondence import Look
from jaxvos.systems._frame_memory import FrameMemory
from jaxvos.systems._long_term import LongTermMemory
from jaxvos.systems._mask_vos_loss import MaskVOSLossConfig, mask_vos_loss
from jaxvos.systems._mask_vos_net import MaskVOSNet, MaskVOSNetConfig, MaskVOSObjects
from jaxvos.systems._space_time import MemoryConfig, fold
from jaxvos.systems._space_time_net import flat_keys
from jaxvos.typing import Key, Variables

__all__ = ["MaskVOSConfig", "PropagationConfig", "mask_vos", "mask_vos_keys", "value_from_frames"]

_NEVER = 1 << 30  # frames


@dataclasses.dataclass(frozen=True, kw_only=True)
class PropagationConfig:
    """How masks are carried on: from the frames that were marked and those just before."""

    context: int = 20
    """Frames before the present one that are looked at, beside one that was marked; each further one that was marked
    takes the place of one of them."""
    top_k: int | None = 10
    """Places that each place is read from; all of them if left out (the paper's Eq. 6)."""
    radius: float | None = 12.0
    """Distance, in places of 8 pixels, within which they must lie, unless their frame was marked; anywhere if left
    out."""
    temperature: float = 0.05
    """Of the softmax over them."""
    backend: Literal["dense", "scan", "window", "online"] = "scan"
    """How that is computed: by the whole matrix, frame by frame, by the places within `radius`, or, without `top_k`,
    frame by frame. They agree, and differ in time and memory."""
    chunk: int = 1024
    """Places that are looked up at once."""
    rounds: int = 3
    """Times that a coarse mask is encoded and decoded again; with none it is the answer, as in label propagation."""
    short_side: int | None = 480
    """Larger frames are shrunk to so many rows (or columns, if there are fewer); the masks come back at full size."""
    slots: int = 4
    """Objects that are encoded and decoded side by side; of more, one such group after the other."""

    def __post_init__(self) -> None:
        if self.context < 0 or self.rounds < 0 or self.temperature <= 0:
            raise InputError(f"context {self.context}, rounds {self.rounds}, temperature {self.temperature}: want none "
                             "negative, and a temperature above 0")  # fmt: skip
        if self.backend in ("scan", "window") and self.top_k is None:
            raise InputError(f"backend {self.backend} needs top_k: set it, or backend online")
        if self.backend == "online" and self.top_k is not None:
            raise InputError("backend online reads every place: leave top_k out, or set backend scan")
        if self.backend == "window" and self.radius is None:
            raise InputError("backend window needs radius: set it, or backend scan")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskVOSConfig:
    """The paper's setting, but for what its formulae lack."""

    net: MaskVOSNetConfig = MaskVOSNetConfig()
    """The three nets."""
    memory: PropagationConfig = PropagationConfig()
    """How masks are carried on."""
    objective: MaskVOSLossConfig = MaskVOSLossConfig()
    """What is learned from."""


def mask_vos(config: MaskVOSConfig = MaskVOSConfig()) -> System:
    """Builds Mask-VOS as a `System`; masks of the first frame are given to `start`, others to any frame of `predict`.

    Training wants clips of three frames, all valid: one, its neighbour and a distant one
    (`jaxvos.data.unlabelled_batches`). Without masks it learns correspondence alone; with them, of clusters
    (`cluster_video`) and not of a person, also to carry fake objects on.
    """
    memory = config.memory
    objects = MaskVOSObjects(MaskVOSNet(config.net), memory.slots, memory.rounds)

    def init(key: Key, clip: Clip) -> Variables:
        del clip  # no parameter depends on it
        return objects.net.init(key, jnp.zeros((1, 16, 16, 3)))

    def read(
        frames: FrameMemory, long: LongTermMemory | None, look: Look
    ) -> tuple[Float[Array, "o p d"], FrameMemory, LongTermMemory | None]:
        found = propagate(
            flat_keys(look.keys).key, frames.keys.key, frames.values, size=look.keys.key.shape[:2], valid=frames.valid,
            far=frames.pinned, temperature=memory.temperature, top_k=memory.top_k, radius=memory.radius,
            backend=memory.backend, chunk=memory.chunk)  # fmt: skip
        return found, frames, long

    every = 1 if memory.context > 0 else _NEVER  # or the frame just before would take the place of the one marked
    kept = MemoryConfig(every=every, frames=memory.context + 1, short_side=memory.short_side, slots=memory.slots)
    loss = mask_vos_loss(objects, config.objective)
    return fold(objects, memory_config=kept, init=init, loss=loss, read=read)


def mask_vos_keys(config: MaskVOSConfig, variables: Variables, images: Float[Array, "b h w 3"]) -> Array:
    """What Mask-VOS compares places of frames by, `(b, y, x, c)` of unit length at stride 8."""
    look: Any = MaskVOSNet(config.net).apply(variables, images, method="look")
    return look.keys.key


def value_from_frames(config: MaskVOSConfig, variables: Variables) -> Variables:
    """Starts the encoder of frames with masks as the encoder of frames, to which masks say nothing yet.

    Both must be of one kind. Layers that the encoder of frames lacks stay as they are.
    """
    if config.net.value_encoder != config.net.encoder:
        raise InputError(f"a {config.net.value_encoder} cannot start as a {config.net.encoder}: make value_encoder the "
                         "same, or begin it at random")  # fmt: skip
    changed: dict[str, Any] = {}
    for part in ("params", "batch_stats"):
        value, frames = variables[part]["value"], variables[part]["encoder"]
        encoder = {name: frames.get(name, layer) for name, layer in value["encoder"].items()}
        changed[part] = {**variables[part], "value": {**value, "encoder": encoder}}
    silent = {name: jnp.zeros_like(x) for name, x in variables["params"]["value"]["mask_conv"].items()}
    changed["params"]["value"]["mask_conv"] = silent
    return {**variables, **changed}
