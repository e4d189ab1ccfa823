"""Videos of any length, one frame in memory at a time."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from jaxvos.data import FlowProvider, LastFrame, Video, open_video
from jaxvos.errors import InputError
from jaxvos.inference._adapt import OnlineConfig, adapt
from jaxvos.inference._fold import jitted_predict, jitted_start
from jaxvos.inference._inputs import Taken, open_flow, open_proposals, take_frames
from jaxvos.inference._objects import FirstMask, read_first_mask
from jaxvos.models import FIRST_MASK, Model, load_model

__all__ = ["SegmentedFrame", "segment", "stream"]


class SegmentedFrame(NamedTuple):
    """One frame of a stream, on the host."""

    name: str
    image: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w"]  # object ids, 0 is the background
    foreground: Float32[np.ndarray, "h w"]  # probability of any object
    flow_seconds: float
    model_seconds: float  # of the first frame, this includes compilation
    proposal_seconds: float = 0.0  # likewise
    adapt_seconds: float = 0.0  # of the first frame: what online learning took


def stream(
    video: Video | str | Path | np.ndarray | Iterable[np.ndarray],
    *,
    model: Model | str | Path | None = None,
    first_mask: str | Path | np.ndarray | None = None,
    proposals: Model | str | Path | None = None,
    online: OnlineConfig | None = None,
    flow: str | Path | Model | FlowProvider | None = None,
    threshold: float = 0.5,
    last_frame: LastFrame = "reuse",
) -> Iterator[SegmentedFrame]:
    """Segments a video frame by frame; memory does not grow with its length.

    Args:
      video: a file, a folder of frames, a glob, an array `(t, h, w, 3)`, or an iterator of frames (a camera).
      model: as `load_model` takes it; if None, the embedded default for what is given: with or without a first mask.
      first_mask: the objects to follow, as `read_first_mask` takes them, for models that are told.
      proposals: a file, or a network as `load_model` takes it, for models that want proposals; the embedded network if
        None.
      online: how to learn from the first mask before the rest is segmented (`adapt`); not at all if None.
      flow: as `open_flow` takes it, for models that want flow; `dis` if None.
      threshold: a pixel belongs to the likeliest object where this is its probability against the background's.
      last_frame: what the last frame, which no frame follows, has for flow or for its next frame: `reuse` those of the
        frame before or the frame itself, look `backward`, or `skip` it.

    Returns:
      An iterator of every frame with its mask, one frame behind the source where flow looks ahead. The mask of the
      first frame is the one that was given.

    Raises:
      InputError: at once, if an argument is wrong or of no use to the model, the video cannot be opened or has fewer
        than two frames; while iterating, if a later frame, its flow or its proposals cannot be read, or the model
        segments nothing.
    """
    if not 0 < threshold < 1:
        raise InputError(f"threshold {threshold}: give a probability between 0 and 1")
    if last_frame not in get_args(LastFrame):
        raise InputError(f"last_frame {last_frame!r}: give one of {', '.join(get_args(LastFrame))}")
    if flow is not None:
        flow = open_flow(flow)
    source = video if isinstance(video, Video) else open_video(video, minimum_frames=2)
    if model is None and first_mask is not None:
        model = FIRST_MASK
    model = model if isinstance(model, Model) else load_model(model)
    needs = model.system.needs
    _check_inputs(model, {"flow": flow, "proposals": proposals})
    objects = None if first_mask is None else read_first_mask(first_mask, size=source.size)
    _check_prompt(model, objects, online)
    frames = take_frames(
        source,
        flow=(flow or open_flow("dis")) if "flow" in needs else None,
        proposals=open_proposals(proposals, source) if "proposals" in needs else None,
        next_image="next_image" in needs,
        last_frame=last_frame,
    )
    return _stream(model, frames, objects, threshold, online)


def _check_inputs(model: Model, given: dict[str, Any]) -> None:
    for need, value in given.items():
        if value is not None and need not in model.system.needs:
            raise InputError(f"{model.name} has no use for {need}: leave it out")


def _check_prompt(model: Model, objects: FirstMask | None, online: OnlineConfig | None) -> None:
    """What is told of the first frame must be of use to the model."""
    told, adaptation = "masks" in model.system.needs, model.system.adaptation
    if online is not None and adaptation is None:
        raise InputError(f"{model.name} has no use for online learning: leave it out")
    if objects is None and (told or online is not None):
        reason = "follows objects that are marked on the first frame" if told else "learns online from the first mask"
        raise InputError(f"{model.name} {reason}: give their mask (--first-mask PNG)")
    if objects is None or told:
        return
    if adaptation is None:
        raise InputError(f"{model.name} finds objects by itself and takes no first mask: leave the mask out, or name "
                         f"a model such as {FIRST_MASK}")  # fmt: skip
    if len(objects.ids) > 1 and online is None:
        raise InputError(f"{model.name} tells {len(objects.ids)} objects apart only after learning them: add --online, "
                         "or mark one")  # fmt: skip


def _stream(
    model: Model, frames: Iterable[Taken], objects: FirstMask | None, threshold: float, online: OnlineConfig | None
) -> Iterator[SegmentedFrame]:
    ids = np.arange(256, dtype=np.uint8) if objects is None else np.array((0, *objects.ids), np.uint8)
    masks = None if objects is None else jnp.asarray(objects.masks)
    memory = None
    for index, (name, image, frame, flow_seconds, proposal_seconds) in enumerate(frames):
        started, adapt_seconds = time.perf_counter(), 0.0
        if index == 0:
            if online is not None and masks is not None:
                model = adapt(model, frame, masks, online=online)
                adapt_seconds = time.perf_counter() - started
            memory = jitted_start(model.system)(model.variables, frame, masks)
        memory, prediction = jitted_predict(model.system)(model.variables, memory, frame)
        if prediction.masks.shape[-1] < 2:
            raise InputError(f"{model.name} segments nothing: give a model that does, or use this one's flow")
        slots, foreground = _label(np.asarray(prediction.masks), threshold)
        seconds = time.perf_counter() - started - adapt_seconds
        mask = ids[slots] if index or objects is None else objects.labels
        yield SegmentedFrame(name, image, mask, foreground, flow_seconds, seconds, proposal_seconds, adapt_seconds)


def _label(
    probabilities: Float32[np.ndarray, "h w k"], threshold: float
) -> tuple[UInt8[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    best = 1 + np.argmax(probabilities[..., 1:], axis=-1)
    own = np.take_along_axis(probabilities, best[..., None], axis=-1)[..., 0]
    background = probabilities[..., 0]
    return np.where(own >= threshold * (own + background), best, 0).astype(np.uint8), 1 - background


def segment(
    video: Video | str | Path | np.ndarray | Iterable[np.ndarray],
    *,
    model: Model | str | Path | None = None,
    first_mask: str | Path | np.ndarray | None = None,
    proposals: Model | str | Path | None = None,
    online: OnlineConfig | None = None,
    flow: str | Path | Model | FlowProvider | None = None,
    threshold: float = 0.5,
    last_frame: LastFrame = "reuse",
) -> UInt8[np.ndarray, "t h w"]:
    """Segments a whole video into object ids; arguments as for `stream`, which is the form for long videos."""
    frames = stream(video, model=model, first_mask=first_mask, proposals=proposals, online=online,
                    flow=flow, threshold=threshold, last_frame=last_frame)  # fmt: skip
    return np.stack([frame.mask for frame in frames])
