"""Videos of any length, one frame in memory at a time."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import UInt8

from jaxvos.data import FlowProvider, LastFrame, Video, open_video
from jaxvos.errors import InputError
from jaxvos.inference._adapt import OnlineConfig
from jaxvos.inference._inputs import Taken, open_flow, open_proposals, take_frames
from jaxvos.inference._objects import ToldMask, plan_slots, read_told_mask
from jaxvos.inference._tracker import SegmentedFrame, Session, check_threshold, check_told_anytime
from jaxvos.models import FIRST_MASK, Model, default_model, load_model

__all__ = ["segment", "stream"]

_Mask = str | Path | np.ndarray


def stream(
    video: Video | str | Path | np.ndarray | Iterable[np.ndarray],
    *,
    model: Model | str | Path | None = None,
    first_mask: str | Path | np.ndarray | None = None,
    masks: Mapping[int, str | Path | np.ndarray] | None = None,
    removals: Mapping[int, Collection[int]] | None = None,
    proposals: Model | str | Path | None = None,
    online: OnlineConfig | None = None,
    flow: str | Path | Model | FlowProvider | None = None,
    threshold: float = 0.5,
    last_frame: LastFrame = "reuse",
) -> Iterator[SegmentedFrame]:
    """Segments a video frame by frame; memory does not grow with its length.

    Args:
      video: a file, a folder of frames, a glob, an array `(t, h, w, 3)`, or an iterator of frames (a camera).
      model: as `load_model` takes it; if None, the embedded default for what is given: without masks, with them, or
        with proposals or online learning beside them.
      first_mask: the objects to follow, as `read_told_mask` takes them, for models that are told; the same as
        `masks={0: first_mask}`.
      masks: the same of any frames, by their numbers from 0, for models that are told of objects at any time. An id
        that is followed already is corrected, another is followed from that frame on; ids without a pixel there go on
        as before. Frames before the first mask are background.
      removals: ids that are no longer followed, by the number of the frame from which on they are not. A mask may tell
        of the same id again, on that frame or later: of another object.
      proposals: a file, or a network as `load_model` takes it, for models that want proposals; the embedded network if
        None.
      online: how to learn from the first mask before the rest is segmented (`adapt`); not at all if None.
      flow: as `open_flow` takes it, for models that want flow; `dis` if None.
      threshold: a pixel belongs to the likeliest object where this is its probability against the background's.
      last_frame: what the last frame, which no frame follows, has for flow or for its next frame: `reuse` those of the
        frame before or the frame itself, look `backward`, or `skip` it.

    Returns:
      An iterator of every frame with its mask, one frame behind the source where flow looks ahead. Where a mask was
      given, its ids are exactly where that has them.

    Raises:
      InputError: at once, if an argument is wrong or of no use to the model, the video cannot be opened or has fewer
        than two frames, or a mask or a removal is of a frame or an object that is not there; while iterating, if a
        later frame, its flow or its proposals cannot be read, the model segments nothing, or a video whose length was
        not known ends before a frame that something is told of.
    """
    check_threshold(threshold)
    if last_frame not in get_args(LastFrame):
        raise InputError(f"last_frame {last_frame!r}: give one of {', '.join(get_args(LastFrame))}")
    if flow is not None:
        flow = open_flow(flow)
    source = video if isinstance(video, Video) else open_video(video, minimum_frames=2)
    if model is None:
        marked, matching = first_mask is not None or bool(masks), proposals is not None or online is not None
        model = default_model(marked=marked, matching=matching)
    model = model if isinstance(model, Model) else load_model(model)
    needs = model.system.needs
    _check_inputs(model, {"flow": flow, "proposals": proposals})
    removals = {frame: tuple(ids) for frame, ids in (removals or {}).items()}
    told = _read_masks(first_mask, masks, source.size)
    _check_prompt(model, told, removals, online)
    _check_numbers({*told, *removals}, source)
    slots = plan_slots(told, removals) if told else None
    frames = take_frames(
        source,
        flow=(flow or open_flow("dis")) if "flow" in needs else None,
        proposals=open_proposals(proposals, source) if "proposals" in needs else None,
        next_image="next_image" in needs,
        last_frame=last_frame,
    )
    session = Session(model, slots=slots, threshold=threshold, online=online)
    return _stream(session, frames, told, removals, source.name)


def _check_inputs(model: Model, given: dict[str, Any]) -> None:
    for need, value in given.items():
        if value is not None and need not in model.system.needs:
            raise InputError(f"{model.name} has no use for {need}: leave it out")


def _read_masks(first: _Mask | None, others: Mapping[int, _Mask] | None, size: tuple[int, int]) -> dict[int, ToldMask]:
    """What is told, by the number of the frame."""
    given = dict(others or {})
    if first is not None:
        if 0 in given:
            raise InputError("two masks for frame 0: give it as the first mask or among the masks, not both")
        given[0] = first
    return {frame: read_told_mask(mask, size=size, frame=frame) for frame, mask in given.items()}


def _check_prompt(
    model: Model, told: Mapping[int, ToldMask], removals: Mapping[int, Any], online: OnlineConfig | None
) -> None:
    """What is told must be of use to the model."""
    wants, adaptation = "masks" in model.system.needs, model.system.adaptation
    if removals or any(told.keys() - {0}):
        check_told_anytime(model)
    if online is not None and adaptation is None:
        raise InputError(f"{model.name} has no use for online learning: leave it out")
    if not told and (wants or online is not None):
        reason = "follows objects that are marked on the first frame" if wants else "learns online from the first mask"
        option = "--first-mask PNG"
        if model.system.told_anytime:
            reason, option = "follows objects that are marked on a frame", "--first-mask PNG, or --mask FRAME:PNG"
        raise InputError(f"{model.name} {reason}: give their mask ({option})")
    if not told or wants:
        return
    if adaptation is None:
        raise InputError(f"{model.name} finds objects by itself and takes no first mask: leave the mask out, or name "
                         f"a model such as {FIRST_MASK}")  # fmt: skip
    count = len(told[0].ids)
    if count > 1 and online is None:
        raise InputError(f"{model.name} tells {count} objects apart only after learning them: add --online, "
                         "or mark one")  # fmt: skip


def _check_numbers(frames: set[int], video: Video) -> None:
    """Something is told of frames that there are, as far as the length of the video is known."""
    for frame in sorted(frames):
        if frame < 0:
            raise InputError(f"there is no frame {frame}: frames are counted from 0")
    length = video.length
    if length is not None and max(frames, default=0) >= length:
        length = len(video.stems) if video.stems else sum(1 for _ in video)  # a container may declare another number
        _check_end(frames, length, video.name)


def _check_end(frames: Collection[int], length: int, name: str) -> None:
    beyond = min((frame for frame in frames if frame >= length), default=None)
    if beyond is not None:
        raise InputError(f"there is no frame {beyond} in {name}, which has {length}: frames are counted from 0")


def _stream(
    session: Session,
    frames: Iterable[Taken],
    told: Mapping[int, ToldMask],
    removals: Mapping[int, Collection[int]],
    name: str,
) -> Iterator[SegmentedFrame]:
    count = 0
    for index, taken in enumerate(frames):
        yield session.step(taken, told.get(index), removals.get(index, ()))
        count = index + 1
    _check_end({*told, *removals}, count, name)


def segment(
    video: Video | str | Path | np.ndarray | Iterable[np.ndarray],
    *,
    model: Model | str | Path | None = None,
    first_mask: str | Path | np.ndarray | None = None,
    masks: Mapping[int, str | Path | np.ndarray] | None = None,
    removals: Mapping[int, Collection[int]] | None = None,
    proposals: Model | str | Path | None = None,
    online: OnlineConfig | None = None,
    flow: str | Path | Model | FlowProvider | None = None,
    threshold: float = 0.5,
    last_frame: LastFrame = "reuse",
) -> UInt8[np.ndarray, "t h w"]:
    """Segments a whole video into object ids; arguments as for `stream`, which is the form for long videos."""
    frames = stream(video, model=model, first_mask=first_mask, masks=masks, removals=removals, proposals=proposals,
                    online=online, flow=flow, threshold=threshold, last_frame=last_frame)  # fmt: skip
    return np.stack([frame.mask for frame in frames])
