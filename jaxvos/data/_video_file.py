"""Video files by PyAV, streamed: one decoded frame in memory, and no silence about a file that ends too early."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxvos.errors import InputError

__all__ = ["VideoFacts", "decode_video", "probe_video"]


class VideoFacts(NamedTuple):
    """What the header and the first frame of a video file say."""

    size: tuple[int, int]  # height and width in pixels, upright
    fps: float  # average frames per second
    length: int | None  # number of frames as far as the container declares it


def probe_video(path: Path) -> VideoFacts:
    """Reads the header and the first frame of a video file.

    Args:
        path: a file in any container and codec that FFmpeg decodes.

    Returns:
        The size, the frame rate and the declared number of frames.

    Raises:
        InputError: if the file is not a video, is a single image, or holds no frames that can be decoded.
    """
    with _opened(path) as container:
        stream = _video_stream(container, path)
        rate = float(stream.average_rate or stream.guessed_rate or 24)
        seconds = _declared_seconds(container, stream)
        length = stream.frames or round(seconds * rate) or None
        if container.format.name == "avi" and seconds:  # declares pictures that are only the last one once more
            length = sum(packet.size > 0 for packet in container.demux(stream))
            rate = length / seconds if length < 0.9 * stream.frames else rate
    first = next(decode_video(path), None)
    if first is None:
        raise InputError(f"video {path} holds no frames: record or copy it again")
    return VideoFacts(first.shape[:2], rate, length)


def decode_video(path: Path) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yields the frames of a video file as RGB, upright as its display matrix says, one at a time.

    Args:
        path: a file in any container and codec that FFmpeg decodes.

    Yields:
        RGB values 0..255.

    Raises:
        InputError: if a frame cannot be decoded or, after the last frame, if the file ended earlier than it declares.
    """
    from av.error import FFmpegError

    with _opened(path) as container:
        stream = _video_stream(container, path)
        stream.thread_type = "AUTO"
        count, seconds, cut_short = 0, 0.0, False
        try:
            for packet in container.demux(stream):
                cut_short = packet.is_corrupt if packet.size else cut_short  # the empty packet flushes the decoder
                for frame in packet.decode():
                    seconds = max(seconds, _end_of(frame, stream))
                    count += 1
                    yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
        except FFmpegError as error:
            raise InputError(f"video {path} cannot be decoded after frame {count} ({error.strerror}): "
                             "it is damaged or cut short; copy it again or re-encode it") from error
        expected = _declared_seconds(container, stream)
        margin = max(2.5 / float(stream.average_rate or 24), 0.02 * expected)
        if cut_short or seconds < expected - margin:
            raise InputError(f"video {path} ends early: {seconds:.2f} s of {max(expected, seconds):.2f} s could be "
                             f"decoded ({count} frames); the file is cut short, copy it again or re-encode it")


def _opened(path: Path) -> Any:
    """Opens a container whose content is a video rather than text or one image."""
    import av
    from av.error import FFmpegError

    if path.stat().st_size == 0:
        raise InputError(f"video {path} is empty (0 bytes): record or copy it again")
    try:
        container = av.open(str(path))
    except (FFmpegError, IndexError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} is not a video or is cut short ({reason}): give an mp4, avi, mkv or mov file, "
                         "or a folder of frames") from error
    name = container.format.name
    if name in ("tty", "image2") or name.endswith("_pipe"):
        container.close()
        what = "text" if name == "tty" else "one image"
        raise InputError(f"{path} is {what}, not a video: give a folder of frames or a video file")
    return container


def _video_stream(container: Any, path: Path) -> Any:
    """Returns the first stream that is moving pictures (not the cover of a song)."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise InputError(f"{path} has no pictures in it (sound only?), or is cut short: give a video file")


def _declared_seconds(container: Any, stream: Any) -> float:
    """Returns for how long the container says this stream plays, 0 where it does not say.

    Matroska has a tag; AVI has a number of frames (its duration is guessed from what is left of a cut file); of MP4 the
    duration is used, since the number of frames still counts those that an edit list has taken out.
    """
    if tag := stream.metadata.get("DURATION"):
        hours, minutes, seconds = (float(Fraction(part)) for part in tag.split(":"))
        return 3600 * hours + 60 * minutes + seconds
    if container.format.name == "avi":
        return float(stream.frames / stream.average_rate) if stream.average_rate else 0.0
    if "mp4" in container.format.name and stream.duration:
        return float(stream.duration * stream.time_base)
    return 0.0


def _end_of(frame: Any, stream: Any) -> float:
    """Returns the time in seconds, from the start of the stream, at which a frame stops being shown."""
    if frame.pts is None:
        return 0.0
    duration = frame.duration or 0
    return float((frame.pts + duration - (stream.start_time or 0)) * (frame.time_base or stream.time_base))
