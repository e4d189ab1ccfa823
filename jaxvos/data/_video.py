"""One door for anything that is a video: a file, a folder of frames, a pattern, an array, an iterator."""

import glob
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, UInt8

from jaxvos.data._images import IMAGE_SUFFIXES, check_images, list_images, natural_order, read_image
from jaxvos.data._video_file import decode_video, probe_video
from jaxvos.errors import InputError

__all__ = ["Video", "open_video", "video_of_images"]

_DEFAULT_FPS = 24.0  # of DAVIS; used where the source has no clock
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".gif", ".ts", ".wmv"})


@dataclass(frozen=True, eq=False)
class Video:
    """A video that is read while it is iterated over, one frame in memory at a time.

    Iterating yields RGB frames `UInt8[np.ndarray, "h w 3"]`, all of the same size, and starts from the beginning each
    time; a video made from an iterator can be read once. Errors of later frames (`InputError`) come when they are read.
    """

    name: str  # of the file, the folder or what was given
    size: tuple[int, int]  # height and width in pixels
    fps: float  # frames per second; 24 where the source does not say
    length: int | None  # number of frames; None for a live source. For video files it is what the container declares
    read: Callable[[], Iterator[np.ndarray]] = field(repr=False)  # starts one reading of the frames
    stems: tuple[str, ...] | None = None  # names of the frames where they are files

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        for index, frame in enumerate(self.read()):
            if frame.shape != (*self.size, 3):
                raise InputError(f"frame {self.frame_name(index)} of {self.name} is {frame.shape[1]}x{frame.shape[0]} "
                                 f"but the first is {self.size[1]}x{self.size[0]} (width x height): all frames of a "
                                 "video must have one size")
            yield frame

    def frame_name(self, index: int) -> str:
        """Returns the name of a frame: the stem of its file, or its number in five digits, from 00000."""
        return f"{index:05d}" if self.stems is None else self.stems[index]

    @property
    def names(self) -> Iterator[str]:
        """The names of the frames in order; without an end where the frames are not files: zip them with the video."""
        return (f"{i:05d}" for i in itertools.count()) if self.stems is None else iter(self.stems)

    def items(self) -> Iterator[tuple[str, UInt8[np.ndarray, "h w 3"]]]:
        """Yields each frame with its name."""
        return zip(self.names, self, strict=False)


def open_video(source: str | Path | np.ndarray | Array | Iterable[np.ndarray | Array], *,
               fps: float | int | None = None, name: str | None = None, minimum_frames: int = 1) -> Video:
    """Opens anything that is a video; frames are decoded later, while they are iterated over.

    Args:
        source: a video file (mp4, avi, mkv, mov, ...); a folder of images, in natural order; a glob pattern of images;
            an array `(t, h, w, 3)`, uint8 or float in [0, 1]; or an iterable of such frames, which may be live.
            Grey frames are made RGB and alpha is dropped. Files are turned upright as their metadata say.
        fps: frames per second; what the file says (else 24) where it is None.
        name: what to call the video; the name of the file or folder where it is None.
        minimum_frames: how many frames there must be. They are looked for now, before anything is done with the video.

    Returns:
        The video, of which the first frame is known to be readable.

    Raises:
        InputError: if there is no such file, it is not a video, it has no frames or fewer than `minimum_frames`, or
            frames differ in size; while iterating, also for damaged, truncated or differing frames.
    """
    if fps is not None and not (0 < fps < float("inf")):
        raise InputError(f"{fps} frames per second is not a frame rate: give a positive number")
    fps = None if fps is None else float(fps)
    if isinstance(source, str | Path):
        video = _from_path(Path(source).expanduser(), fps, name)
        if minimum_frames > 1:
            found = len(video.stems) if video.stems else sum(1 for _ in itertools.islice(video, minimum_frames))
            _check_count(found, minimum_frames, video.name)
    else:
        video = _from_arrays(source, fps or _DEFAULT_FPS, name, minimum_frames)
    return video


def video_of_images(paths: Sequence[Path], *, name: str, fps: float = _DEFAULT_FPS) -> Video:
    """Makes a video of image files in the order given.

    Args:
        paths: one image file per frame.
        name: what to call the video.
        fps: frames per second.

    Raises:
        InputError: if there are no files, the first cannot be read, sizes differ or two have the same name.
    """
    if not paths:
        raise InputError(f"no frames in {name}: give a folder of jpg or png images")
    size = check_images(paths)
    read_image(paths[0])
    return Video(name, size, fps, len(paths), lambda: map(read_image, paths), tuple(path.stem for path in paths))


