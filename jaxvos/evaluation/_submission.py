"""Predictions as the servers of DAVIS and YouTube-VOS take them: checked file by file, then zipped."""

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from jaxvos.data import read_mask
from jaxvos.errors import InputError
from jaxvos.evaluation._folders import find_predictions, listed_sequences
from jaxvos.evaluation._reading import in_parallel
from jaxvos.files import atomic_path

__all__ = ["Submission", "check_submission", "write_submission"]

_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every entry, so that equal files give equal archives
_PREFIX = {"davis17": "", "youtube-vos": "Annotations/"}
_IMAGES = (".jpg", ".jpeg", ".png")


class Submission(NamedTuple):
    """What a check found: the files by their names in the archive, and what is wrong with them."""

    files: Mapping[str, Path]
    num_sequences: int
    problems: tuple[str, ...]  # one line for each kind, with the number of files and the first of them
    notes: tuple[str, ...]


class _Expected(NamedTuple):
    """What there should be of a sequence; None where it is not known."""

    frames: Mapping[str, Path] | None  # by name
    masks: Mapping[str, Path]  # annotations that are known, which say which ids there are


def check_submission(
    results: str | Path, *, benchmark: Literal["davis17", "youtube-vos"], against: str | Path | None = None
) -> Submission:
    """Checks predicted masks against what a benchmark's server expects.

    Args:
        results: a folder of PNGs per sequence; each may keep them in a folder `masks`.
        benchmark: `davis17` takes every frame of every sequence, `youtube-vos` those frames that are given.
        against: the root of the data set, its folder of frames or of annotations (one folder per sequence), or a
            text file with the name of a sequence in each line; one that lies in the `ImageSets` of a data set takes
            the frames from there. None checks the files only in themselves.

    Returns:
        The files to send and all problems: masks that are not indexed 8-bit PNGs, do not decode, or have another size
        than their frame; ids that no annotation has; frames and sequences that are missing or too many.

    Raises:
        InputError: for folders that do not exist or hold no masks.
    """
    predicted = find_predictions(Path(results), suffixes=(".png",))
    expected = None if against is None else _find_expected(Path(against))
    problems: list[tuple[str, str]] = []  # kind, file
    notes = []
    if expected is None:
        notes.append("without a reference, missing frames and sequences, sizes and ids are not checked")
    else:
        problems += [("sequences are missing", name) for name in expected if name not in predicted]
        problems += [("sequences are not of the data set", name) for name in predicted if name not in expected]
        if not any(item.masks for item in expected.values()):
            notes.append("no annotations in the reference: ids are not checked")
    files, tasks = {}, []
    for name, folder in predicted.items():
        wanted = (expected or {}).get(name, _Expected(None, {}))
        masks = {path.stem: path for path in sorted(folder.glob("[!.]*.png"))}
        if wanted.frames is not None:
            problems += [
                ("frames are missing", f"{folder / frame}.png") for frame in wanted.frames if frame not in masks
            ]
            problems += [("frames are not of the sequence", str(path)) for frame, path in masks.items()
                         if frame not in wanted.frames]  # fmt: skip
        size, ids = _reference(wanted)
        tasks += [(path, size, ids) for path in masks.values()]
        files |= {f"{_PREFIX[benchmark]}{name}/{path.name}": path for path in masks.values()}
    wrong = in_parallel(lambda task: list(_problems(*task)), tasks, workers=None, progress=False)
    problems += [problem for found in wrong for problem in found]
    return Submission(dict(sorted(files.items())), len(predicted), _grouped(problems), tuple(notes))


def write_submission(submission: Submission, path: str | Path) -> None:
    """Writes the archive, whole or not at all; the same files give the same bytes.

    Raises:
        InputError: if the check has found problems, or the file cannot be written.
    """
    if submission.problems:
        raise InputError(f"not zipped: {submission.problems[0]}")
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, file in submission.files.items():  # PNGs do not get smaller
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes())


def _find_expected(against: Path) -> dict[str, _Expected]:
    if against.is_file():
        root = next((folder.parent for folder in against.resolve().parents if folder.name == "ImageSets"), None)
        known = {} if root is None else _find_expected(root)
        return {name: known.get(name, _Expected(None, {})) for name in listed_sequences(against)}
    if not against.is_dir():
        raise InputError(f"there is no {against}: give a folder of the data set, or a list of its sequences")
    frames, masks = (_by_sequence(against / kind) for kind in ("JPEGImages", "Annotations"))
    frames = frames or masks or _by_sequence(against)
    if not frames:
        raise InputError(f"{against} has no folders of frames: give JPEGImages/480p, Annotations/480p or their like")
    masks = masks or {name: files for name, files in frames.items() if all(p.suffix == ".png" for p in files.values())}
    return {name: _Expected(files, masks.get(name, {})) for name, files in frames.items()}


def _by_sequence(root: Path) -> dict[str, dict[str, Path]]:
    """Returns the images of each folder in a folder, or of each in its 480p or only folder."""
    if not root.is_dir():
        return {}
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    found = {folder.name: {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in _IMAGES}
             for folder in folders}  # fmt: skip
    if any(found.values()) or not folders:
        return {name: files for name, files in found.items() if files}
    inner = [folder for folder in folders if folder.name == "480p"] or folders
    return _by_sequence(inner[0]) if len(inner) == 1 else {}


def _reference(wanted: _Expected) -> tuple[tuple[int, int] | None, frozenset[int] | None]:
    """Returns width and height of the frames and the ids that they may have, where these are known."""
    size = None
    if wanted.frames:
        with Image.open(next(iter(wanted.frames.values()))) as image:
            size = image.size
    if not wanted.masks:
        return size, None
    return size, frozenset(int(i) for path in wanted.masks.values() for i in np.unique(read_mask(path))) - {0, 255}


def _problems(path: Path, size: tuple[int, int] | None, ids: frozenset[int] | None) -> Iterator[tuple[str, str]]:
    try:
        with Image.open(path) as image:
            mode, found = image.mode, image.size
        mask = read_mask(path)
    except (InputError, OSError, SyntaxError, ValueError) as error:
        yield "masks cannot be read as ids", re.sub(r"\s+", " ", f"{path}: {error}")
        return
    if mode != "P":
        yield "masks have no palette (mode P): write them with jaxvos.data.write_mask", f"{path}, mode {mode}"
    if size is not None and found != size:
        yield "masks differ in size from their frames", f"{path}, {found[0]}x{found[1]} and not {size[0]}x{size[1]}"
    if ids is not None and (unknown := {int(i) for i in np.unique(mask)} - ids - {0}):
        known = ", ".join(map(str, sorted(ids)))
        yield "masks have ids that the annotations lack", f"{path}, id {min(unknown)} where there are {known}"


def _grouped(problems: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    groups: dict[str, list[str]] = {}
    for kind, file in problems:
        groups.setdefault(kind, []).append(file)
    return tuple(f"{len(files)} {kind}; the first: {files[0]}" for kind, files in groups.items())
