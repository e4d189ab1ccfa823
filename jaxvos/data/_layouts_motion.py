"""The releases whose masks are not ids: FBMS-59, ViSal, YouTube-Objects and SegTrack v2."""

import re
from functools import partial
from pathlib import Path

import numpy as np

from jaxvos.data._images import list_images
from jaxvos.data._layouts_raw import RawSequence, colour_codes, folders, foreground, list_masks, objects, regions
from jaxvos.errors import InputError

__all__ = ["read_fbms", "read_segtrack", "read_visal", "read_youtube_objects"]

_FRAMES = ("JPEGImages", "Imgs", "images", "Images", "imgs")
_MASKS = ("GroundTruth", "GT_object_level", "ground-truth", "GT", "gt", "Annotations", "labels", "masks")
_WHITE = 0xFFFFFF


def _matched(images: list[Path], masks: list[Path]) -> tuple[tuple[Path, ...], ...]:
    """Finds the mask of each frame: of the same name, apart from `_gt`, or else of the same last number.

    Raises:
        InputError: for a mask without a frame.
    """
    by_name = {path.stem: index for index, path in enumerate(images)}
    by_number = {_number(path): index for index, path in enumerate(images)}
    found: list[tuple[Path, ...]] = [()] * len(images)
    for mask in masks:
        stem = mask.stem.removesuffix("_gt")
        index = by_name.get(stem, by_number.get(_number(mask)))
        if index is None:
            where = images[0].parent if images else "an empty folder"
            raise InputError(f"mask {mask} has no frame of its name or number in {where}: complete the data")
        found[index] = (mask,)
    return tuple(found)


def _number(path: Path) -> int | str:
    numbers = re.findall(r"\d+", path.stem)
    return int(numbers[-1]) if numbers else path.stem


def _inside(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _videos(root: Path) -> list[tuple[str, Path, Path]]:
    """Finds name, frames and masks of each video: both in its own folder, or each in a folder for all videos.

    Raises:
        InputError: for the first video without masks.
    """
    frames, masks = _inside(root, _FRAMES), _inside(root, _MASKS)
    if masks is not None:
        frames = root if frames is None else frames
        found = [(f.name, f, masks / f.name) for f in folders(frames) if f != masks]
    else:
        found = [(f.name, _inside(f, _FRAMES) or f, _inside(f, _MASKS) or f / _MASKS[0]) for f in folders(root)]
    for name, _, folder in found:
        if not folder.is_dir():
            raise InputError(f"video {name} has no folder of masks {folder}: complete the data")
    return found


def read_fbms(root: Path) -> dict[str, list[RawSequence]]:
    """Finds the training and the test set, each where it is there."""
    folders_of = {"train": ("Trainingset", "TrainingSet", "Training", "train"),
                  "test": ("Testset", "TestSet", "Test", "test")}  # fmt: skip
    found = {split: _inside(root, names) for split, names in folders_of.items()}
    return {split: [_fbms(*v) for v in _videos(folder)] for split, folder in found.items() if folder is not None}


def _fbms(name: str, frames: Path, masks: Path) -> RawSequence:
    files = [path for path in list_masks(masks) if not path.stem.removesuffix("_gt").endswith("PROB")]
    kind = next((kind for kind in (".ppm", ".pgm") if any(path.suffix == kind for path in files)), None)
    files = [path for path in files if kind in (None, path.suffix)]  # one kind, where the same masks are there in two
    images = list_images(frames)
    if not files:
        raise InputError(f"there is no mask in {masks}: complete the data")
    definitions = sorted(masks.glob("*Def.dat"))
    colours = _defined_colours(definitions[0]) if definitions else _found_colours(files)
    return RawSequence(name, tuple(images), _matched(images, files), ids=partial(regions, colours=colours))


def _defined_colours(path: Path) -> tuple[int, ...]:
    """Reads the colour of each region, the background first, from the definition file of a sequence."""
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines()]
    try:
        return tuple(int(lines[i + 1]) for i, line in enumerate(lines) if line.lower().startswith("scale of region"))
    except (ValueError, IndexError) as error:
        raise InputError(f"{path} does not say the colours of its regions ({error}): copy it again") from error


def _found_colours(files: list[Path]) -> tuple[int, ...]:
    """Returns the colours of all masks of a sequence; the background is white in a PPM, black in anything else."""
    codes = np.unique(np.concatenate([np.unique(colour_codes(path)) for path in files])).tolist()
    background = _WHITE if files[0].suffix == ".ppm" else 0
    return (background, *(code for code in codes if code != background))


def read_visal(root: Path) -> dict[str, list[RawSequence]]:
    """Finds the videos; all are for testing."""
    return {"test": [_binary(*video) for video in _videos(root)]}


def _binary(name: str, frames: Path, masks: Path) -> RawSequence:
    files = list_masks(masks)
    if not files:
        raise InputError(f"there is no mask in {masks}: complete the data")
    images = list_images(frames)
    return RawSequence(name, tuple(images), _matched(images, files), ids=foreground)


def read_youtube_objects(root: Path) -> dict[str, list[RawSequence]]:
    """Finds the annotated shots; all are for testing."""
    shots = [path for path in sorted(root.glob("*/data/*/shots/*")) if (path / "labels").is_dir()]
    found = [(_shot_name(path, root), _inside(path, _FRAMES) or path, path / "labels") for path in shots]
    if not found:
        frames, masks = _inside(root, _FRAMES), _inside(root, _MASKS)
        if frames is None or masks is None:
            raise InputError(f"no CATEGORY/data/VIDEO/shots/SHOT/labels in {root}: give the folder of categories")
        parts = [path.relative_to(frames) for category in folders(frames) for path in folders(category)]
        found = [("_".join(part.parts), frames / part, masks / part) for part in parts if (masks / part).is_dir()]
    return {"test": [_binary(*shot) for shot in found]}


def _shot_name(path: Path, root: Path) -> str:
    return "_".join(part for part in path.relative_to(root).parts if part not in ("data", "shots"))


def read_segtrack(root: Path) -> dict[str, list[RawSequence]]:
    """Finds the videos; all are for testing. Frames in `JPEGImages/` may be PNG or BMP."""
    frames = _inside(root, _FRAMES) or root / _FRAMES[0]
    masks = _inside(root, _MASKS) or root / _MASKS[0]
    for folder in (frames, masks):
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}: complete the data")
    return {"test": [_segtrack(folder, masks / folder.name) for folder in folders(frames)]}


def _segtrack(frames: Path, masks: Path) -> RawSequence:
    if not masks.is_dir():
        raise InputError(f"video {frames.name} has no folder of masks {masks}: complete the data")
    images = list_images(frames)
    parts = [folder for folder in folders(masks) if folder.name.isdigit()] or [masks]
    of_objects = [_matched(images, list_masks(folder)) for folder in parts]
    for folder, files in zip(parts, of_objects, strict=True):
        for image, of_frame in zip(images, files, strict=True):
            if not of_frame:
                raise InputError(f"frame {image} has no mask {image.stem} in {folder}: complete the data")
    merged = tuple(tuple(path for part in of_frame for path in part) for of_frame in zip(*of_objects, strict=True))
    return RawSequence(frames.name, tuple(images), merged, ids=objects)
