"""Pictures of results: overlays, contact sheets, curves and video files. NumPy in, pictures out; no system is known.

Matplotlib, PyAV and Pillow are loaded by the functions that need them. Every file appears whole or not at all.
"""

import contextlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat

import numpy as np
from jaxtyping import Integer, UInt8

from jaxvos.data import davis_palette
from jaxvos.errors import InputError
from jaxvos.files import atomic_path

__all__ = ["VideoWriter", "contact_sheet", "evenly_spaced", "overlay", "plot_curves", "write_image"]

Curve = Sequence[tuple[SupportsFloat, SupportsFloat]]

_DASHES = ("-", "--", ":", "-.")  # each for ten runs
_LETTER, _HANDLE, _LINE = 0.075, 0.6, 0.2  # inches in a legend: of a letter, of what is beside a name, of a line


def overlay(
    image: UInt8[np.ndarray, "h w 3"], mask: Integer[np.ndarray, "h w"], *, alpha: float = 0.5
) -> UInt8[np.ndarray, "h w 3"]:
    """Tints each object with its DAVIS colour and draws a one-pixel contour in the full colour.

    Args:
        image: RGB.
        mask: object ids; 0 is the background, which stays as it is.
        alpha: weight of the colour inside the contour, 0 to 1.

    Returns:
        RGB of the same size.
    """
    colours = davis_palette()[mask.astype(np.intp) % 256].astype(np.float32)
    padded = np.pad(mask, 1, mode="edge")
    inner = padded[1:-1, 1:-1]
    differs = [padded[:-2, 1:-1] != inner, padded[2:, 1:-1] != inner, padded[1:-1, :-2] != inner,
               padded[1:-1, 2:] != inner]
    weight = np.where(np.any(differs, axis=0), 1.0, alpha)[..., None]
    blended = image + (colours - image) * weight
    return np.where(mask[..., None] == 0, image, np.round(blended)).astype(np.uint8)


def contact_sheet(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    *,
    columns: int,
    labels: Sequence[str] | None = None,
    width: int = 1200,
    gap: int = 4,
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Lays images on an even grid, row by row, each scaled to fit its cell.

    Args:
        images: RGB; the first decides the proportions of the cells.
        columns: cells in a row.
        labels: one line of text below each image.
        width: of the whole sheet, in pixels.
        gap: between the cells and around them, in pixels.

    Returns:
        RGB, `width` pixels wide, on white.
    """
    from PIL import Image, ImageDraw, ImageFont

    if not len(images) or columns < 1:
        raise InputError("a contact sheet needs at least one image and one column")
    if labels is not None and len(labels) != len(images):
        raise InputError(f"{len(labels)} labels for {len(images)} images: give one each")
    cell = (width - gap) // columns - gap
    if cell < 1:
        raise InputError(f"{columns} columns do not fit into {width} pixels; use fewer, or a wider sheet")
    tall = max(1, round(cell * images[0].shape[0] / images[0].shape[1]))
    font = ImageFont.load_default(size=float(np.clip(cell / 16, 10, 22)))
    line = 0 if labels is None else int(font.getbbox("Ag")[3]) + 4
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (width, gap + rows * (tall + line + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, image in enumerate(images):
        left = gap + index % columns * (cell + gap)
        top = gap + index // columns * (tall + line + gap)
        ratio = min(cell / image.shape[1], tall / image.shape[0])
        size = (max(1, round(image.shape[1] * ratio)), max(1, round(image.shape[0] * ratio)))
        fitted = Image.fromarray(image).resize(size, Image.Resampling.BOX if ratio < 1 else Image.Resampling.BICUBIC)
        sheet.paste(fitted, (left + (cell - size[0]) // 2, top + (tall - size[1]) // 2))
        if labels is not None:
            text = _shorten(labels[index], font, cell)
            draw.text((left + cell / 2, top + tall + 1), text, "black", font, anchor="ma")
    return np.asarray(sheet)


def evenly_spaced(length: int, count: int) -> list[int]:
    """Picks at most `count` indices out of `length`, from the first to the last, as far apart as they go."""
    if count == 1:
        return [length // 2] if length else []
    return [int(i) for i in np.unique(np.linspace(0, length - 1, min(length, count)).round().astype(int))]


def write_image(path: str | Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Writes RGB in the format that the suffix of `path` names (PNG, JPEG, WebP, ...)."""
    from PIL import Image

    if Path(path).suffix.lower() not in Image.registered_extensions():
        raise InputError(f"{path}: no picture format has the suffix {Path(path).suffix!r}; use .png or .jpg")
    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary)


