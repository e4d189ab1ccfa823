"""The fold of every network with a space-time memory, and what it learns from: STCN and XMem differ in their nets."""

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from jaxvos.errors import InputError
from jaxvos.losses import bootstrapped_cross_entropy, dice_loss
from jaxvos.ops import Keys, centre_crop, centre_pad, read_memory, resize, similarity, soft_aggregate, tell_masks
from jaxvos.system import Clip, Frame, LossOutput, Prediction, System
from jaxvos.systems._correspondence import Correspondence, CorrespondenceConfig, Look, correspondence_loss
from jaxvos.systems._frame_memory import FrameMemory, empty_memory, forget_objects, write_frame, write_spare
from jaxvos.systems._long_term import LongTermConfig, LongTermMemory, consolidate, empty_long_term, forget_prototypes
from jaxvos.typing import Key, Masks, Variables

__all__ = ["Look", "MaskLossConfig", "MemoryConfig", "SpaceTimeNet", "follower", "run_encoder"]

_STRIDE = 16


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
        if self.short_side is not None and self.short_side < _STRIDE:
            raise InputError(f"short_side {self.short_side}: want at least {_STRIDE} pixels")
        if self.long_term is not None and self.long_term.min_frames >= self.frames:
            raise InputError(f"{self.long_term.min_frames} of {self.frames} frames would stay when the memory is full: "
                             "set long_term.min_frames below frames")  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskLossConfig:
    """What masks are judged by in training."""

    keep: float = 0.15
    """Share of the pixels, the hardest, that cross-entropy is averaged over in the end."""
    keep_ramp: tuple[int, int] = (20_000, 70_000)
    """Steps between which that share falls from all of them."""
    dice_weight: float = 0.0
    """Weight of the Dice loss (0.4 in the released correspondence code, 1 in XMem)."""

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1 or not 0 <= self.keep_ramp[0] <= self.keep_ramp[1] or self.dice_weight < 0:
            raise InputError(f"keep {self.keep} over {self.keep_ramp}, dice_weight {self.dice_weight}: want a share, a "
                             "range of steps, and a weight of at least 0")  # fmt: skip


