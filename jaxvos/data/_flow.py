"""Where optical flow comes from: computed by DIS, read from a folder, or any function of two frames."""

import inspect
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from jaxvos.data._flow_files import FLOW_SUFFIXES, read_flow
from jaxvos.data._video import Video
from jaxvos.errors import InputError

__all__ = ["FlowFrame", "FlowProvider", "LastFrame", "dis_flow", "flow_from_folder", "flow_provider", "with_flow"]

LastFrame = Literal["reuse", "backward", "skip"]
_DIS_MINIMUM = 32  # pixels


@runtime_checkable
class FlowProvider(Protocol):
    """Gives the flow from a frame to the next: `(dx, dy)` in pixels of these frames, every vector finite.

    `name` is that of `image`; providers that compute need not look at it.
    """

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], next_image: UInt8[np.ndarray, "h w 3"], *, name: str
                 ) -> Float32[np.ndarray, "h w 2"]: ...


class FlowFrame(NamedTuple):
    """One frame with its flow."""

    name: str
    image: UInt8[np.ndarray, "h w 3"]
    flow: Float32[np.ndarray, "h w 2"]  # from this frame to the next, pixels
    seconds: float  # what computing or reading this flow took; 0 where it was taken over from the frame before


def dis_flow(*, preset: Literal["ultrafast", "fast", "medium"] = "medium") -> FlowProvider:
    """Makes a provider that computes flow on the CPU by dense inverse search, on grey values, with OpenCV.

    Args:
        preset: OpenCV's trade between speed and precision.

    Returns:
        The provider. Frames with a side below 32 pixels are extended to 32 by their border: OpenCV refuses some of
        them, and crashes on others (12x100 for one, OpenCV 5.0).

    Source: Kroeger et al., "Fast Optical Flow using Dense Inverse Search" (ECCV 2016); `cv2.DISOpticalFlow`.
    """
    import cv2

    presets = {"ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST, "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
               "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM}
    search = cv2.DISOpticalFlow.create(presets[preset])

    def compute(image: UInt8[np.ndarray, "h w 3"], next_image: UInt8[np.ndarray, "h w 3"], *, name: str
                ) -> Float32[np.ndarray, "h w 2"]:
        del name
        height, width = image.shape[:2]
        missing = ((0, max(0, _DIS_MINIMUM - height)), (0, max(0, _DIS_MINIMUM - width)))
        grey, next_grey = (np.pad(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), missing, mode="edge")
                           for frame in (image, next_image))
        initial: Any = None  # OpenCV takes None; its type stub does not say so
        return search.calc(grey, next_grey, initial)[:height, :width]

    return compute


def flow_from_folder(folder: str | Path) -> FlowProvider:
    """Makes a provider that reads precomputed flow, `<name of the frame>.flo`, `.pfm` or `.png` (KITTI), from a folder.

    Unknown vectors become 0. The last frame needs no file unless `with_flow` is asked for `backward`; that file then
    holds the flow to the frame before.

    Args:
        folder: the folder with one file per frame.

    Returns:
        The provider. It raises `InputError` where a file is missing, damaged or not of the size of the frame.

    Raises:
        InputError: if the folder does not exist or holds no flow files.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"there is no folder of flow {folder}: check the path, or compute flow with 'dis'")
    if not any(path.suffix.lower() in FLOW_SUFFIXES for path in folder.iterdir()):
        raise InputError(f"no .flo, .pfm or .png flow files in {folder}: name them as the frames, such as 00000.flo")

    def read(image: UInt8[np.ndarray, "h w 3"], next_image: UInt8[np.ndarray, "h w 3"], *, name: str
             ) -> Float32[np.ndarray, "h w 2"]:
        del next_image
        path = next((p for p in (folder / f"{name}{suffix}" for suffix in FLOW_SUFFIXES) if p.is_file()), None)
        if path is None:
            raise InputError(f"no flow for frame {name}: there is no {name}.flo, .pfm or .png in {folder}")
        flow, valid = read_flow(path)
        if flow.shape[:2] != image.shape[:2]:
            raise InputError(f"flow {path} is {flow.shape[1]}x{flow.shape[0]} but its frame is {image.shape[1]}x"
                             f"{image.shape[0]} (width x height): compute it at the size of the frames")
        return np.where(valid[..., None], flow, np.float32(0))

    return read


def flow_provider(spec: str | Path | Callable[..., Any]) -> FlowProvider:
    """Makes a provider of whatever names one.

    Args:
        spec: `"dis"`; a folder of flow files; or a function of two RGB uint8 frames `(h, w, 3)`, which may also have a
            parameter called `name`, that returns `(h, w, 2)`.

    Returns:
        The provider; what a function returns is made float32 and its shape and finiteness are checked.

    Raises:
        InputError: if it names no provider.
    """
    if callable(spec):
        return _checked(spec)
    if str(spec) == "dis":
        return dis_flow()
    if not Path(spec).expanduser().is_dir():
        raise InputError(f"'{spec}' is neither 'dis' nor a folder of flow files: give one of them")
    return flow_from_folder(spec)


def with_flow(video: Video, provider: FlowProvider, *, last_frame: LastFrame = "reuse") -> Iterator[FlowFrame]:
    """Yields the frames of a video with the flow to the next, holding two frames in memory.

    Args:
        video: at least two frames.
        provider: computes or reads the flow.
        last_frame: the last frame has no next one. `reuse` gives it the flow of the frame before; `backward` takes the
            flow from it to the frame before, negated; `skip` leaves it out (as MATNet does: DAVIS does not score it).

    Yields:
        Name, image, flow and the seconds spent on the flow.

    Raises:
        InputError: if there are fewer than two frames, or as the video and the provider do.
    """
    previous = current = None
    for following in video.items():
        if current is not None:
            name, image = current
            previous = _timed(provider, image, following[1], name, sign=1)
            yield previous
        current = following
    if previous is None or current is None:
        raise InputError(f"one frame has no motion: {video.name} has fewer than 2 frames; give a longer video")
    name, image = current
    if last_frame == "backward":
        yield _timed(provider, image, previous.image, name, sign=-1)
    elif last_frame == "reuse":
        yield FlowFrame(name, image, previous.flow, 0.0)


def _timed(provider: FlowProvider, image: np.ndarray, other: np.ndarray, name: str, *, sign: int) -> FlowFrame:
    start = time.perf_counter()
    flow = provider(image, other, name=name)
    return FlowFrame(name, image, flow if sign > 0 else -flow, time.perf_counter() - start)


def _checked(function: Callable[..., Any]) -> FlowProvider:
    """Makes a provider of a user's function: the name is passed only if it is asked for, and the result is checked."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # built-in functions have no signature
        parameters = ()
    takes_name = any(p.name == "name" or p.kind is p.VAR_KEYWORD for p in parameters)

    def provide(image: UInt8[np.ndarray, "h w 3"], next_image: UInt8[np.ndarray, "h w 3"], *, name: str
                ) -> Float32[np.ndarray, "h w 2"]:
        flow = np.asarray(function(image, next_image, name=name) if takes_name else function(image, next_image))
        if flow.shape != (*image.shape[:2], 2):
            raise InputError(f"the flow function returned shape {flow.shape} for frame {name} of shape {image.shape}: "
                             "it must return (height, width, 2), dx and dy in pixels")
        if not np.isfinite(flow).all():
            raise InputError(f"the flow function returned values that are not finite for frame {name}: "
                             "replace unknown vectors by 0")
        return flow.astype(np.float32)

    return provide