def _from_path(path: Path, fps: float | None, name: str | None) -> Video:
    if path.is_dir():
        images = list_images(path)
        if not images:
            raise InputError(f"no jpg or png frames in the folder {path}{_what_else(path)}")
        return video_of_images(images, name=name or path.resolve().name, fps=fps or _DEFAULT_FPS)
    if path.exists():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            raise InputError(f"{path} is one image, not a video: give a folder of frames or a video file")
        facts = probe_video(path)
        return Video(name or path.stem, facts.size, fps or facts.fps, facts.length, lambda: decode_video(path))
    if not glob.has_magic(str(path)):
        raise InputError(f"there is no video or folder {path}: check the path")
    matches = sorted((Path(match) for match in glob.glob(str(path), recursive=True)), key=natural_order)
    images = [match for match in matches if match.suffix.lower() in IMAGE_SUFFIXES and match.is_file()]
    if not images:
        raise InputError(f"the pattern '{path}' matches no jpg or png frames ({len(matches)} other files): "
                         "give one such as 'folder/*.jpg'")
    return video_of_images(images, name=name or images[0].resolve().parent.name, fps=fps or _DEFAULT_FPS)


def _what_else(folder: Path) -> str:
    """Says what a folder without frames holds instead, and so what to give."""
    inside = sorted(folder.iterdir(), key=natural_order)
    videos = [path.name for path in inside if path.suffix.lower() in VIDEO_SUFFIXES]
    folders = [path.name for path in inside if path.is_dir()]
    for kind, found in (("video files", videos), ("folders", folders)):
        if found:
            return f", only {kind} ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''}): give one of them"
    return ": give a folder of images or a video file"


def _from_arrays(source: Any, fps: float, name: str | None, minimum: int) -> Video:
    if hasattr(source, "__array__"):
        array = np.asarray(source)
        name = name or "array"
        if array.ndim != 4 or array.shape[-1] not in (1, 3, 4):
            raise InputError(f"{name} has shape {array.shape}, not (frames, height, width, 3): "
                             "stack the frames along a new first axis")
        source = array
    name = name or "frames"
    again = iter(source) is not source  # an iterator is its own iterator: what it gave is gone
    frames = iter(source)
    head = [_as_frame(frame, i, name) for i, frame in enumerate(itertools.islice(frames, max(1, minimum)))]
    _check_count(len(head), max(1, minimum), name)
    read = _over_and_over(source, name) if again else _once(head, frames, name)
    return Video(name, head[0].shape[:2], fps, len(source) if isinstance(source, Sized) else None, read)


def _over_and_over(source: Iterable[Any], name: str) -> Callable[[], Iterator[np.ndarray]]:
    """Makes the reading of an array or list, from its beginning each time."""
    return lambda: (_as_frame(frame, index, name) for index, frame in enumerate(source))


def _once(head: list[np.ndarray], rest: Iterator[np.ndarray], name: str) -> Callable[[], Iterator[np.ndarray]]:
    """Makes the reading of an iterator, some frames of which were looked at already; a second reading is an error."""

    def read() -> Iterator[np.ndarray]:
        if not head:
            raise InputError(f"{name} came from an iterator, which can be read once: "
                             "give a file, a folder or an array to read it again")
        first = tuple(head)
        head.clear()
        yield from first
        for index, frame in enumerate(rest, len(first)):
            yield _as_frame(frame, index, name)

    return read


def _as_frame(frame: Any, index: int, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Makes RGB, uint8, of one array; copies only what needs another form."""
    frame = np.asarray(frame)
    if frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[-1] not in (1, 3, 4)) or not frame.size:
        raise InputError(f"frame {index} of {name} has shape {frame.shape}, not (height, width, 3)")
    if np.issubdtype(frame.dtype, np.floating):
        if not (frame.min() >= 0 and frame.max() <= 1):  # also false for NaN
            raise InputError(f"frame {index} of {name} has values from {frame.min():g} to {frame.max():g}: "
                             "give floats in [0, 1], or uint8")
        frame = np.rint(frame.astype(np.float32) * 255).astype(np.uint8)
    elif frame.dtype != np.uint8:
        raise InputError(f"frame {index} of {name} is of type {frame.dtype}: give uint8, or floats in [0, 1]")
    grey = frame.ndim == 2 or frame.shape[-1] == 1
    return np.repeat(frame.reshape(*frame.shape[:2], 1), 3, axis=-1) if grey else frame[..., :3]


def _check_count(found: int, minimum: int, name: str) -> None:
    if found == 0:
        raise InputError(f"{name} holds no frames: give a video with at least {minimum}")
    if found < minimum:
        why = "one frame has no motion: " if found == 1 else ""
        raise InputError(f"{why}{name} has {found} frame{'s' if found > 1 else ''}, at least {minimum} are needed: "
                         "give a longer video")
