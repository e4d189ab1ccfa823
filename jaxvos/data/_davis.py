"""The folder layout of DAVIS: JPEGImages/<resolution>/<sequence>/00000.jpg with Annotations and ImageSets beside it."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxvos.data._images import IMAGE_SUFFIXES, list_images, natural_order
from jaxvos.data._sequences import AnnotatedSequence
from jaxvos.data._video import Video, video_of_images
from jaxvos.errors import InputError

__all__ = ["DavisSequence", "find_sequence", "find_sequences", "list_sequences"]


@dataclass(frozen=True)
class DavisSequence(AnnotatedSequence):
    """One sequence: where its frames and masks are. It has no flow but that of `with_flow_folder`."""

    image_paths: tuple[Path, ...]
    mask_paths: tuple[Path | None, ...]  # None for frames without annotation, such as all but the first of test-dev

    def __len__(self) -> int:
        return len(self.image_paths)

    def frames(self) -> Video:
        """Returns the frames as a video of 24 frames per second.

        Raises:
            InputError: if frames differ in size or the first cannot be read.
        """
        return video_of_images(self.image_paths, name=self.name)

    def frame_name(self, index: int) -> str:
        return self.image_paths[index].stem

    def has_mask(self, index: int) -> bool:
        return self.mask_paths[index] is not None

    def _file(self, kind: Literal["images", "masks", "flows"], index: int) -> Path | None:
        if kind == "flows":
            return None
        return (self.image_paths if kind == "images" else self.mask_paths)[index]


def list_sequences(root: str | Path, *, split: str | None = None, resolution: str | None = None
                   ) -> list[DavisSequence]:
    """Finds the sequences of a folder in the layout of DAVIS.

    Args:
        root: the folder that holds `JPEGImages/`, and mostly `Annotations/` and `ImageSets/`.
        split: the sequences that `ImageSets/<split>.txt` lists, in its order; a file one folder deeper is found too,
            and named `2016/val` where two folders have one. All sequences, by name, where it is None.
        resolution: the folder in `JPEGImages/`; where it is None, `480p` or else the first. Its annotations are in the
            folder of that name or, where `Annotations/` has only one folder, in that.

    Returns:
        The sequences.

    Raises:
        InputError: if the layout is another, the split or resolution does not exist, or a listed sequence is missing.
    """
    images = _resolution_folder(Path(root), resolution)
    available = [path.name for path in _folders(images)]
    names = available if split is None else _split_names(Path(root), split)
    missing = [name for name in names if name not in set(available)]
    if missing:
        elsewhere = [other.name for other in _folders(images.parent)
                     if other != images and all((other / name).is_dir() for name in missing)]
        remedy = f'pass resolution="{elsewhere[0]}"' if elsewhere else "complete the data or choose another split"
        raise InputError(f"{len(missing)} of the {len(names)} sequences of split {split} are not in {images} "
                         f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}): {remedy}")
    if not names:
        raise InputError(f"no sequences in {images if split is None else f'split {split} of {root}'}: "
                         "it should hold one folder of frames per sequence")
    return [_sequence(images, name) for name in names]


def find_sequence(root: str | Path, name: str, *, resolution: str | None = None) -> DavisSequence:
    """Finds one sequence by its name.

    Args:
        root: the folder that holds `JPEGImages/`.
        name: of the sequence, such as `bear`.
        resolution: as in `list_sequences`.

    Raises:
        InputError: if the layout is another or there is no such sequence; it names those that are called alike.
    """
    images = _resolution_folder(Path(root), resolution)
    names = [path.name for path in _folders(images)]
    if name not in names:
        raise InputError(f"there is no sequence {name!r} in {images}{_alike(name, names)}")
    return _sequence(images, name)


def _sequence(images: Path, name: str) -> DavisSequence:
    paths = list_images(images / name)
    if not paths:
        raise InputError(f"no jpg or png frames in {images / name}: remove the folder or fill it")
    annotations = images.parent.parent / "Annotations"
    folder = annotations / images.name
    if not folder.is_dir():
        others = _folders(annotations) if annotations.is_dir() else []
        folder = others[0] if len(others) == 1 else folder
    masks = {path.stem: path for path in (folder / name).glob("*.png")}
    return DavisSequence(name, tuple(paths), tuple(masks.get(path.stem) for path in paths))


def _resolution_folder(root: Path, resolution: str | None) -> Path:
    images = root / "JPEGImages"
    if not images.is_dir():
        what = "is not in the layout of DAVIS" if root.is_dir() else "does not exist"
        raise InputError(f"{root} {what}: give the folder that holds JPEGImages/<resolution>/<sequence>/00000.jpg")
    found = [path.name for path in _folders(images)]
    if resolution is None and found:
        resolution = "480p" if "480p" in found else found[0]
    if resolution not in found:
        raise InputError(f"there is no resolution {resolution or 'folder'} in {images}: it has "
                         f"{', '.join(found[:5]) or 'no folders'}")
    return images / resolution


def _split_names(root: Path, split: str) -> list[str]:
    """Returns the sequences that a split lists: by name, or (in DAVIS-2016) by the paths of all their frames."""
    sets = root / "ImageSets"
    split = split.removesuffix(".txt")
    direct = sets / f"{split}.txt"
    files = [direct] if direct.is_file() else sorted(sets.glob(f"*/{split}.txt"))
    if not files:
        known = [str(path.relative_to(sets).with_suffix("")) for path in sorted(sets.rglob("*.txt"))]
        raise InputError(f"there is no split {split!r} in {sets}{_alike(split, known)}")
    if len({path.read_text() for path in files}) > 1:
        names = " or ".join(f"'{path.parent.name}/{split}'" for path in files)
        raise InputError(f"split {split!r} is in several folders of {sets} that differ: say {names}")
    entries = [Path(line.split()[0]) for line in files[0].read_text().splitlines() if line.strip()]
    names = [entry.parent.name if entry.suffix.lower() in IMAGE_SUFFIXES else entry.name for entry in entries]
    return list(dict.fromkeys(names))


def _folders(parent: Path) -> list[Path]:
    return sorted((path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")),
                  key=natural_order)


def _alike(name: str, known: list[str]) -> str:
    alike = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if alike:
        return f": did you mean {' or '.join(alike)}?"
    return f": it has {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}" if known else ": it is empty"


def find_sequences(source: str | Path) -> dict[str, Path] | None:
    """Tells a data set from a video: the folders of frames in a DAVIS folder or in a folder of sequences, by name.

    Returns:
        None where `source` is anything but a folder whose subfolders hold frames.

    Raises:
        InputError: a DAVIS folder has several resolutions.
    """
    root = Path(source).expanduser()
    if not root.is_dir() or list_images(root):
        return None
    if (root / "JPEGImages").is_dir():
        resolutions = _folders(root / "JPEGImages")
        if len(resolutions) > 1:
            raise InputError(f"{root} has several resolutions; name one: "
                             f"{', '.join(str(path) for path in resolutions)}")
        root = resolutions[0] if resolutions else root
    return {path.name: path for path in _folders(root) if list_images(path)} or None
