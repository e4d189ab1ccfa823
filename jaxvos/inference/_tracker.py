"""A model over the frames of one video as they come, told of objects on the way."""

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from jaxvos.errors import InputError
from jaxvos.inference._adapt import OnlineConfig, adapt
from jaxvos.inference._fold import jitted_predict, jitted_start
from jaxvos.inference._inputs import Taken
from jaxvos.inference._objects import Slots, ToldMask, read_told_mask
from jaxvos.models import Model, load_model
from jaxvos.system import Frame

__all__ = ["SegmentedFrame", "Session", "Tracker", "check_threshold", "check_told_anytime"]

_MOST_SLOTS = 254  # ids that a mask can hold


class SegmentedFrame(NamedTuple):
    """One frame of a stream, on the host."""

    name: str
    image: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w"]  # object ids, 0 is the background
    foreground: Float32[np.ndarray, "h w"]  # probability of any object
    flow_seconds: float
    model_seconds: float  # 0 where nothing is followed and the model is not run
    proposal_seconds: float = 0.0  # of the first frame, this includes compilation
    adapt_seconds: float = 0.0  # of the first frame that is told: what online learning took
    warm_up: bool = False  # the model's first frame, and the first that is told later: `model_seconds` may compile


class Tracker:
    """Follows objects through frames as they come: they are marked on any frame, and removed on any other.

    Memory does not grow with the number of frames. For each size of frame and number of slots three functions are
    compiled: what starts, a frame that is told, and one that is not.

    Example:
      >>> tracker = Tracker("xmem.safetensors")
      >>> for number, image in enumerate(camera):
      ...     mask = tracker.step(image, masks=clicked.get(number)).mask
    """

    def __init__(self, model: Model | str | Path, *, slots: int = 8, threshold: float = 0.5) -> None:
        """Loads the model.

        Args:
          model: as `load_model` takes it, one that is told of objects at any time.
          slots: the most objects that are followed at once; time and memory grow with it.
          threshold: a pixel belongs to the likeliest object where this is its probability against the background's.

        Raises:
          InputError: an argument is wrong, or the model is not such a one or wants more than images.
        """
        check_threshold(threshold)
        if not 1 <= slots <= _MOST_SLOTS:
            raise InputError(f"{slots} slots: give a number from 1 to {_MOST_SLOTS}")
        model = model if isinstance(model, Model) else load_model(model)
        check_told_anytime(model)
        wanted = [need for need in model.system.needs if need != "masks"]
        if wanted:
            raise InputError(f"{model.name} wants {' and '.join(wanted)} beside the image: run it by stream")
        self._session = Session(model, slots=slots, threshold=threshold)
        self._size: tuple[int, ...] | None = None
        self._count = 0

    def step(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        *,
        masks: str | Path | np.ndarray | None = None,
        remove: Collection[int] = (),
    ) -> SegmentedFrame:
        """Segments the next frame. After an error it can be given again: nothing has changed.

        Args:
          image: of the same size each time.
          masks: objects that are marked on this frame, as `read_told_mask` takes them. An id that is followed is
            corrected, another is followed from now on; ids that have no pixel go on as before.
          remove: ids that are no longer followed, before those of `masks` are; their slots are free again.

        Returns:
          The frame with its mask of ids: what was marked, and elsewhere what was found. Until something is marked, and
          after everything was removed, that is background.

        Raises:
          InputError: the size is another one, the masks cannot be read, there are more objects than slots, or one is
            removed that is not followed.
        """
        size = image.shape[:2]
        if self._size not in (None, size):
            raise InputError(f"frame {self._count} is {size[1]}x{size[0]} but those before were "
                             f"{self._size[1]}x{self._size[0]} (width x height): make a new Tracker")  # fmt: skip
        told = None if masks is None else read_told_mask(masks, size=size, frame=self._count)
        frame = Frame(jnp.asarray(image, jnp.float32) / 255)
        found = self._session.step(Taken(f"{self._count:05d}", image, frame, 0.0, 0.0), told, remove)
        self._size, self._count = size, self._count + 1
        return found