class SpaceTimeNet(nn.Module):
    """What the fold asks of a net. `hidden` is what is kept of an object beside the memory, `None` if nothing."""

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of the key encoder's images."""
        raise NotImplementedError

    @property
    def widths(self) -> tuple[int, int | None]:
        """Channels of values, and of the hidden state."""
        raise NotImplementedError

    def look(self, images: Float[Array, "b h w 3"]) -> Look:
        raise NotImplementedError

    def remember(self, image: Array, masks: Float[Array, "h w 2"], look: Look, hidden: Any) -> tuple[Array, Any]:
        """Value of one object, and its hidden state where the frame is also to renew that."""
        raise NotImplementedError

    def segment(self, look: Look, readout: Float[Array, "y x d"], hidden: Any) -> tuple[Float[Array, "y x"], Any]:
        """Logits of one object at stride 4, and its hidden state."""
        raise NotImplementedError


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
    """Builds the `System` of a net.

    Args:
      net: encoders and decoder.
      memory_config: of prediction.
      loss_config: of training.
      reference_frames: memory frames of a training step, the first and others drawn from those before; all of them if
        None.
      deep_update: probability that a training frame's value renews the hidden state.
      correspondence: what training asks for beside masks.
    """
    value_width, hidden_width = net.widths

    def init(key: Key, clip: Clip) -> Variables:
        del clip  # no parameter depends on it
        images = jnp.zeros((1, 2 * _STRIDE, 2 * _STRIDE, 3))
        variables = net.init(key, images)
        if correspondence is None:
            return variables
        look = net.apply(variables, images, method="look")
        heads = Correspondence(correspondence, look.keys.key.shape[-1]).init(jax.random.fold_in(key, 1), look)
        return {**variables, "params": {**variables["params"], "correspondence": heads.get("params", {})}}

    def each_object(function: Any, *objects: Any) -> Any:
        """Runs a function over the leading axis of objects, in groups."""
        if jax.tree.leaves(objects)[0].shape[0] <= memory_config.slots:
            return jax.vmap(function)(*objects)
        return jax.lax.map(lambda each: function(*each), objects, batch_size=memory_config.slots)

    def remember(variables: Variables, image: Array, masks: Masks, look: Look, hidden: Any) -> tuple[Array, Any]:
        """Values of all objects, `o p d`."""
        objects = jnp.moveaxis(masks[..., 1:], -1, 0)
        pairs = jnp.stack([objects, objects.sum(axis=0) - objects], axis=-1)
        apply = lambda pair, state: net.apply(variables, image, pair, look, state, method="remember")  # noqa: E731
        values, hidden = each_object(apply, pairs, hidden)
        return values.reshape(len(values), -1, values.shape[-1]), hidden

    def segment(variables: Variables, look: Look, readout: Float[Array, "o p d"], hidden: Any, size: tuple[int, int]
                ) -> tuple[Float[Array, "h w o"], Any]:  # fmt: skip
        """Probabilities of all objects, each by itself."""
        readout = readout.reshape(len(readout), *look.deep.shape[:2], -1)
        apply = lambda values, state: net.apply(variables, look, values, state, method="segment")  # noqa: E731
        logits, hidden = each_object(apply, readout, hidden)
        return jax.nn.sigmoid(resize(jnp.moveaxis(logits, 0, -1), size)), hidden

    def initial_hidden(num_objects: int, look: Look) -> Any:
        return None if hidden_width is None else jnp.zeros((num_objects, *look.deep.shape[-3:-1], hidden_width))

    # ---- prediction --------------------------------------------------------------------------------------------
    def net_size(size: tuple[int, ...]) -> tuple[int, int]:
        short = min(size)
        limit = short if memory_config.short_side is None else min(short, memory_config.short_side)
        return round(size[0] * limit / short), round(size[1] * limit / short)

    def fit(x: Float[Array, "h w c"], value: tuple[float, ...] = (0.0,)) -> Float[Array, "y x c"]:
        return centre_pad(resize(x, net_size(x.shape[:2])), _STRIDE, value=value)

    def look_at(variables: Variables, image: Array) -> Look:
        return jax.tree.map(lambda x: x[0], net.apply(variables, image[None], method="look"))

    def start(variables: Variables, frame: Frame, masks: Masks | None = None) -> _Memory:
        if masks is None:
            raise ValueError("this system follows objects that it is told: give their masks on the first frame")
        look = jax.eval_shape(lambda: look_at(variables, fit(frame.image)))
        num_objects, keys = masks.shape[-1] - 1, jax.tree.map(lambda x: jnp.zeros(x.shape), look.keys)
        frames = empty_memory(memory_config.frames, _flat(keys), num_objects=num_objects, value_width=value_width,
                              spare=memory_config.include_last)  # fmt: skip
        long = None if memory_config.long_term is None else empty_long_term(memory_config.long_term, frames)
        return _Memory(frames, long, initial_hidden(num_objects, look), jnp.zeros(num_objects, bool), _labels(masks),
                       jnp.int32(0), jnp.int32(-memory_config.every))  # fmt: skip

    def read(memory: _Memory, look: Look) -> tuple[Float[Array, "o p d"], FrameMemory, LongTermMemory | None]:
        """Asks the whole memory, and notes what was read."""
        frames, long = memory.frames, memory.long
        keys = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), frames.keys._replace(selection=None))
        places, num_objects = frames.usage.shape[1], len(frames.valid)
        values = frames.values.reshape(num_objects, -1, value_width)
        valid = jnp.repeat(frames.valid, places, axis=1)
        if long is not None:
            keys = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), keys, long.keys)
            values = jnp.concatenate([values, long.values], axis=1)
            valid = jnp.concatenate([valid, long.valid], axis=1)
        found = read_memory(similarity(_flat(look.keys), keys), values, valid=valid, top_k=memory_config.top_k)
        if long is not None:
            usage = found.usage[: frames.usage.size].reshape(frames.usage.shape)
            frames = frames._replace(usage=frames.usage + usage, life=frames.life + 1)
            long = long._replace(usage=long.usage + found.usage[frames.usage.size :], life=long.life + 1)
        return found.values, frames, long

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
            values, frames, long = read(memory, look)
            found, hidden = segment(variables, look, values, memory.hidden, image.shape[:2])
            return jax.nn.softmax(soft_aggregate(found, alive=alive)), frames, long, hidden

        def nothing() -> tuple[Any, ...]:
            empty = jnp.zeros((*image.shape[:2], 1 + len(alive))).at[..., 0].set(1)
            return empty, memory.frames, memory.long, memory.hidden

        masks, frames, long, hidden = jax.lax.cond(jnp.any(alive), find, nothing)
        masks = tell_masks(masks, fit(told))
        alive = alive | spoken

        def write() -> tuple[Any, ...]:
            values, renewed = remember(variables, image, masks, look, memory.hidden)
            new = functools.partial(write_frame, frames, _flat(look.keys), values, alive=alive, number=memory.age,
                                    pinned=jnp.any(spoken))  # fmt: skip
            if not memory_config.include_last:
                written = new()
            else:
                passing = functools.partial(write_spare, keys=_flat(look.keys), values=values)
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

    # ---- training ----------------------------------------------------------------------------------------------
    def loss(variables: Variables, clip: Clip, *, key: Key, step: Any) -> LossOutput:
        if clip.masks is None:
            raise ValueError("masks are what it learns from: give them in the Clip")
        b, t, k = *clip.images.shape[:2], clip.masks.shape[-1]
        looks = net.apply(variables, clip.images.reshape(-1, *clip.images.shape[2:]), method="look")
        looks = jax.tree.map(lambda x: x.reshape(b, t, *x.shape[1:]), looks)
        alive = jnp.ones((b, k), bool) if clip.alive is None else clip.alive
        valid = jnp.ones((b, t), bool) if clip.valid is None else clip.valid
        keep = 1 - (1 - loss_config.keep) * _ramp(step, loss_config.keep_ramp)
        each = functools.partial(clip_loss, variables, keep=keep)
        own_key, other_key = jax.random.split(key)
        scalars = jax.vmap(each)(jax.random.split(own_key, b), clip.images, looks, clip.masks, alive[:, 1:], valid)
        scalars = jax.tree.map(jnp.mean, scalars)
        total = scalars["cross_entropy"] + loss_config.dice_weight * scalars["dice"]
        if correspondence is not None:
            more, parts = correspondence_loss(
                other_key, {"params": variables["params"]["correspondence"]}, clip, looks, config=correspondence,
                look=lambda images: net.apply(variables, images, method="look"), step=step,
            )  # fmt: skip
            total, scalars = total + more, {**scalars, **parts}
        return LossOutput(total, {}, scalars)

    def clip_loss(
        variables: Variables, key: Key, images: Array, looks: Look, masks: Array, alive: Array, valid: Array, *,
        keep: Array,
    ) -> dict[str, Float[Array, ""]]:  # fmt: skip
        """Sums over the frames after the first, each segmented from the memory of those before it."""
        look = lambda i: jax.tree.map(lambda x: x[i], looks)  # noqa: E731
        everyone = jnp.concatenate([jnp.ones(1, bool), alive])
        reference_key, deep_key = jax.random.split(key)
        size, hidden = images.shape[1:3], initial_hidden(len(alive), look(0))
        seen, values, totals = masks[0] * everyone, [], {"cross_entropy": 0.0, "dice": 0.0}
        for i in range(len(images)):
            if i > 0:
                keys = jax.tree.map(lambda x: x[:i].reshape(-1, *x.shape[3:]), looks.keys._replace(selection=None))  # noqa: B023
                drawn = _references(jax.random.fold_in(reference_key, i), i, reference_frames)
                places = values[0].shape[1]
                found = read_memory(similarity(_flat(look(i).keys), keys), jnp.concatenate(values, axis=1),
                                    valid=jnp.repeat(drawn, places))  # fmt: skip
                p, hidden = segment(variables, look(i), found.values, hidden, size)
                logits = soft_aggregate(p, alive=alive)
                weight = valid[i] / valid[1:].sum().clip(1) * (len(images) - 1)  # padding does not count
                truth = masks[i] * everyone
                totals["cross_entropy"] += weight * bootstrapped_cross_entropy(logits, truth, keep, alive=everyone)
                totals["dice"] += weight * dice_loss(logits, truth, alive=everyone)
                seen = jax.nn.softmax(logits)
            if i + 1 < len(images):
                value, renewed = remember(variables, images[i], seen, look(i), hidden)
                values.append(value)
                deep = (i == 0) | jax.random.bernoulli(jax.random.fold_in(deep_key, i), deep_update)
                hidden = jax.tree.map(lambda new, old: jnp.where(deep, new, old), renewed, hidden)  # noqa: B023
        return totals

    return System(init, loss, predict, start, needs=("masks",), told_anytime=True)


