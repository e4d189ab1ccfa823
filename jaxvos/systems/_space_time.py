"""The fold of every network with a space-time memory: STCN, XMem and Mask-VOS differ in their nets and in reading."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxvos.errors import InputError
from jaxvos.ops import centre_crop, centre_pad, read_memory, resize, similarity, tell_masks
from jaxvos.system import Clip, Frame, LossOutput, Prediction, System
from jaxvos.systems._correspondence import Correspondence, CorrespondenceConfig, Look
from jaxvos.systems._frame_memory import FrameMemory, empty_memory, forget_objects, write_frame, write_spare
from jaxvos.systems._long_term import LongTermConfig, LongTermMemory, consolidate, empty_long_term, forget_prototypes
from jaxvos.systems._space_time_loss import MaskLossConfig, clip_loss
from jaxvos.systems._space_time_net import ObjectNet, SpaceTimeNet, flat_keys
from jaxvos.typing import Key, Masks, Variables

__all__ = ["MemoryConfig", "fold", "follower"]

_SMALLEST = 16  # pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """What is kept of a video, and how it is read."""

    every: int = 5
    """A frame is remembered when the last one that was lies so many frames back."""
    frames: int = 24
    """Frames that the memory holds; beyond that the oldest goes that no person marked. As published it is as long as
    the video asks for; memory grows by this number times the number of objects."""
    top_k: int | None = 20
    """Entries that each place is read from; all of them if left out."""
    include_last: bool = False
    """The frame before is always remembered, until the next."""
    long_term: LongTermConfig | None = None
    """What old frames become when the memory is full; nothing if left out."""
    short_side: int | None = 480
    """Larger frames are shrunk to so many rows (or columns, if there are fewer); the masks come back at full size."""
    slots: int = 4
    """Objects that are encoded and decoded side by side; of more, one such group after the other."""

    def __post_init__(self) -> None:
        if min(self.every, self.frames, self.slots) < 1 or (self.top_k is not None and self.top_k < 1):
            raise InputError(f"memory of {self.frames} frames, one in {self.every}, top {self.top_k}, {self.slots} "
                             "objects at once: want numbers from 1 on")  # fmt: skip
        if self.short_side is not None and self.short_side < _SMALLEST:
            raise InputError(f"short_side {self.short_side}: want at least {_SMALLEST} pixels")
        if self.long_term is not None and self.long_term.min_frames >= self.frames:
            raise InputError(f"{self.long_term.min_frames} of {self.frames} frames would stay when the memory is full: "
                             "set long_term.min_frames below frames")  # fmt: skip


class _Memory(NamedTuple):
    frames: FrameMemory
    long: LongTermMemory | None
    hidden: Any  # of each object
    alive: Bool[Array, "o"]
    told: UInt8[Array, "h w"]  # slots marked on the first frame
    age: Int[Array, ""]  # frames seen
    latest: Int[Array, ""]  # number of the frame written last


def follower(
    net: SpaceTimeNet, *, memory_config: MemoryConfig, loss_config: MaskLossConfig, reference_frames: int | None = None,
    deep_update: float = 1.0, correspondence: CorrespondenceConfig | None = None,
) -> System:  # fmt: skip
    """Builds the `System` of a net that reads its memory by `similarity`, and learns from masks.

    Args:
      net: encoders and decoder.
      memory_config: of prediction.
      loss_config: of training.
      reference_frames: memory frames of a training step, the first and others drawn from those before; all of them if
        None.
      deep_update: probability that a training frame's value renews the hidden state.
      correspondence: what training asks for beside masks.
    """
    objects = ObjectNet(net, memory_config.slots)
    loss = clip_loss(objects, loss_config, reference_frames=reference_frames, deep_update=deep_update,
                     correspondence=correspondence)  # fmt: skip

    def init(key: Key, clip: Clip) -> Variables:
        del clip  # no parameter depends on it
        images = jnp.zeros((1, 2 * net.stride, 2 * net.stride, 3))
        variables = net.init(key, images)
        if correspondence is None:
            return variables
        look = objects.look(variables, images)
        heads = Correspondence(correspondence, look.keys.key.shape[-1]).init(jax.random.fold_in(key, 1), look)
        return {**variables, "params": {**variables["params"], "correspondence": heads.get("params", {})}}

    read = functools.partial(_read_by_similarity, top_k=memory_config.top_k)
    return fold(objects, memory_config=memory_config, init=init, loss=loss, read=read)


def fold(
    objects: ObjectNet, *, memory_config: MemoryConfig, init: Callable[..., Variables], loss: Callable[..., LossOutput],
    read: Callable[[FrameMemory, LongTermMemory | None, Look],
                   tuple[Float[Array, "o p d"], FrameMemory, LongTermMemory | None]],
) -> System:  # fmt: skip
    """Builds the `System` of a net that runs for every object.

    Args:
      objects: the net.
      memory_config: of prediction; how it is read is not looked at.
      init: as the contract has it.
      loss: as the contract has it.
      read: what each object's memory says to each place of a frame, and the memory with what was noted of that.
    """
    net, value_width = objects.net, objects.value_width

    def net_size(size: tuple[int, ...]) -> tuple[int, int]:
        short = min(size)
        limit = short if memory_config.short_side is None else min(short, memory_config.short_side)
        return round(size[0] * limit / short), round(size[1] * limit / short)

    def fit(x: Float[Array, "h w c"], value: tuple[float, ...] = (0.0,)) -> Float[Array, "y x c"]:
        return centre_pad(resize(x, net_size(x.shape[:2])), net.stride, value=value)

    def look_at(variables: Variables, image: Array) -> Look:
        return jax.tree.map(lambda x: x[0], objects.look(variables, image[None]))

    def start(variables: Variables, frame: Frame, masks: Masks | None = None) -> _Memory:
        if masks is None:
            raise ValueError("this system follows objects that it is told: give their masks on the first frame")
        look = jax.eval_shape(lambda: look_at(variables, fit(frame.image)))
        num_objects, keys = masks.shape[-1] - 1, jax.tree.map(lambda x: jnp.zeros(x.shape), look.keys)
        frames = empty_memory(memory_config.frames, flat_keys(keys), num_objects=num_objects, value_width=value_width,
                              spare=memory_config.include_last)  # fmt: skip
        long = None if memory_config.long_term is None else empty_long_term(memory_config.long_term, frames)
        return _Memory(
            frames, long, objects.initial_hidden(num_objects, look), alive=jnp.zeros(num_objects, bool),
            told=_labels(masks), age=jnp.int32(0), latest=jnp.int32(-memory_config.every),
        )  # fmt: skip

    def predict(variables: Variables, memory: _Memory, frame: Frame) -> tuple[_Memory, Prediction]:
        size, image = frame.image.shape[:2], fit(frame.image, net.normalization[0])
        told = jnp.where(memory.age == 0, memory.told, 0)
        if frame.masks is not None:
            marked = _labels(frame.masks)
            told = jnp.where(marked > 0, marked, told)
        told = jax.nn.one_hot(told, 1 + len(memory.alive))
        spoken = jnp.any(told > 0, axis=(0, 1))[1:]
        alive = memory.alive if frame.alive is None else memory.alive & frame.alive[1:]
        memory = _without(memory, ~alive)
        look = look_at(variables, image)

        def find() -> tuple[Any, ...]:
            values, frames, long = read(memory.frames, memory.long, look)
            logits, hidden = objects.segment(variables, image, look, values, memory.hidden, alive=alive)
            return jax.nn.softmax(logits), frames, long, hidden

        def nothing() -> tuple[Any, ...]:
            empty = jnp.zeros((*image.shape[:2], 1 + len(alive))).at[..., 0].set(1)
            return empty, memory.frames, memory.long, memory.hidden

        masks, frames, long, hidden = jax.lax.cond(jnp.any(alive), find, nothing)
        masks = tell_masks(masks, fit(told))
        alive = alive | spoken

        def write() -> tuple[Any, ...]:
            values, renewed = objects.remember(variables, image, masks, look, memory.hidden)
            new = functools.partial(write_frame, frames, flat_keys(look.keys), values, alive=alive, number=memory.age,
                                    pinned=jnp.any(spoken))  # fmt: skip
            if not memory_config.include_last:
                written = new()
            else:
                passing = functools.partial(write_spare, keys=flat_keys(look.keys), values=values)
                written = jax.lax.cond(due, lambda: passing(new(), alive=jnp.zeros_like(alive)),
                                       lambda: passing(frames, alive=alive))  # fmt: skip
            if long is None or memory_config.long_term is None:
                return written, None, renewed
            return *consolidate(written, long, config=memory_config.long_term), renewed

        due = jnp.any(spoken) | (memory.age - memory.latest >= memory_config.every)
        writes = jnp.any(alive) & (due | memory_config.include_last)
        frames, long, renewed = jax.lax.cond(writes, write, lambda: (frames, long, memory.hidden))
        hidden = jax.tree.map(lambda new, old: jnp.where(due, new, old), renewed, hidden)
        latest = jnp.where(due & jnp.any(alive), memory.age, memory.latest)
        memory = _Memory(frames, long, hidden, alive, memory.told, memory.age + 1, latest)
        full = resize(centre_crop(masks, net_size(size)), size)
        return memory, Prediction(tell_masks(full, told))

    return System(init, loss, predict, start, needs=("masks",), told_anytime=True)


def _read_by_similarity(
    frames: FrameMemory, long: LongTermMemory | None, look: Look, *, top_k: int | None
) -> tuple[Float[Array, "o p d"], FrameMemory, LongTermMemory | None]:
    """Asks frames and prototypes at once, and notes what was read."""
    keys = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), frames.keys._replace(selection=None))
    places, num_objects = frames.usage.shape[1], len(frames.valid)
    values = frames.values.reshape(num_objects, -1, frames.values.shape[-1])
    valid = jnp.repeat(frames.valid, places, axis=1)
    if long is not None:
        keys = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), keys, long.keys)
        values = jnp.concatenate([values, long.values], axis=1)
        valid = jnp.concatenate([valid, long.valid], axis=1)
    found = read_memory(similarity(flat_keys(look.keys), keys), values, valid=valid, top_k=top_k)
    if long is not None:
        usage = found.usage[: frames.usage.size].reshape(frames.usage.shape)
        frames = frames._replace(usage=frames.usage + usage, life=frames.life + 1)
        long = long._replace(usage=long.usage + found.usage[frames.usage.size :], life=long.life + 1)
    return found.values, frames, long


def _labels(masks: Masks) -> UInt8[Array, "h w"]:
    return jnp.where(jnp.any(masks[..., 1:] > 0, axis=-1), jnp.argmax(masks, axis=-1), 0).astype(jnp.uint8)


def _without(memory: _Memory, gone: Bool[Array, "o"]) -> _Memory:
    """Forgets what is not followed, so that the slot can be told something else."""
    hidden = jax.tree.map(lambda x: jnp.where(gone[:, None, None, None], 0, x), memory.hidden)
    long = memory.long if memory.long is None else forget_prototypes(memory.long, gone)
    return memory._replace(frames=forget_objects(memory.frames, gone), long=long, hidden=hidden, alive=~gone)
