"""What the optical flow of a video leaves on disk: flow files, colours, a colour video, a contact sheet, numbers."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float32
from tqdm import tqdm

from jaxvos.data import FlowProvider, LastFrame, Video, read_flow, with_flow, write_flow
from jaxvos.drawing import VideoWriter, write_image
from jaxvos.errors import InputError
from jaxvos.files import atomic_path
from jaxvos.ops import flow_to_color
from jaxvos.results._sheet import Sheet

__all__ = ["FLOW_RESULTS", "write_flow_results"]

FLOW_RESULTS = ("flow", "colour", "flow.mp4", "contact_sheet.png", "report.json")
"""What `write_flow_results` makes in a folder; the last one tells that the others are ours."""

_UNKNOWN = 1e9  # a component beyond this marks an unknown vector
_EDGES = np.geomspace(2**-6, 2**14, 1025)  # of the bins of speeds, pixels: each 1.4 % above the one before
_FULL_COLOUR = 0.99  # the share of all vectors of a video that are no faster than what is painted in full colour
_SMALLEST_RADIUS = 1.0  # pixels: the noise of a still video is not blown up


def write_flow_results(
    video: Video,
    provider: FlowProvider,
    folder: Path,
    *,
    kind: Literal["flo", "png", "pfm"] = "flo",
    last_frame: LastFrame = "skip",
    radius: float | None = None,
    story: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes the flow of a video into an existing folder, two frames in memory at a time.

    The colours of one video compare, as one speed has one colour in all its frames. So the frames are read twice: the
    flow is written first, and painted when the speeds of all frames are known. Where standard error is a terminal, a
    bar shows the progress of each.

    Args:
      video: at least two frames, not from an iterator.
      provider: gives the flow.
      folder: gets `flow/NAME.flo`, `colour/NAME.png`, `flow.mp4`, `contact_sheet.png` and `report.json`.
      kind: of the flow files: Middlebury's .flo, KITTI's PNG (steps of 1/64 pixel) or .pfm.
      last_frame: what the last frame, which no frame follows, has for flow, as `with_flow` has it.
      radius: the speed in pixels that is painted in full colour; 99 % of all vectors are no faster if None, and it is
        one pixel at least.
      story: what else `report.json` says: versions, device, model, input.

    Returns:
      What `report.json` holds.

    Raises:
      InputError: the radius is not positive, or as the video, the provider and `write_flow` do.
    """
    if radius is not None and not 0 < radius < float("inf"):
        raise InputError(f"radius {radius}: give a positive number of pixels")
    started, speeds, seconds, files = time.perf_counter(), _Speeds(), [], {}
    moving = with_flow(video, provider, last_frame=last_frame)
    count = None if video.length is None else video.length - (last_frame == "skip")
    bar = tqdm(moving, total=count, unit="frame", disable=None, leave=False, desc=f"{video.name}: flow")
    with bar:
        for frame in bar:
            files[frame.name] = folder / "flow" / f"{frame.name}.{kind}"
            write_flow(files[frame.name], frame.flow)
            speeds.add(frame.flow)
            seconds.append(frame.seconds)
    radius = radius or max(speeds.quantile(_FULL_COLOUR), _SMALLEST_RADIUS)
    _paint_all(video, files, folder, radius)
    computed = [second for second in seconds[1:] if second > 0]
    report = {
        **story,
        "frames": len(files),
        "size": list(video.size),
        "seconds": {  # the first frame, which compiles a model, stands alone
            "first": seconds[0],
            "per_frame": sum(computed) / len(computed) if computed else None,
            "everything": time.perf_counter() - started,
        },
        "speed": {"mean": speeds.mean(), "p99": speeds.quantile(0.99), "largest": speeds.largest},
        "radius": radius,
    }
    with atomic_path(folder / FLOW_RESULTS[-1]) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def _paint_all(video: Video, files: Mapping[str, Path], folder: Path, radius: float) -> None:
    sheet = Sheet()
    with (
        VideoWriter(folder / "flow.mp4", fps=video.fps) as writer,
        tqdm(files.items(), unit="frame", disable=None, leave=False, desc=f"{video.name}: colours") as bar,
    ):
        for (name, path), image in zip(bar, video, strict=False):
            flow = read_flow(path)[0]
            colours = np.asarray(_paint(flow / np.float32(radius)))
            write_image(folder / "colour" / f"{name}.png", colours)
            writer.write(colours)
            sheet.add(f"{name}: {_known_speeds(flow).mean():.1f} px", np.concatenate([image, colours], axis=1))
    write_image(folder / "contact_sheet.png", sheet.draw(columns=2))


@jax.jit
def _paint(flow: jax.Array) -> jax.Array:
    return (255 * flow_to_color(flow, max_radius=1.0) + 0.5).astype("uint8")


def _known_speeds(flow: Float32[np.ndarray, "h w 2"]) -> Float32[np.ndarray, "n"]:
    return np.linalg.norm(flow[np.all(np.abs(flow) < _UNKNOWN, axis=-1)], axis=-1)


class _Speeds:
    """The distribution of the speeds of all vectors of a video of any length."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(_EDGES) + 1, np.int64)
        self._sum, self.largest = 0.0, 0.0

    def add(self, flow: Float32[np.ndarray, "h w 2"]) -> None:
        speeds = _known_speeds(flow)
        self._counts += np.bincount(np.searchsorted(_EDGES, speeds), minlength=len(self._counts))
        self._sum += float(speeds.sum(dtype=np.float64))
        self.largest = max(self.largest, float(speeds.max()))

    def mean(self) -> float:
        return self._sum / int(self._counts.sum())

    def quantile(self, share: float) -> float:
        """Returns a speed that this share does not exceed, up to the width of a bin."""
        place = int(np.searchsorted(np.cumsum(self._counts), share * self._counts.sum()))
        return self.largest if place >= len(_EDGES) else min(float(_EDGES[place]), self.largest)
