"""Videos without annotation as training data: held in memory, cut into clips, perhaps with labels that a net made."""

import dataclasses
import glob
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from tqdm import tqdm

from jaxvos.data._augment import Augmentation
from jaxvos.data._batches import Batches
from jaxvos.data._clips import ClipConfig
from jaxvos.data._davis import find_sequences
from jaxvos.data._images import list_images
from jaxvos.data._loader import clip_batches
from jaxvos.data._video import VIDEO_SUFFIXES, open_video, video_of_images
from jaxvos.errors import InputError

__all__ = ["UnlabelledVideo", "VideoFolder", "read_videos", "unlabelled_batches"]

_SMALLEST_OBJECT = 0.01  # share of the first frame of a clip


@dataclasses.dataclass(frozen=True, eq=False)
class UnlabelledVideo:
    """A video in memory, a `ClipSource`; every frame counts as annotated, with nothing but background at first."""

    name: str
    frames: UInt8[np.ndarray, "t h w 3"] = dataclasses.field(repr=False)
    labels: UInt8[np.ndarray, "t y x"] | None = dataclasses.field(default=None, repr=False)  # ids, 0 for background

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def annotated(self) -> tuple[int, ...]:
        """All frames."""
        return tuple(range(len(self)))

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """Returns a frame."""
        return self.frames[index]

    def mask(self, index: int) -> UInt8[np.ndarray, "h w"]:
        """Returns the labels of a frame at its size: of each pixel the id that has most of it, by linear weights."""
        import cv2

        height, width = self.frames.shape[1:3]
        mask = np.zeros((height, width), np.uint8)
        if self.labels is None:
            return mask
        most = np.zeros((height, width), np.float32)
        for number in np.unique(self.labels[index]):
            own = (self.labels[index] == number).astype(np.float32)
            weight = cv2.resize(own, (width, height), interpolation=cv2.INTER_LINEAR)
            mask[weight > most] = number
            most = np.maximum(weight, most)
        return mask

    def flow(self, index: int) -> Float32[np.ndarray, "h w 2"]:
        """There is none: clips of such videos are made without."""
        raise ValueError(f"{self.name} has no flow: leave `flow` out of the clips")

    def with_labels(self, labels: UInt8[np.ndarray, "t y x"] | None) -> "UnlabelledVideo":
        """Returns the same frames with other labels: ids at any size, 0 for background; a number of frames as here."""
        if labels is not None and len(labels) != len(self):
            raise ValueError(f"{len(labels)} frames of labels for the {len(self)} of {self.name}")
        return dataclasses.replace(self, labels=labels)


class VideoFolder(NamedTuple):
    """What `read_videos` found."""

    videos: list[UnlabelledVideo]
    skipped: dict[str, str]  # why a video of this name is not among them


def read_videos(
    source: str | Path,
    *,
    short_side: int = 256,
    stride: int = 1,
    max_frames: int = 200,
    minimum: int = 3,
    names: Collection[str] | None = None,
    exclude: Collection[str] = (),
    progress: bool = True,
) -> VideoFolder:
    """Reads videos into memory: 0.35 MB for each frame of 256 x 455.

    A video that cannot be read to its end is skipped as a whole, and so is one with too few frames.

    Args:
        source: a video file, a folder or a pattern of frames, or a folder of videos: DAVIS' `JPEGImages/480p`, say.
        short_side: shortest side of a frame; larger frames are averaged down to it, smaller ones stay as they are.
        stride: keep every such frame.
        max_frames: keep at most so many frames of a video; of longer ones, with a larger stride to see all of it.
        minimum: skip videos of which fewer frames are kept.
        names: which videos, by the names of their files (without suffix) or folders; all if None.
        exclude: videos to leave out; they need not exist.
        progress: show a bar where standard error is a terminal.

    Returns:
        The videos in the order of their names, and the reason for each that was skipped.

    Raises:
        InputError: there is no such file or folder, or no video in it, or none that can be read; or a name is unknown.
    """
    if min(short_side, stride, minimum) < 1 or max_frames < minimum:
        raise InputError(f"short_side {short_side}, stride {stride}, {minimum} to {max_frames} frames: want numbers "
                         "from 1 on, and max_frames no less than minimum")  # fmt: skip
    found = _find_videos(Path(source).expanduser())
    unknown = sorted(set(names or ()) - set(found))
    if unknown:
        raise InputError(f"there is no video {', '.join(unknown[:3])} in {source}: it has {', '.join([*found][:5])}"
                         f"{', ...' if len(found) > 5 else ''}")  # fmt: skip
    chosen = [name for name in found if (names is None or name in names) and name not in exclude]
    if not chosen:
        raise InputError(f"none of the videos in {source} is left ({', '.join([*found][:5])}): exclude fewer")
    videos, skipped = [], {}
    for name in tqdm(chosen, unit="video", desc="reading", disable=None if progress else True):
        try:
            frames = _read_frames(found[name], short_side=short_side, stride=stride, max_frames=max_frames)
        except (InputError, OSError) as error:
            skipped[name] = str(error)
            continue
        if len(frames) < minimum:
            skipped[name] = f"fewer than {minimum} frames at a stride of {stride}: {len(frames)}"
            continue
        videos.append(UnlabelledVideo(name, np.stack(frames)))
    if not videos:
        name, reason = next(iter(skipped.items()))
        raise InputError(f"no video of {source} can be used, {len(skipped)} skipped; the first, {name}: {reason}")
    return VideoFolder(videos, skipped)


