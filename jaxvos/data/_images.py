"""Frames as image files: found in the order a person would read them in, and decoded whole or refused."""

import io
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from jaxvos.errors import InputError

__all__ = ["IMAGE_SUFFIXES", "check_images", "image_size", "list_images", "natural_order", "read_image"]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and its values that swap width and height


def read_image(path: str | Path | io.BytesIO) -> UInt8[np.ndarray, "h w 3"]:
    """Reads a frame as RGB: grey is repeated, alpha is dropped, a JPEG is turned upright as its EXIF tag says.

    Args:
        path: any image that Pillow reads: a file, or one in memory whose `str` the messages name.

    Returns:
        RGB values 0..255.

    Raises:
        InputError: if the file is missing, damaged, truncated (never decoded in part) or not an image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode.startswith("I;16"):
                return np.repeat((np.array(image) >> 8).astype(np.uint8)[..., None], 3, axis=-1)
            upright = ImageOps.exif_transpose(image) if _may_lie(image) else image
            return np.array(upright.convert("RGB"))
    except _PILLOW_ERRORS as error:
        raise _unreadable(path, error) from error


def image_size(path: str | Path | io.BytesIO) -> tuple[int, int]:
    """Returns the height and width of an image in pixels, upright, from its header alone.

    Raises:
        InputError: if the file is missing or not an image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            if _may_lie(image) and image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE:
                width, height = height, width
            return height, width
    except _PILLOW_ERRORS as error:
        raise _unreadable(path, error) from error


def list_images(folder: str | Path) -> list[Path]:
    """Returns the images of a folder in natural order (frame2 before frame10), hidden files left out."""
    files = [path for path in Path(folder).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    return sorted((path for path in files if not path.name.startswith(".")), key=natural_order)


def natural_order(path: str | Path) -> tuple:
    """Returns a sorting key that compares the numbers in a path as numbers."""
    parts = re.split(r"(\d+)", str(path))
    return tuple((int(part), part) if i % 2 else (0, part) for i, part in enumerate(parts))


def check_images(paths: Iterable[Path]) -> tuple[int, int]:
    """Returns the one size, height and width, that all these frames have, from their headers alone.

    Args:
        paths: at least one image file.

    Raises:
        InputError: if a frame has another size than the first, or the name of one before it; it names both.
    """
    size, first, by_name = None, None, {}
    for path in paths:
        other = by_name.setdefault(path.stem, path)
        if other is not path:
            raise InputError(f"frames {other} and {path} have the same name: give a pattern such as "
                             f"'{other.parent}/*{other.suffix}' that matches only one of them")
        found = image_size(path)
        size, first = size or found, first or path
        if found != size:
            raise InputError(f"frame {path} is {found[1]}x{found[0]} but {first.name} is {size[1]}x{size[0]} "
                             "(width x height): all frames of a video must have one size")
    if size is None:
        raise InputError("no frames: the list of images is empty")
    return size


def _may_lie(image: Image.Image) -> bool:
    return image.format in ("JPEG", "MPO")


def _unreadable(path: str | Path | io.BytesIO, error: Exception) -> InputError:
    if not isinstance(path, io.BytesIO) and not Path(path).exists():
        return InputError(f"image {path} does not exist: check the path")
    reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else str(error).split("\n")[0]
    return InputError(f"image {path} cannot be read ({reason}): copy or export it again")
