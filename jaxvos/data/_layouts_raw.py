"""A sequence as a release has it on disk, and what its annotations say in object ids."""

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxvos.data._flow_files import read_flow
from jaxvos.data._images import IMAGE_SUFFIXES, check_images, image_size, natural_order, read_image
from jaxvos.data._masks import check_mask_size, davis_palette, read_annotation, read_mask_pixels
from jaxvos.errors import InputError

__all__ = ["RawSequence", "colour_codes", "folders", "foreground", "list_masks", "listed_names", "objects", "regions"]


@dataclass(frozen=True)
class RawSequence:
    """The files of one sequence, in the order of its frames."""

    name: str
    images: tuple[Path, ...]
    masks: tuple[tuple[Path, ...], ...] = ()  # of each frame: no file, one, or one for each object
    flows: tuple[Path | None, ...] = ()  # from each frame to the next
    ids: Callable[[tuple[Path, ...]], UInt8[np.ndarray, "h w"]] | None = None  # where the files do not hold ids

    @property
    def frame_names(self) -> tuple[str, ...]:
        """The stems of the images."""
        return tuple(path.stem for path in self.images)

    def check(self) -> None:
        """Compares what there is with what there should be, from the headers of the files alone.

        Raises:
            InputError: for the first file that is missing, is not an image or has another size than its frame.
        """
        if not self.images:
            raise InputError(f"sequence {self.name} has no jpg or png frames: complete the data or remove its folder")
        size = check_images(self.images)
        for path in (path for paths in self.masks for path in paths):
            check_mask_size(np.empty(image_size(path), np.uint8), size, path)
        for path in self.flows:
            if path is not None and not path.is_file():
                raise InputError(f"there is no flow file {path}: complete the data")

    def image_bytes(self, index: int) -> bytes:
        """Returns the file of a frame as it is, once it is known to decode; `InputError` names it if it does not."""
        read_image(self.images[index])
        return self.images[index].read_bytes()

    def mask_bytes(self, index: int) -> bytes:
        """Returns the annotation of a frame as a file that `read_annotation` reads; nothing where there is none.

        A file of ids is given as it is. Where ids are told otherwise, they are written as an indexed PNG.

        Raises:
            InputError: if a file is damaged or does not hold what it should.
        """
        paths = self.masks[index] if self.masks else ()
        if not paths:
            return b""
        if self.ids is None:
            read_annotation(paths[0])
            return paths[0].read_bytes()
        image = Image.fromarray(self.ids(paths))
        image.putpalette(
            davis_palette().tobytes()
        )  # a palette keeps 255 from being read as the one object of a grey mask
        stored = io.BytesIO()
        image.save(stored, format="PNG")
        return stored.getvalue()

    def flow_bytes(self, index: int) -> bytes:
        """Returns the flow file of a frame as it is; nothing where there is none.

        Raises:
            InputError: if it is damaged.
        """
        path = self.flows[index] if self.flows else None
        if path is None:
            return b""
        read_flow(path)
        return path.read_bytes()


def foreground(paths: tuple[Path, ...]) -> UInt8[np.ndarray, "h w"]:
    """Reads one mask of one object, 0 and 1: what is not 0 of an index, what is brighter than half of anything else.

    A JPEG is taken too, as some data sets have them, and an image whose values are 0 and 1.
    """
    path = paths[0]
    with _opened(path) as image:
        indexed = image.mode in ("P", "1")
        grey = np.array(image if indexed else image.convert("L"))
    return (grey > (0 if indexed or grey.max() <= 1 else 127)).astype(np.uint8)


def objects(paths: tuple[Path, ...]) -> UInt8[np.ndarray, "h w"]:
    """Merges one binary mask for each object to ids from 1; where two overlap, the later one is in front."""
    ids = foreground(paths[:1])
    for number, path in enumerate(paths[1:], 2):
        mask = foreground((path,))
        check_mask_size(mask, ids.shape, path)
        ids = np.where(mask == 1, np.uint8(number), ids)
    return ids


def regions(paths: tuple[Path, ...], *, colours: tuple[int, ...]) -> UInt8[np.ndarray, "h w"]:
    """Turns an image of region colours into ids: the place of the colour in the list; 255 (void) for any other.

    Args:
        paths: the image; a colour is `red * 65536 + green * 256 + blue`, or the grey value where it is grey.
        colours: of each region, the background first.
    """
    values = colour_codes(paths[0])
    ids = np.full(values.shape, 255, np.uint8)
    for index, colour in enumerate(colours):
        ids[values == colour] = index
    return ids


def colour_codes(path: Path) -> np.ndarray:
    """Returns the colour of each pixel as one number, as `regions` counts them."""
    pixels, mode = read_mask_pixels(path)
    if mode == "P":
        with _opened(path) as image:
            pixels = np.array(image.convert("RGB"))
    if pixels.ndim == 2:
        return pixels.astype(np.int64)
    return pixels[..., :3].astype(np.int64) @ np.array([65536, 256, 1]) if pixels.shape[-1] >= 3 else pixels[..., 0]


def _opened(path: Path) -> Image.Image:
    """Opens an image that is known to decode."""
    read_image(path)
    return Image.open(path)


def list_masks(folder: Path) -> list[Path]:
    """Returns the images of a folder, grey maps (`.pgm`) included, in natural order."""
    suffixes = IMAGE_SUFFIXES | {".pgm"}
    files = (path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith("."))
    return sorted(files, key=natural_order)


def folders(parent: Path) -> list[Path]:
    """Returns the folders in a folder in natural order, hidden ones and what archives of a Mac add left out."""
    inside = (path for path in parent.iterdir() if path.is_dir() and path.name != "__MACOSX")
    return sorted((path for path in inside if not path.name.startswith(".")), key=natural_order)


def listed_names(path: Path) -> list[str]:
    """Returns the sequences that a text file lists, one in a line, by name or by the path of a frame."""
    entries: Iterable[Path] = (Path(line.split()[0]) for line in path.read_text().splitlines() if line.strip())
    names = (entry.parent.name if entry.suffix.lower() in IMAGE_SUFFIXES else entry.name for entry in entries)
    return list(dict.fromkeys(name.lstrip("*") for name in names))
