"""The releases of DAVIS and YouTube-VOS: lists of sequences, palette PNGs, ids as they are."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxvos.data._davis import DavisSequence, list_sequences
from jaxvos.data._images import list_images
from jaxvos.data._layouts_raw import RawSequence, folders, list_masks
from jaxvos.errors import InputError

__all__ = ["read_davis", "read_youtube_vos"]


def read_davis(
    root: Path, *, lists: Mapping[str, Sequence[str]], annotations: str = "Annotations", every_frame: bool = True
) -> dict[str, list[RawSequence]]:
    """Finds the sequences of the splits whose lists are there.

    Args:
        root: holds `JPEGImages/` and `ImageSets/`.
        lists: of each split the files in `ImageSets/` that may list it, the first that exists counts.
        annotations: the folder of the masks.
        every_frame: whether each frame has to be annotated, rather than the first.

    Raises:
        InputError: if no list is there, or a listed sequence or an annotation is missing.
    """
    splits = {}
    for split, names in lists.items():
        name = next((name for name in names if (root / "ImageSets" / f"{name}.txt").is_file()), None)
        if name is not None:
            splits[split] = [_davis_sequence(s, root / annotations, every_frame) for s in _listed(root, name)]
    if not splits:
        files = " or ".join(f"{name}.txt" for names in lists.values() for name in names)
        raise InputError(f"{root / 'ImageSets'} has no list of sequences: it should hold {files}")
    return splits


def _listed(root: Path, split: str) -> list[DavisSequence]:
    """Takes 480p or else the first resolution that has every sequence of the list."""
    images = root / "JPEGImages"
    resolutions = [folder.name for folder in folders(images)] if images.is_dir() else []
    for resolution in sorted(resolutions, key=lambda name: name != "480p"):
        try:
            return list_sequences(root, split=split, resolution=resolution)
        except InputError:
            continue
    return list_sequences(root, split=split)


def _davis_sequence(sequence: DavisSequence, annotations: Path, every_frame: bool) -> RawSequence:
    masks = sequence.mask_paths
    if annotations.name != "Annotations":
        expected = [annotations / path.parts[-3] / path.parts[-2] / f"{path.stem}.png" for path in sequence.image_paths]
        masks = [path if path.is_file() else None for path in expected]
    for image, mask in zip(sequence.image_paths if every_frame else sequence.image_paths[:1], masks, strict=False):
        if mask is None:
            raise InputError(
                f"frame {image} has no annotation {sequence.name}/{image.stem}.png in {annotations}: complete the data"
            )
    return RawSequence(sequence.name, sequence.image_paths, tuple(() if m is None else (m,) for m in masks))


def read_youtube_vos(root: Path) -> dict[str, list[RawSequence]]:
    """Finds the sequences of each split, and of each split with all frames (30 instead of 6 in a second).

    Raises:
        InputError: if a folder, a listed frame or the mask of an object's first frame is missing.
    """
    splits = {}
    for split in ("train", "valid", "test"):
        for folder in (root / split, root / f"{split}_all_frames"):
            if (folder / "JPEGImages").is_dir():
                splits[folder.name] = _youtube_vos_split(folder, root / split)
    if not splits:
        raise InputError(f"{root} has no train/JPEGImages or valid/JPEGImages: unpack the archives there")
    return splits


def _youtube_vos_split(folder: Path, sparse: Path) -> list[RawSequence]:
    annotations = next((f / "Annotations" for f in (folder, sparse) if (f / "Annotations").is_dir()), None)
    if annotations is None:
        raise InputError(f"there are no masks in {sparse / 'Annotations'}: unpack the archive of {sparse.name} beside")
    meta = next((f / "meta.json" for f in (folder, sparse) if (f / "meta.json").is_file()), None)
    if meta is None:
        return [_youtube_vos_sequence(path, annotations, {}) for path in folders(folder / "JPEGImages")]
    try:
        videos = json.loads(meta.read_text())["videos"]
        starts = {
            name: {number: entry["frames"] for number, entry in video["objects"].items()}
            for name, video in videos.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{meta} cannot be read ({type(error).__name__}: {error}): copy it from the release again"
        ) from error
    return [_youtube_vos_sequence(folder / "JPEGImages" / name, annotations, starts[name]) for name in starts]


def _youtube_vos_sequence(folder: Path, annotations: Path, frames_of_objects: dict[str, Any]) -> RawSequence:
    if not folder.is_dir():
        raise InputError(f"meta.json lists {folder.name} but there is no folder {folder}: complete the data")
    images = list_images(folder)
    labels = annotations / folder.name
    masks = {path.stem: path for path in list_masks(labels)} if labels.is_dir() else {}
    stems = {path.stem for path in images}
    for number, frames in frames_of_objects.items():
        for frame in frames:
            if frame not in stems:
                raise InputError(f"frame {folder / frame}.jpg, of object {number}, is missing: complete the data")
        if frames and frames[0] not in masks:
            first = labels / f"{frames[0]}.png"
            raise InputError(f"mask {first}, the first of object {number}, is missing: complete the data")
    return RawSequence(folder.name, tuple(images), tuple((masks[p.stem],) if p.stem in masks else () for p in images))