class Session:
    """A model, its memory and its slots, in one video."""

    def __init__(
        self, model: Model, *, slots: int | None, threshold: float, online: OnlineConfig | None = None
    ) -> None:
        """Takes a model as it is.

        Args:
          model: any that segments.
          slots: for objects that are told; None where the model finds them itself, and an id is the number of a slot.
          threshold: as for `stream`.
          online: how to learn from the first frame that is told; not at all if None.
        """
        self._model, self._threshold, self._online = model, threshold, online
        self._slots = None if slots is None else Slots((0,) * slots)
        self._memory: Any = None
        self._kinds: set[bool] = set()

    def step(self, taken: Taken, told: ToldMask | None, removed: Collection[int]) -> SegmentedFrame:
        """Segments the next frame, for which something may be told and some objects removed, as for `Tracker.step`."""
        name, image, frame, flow_seconds, proposal_seconds = taken
        started, adapt_seconds = time.perf_counter(), 0.0
        model, memory, before = self._model, self._memory, self._slots
        masks = slots = None
        if before is not None:
            kept = before.without(removed)
            slots = kept if told is None else kept.joined(told.ids)
            if not any(slots.ids):
                self._memory, self._slots = None, slots
                nothing = np.zeros(image.shape[:2], np.uint8)
                return SegmentedFrame(name, image, nothing, nothing.astype(np.float32), flow_seconds, 0.0,
                                      proposal_seconds)  # fmt: skip
            masks = None if told is None else jnp.asarray(slots.one_hot(told.labels))
            if model.system.told_anytime:
                frame = frame._replace(alive=jnp.asarray(np.equal(before.palette, kept.palette)))
        if memory is not None:
            frame = frame._replace(masks=masks)
        else:
            if self._online is not None and masks is not None:
                model = adapt(model, frame, masks, online=self._online)
                adapt_seconds = time.perf_counter() - started
            memory = jitted_start(model.system)(model.variables, frame, masks)
        memory, prediction = jitted_predict(model.system)(model.variables, memory, frame)
        if prediction.masks.shape[-1] < 2:
            raise InputError(f"{model.name} segments nothing: give a model that does, or use this one's flow")
        labels, foreground = _label(np.asarray(prediction.masks), self._threshold)
        mask = labels if slots is None else slots.palette[labels]
        mask = mask if told is None else _as_told(mask, told)
        kind = frame.masks is not None
        seconds = time.perf_counter() - started - adapt_seconds
        found = SegmentedFrame(name, image, mask, foreground, flow_seconds, seconds, proposal_seconds, adapt_seconds,
                               warm_up=kind not in self._kinds)  # fmt: skip
        self._model, self._memory, self._slots = model, memory, slots
        self._online = self._online if masks is None else None
        self._kinds.add(kind)
        return found


def check_threshold(threshold: float) -> None:
    """Refuses what is no probability."""
    if not 0 < threshold < 1:
        raise InputError(f"threshold {threshold}: give a probability between 0 and 1")


def check_told_anytime(model: Model) -> None:
    """Refuses a model that can be told of objects on the first frame at most."""
    if not model.system.told_anytime:
        raise InputError(f"{model.name} is told nothing after the first frame: give a model whose objects come and go, "
                         "one of STCN or XMem")  # fmt: skip


def _as_told(found: UInt8[np.ndarray, "h w"], told: ToldMask) -> UInt8[np.ndarray, "h w"]:
    """The ids that were told are where they were told, and nowhere else."""
    elsewhere = np.where(np.isin(found, told.ids), 0, found)
    return np.where(told.labels > 0, told.labels, elsewhere).astype(np.uint8)


def _label(
    probabilities: Float32[np.ndarray, "h w k"], threshold: float
) -> tuple[UInt8[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    best = 1 + np.argmax(probabilities[..., 1:], axis=-1)
    own = np.take_along_axis(probabilities, best[..., None], axis=-1)[..., 0]
    background = probabilities[..., 0]
    return np.where(own >= threshold * (own + background), best, 0).astype(np.uint8), 1 - background
