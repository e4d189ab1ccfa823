"""Ground truth and predictions on disk: which folders hold the sequences, and what reads them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxvos.data import find_layout, read_annotation, read_image
from jaxvos.errors import InputError

__all__ = ["Annotated", "find_predictions", "find_truth", "listed_sequences"]

_Files = tuple[Path, ...]


class Annotated(NamedTuple):
    """The ground truth of one sequence: the files of its annotated frames, in order, and what reads them."""

    folder: Path
    files: Mapping[str, _Files]
    read: Callable[[_Files], UInt8[np.ndarray, "h w"]]


def find_truth(
    root: Path,
    *,
    annotations: Sequence[str],
    suffixes: Sequence[str],
    release: tuple[str, str] | None,
    bright: bool,
) -> tuple[Path, dict[str, Annotated]]:
    """Finds the ground truth of every sequence below a root, and the folder that all of it lies in.

    Args:
        root: a DAVIS root, a folder of sequences, the files of one, or a data set as it was released.
        annotations: the folders of a DAVIS root that may hold them, the first that exists counts.
        suffixes: of the files.
        release: layout and split of the release that the root may be.
        bright: the object is what is brighter than half in a grey image, rather than that the values are ids.
    """
    try:
        folder = next((root / name for name in annotations if (root / name).is_dir()), None)
        own, found = _find_sequences(root if folder is None else _resolution(folder, suffixes), suffixes)
    except InputError:
        if release is None or not root.is_dir():
            raise
        return root, _find_release(root, *release)
    read = _read_bright if bright else _read_ids
    return own, {
        name: Annotated(folder, {path.stem: (path,) for path in _files(folder, suffixes)}, read)
        for name, folder in found.items()
    }


def find_predictions(root: Path, *, suffixes: Sequence[str]) -> dict[str, Path]:
    """Returns the folder of the predictions of every sequence below a root."""
    if (root / "Annotations").is_dir():
        root = _resolution(root / "Annotations", suffixes)
    return _find_sequences(root, suffixes)[1]


def listed_sequences(path: Path) -> list[str]:
    """Returns the sequences that a text file lists, one in a line, by name or by the path of a frame.

    Raises:
        InputError: if there is no such file, or none in it.
    """
    if not path.is_file():
        raise InputError(f"there is no list {path}: give a text file with the name of a sequence in each line")
    entries = [Path(line.split()[0]) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    names = list(dict.fromkeys(entry.parent.name if entry.suffix else entry.name for entry in entries))
    if not names:
        raise InputError(f"{path} lists no sequence: write one name in a line")
    return names


def _find_sequences(root: Path, suffixes: Sequence[str]) -> tuple[Path, dict[str, Path]]:
    """Returns the folder that all files below a root lie in, and that of the files of each sequence, by its name."""
    if not root.is_dir():
        raise InputError(f"no folder {root}")
    if (folder := _with_files(root, suffixes)) is not None:
        return folder, {(root.resolve().parent if root.name == "masks" else root.resolve()).name: folder}
    children = {child.name: _with_files(child, suffixes) for child in sorted(root.iterdir()) if child.is_dir()}
    found = {name: folder for name, folder in children.items() if folder is not None}
    if not found:
        kinds = " or ".join(suffix[1:].upper() for suffix in suffixes)
        raise InputError(f"no {kinds} in {root}, its folders, or a folder `masks` in them")
    return root, found


def _find_release(root: Path, layout: str, split: str) -> dict[str, Annotated]:
    splits = find_layout(layout).scan(root)
    if split not in splits:
        raise InputError(f"{root} has no split {split} of {layout}, which is what is scored")
    found = {}
    for sequence in splits[split]:
        files = {name: files for name, files in zip(sequence.frame_names, sequence.masks, strict=False) if files}
        if files:  # some test sequences have none
            found[sequence.name] = Annotated(sequence.images[0].parent, files, sequence.ids or _read_ids)
    return found


def _read_ids(files: _Files) -> UInt8[np.ndarray, "h w"]:
    return read_annotation(files[0])


def _read_bright(files: _Files) -> UInt8[np.ndarray, "h w"]:
    """Reads a mask that may have smooth edges; one with values up to 1 is taken as it is."""
    read_image(files[0])
    with Image.open(files[0]) as image:
        if image.mode == "L":
            grey = np.array(image)
            return (grey > (127 if grey.max() > 1 else 0)).astype(np.uint8)
    return (read_annotation(files[0]) != 0).astype(np.uint8)


def _with_files(folder: Path, suffixes: Sequence[str]) -> Path | None:
    """Returns the folder that holds the files: `masks` in this one, or this one."""
    return next((place for place in (folder / "masks", folder) if _files(place, suffixes)), None)


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return sorted(path for suffix in suffixes for path in folder.glob(f"[!.]*{suffix}"))


def _resolution(annotations: Path, suffixes: Sequence[str]) -> Path:
    """Returns the folder of sequences in the `Annotations` of DAVIS; that folder itself if it has no resolutions."""
    children = [child for child in sorted(annotations.iterdir()) if child.is_dir()]
    if any(_with_files(child, suffixes) for child in children):
        return annotations
    if len(children) == 1:
        return children[0]
    if annotations / "480p" in children:
        return annotations / "480p"
    raise InputError(
        f"{annotations} has several resolutions or none "
        f"({', '.join(child.name for child in children) or 'empty'}): name one of its folders"
    )
