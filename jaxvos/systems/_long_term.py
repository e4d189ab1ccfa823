"""Long-term memory of fixed size: many frames in a few prototypes, the least used of which go first (XMem)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvos.errors import InputError
from jaxvos.ops import Keys, similarity
from jaxvos.systems._frame_memory import FrameMemory

__all__ = ["LongTermConfig", "LongTermMemory", "consolidate", "empty_long_term", "forget_prototypes"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LongTermConfig:
    """What becomes of old frames. The published numbers."""

    min_frames: int = 5
    """Frames that stay when the frame memory is full: one that a person marked, and the latest. Others that a person
    marked stay too."""
    prototypes: int = 128
    """Entries that the others become."""
    capacity: int = 10_000
    """Entries that are kept in all."""

    def __post_init__(self) -> None:
        if self.min_frames < 1 or not 1 <= self.prototypes <= self.capacity:
            raise InputError(f"long-term memory of {self.capacity} entries, {self.prototypes} at once, beside "
                             f"{self.min_frames} frames: want 1 <= prototypes <= capacity, and a frame")  # fmt: skip


class LongTermMemory(NamedTuple):
    """Entries `n` of prototypes."""

    keys: Keys  # without selection
    values: Float[Array, "o n d"]
    valid: Bool[Array, "o n"]
    used: Bool[Array, "n"]
    usage: Float[Array, "n"]
    life: Float[Array, "n"]


def empty_long_term(config: LongTermConfig, frames: FrameMemory) -> LongTermMemory:
    n, o = config.capacity, frames.values.shape[0]
    keys = jax.tree.map(lambda x: jnp.zeros((n, *x.shape[2:]), x.dtype), frames.keys._replace(selection=None))
    return LongTermMemory(keys, jnp.zeros((o, n, frames.values.shape[-1])), jnp.zeros((o, n), bool),
                          jnp.zeros(n, bool), jnp.zeros(n), jnp.full(n, 1e-7))  # fmt: skip


def forget_prototypes(long: LongTermMemory, gone: Bool[Array, "o"]) -> LongTermMemory:
    """Leaves nothing of some objects; an entry that says nothing of another makes room."""
    valid = long.valid & ~gone[:, None]
    return long._replace(valid=valid, used=long.used & valid.any(axis=0))


def consolidate(
    frames: FrameMemory, long: LongTermMemory, *, config: LongTermConfig
) -> tuple[FrameMemory, LongTermMemory]:
    """Turns a full frame memory into prototypes; one with room stays as it is.

    The entries of all frames but the pinned and the latest compete (those of one frame at least, unless all are
    pinned); the most read for each frame of their life are the prototypes, and their values and shrinkages are averages
    over all competitors, weighed by a softmax of similarity. Where objects were not known in all frames, each object's
    average is over the frames it was known in.
    """
    goes = _leaving(frames, config)
    return jax.lax.cond(goes.any(), lambda: _consolidate(frames, long, goes, config), lambda: (frames, long))


def _leaving(frames: FrameMemory, config: LongTermConfig) -> Bool[Array, "s"]:
    """Tells which frames of a full memory go: one at least, unless all are pinned."""
    full = jnp.all(frames.written >= 0)
    order = jnp.argsort(jnp.argsort(jnp.where(frames.pinned, 1, -frames.written)))  # 0 for the latest
    stay = jnp.minimum(config.min_frames - 1, jnp.sum(~frames.pinned) - 1)
    return full & ~frames.pinned & (order >= stay)


def _consolidate(
    frames: FrameMemory, long: LongTermMemory, goes: Bool[Array, "s"], config: LongTermConfig
) -> tuple[FrameMemory, LongTermMemory]:
    places = frames.usage.shape[1]
    competes = jnp.repeat(goes, places)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), frames.keys)
    values = frames.values.reshape(frames.values.shape[0], -1, frames.values.shape[-1])
    rate = jnp.where(competes, (frames.usage / frames.life[:, None]).reshape(-1), -jnp.inf)
    most, chosen = jax.lax.top_k(rate, min(config.prototypes, len(rate)))
    there = jnp.isfinite(most)

    prototypes = jax.tree.map(lambda x: x[chosen], flat)
    scores = jnp.where(competes, similarity(prototypes, flat), -jnp.inf)
    weights = jax.nn.softmax(jnp.where(there[:, None], scores, 0), axis=-1)
    known = jnp.repeat(frames.valid, places, axis=1) & competes
    own = jnp.where(known[:, None], weights, 0)  # o, prototypes, entries
    mass = own.sum(axis=-1)
    averages = jnp.einsum("opn,ond->opd", own, values) / jnp.maximum(mass, 1e-30)[..., None]
    shrinkage = None if flat.shrinkage is None else weights @ flat.shrinkage
    keys = Keys(prototypes.key, shrinkage)

    long = _make_room(long, config)
    free = jax.lax.top_k((~long.used).astype(jnp.int32), len(chosen))[1]
    put = lambda old, new: old.at[free].set(new)  # noqa: E731
    long = LongTermMemory(
        keys=jax.tree.map(put, long.keys, keys),
        values=long.values.at[:, free].set(averages),
        valid=long.valid.at[:, free].set((mass > 0) & there),
        used=put(long.used, there),
        usage=put(long.usage, 0.0),
        life=put(long.life, 1e-7),
    )
    frames = frames._replace(valid=frames.valid & ~goes, written=jnp.where(goes, -1, frames.written))
    return frames, long


def _make_room(long: LongTermMemory, config: LongTermConfig) -> LongTermMemory:
    """Drops the least used until a batch of prototypes fits; entries that tie with the last to go, go too."""
    excess = jnp.sum(long.used) - (config.capacity - config.prototypes)
    rate = jnp.where(long.used, long.usage / long.life, jnp.inf)
    last = jnp.sort(rate)[jnp.maximum(excess - 1, 0)]
    used = long.used & ((excess <= 0) | (rate > last))
    return long._replace(used=used, valid=long.valid & used)