def run_encoder(encoder: Any, images: Float[Array, "b h w 3"]) -> dict[int, Array]:
    """Features of the stages at strides 4, 8 and 16 of images in [0, 1], with the statistics of training."""
    mean, std = encoder.normalization
    x, levels = encoder.stem((images - jnp.array(mean)) / jnp.array(std), train=False), {}
    for number in (2, 3, 4):
        levels[number] = x = encoder.stage(x, number, train=False)
    return levels


def _flat(keys: Keys) -> Keys:
    """Keys of a map as keys of a list of places."""
    y, x = keys.key.shape[:2]
    return jax.tree.map(lambda a: a.reshape(y * x, *a.shape[2:]), keys)


def _labels(masks: Masks) -> UInt8[Array, "h w"]:
    return jnp.where(jnp.any(masks[..., 1:] > 0, axis=-1), jnp.argmax(masks, axis=-1), 0).astype(jnp.uint8)


def _without(memory: _Memory, gone: Bool[Array, "o"]) -> _Memory:
    """Forgets what is not followed, so that the slot can be told something else."""
    hidden = jax.tree.map(lambda x: jnp.where(gone[:, None, None, None], 0, x), memory.hidden)
    long = memory.long if memory.long is None else forget_prototypes(memory.long, gone)
    return memory._replace(frames=forget_objects(memory.frames, gone), long=long, hidden=hidden, alive=~gone)


def _ramp(step: Any, between: tuple[int, int]) -> Float[Array, ""]:
    """From 0 to 1 between two steps."""
    return jnp.clip((step - between[0]) / max(between[1] - between[0], 1), 0.0, 1.0)


def _references(key: Key, count: int, wanted: int | None) -> Bool[Array, "t"]:
    """Draws which of the frames so far are in the memory: the first, and others."""
    if wanted is None or count <= wanted:
        return jnp.ones(count, bool)
    order = jax.random.permutation(key, count - 1)
    return jnp.concatenate([jnp.ones(1, bool), order < wanted - 1])
