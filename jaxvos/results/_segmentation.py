"""What a segmented video leaves on disk: masks, an overlay video, a contact sheet and the numbers of the run."""

import json
import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from jaxvos.data import write_mask
from jaxvos.drawing import VideoWriter, overlay, write_image
from jaxvos.files import atomic_path
from jaxvos.inference import SegmentedFrame
from jaxvos.results._sheet import Sheet

__all__ = ["RESULTS", "Speed", "write_results"]

RESULTS = ("masks", "overlay.mp4", "contact_sheet.png", "results.json")
"""What `write_results` makes in a folder; the last one tells that the others are ours."""


class Speed(NamedTuple):
    """Frames per second of a finished video, by what is counted; None where there is no frame to time."""

    everything: float  # reading, flow, compilation, model, drawing and writing
    steady: float | None  # flow, proposals and model; frames that compile, as the first, are left out here and below
    model: float | None  # the model alone


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
    sheet, input_seconds, model_seconds, warm_up_seconds, covered = Sheet(), [], [], [], []
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
            adapt_seconds += frame.adapt_seconds
            if frame.warm_up or not covered:
                warm_up_seconds.append(frame.model_seconds)
            elif frame.model_seconds:
                input_seconds.append(frame.flow_seconds + frame.proposal_seconds)
                model_seconds.append(frame.model_seconds)
            covered.append(float(np.mean(frame.mask > 0)))
    write_image(folder / "contact_sheet.png", sheet.draw())
    speed = _speed(len(covered), input_seconds, model_seconds, time.perf_counter() - started)
    report = {
        **story,
        "frames": len(covered),
        "size": list(size),
        "frames_per_second": speed._asdict(),
        "compile_seconds": _compile_seconds(warm_up_seconds, model_seconds),
        "online_seconds": adapt_seconds,
        "foreground_share": {"mean": statistics.fmean(covered), "empty_frames": sum(c == 0 for c in covered)},
    }
    with atomic_path(folder / RESULTS[-1]) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def _speed(frames: int, input_seconds: list[float], model_seconds: list[float], elapsed: float) -> Speed:
    count, inputs, model = len(model_seconds), sum(input_seconds), sum(model_seconds)
    if count == 0:
        return Speed(frames / elapsed, None, None)
    return Speed(frames / elapsed, count / (inputs + model), count / model)


def _compile_seconds(warm_up_seconds: list[float], model_seconds: list[float]) -> float | None:
    """What frames that compile took beyond the others: 0 where the model was compiled for this size already."""
    if not model_seconds:
        return None
    usual = statistics.median(model_seconds)
    return sum(max(seconds - usual, 0.0) for seconds in warm_up_seconds)
