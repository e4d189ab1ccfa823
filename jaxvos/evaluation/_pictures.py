"""The worst frames of an evaluation as pictures: the prediction and the ground truth, each drawn on the frame."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxvos.data import read_image
from jaxvos.drawing import overlay
from jaxvos.errors import InputError
from jaxvos.evaluation._job import find_job
from jaxvos.evaluation._reading import read_labels, read_soft
from jaxvos.metrics import Report, SequenceScores

__all__ = ["Picture", "worst_frames"]

_COUNT, _PER_SEQUENCE, _WIDTH = 8, 2, 420
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm")


class Picture(NamedTuple):
    """One frame, as data URIs."""

    sequence: str
    frame: str
    j: float
    prediction: str
    ground_truth: str


def worst_frames(report: Report, images: Path | None) -> list[Picture]:
    """Draws the frames with the lowest J (mean over objects), at most two of a sequence, on the images given or found.

    Raises:
        InputError: if images are given and none of them belongs to a frame.
    """
    places = _places(Path(report.ground_truth), images)
    ranked = sorted(
        (j, sequence.name, frame) for sequence in report.sequences for frame, j in _mean_j(sequence).items()
    )
    job = find_job(Path(report.predictions), Path(report.ground_truth), protocol=report.protocol,
                   sequences=[sequence.name for sequence in report.sequences], resize=True, workers=None,
                   progress=False)  # fmt: skip
    pictures: list[Picture] = []
    for j, name, frame in ranked:
        path = _image(places, name, frame, alone=len(report.sequences) == 1)
        if len(pictures) == _COUNT or path is None or sum(p.sequence == name for p in pictures) == _PER_SEQUENCE:
            continue
        annotated = job.annotated[name]
        truth = annotated.read(annotated.files[frame])
        drawn_path = job.predicted[name] / f"{frame}.png"
        if report.protocol == "fbms":  # whose predictions may be soft
            drawn = (read_soft(drawn_path, truth, resize=True)[0] > 127).astype(np.uint8)
        else:
            drawn = read_labels(drawn_path, truth, resize=True)
        height, width = truth.shape
        image = np.array(Image.fromarray(read_image(path)).resize((width, height), Image.Resampling.BILINEAR))
        pictures.append(Picture(name, frame, j, *(_uri(overlay(image, mask)) for mask in (drawn, truth))))
    if images is not None and not pictures:
        raise InputError(f"no image in {images} belongs to a scored frame: it should hold a folder per sequence")
    return pictures


def _mean_j(sequence: SequenceScores) -> dict[str, float]:
    rows: dict[str, list[float]] = {}
    for item in sequence.objects:
        for frame, j in zip(sequence.frames[-len(item.j_frames) :], item.j_frames, strict=True):
            rows.setdefault(frame, []).append(j)
    return {frame: float(np.mean(values)) for frame, values in rows.items()}


def _places(ground_truth: Path, images: Path | None) -> list[Path]:
    """Returns the folders that may hold a folder of frames for each sequence."""
    roots = [images] if images is not None else [ground_truth]
    if images is None and "Annotations" in ground_truth.resolve().parts:
        parts = ground_truth.resolve().parts
        place = len(parts) - 1 - parts[::-1].index("Annotations")
        roots.append(Path(*parts[:place]))
    return [place for root in roots for place in _within(root / "JPEGImages")] + ([images] if images else [])


def _within(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.name != "480p")
        yield folder


def _image(places: list[Path], name: str, frame: str, *, alone: bool) -> Path | None:
    folders = [place / name for place in places] + (places if alone else [])
    candidates = (folder / f"{frame}{suffix}" for folder in folders for suffix in _SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def _uri(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    picture, stored = Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((_WIDTH, _WIDTH))
    picture.save(stored, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(stored.getvalue()).decode()