def _find_videos(source: Path) -> dict[str, Path]:
    """Finds what is a video, by name; of files that share their name with another, by the name with its suffix."""
    if not source.exists():
        if glob.has_magic(str(source)):
            return {source.parent.name: source}
        raise InputError(f"there is no video or folder {source}: check the path")
    if source.is_file() or list_images(source):
        return {source.stem if source.is_file() else source.resolve().name: source}
    found = find_sequences(source) or {}
    files = [path for path in sorted(source.iterdir()) if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()]
    files = [path for path in files if not path.name.startswith(".")]
    taken = [*found, *(path.stem for path in files)]
    found |= {path.name if taken.count(path.stem) > 1 else path.stem: path for path in files}
    if not found:
        raise InputError(f"there is no video in {source}: give a video file (mp4, avi, mkv, ...), a folder of jpg or "
                         "png frames, or a folder of such files or folders")  # fmt: skip
    return {name: found[name] for name in sorted(found)}


def _read_frames(path: Path, *, short_side: int, stride: int, max_frames: int) -> list[np.ndarray]:
    """Reads frames at an even stride; it doubles whenever a file goes on for longer than it says."""
    if path.is_dir():
        images = list_images(path)
        kept = images[:: max(stride, -(-len(images) // max_frames))]
        return [_shrunk(frame, short_side) for frame in video_of_images(kept, name=path.name)]
    video = open_video(path)
    stride = max(stride, -(-(video.length or 0) // max_frames))
    frames = []
    for index, frame in enumerate(video):
        if index % stride:
            continue
        if len(frames) == max_frames:
            frames, stride = frames[::2], 2 * stride
        if index % stride == 0:
            frames.append(_shrunk(frame, short_side))
    return frames


def _shrunk(frame: UInt8[np.ndarray, "h w 3"], short_side: int) -> UInt8[np.ndarray, "y x 3"]:
    import cv2

    height, width = frame.shape[:2]
    scale = short_side / min(height, width)
    if scale >= 1:
        return frame
    return cv2.resize(frame, (round(scale * width), round(scale * height)), interpolation=cv2.INTER_AREA)


def unlabelled_batches(
    videos: Sequence[UnlabelledVideo],
    *,
    size: tuple[int, int] = (256, 256),
    batch_size: int = 8,
    num_objects: int = 2,
    min_skip: int = 5,
    max_skip: int = 25,
    crop: tuple[float, float] = (0.8, 1.0),
    masks: bool,
    seed: int,
) -> Batches:
    """Makes batches of clips of three frames: two neighbours and a distant one, as often backwards, as often mirrored.

    With masks, up to `num_objects` of the labels that cover a hundredth of the first frame are given slots; a clip in
    which there is none has no slot that is alive but the background's.

    Args:
        videos: what they are clips of, one of each an epoch.
        size: height and width of their frames.
        batch_size: clips in a batch of all processes together.
        num_objects: slots for objects, besides that of the background.
        min_skip: smallest stride to the distant frame; as far as a video goes where that is less.
        max_skip: largest such stride; the default crosses a video of YouTube-VOS of the mean length.
        crop: side of a random window of the shape of `size`, relative to the largest in the frame.
        masks: give the labels; otherwise leave `masks` and `alive` out.
        seed: of the order, and of all that is random in the clips.

    Returns:
        A function from a step to the batches from there on, NumPy arrays, as `clip_batches`.

    Raises:
        InputError: no video has three frames, or as `ClipConfig` and `clip_batches`.

    Source: sections 3.2 and 3.3 of Li et al., "Unified Mask Embedding and Correspondence Learning for Self-Supervised
    Video Segmentation" (CVPR 2023), whose losses want both pairs; one clip here has them for all.
    """
    config = ClipConfig(num_frames=3, size=size, num_objects=num_objects, masks=masks, max_skip=((0, max_skip),),
                        min_skip=min_skip, adjacent="first", reverse=0.5, crop=crop, min_area=_SMALLEST_OBJECT,
                        augmentation=Augmentation(flip=0.5))  # fmt: skip
    return clip_batches(videos, config, batch_size=batch_size, seed=seed)
