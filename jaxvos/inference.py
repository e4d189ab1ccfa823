"""A system over a video: by `lax.scan` for a clip in memory, frame by frame for a stream of any length."""

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8

from jaxvos.data import FlowFrame, FlowProvider, LastFrame, Video, flow_provider, open_video, with_flow
from jaxvos.errors import InputError
from jaxvos.models import Model, load_model
from jaxvos.system import Frame, Memory, Prediction, System
from jaxvos.typing import Variables

__all__ = ["SegmentedFrame", "fold", "fold_clip", "jitted_predict", "segment", "stream"]


class SegmentedFrame(NamedTuple):
    """One frame of a stream, on the host."""

    name: str
    image: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w"]  # object ids, 0 is the background
    foreground: Float32[np.ndarray, "h w"]  # probability of any object
    flow_seconds: float
    model_seconds: float  # of the first frame, this includes compilation


def jitted_predict(system: System) -> Callable:
    """Returns `jax.jit(system.predict)`, the same one each time, so that a second video of a size compiles nothing."""
    return _jitted(system.predict)


@functools.lru_cache(maxsize=16)
def _jitted(predict: Callable) -> Callable:
    return jax.jit(predict)


def fold(
    system: System, variables: Variables, frames: Iterable[Frame], *, masks: Any = None
) -> Iterator[tuple[Memory, Prediction]]:
    """Runs `system.predict` frame by frame, one compilation for each size of frame.

    Args:
      system: the system.
      variables: its parameters.
      frames: any number of frames, taken one at a time.
      masks: of the first frame, for systems that are told what to follow.

    Yields:
      the memory after each frame, and its prediction.
    """
    memory = None
    for index, frame in enumerate(frames):
        if index == 0:
            memory = system.start(variables, frame, masks)
        memory, prediction = jitted_predict(system)(variables, memory, frame)
        yield memory, prediction


def fold_clip(system: System, variables: Variables, frames: Frame, *, masks: Any = None) -> tuple[Memory, Prediction]:
    """Runs `system.predict` over frames stacked along a leading time axis, as one differentiable `lax.scan`.

    Returns:
      the last memory, and the predictions stacked as the frames are. Equal to what `fold` yields.
    """
    memory = system.start(variables, jax.tree.map(lambda x: x[0], frames), masks)
    return jax.lax.scan(functools.partial(system.predict, variables), memory, frames)


def stream(
    video: Video | str | Path | np.ndarray | Iterable[np.ndarray],
    *,
    model: Model | str | Path | None = None,
    flow: str | Path | FlowProvider = "dis",
    threshold: float = 0.5,
    last_frame: LastFrame = "reuse",
) -> Iterator[SegmentedFrame]:
    """Segments a video frame by frame; memory does not grow with its length.

    Args:
      video: a file, a folder of frames, a glob, an array `(t, h, w, 3)`, or an iterator of frames (a camera).
      model: as `load_model` takes it; the embedded default if None.
      flow: `dis`, a folder of flow files, or a function of two frames.
      threshold: a pixel belongs to an object where the probability of any object reaches this.
      last_frame: what the last frame, which no frame follows, has for flow: `reuse`, `backward` or `skip`.

    Returns:
      An iterator of every frame with its mask, one frame behind the source (flow looks ahead).

    Raises:
      InputError: at once, if an argument is wrong, the video cannot be opened or has fewer than two frames; while
        iterating, if a later frame or its flow cannot be read.
    """
    if not 0 < threshold < 1:
        raise InputError(f"threshold {threshold}: give a probability between 0 and 1")
    if last_frame not in get_args(LastFrame):
        raise InputError(f"last_frame {last_frame!r}: give one of {', '.join(get_args(LastFrame))}")
    provider = flow_provider(flow)
    source = video if isinstance(video, Video) else open_video(video, minimum_frames=2)
    model = model if isinstance(model, Model) else load_model(model)
    return _stream(model, with_flow(source, provider, last_frame=last_frame), threshold)


def _stream(model: Model, frames: Iterable[FlowFrame], threshold: float) -> Iterator[SegmentedFrame]:
    predict, memory = jitted_predict(model.system), None
    for index, (name, image, flow, flow_seconds) in enumerate(frames):
        started = time.perf_counter()
        frame = Frame(jnp.asarray(image, jnp.float32) / 255, flow=jnp.asarray(flow))
        if index == 0:
            memory = model.system.start(model.variables, frame, None)
        memory, prediction = predict(model.variables, memory, frame)
        probabilities = np.asarray(prediction.masks)
        seconds = time.perf_counter() - started
        mask, foreground = _label(probabilities, threshold)
        yield SegmentedFrame(name, image, mask, foreground, flow_seconds, seconds)


def _label(
    probabilities: Float32[np.ndarray, "h w k"], threshold: float
) -> tuple[UInt8[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    foreground = 1 - probabilities[..., 0]
    ids = 1 + np.argmax(probabilities[..., 1:], axis=-1)
    return np.where(foreground >= threshold, ids, 0).astype(np.uint8), foreground


def segment(
    video: Video | str | Path | np.ndarray | Iterable[np.ndarray],
    *,
    model: Model | str | Path | None = None,
    flow: str | Path | FlowProvider = "dis",
    threshold: float = 0.5,
    last_frame: LastFrame = "reuse",
) -> UInt8[np.ndarray, "t h w"]:
    """Segments a whole video into object ids; arguments as for `stream`, which is the form for long videos."""
    frames = stream(video, model=model, flow=flow, threshold=threshold, last_frame=last_frame)
    return np.stack([frame.mask for frame in frames])
