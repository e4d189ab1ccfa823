"""What a segmented video leaves on disk: masks, an overlay video, a contact sheet and the numbers of the run."""

import contextlib
import json
import os
import shutil
import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from jaxvos.data import write_mask
from jaxvos.drawing import VideoWriter, contact_sheet, overlay, write_image
from jaxvos.errors import InputError
from jaxvos.inference import SegmentedFrame

__all__ = ["Speed", "check_output", "output_folder", "write_results"]

_TILES = 12


class Speed(NamedTuple):
    """Frames per second of a finished video, by what is counted."""

    everything: float  # reading, flow, model with its compilation, drawing and writing
    steady: float  # flow and model, without the first frame, which compiles
    model: float  # the model alone, without the first frame
    compile_seconds: float


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Raises InputError if the folder is a file, or holds anything and `overwrite` is not given."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the results")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise InputError(f"{folder} is not empty; choose another folder or add --overwrite")


@contextlib.contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """Gives a folder to fill beside `folder`; its entries move there when the block ends well, and vanish otherwise.

    Entries of `folder` of the same names are replaced, all others stay.
    """
    partial = folder.parent / f".{folder.name}.{os.getpid()}.partial"
    try:
        partial.mkdir(parents=True)
        yield partial
        folder.mkdir(parents=True, exist_ok=True)
        for entry in sorted(partial.iterdir()):
            target = folder / entry.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(entry, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_results(
    frames: Iterable[SegmentedFrame],
    folder: Path,
    *,
    fps: float,
    length: int | None,
    story: Mapping[str, Any],
    progress: bool = True,
) -> dict[str, Any]:
    """Writes the results of a stream into an existing folder, one frame in memory at a time.

    Args:
      frames: from `jaxvos.inference.stream`.
      folder: gets `masks/NAME.png` (indexed, DAVIS palette), `overlay.mp4`, `contact_sheet.png`, `results.json`.
      fps: of the overlay video.
      length: number of frames if known, for the progress bar.
      story: what else `results.json` says: versions, device, model, input.
      progress: show a bar.

    Returns:
      What `results.json` holds.
    """
    (folder / "masks").mkdir()
    sheet, flow_seconds, model_seconds, covered = _Sheet(), [], [], []
    size: tuple[int, ...] = (0, 0)
    with contextlib.ExitStack() as stack:
        video = None
        bar = stack.enter_context(tqdm(frames, total=length, unit="frame", disable=not progress, desc="segmenting"))
        for frame in bar:
            if video is None:
                size = frame.mask.shape
                video = stack.enter_context(VideoWriter(folder / "overlay.mp4", fps=fps))
            drawn = overlay(frame.image, frame.mask)
            write_mask(folder / "masks" / f"{frame.name}.png", frame.mask)
            video.write(drawn)
            sheet.add(frame.name, drawn)
            flow_seconds.append(frame.flow_seconds)
            model_seconds.append(frame.model_seconds)
            covered.append(float(np.mean(frame.mask > 0)))
        elapsed = bar.format_dict["elapsed"]
    write_image(folder / "contact_sheet.png", sheet.draw())
    report = {
        **story,
        "frames": len(covered),
        "size": list(size),
        "frames_per_second": _speed(flow_seconds, model_seconds, elapsed)._asdict(),
        "foreground_share": {"mean": statistics.fmean(covered), "empty_frames": sum(c == 0 for c in covered)},
    }
    (folder / "results.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def _speed(flow_seconds: list[float], model_seconds: list[float], elapsed: float) -> Speed:
    count, flow, model = len(model_seconds), sum(flow_seconds[1:]), sum(model_seconds[1:])
    return Speed(
        everything=count / max(elapsed, 1e-9),
        steady=(count - 1) / max(flow + model, 1e-9),
        model=(count - 1) / max(model, 1e-9),
        compile_seconds=max(model_seconds[0] - statistics.median(model_seconds), 0.0),
    )


class _Sheet:
    """Keeps about evenly spaced frames of a video of unknown length: every 2^j-th, thinned whenever there are many."""

    def __init__(self):
        self._kept: list[tuple[str, UInt8[np.ndarray, "h w 3"]]] = []
        self._stride, self._seen = 1, 0

    def add(self, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        if self._seen % self._stride == 0:
            self._kept.append((name, image))
            if len(self._kept) == 2 * _TILES:
                self._kept, self._stride = self._kept[::2], 2 * self._stride
        self._seen += 1

    def draw(self) -> UInt8[np.ndarray, "h w 3"]:
        picked = np.unique(np.linspace(0, len(self._kept) - 1, min(_TILES, len(self._kept))).round().astype(int))
        names, images = zip(*(self._kept[i] for i in picked), strict=True)
        return contact_sheet(images, columns=4, labels=names)
