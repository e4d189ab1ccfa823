"""What a segmented video leaves on disk: masks, an overlay video, a contact sheet and the numbers of the run."""

import contextlib
import glob
import json
import os
import shutil
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from PIL import Image
from tqdm import tqdm

from jaxvos.data import Video, VideoProposals, write_mask
from jaxvos.drawing import VideoWriter, contact_sheet, evenly_spaced, overlay, write_image
from jaxvos.errors import InputError
from jaxvos.files import atomic_path
from jaxvos.inference import SegmentedFrame
from jaxvos.ops import paste_masks

__all__ = ["RESULTS", "Speed", "check_apart", "check_output", "output_folder", "proposal_sheet", "write_results"]

RESULTS = ("masks", "overlay.mp4", "contact_sheet.png", "results.json")
"""What `write_results` makes in a folder; the last one tells that the others are ours."""

_TILES, _TILE_SIDE = 12, 640


class Speed(NamedTuple):
    """Frames per second of a finished video, by what is counted; None where there was only one frame to time."""

    everything: float  # reading, flow, compilation, model, drawing and writing
    steady: float | None  # flow, proposals and model; the first frame, which compiles, is left out here and below
    model: float | None  # the model alone


def check_output(folder: Path, *, overwrite: bool, entries: Sequence[str] = RESULTS) -> None:
    """Checks that results may go to a folder: it is new, empty or, with `overwrite`, holds nothing else of those names.

    Args:
      folder: where results shall go.
      overwrite: earlier results may be replaced.
      entries: what will be written there.

    Raises:
      InputError: it is a file, it is not empty, or what would be replaced was not written by jaxvos.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder for the results")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise InputError(f"{folder} is not empty: choose another folder or add --overwrite")
    there = [name for name in entries if (folder / name).exists()]
    if there and not (folder / RESULTS[-1]).is_file():
        raise InputError(f"{folder / there[0]} would be replaced, but is not of an earlier run (no {RESULTS[-1]} "
                         "beside it): choose another folder")  # fmt: skip


def check_apart(folder: Path, source: str | Path) -> None:
    """Refuses to write results among the frames that they are made from, or over them.

    Args:
      folder: where results shall go.
      source: a video file, a folder or a pattern.

    Raises:
      InputError: `folder` is the folder of the frames or lies in it, or `source` is one of the results in `folder`.
    """
    place, output = Path(source).expanduser(), folder.resolve()
    places = {place} if place.exists() else {Path(match).parent for match in glob.iglob(str(place), recursive=True)}
    for path in (place.resolve() for place in places):
        if path.is_dir() and output.is_relative_to(path):
            raise InputError(f"{folder} is or lies in {path}, the folder of the input: results would mix with frames; "
                             "choose a folder elsewhere")  # fmt: skip
        if any(path.is_relative_to(output / name) for name in RESULTS):
            raise InputError(f"{source} would be replaced by its own results in {folder}: choose another folder")


@contextlib.contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """Gives a hidden folder to fill, whose entries appear in `folder` when the block ends well, and never otherwise.

    A new folder appears whole. Of one that exists, files of the same name are replaced; in a folder of the same name
    those of the same kind are (all earlier masks, not a note beside them); all others stay.

    Raises:
      InputError: if the operating system refuses.
    """
    target = folder.resolve()
    exists = target.is_dir()
    missing = [parent for parent in target.parents if not parent.exists()]
    partial = (target if exists else target.parent) / f".{target.name}.{os.getpid()}.partial"
    try:
        partial.mkdir(parents=True)
        yield partial
        if exists:
            for entry in sorted(partial.iterdir()):
                _replace(entry, target / entry.name)
        else:
            partial.rename(target)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot write to {folder}: {reason}; choose another place or make room there") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):  # a parent that is not empty stays, and so do those above it
            for parent in missing:
                parent.rmdir()


def _replace(new: Path, old: Path) -> None:
    if not (new.is_dir() and old.is_dir()):
        os.replace(new, old)
        return
    kinds = {path.suffix for path in new.iterdir()}
    for path in old.iterdir():
        if path.suffix in kinds and path.is_file():
            path.unlink()
    for path in new.iterdir():
        os.replace(path, old / path.name)


def write_results(
    frames: Iterable[SegmentedFrame],
    folder: Path,
    *,
    fps: float,
    length: int | None,
    story: Mapping[str, Any],
    title: str = "segmenting",
) -> dict[str, Any]:
    """Writes the results of a stream into an existing folder, one frame in memory at a time.

    Where standard error is a terminal, a bar shows the progress.

    Args:
      frames: from `jaxvos.inference.stream`.
      folder: gets `masks/NAME.png` (indexed, DAVIS palette), `overlay.mp4`, `contact_sheet.png`, `results.json`.
      fps: of the overlay video.
      length: number of frames if known, for the bar.
      story: what else `results.json` says: versions, device, model, input.
      title: what stands before the bar.

    Returns:
      What `results.json` holds.
    """
    (folder / "masks").mkdir()
    sheet, input_seconds, model_seconds, covered = _Sheet(), [], [], []
    adapt_seconds = 0.0
    size: tuple[int, ...] = (0, 0)
    started = time.perf_counter()
    with (
        VideoWriter(folder / "overlay.mp4", fps=fps) as video,
        tqdm(frames, total=length, unit="frame", disable=None, leave=False, desc=title) as bar,
    ):
        for frame in bar:
            size = frame.mask.shape
            drawn = overlay(frame.image, frame.mask)
            write_mask(folder / "masks" / f"{frame.name}.png", frame.mask)
            video.write(drawn)
            sheet.add(frame.name, drawn)
            input_seconds.append(frame.flow_seconds + frame.proposal_seconds)
            adapt_seconds += frame.adapt_seconds
            model_seconds.append(frame.model_seconds)
            covered.append(float(np.mean(frame.mask > 0)))
    write_image(folder / "contact_sheet.png", sheet.draw())
    speed = _speed(input_seconds, model_seconds, time.perf_counter() - started)
    report = {
        **story,
        "frames": len(covered),
        "size": list(size),
        "frames_per_second": speed._asdict(),
        "compile_seconds": _compile_seconds(model_seconds),
        "online_seconds": adapt_seconds,
        "foreground_share": {"mean": statistics.fmean(covered), "empty_frames": sum(c == 0 for c in covered)},
    }
    with atomic_path(folder / RESULTS[-1]) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def proposal_sheet(video: Video, proposals: VideoProposals, *, best: int = 10) -> UInt8[np.ndarray, "h w 3"]:
    """Draws the best proposals of some frames, the better over the worse, each in a colour of its own.

    Args:
      video: the frames.
      proposals: of these frames.
      best: how many of a frame.
    """
    sheet = _Sheet()
    for index, (name, image) in enumerate(video.items()):
        found = proposals.frame(index)
        masks, boxes = (jnp.asarray(field[:best]) for field in (found.masks, found.boxes))
        drawn = np.asarray(paste_masks(masks, boxes, proposals.size)) > 0.5
        labels = np.zeros(proposals.size, np.uint8)
        for place in reversed(np.flatnonzero(found.valid[:best])):
            labels[drawn[place]] = place + 1
        sheet.add(name, overlay(image, labels))
    return sheet.draw()


def _speed(input_seconds: list[float], model_seconds: list[float], elapsed: float) -> Speed:
    count, inputs, model = len(model_seconds), sum(input_seconds[1:]), sum(model_seconds[1:])
    if count == 1:
        return Speed(count / elapsed, None, None)
    return Speed(count / elapsed, (count - 1) / (inputs + model), (count - 1) / model)


def _compile_seconds(model_seconds: list[float]) -> float | None:
    """What the first frame took beyond the others: 0 where the model was compiled for this size already."""
    if len(model_seconds) == 1:
        return None
    return max(model_seconds[0] - statistics.median(model_seconds[1:]), 0.0)


class _Sheet:
    """Keeps evenly spaced frames of a video of unknown length, made small: every 2^j-th, thinned as they get many."""

    def __init__(self):
        self._kept: list[tuple[str, UInt8[np.ndarray, "h w 3"]]] = []
        self._stride, self._seen = 1, 0

    def add(self, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        if self._seen % self._stride == 0:
            small = Image.fromarray(image)
            small.thumbnail((_TILE_SIDE, _TILE_SIDE), Image.Resampling.BOX)
            self._kept.append((name, np.asarray(small)))
            if len(self._kept) == 2 * _TILES:
                self._kept, self._stride = self._kept[::2], 2 * self._stride
        self._seen += 1

    def draw(self) -> UInt8[np.ndarray, "h w 3"]:
        names, images = zip(*(self._kept[i] for i in evenly_spaced(len(self._kept), _TILES)), strict=True)
        return contact_sheet(images, columns=4, labels=names)
