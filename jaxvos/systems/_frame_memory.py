"""Memory of fixed size for frames and their objects: a ring that never forgets what a person marked."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxvos.ops import Keys

__all__ = ["FrameMemory", "empty_memory", "forget_objects", "write_frame", "write_spare"]

_PINNED = 1 << 24  # a pinned frame counts as written so many frames later when the oldest is sought
_NEVER = 1 << 30  # the frame that a spare slot counts as, which is never the oldest


class FrameMemory(NamedTuple):
    """Frames `s` of `p` places each; `o` objects. The last slot may be a spare one, for the latest frame alone."""

    keys: Keys  # with axes s p before the channels
    values: Float[Array, "o s p d"]
    valid: Bool[Array, "o s"]  # which frames an object is known in
    written: Int[Array, "s"]  # number of the frame, -1 for none
    pinned: Bool[Array, "s"]
    usage: Float[Array, "s p"]  # how much each entry was read since it was written
    life: Float[Array, "s"]  # in how many frames


def empty_memory(
    num_frames: int, look: Keys, *, num_objects: int, value_width: int, spare: bool = False
) -> FrameMemory:
    """Makes room for frames whose keys are shaped as `look`, with one axis of places.

    Args:
      num_frames: of the ring.
      look: keys `(p, c)` of a frame.
      num_objects: slots for objects.
      value_width: channels of values.
      spare: one more slot, the last, which `write_spare` alone writes.
    """
    s, p = num_frames + spare, look.key.shape[0]
    outside = jnp.arange(s) >= num_frames
    return FrameMemory(
        keys=jax.tree.map(lambda x: jnp.zeros((s, *x.shape), x.dtype), look),
        values=jnp.zeros((num_objects, s, p, value_width)),
        valid=jnp.zeros((num_objects, s), bool),
        written=jnp.where(outside, _NEVER, -1).astype(jnp.int32),
        pinned=outside,
        usage=jnp.zeros((s, p)),
        life=jnp.full(s, 1e-7),
    )


def write_frame(
    memory: FrameMemory,
    keys: Keys,
    values: Float[Array, "o p d"],
    *,
    alive: Bool[Array, "o"],
    number: Int[Array, ""],
    pinned: Bool[Array, ""],
) -> FrameMemory:
    """Writes one frame where there is room, else over the oldest that is not pinned, or over the oldest.

    Args:
      memory: what is there.
      keys: of the frame.
      values: of its objects.
      alive: objects that are known in it.
      number: of the frame.
      pinned: whether it is to stay.
    """
    where = jnp.argmin(memory.written + _PINNED * memory.pinned)
    memory = _put(memory, where, keys, values, alive)
    return memory._replace(written=memory.written.at[where].set(number), pinned=memory.pinned.at[where].set(pinned))


def write_spare(memory: FrameMemory, keys: Keys, values: Float[Array, "o p d"], alive: Bool[Array, "o"]) -> FrameMemory:
    """Writes one frame into the spare slot; one whose objects are all not `alive` empties it."""
    return _put(memory, len(memory.written) - 1, keys, values, alive)


def forget_objects(memory: FrameMemory, gone: Bool[Array, "o"]) -> FrameMemory:
    """Leaves nothing of some objects; a frame in which no other is known makes room, pinned or not."""
    valid = memory.valid & ~gone[:, None]
    empty = ~valid.any(axis=0) & (memory.written < _NEVER)
    written = jnp.where(empty, -1, memory.written)
    return memory._replace(valid=valid, written=written, pinned=memory.pinned & ~empty)


def _put(memory: FrameMemory, where: Any, keys: Keys, values: Array, alive: Array) -> FrameMemory:
    return memory._replace(
        keys=jax.tree.map(lambda old, new: old.at[where].set(new), memory.keys, keys),
        values=memory.values.at[:, where].set(values),
        valid=memory.valid.at[:, where].set(alive),
        usage=memory.usage.at[where].set(0),
        life=memory.life.at[where].set(1e-7),
    )
