"""What a COCO JSON file says of one video: its frames and the entries of each, masks not yet unpacked."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from jaxvos.data._images import IMAGE_SUFFIXES
from jaxvos.data._polygons import is_numbers
from jaxvos.data._video_proposals import check_size, frames_of
from jaxvos.errors import InputError

__all__ = ["FORMAT", "CocoVideo", "Detection", "read_coco"]

FORMAT = 1
_SHAPE = ("it must be COCO's object with images and annotations (or predictions), or a list of results with image_id, "
          "score, bbox and segmentation")

_FrameOf = Mapping[Any, int | None]  # where the frame of an image_id is; None for one that is not asked for


class Detection(NamedTuple):
    """One entry of the file."""

    number: int  # in the file, from 0
    frame: int
    score: float
    box: tuple[float, ...] | None  # left, top, right, bottom
    segmentation: Any  # run lengths or polygons; None where the mask is the whole box


class CocoVideo(NamedTuple):
    """The frames of a file, in the order asked for, and all entries that belong to them."""

    video: str
    names: tuple[str, ...]
    size: tuple[int, int]
    detector: str
    detections: list[Detection]


def read_coco(path: Path, *, names: Sequence[str] | None, size: tuple[int, int] | None) -> CocoVideo:
    """Reads a JSON file as `read_proposals` documents it.

    Args:
        path: the file.
        names: of the frames, in the order wanted; what the file has where it is None.
        size: height and width of the frames; what the file says where it is None.

    Raises:
        InputError: if it is damaged or not a COCO file, or not of these frames.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"proposals {path} are not JSON ({error}): the file is damaged, make it again") from error
    if isinstance(content, list):
        if names is None or size is None:
            raise InputError(f"proposals {path} are a bare list of results, which names no frames: give the names and "
                             "the size of the frames, or use COCO's object with images")
        detections = _detections(content, _numbering(_ids(content, path), names, path), path)
        return CocoVideo(path.stem, tuple(names), (size[0], size[1]), "unknown", detections)
    images, entries, info = _parts(content, path)
    found, stored_size = _frames(images, path)
    names = found if names is None else names
    order = frames_of(found, names, f"the file {path}")
    size = check_size(stored_size or size, size, path)
    frame_of = {image["id"]: None for image in images} | {images[place]["id"]: i for i, place in enumerate(order)}
    detections = _detections(entries, frame_of, path)
    return CocoVideo(str(info.get("video", path.stem)), tuple(names), size, str(info.get("detector", "unknown")),
                     detections)


def _parts(content: Any, path: Path) -> tuple[list[Any], list[Any], Mapping[str, Any]]:
    """Returns the images, the entries and the info of COCO's object."""
    content = content if isinstance(content, dict) else {}
    images, entries = content.get("images"), content.get("annotations", content.get("predictions"))
    info = content.get("info") if isinstance(content.get("info"), dict) else {}
    if not isinstance(images, list) or not isinstance(entries, list):
        raise InputError(f"{path} holds no proposals: {_SHAPE}")
    if info.get("jaxvos_format", FORMAT) != FORMAT:
        raise InputError(f"proposals {path} are of format {info['jaxvos_format']}, this version reads {FORMAT}: "
                         "update jaxvos or make them again")
    return images, entries, info


def _frames(images: list[Any], path: Path) -> tuple[list[str], tuple[int, int] | None]:
    """Returns the names of the frames and their one size, None where the file does not say it."""
    known = all(isinstance(image, dict) and isinstance(image.get("file_name"), str)
                and isinstance(image.get("id"), int | str) for image in images)
    if not images or not known:
        raise InputError(f"{path} has no images with an id and a file_name: {_SHAPE}")
    sizes = [(image.get("height"), image.get("width")) for image in images]
    others = [size for size in sizes if size != sizes[0]]
    if others:
        (h, w), (other_h, other_w) = sizes[0], others[0]
        raise InputError(f"the frames of {path} differ in size ({w}x{h} and {other_w}x{other_h}, width x height): give "
                         "one file per video")
    names = [_frame_name(image["file_name"]) for image in images]
    return names, sizes[0] if all(type(n) is int and n > 0 for n in sizes[0]) else None


def _frame_name(file_name: str) -> str:
    name = PurePath(file_name.replace("\\", "/")).name
    stem, dot, suffix = name.rpartition(".")
    return stem if f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else name


def _ids(entries: list[Any], path: Path) -> list[Any]:
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("image_id"), int | str):
            raise InputError(f"entry {number} of {path} has no image_id: {_SHAPE}")
    return [entry["image_id"] for entry in entries]


def _numbering(ids: list[Any], names: Sequence[str], path: Path) -> _FrameOf:
    """Tells which frame an image_id of a bare list means: its name, the number in its name, or its place."""
    index = {name: i for i, name in enumerate(names)}
    by_name = {i: index.get(_frame_name(i)) for i in ids if isinstance(i, str)}
    if any(place is not None for place in by_name.values()):
        return by_name
    in_names = [[int(name) for name in names]] if all(name.isdecimal() for name in names) else []
    for numbering in (*in_names, range(len(names)), range(1, len(names) + 1)):
        if set(ids) <= set(numbering):
            return {number: i for i, number in enumerate(numbering)}
    raise InputError(f"the image_id values of {path} ({ids[0]}, ...) are neither names of the {len(names)} frames nor "
                     f"numbers from 0 to {len(names) - 1} or from 1 to {len(names)}: make proposals again for this "
                     "video")


def _detections(entries: list[Any], frame_of: _FrameOf, path: Path) -> list[Detection]:
    """Reads all of the entries but their masks; those of frames not asked for, or with an empty box, are left out."""
    detections = []
    for number, (entry, image_id) in enumerate(zip(entries, _ids(entries, path), strict=True)):
        box, score, segmentation = entry.get("bbox"), entry.get("score", 1.0), entry.get("segmentation")
        problem = ("belongs to no image of the file" if image_id not in frame_of
                   else "has a score that is not a finite number" if not is_numbers([score])
                   else "has a bbox that is not four finite numbers" if box and not (is_numbers(box) and len(box) == 4)
                   else "has neither bbox nor segmentation" if not box and not segmentation else None)
        if problem:
            raise InputError(f"entry {number} of {path} {problem}: {_SHAPE}")
        frame = frame_of[image_id]
        if frame is not None and not (box and min(box[2:]) <= 0):
            corners = (box[0], box[1], box[0] + box[2], box[1] + box[3]) if box else None
            detections.append(Detection(number, frame, float(score), corners, segmentation or None))
    return detections