class VideoWriter:
    """Writes frames to a video file as they come; memory does not grow with the length.

    H.264 where the codec is built in, MPEG-4 otherwise, 8-bit 4:2:0; a frame of odd size is extended by repeating
    its last row or column. The file is there, whole, when the `with` block ends; after an error there is none.

        with VideoWriter("out.mp4", fps=24) as video:
            for frame in frames:
                video.write(frame)
    """

    def __init__(self, path: str | Path, *, fps: float | int | Fraction = 24) -> None:
        if not fps > 0:
            raise InputError(f"{path}: {fps} frames per second; give a positive number")
        self._path, self._fps = Path(path), Fraction(fps).limit_denominator(1001)
        self._shape: tuple[int, ...] | None = None

    def __enter__(self) -> "VideoWriter":
        import av
        from av.error import FFmpegError

        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self._path))
            try:
                self._container = av.open(str(temporary), "w")
            except (FFmpegError, ValueError) as error:
                raise InputError(f"{self._path}: no such kind of video ({error}); use a name ending in .mp4") from error
            stack.callback(self._container.close)
            self._stack = stack.pop_all()
        return self

    def write(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Appends one RGB frame; all frames have the size of the first."""
        import av

        if self._shape is None:
            self._shape = self._open_stream(frame)
        if frame.shape != self._shape:
            raise InputError(f"{self._path}: a frame of {frame.shape[:2]} after one of {self._shape[:2]} (rows, cols)")
        even = np.pad(frame, [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)], mode="edge")
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            with self._stack:  # closes the container, then renames the file, or removes it if that fails
                self._finish()
        else:
            with contextlib.suppress(_AbandonedError), self._stack:
                raise _AbandonedError  # not `error` itself, which is no fault of this file

    def _open_stream(self, frame: np.ndarray) -> tuple[int, ...]:
        import av

        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        self._stream = self._container.add_stream(codec, rate=self._fps)
        self._stream.height, self._stream.width = (side + side % 2 for side in frame.shape[:2])
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "18", "preset": "fast"} if codec == "libx264" else {"qscale": "3"}
        return frame.shape

    def _finish(self) -> None:
        if self._shape is None:
            raise InputError(f"{self._path}: no frame was written, so there is no video")
        self._container.mux(self._stream.encode())


def plot_curves(path: str | Path, curves: Mapping[str, Curve | Mapping[str, Curve]], *, title: str) -> None:
    """Draws one panel per metric as a PNG, with one line in it, or one for each of several runs and a legend.

    A panel is logarithmic where its values are all positive and span more than two decades. Values that are not finite
    leave gaps. A run has the same line in all panels.

    Args:
        path: where the PNG goes.
        curves: for each metric its (step, value) pairs, or those of each run by its name.
        title: above the panels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    if not curves:
        raise InputError(f"{path}: no curves to plot")
    panels = {name: lines if isinstance(lines, Mapping) else {"": lines} for name, lines in curves.items()}
    runs = list(dict.fromkeys(run for lines in panels.values() for run in lines))
    looks = [{"color": f"C{i % 10}", "linestyle": _DASHES[i // 10 % len(_DASHES)]} for i in range(len(runs))]
    styles: dict[str, Any] = dict(zip(runs, looks, strict=True))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    longest = _LETTER * max(map(len, runs), default=0) + _HANDLE
    width = max(4.2 * columns, longest)
    across = int(width / longest)  # runs in a line of the legend
    lines_below = 0 if runs == [""] else -(-len(runs) // across)
    figure = Figure(figsize=(width, 2.8 * rows + 0.5 + _LINE * lines_below), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (name, lines) in zip(grid, panels.items(), strict=False):
        _draw_panel(panel, name, lines, styles)
    for panel in grid[len(panels) :]:
        panel.remove()
    if lines_below:
        handles = [Line2D([], [], **styles[run]) for run in runs]
        names = [" " + run.replace("$", "\\$") for run in runs]  # _ would hide a name, and $ begins TeX
        figure.legend(handles, names, loc="outside lower center", ncols=across, fontsize=8, frameon=False)
    figure.suptitle(title)
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))


def _draw_panel(panel: Any, title: str, lines: Mapping[str, Curve], styles: Mapping[str, Any]) -> None:
    finite = np.zeros(0)
    for run, points in lines.items():
        values = np.array([float(value) for _, value in points])
        values = np.where(np.isfinite(values), values, np.nan)
        panel.plot([float(step) for step, _ in points], values, marker="." if len(values) < 30 else None, **styles[run])
        finite = np.concatenate([finite, values[np.isfinite(values)]])
    if finite.size and finite.min() > 0 and finite.max() > 100 * finite.min():
        panel.set_yscale("log")
    panel.set_title(title, fontsize=10)
    panel.set_xlabel("step", fontsize=8)
    panel.tick_params(labelsize=8)
    panel.grid(alpha=0.3)


class _AbandonedError(Exception):
    """The block that wrote the video ended early."""


def _shorten(text: str, font: Any, width: int) -> str:
    """Cuts text that is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
