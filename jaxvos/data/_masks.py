"""Masks as files: an indexed PNG whose pixel values are object ids, and the ways in which a file is not one."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image

from jaxvos.errors import InputError
from jaxvos.files import atomic_path

__all__ = ["check_mask_size", "check_objects", "davis_palette", "mask_ids", "read_annotation", "read_mask",
           "read_mask_pixels", "write_mask"]

_PILLOW_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
_GREY_STEP = {2: 85, 4: 17}  # Pillow stretches grey PNGs of 2 and 4 bits to 0..255


def davis_palette() -> UInt8[np.ndarray, "256 3"]:
    """Returns the palette of DAVIS and PASCAL VOC: 0 black, 1 dark red (128, 0, 0), 2 dark green (0, 128, 0), ...

    Bit `3 j + c` of the index becomes bit `7 - j` of channel `c` (VOCdevkit, `VOClabelcolormap`). DAVIS' own
    files have 191 for 192 and greys from 22 on.
    """
    index = np.arange(256)[:, None]
    channel = np.arange(3)[None, :]
    bits = [((index >> (3 * j + channel)) & 1) << (7 - j) for j in range(3)]
    return np.bitwise_or.reduce(bits).astype(np.uint8)


def read_mask(path: str | Path) -> UInt8[np.ndarray, "h w"]:
    """Reads the object ids of a mask: the palette indices of an indexed image, the values of a grey one, as they are.

    Ids need not be contiguous; 255 stays 255 (void in DAVIS-2017, the object in DAVIS-2016: `DavisSequence` knows).
    A one-bit image gives 0 and 1; grey PNGs of 2 and 4 bits give 0..3 and 0..15.

    Args:
        path: an image in mode P, L, 1 or, with values up to 255, 16-bit grey; PNG or another lossless format.

    Returns:
        The id of every pixel.

    Raises:
        InputError: if the file is missing, unreadable or truncated, holds colours instead of ids, was stored as JPEG,
            has ids above 255, or has the many thin grey levels of an anti-aliased drawing (`check_objects`).
    """
    return mask_ids(*read_mask_pixels(path), path)


def read_annotation(path: str | Path | io.BytesIO) -> UInt8[np.ndarray, "h w"]:
    """Reads an annotation of either DAVIS: 0 and 1 for the binary ones of 2016, the ids and 255 for void of 2017.

    An image without palette whose only values are 0 and 255 (stored in grey or, as some of 2016 are, in colours) is
    binary: 255 becomes 1. In an indexed image 255 stays 255, which means void.

    Args:
        path: the PNG: a file, or one in memory whose `str` the messages name.

    Returns:
        The id of every pixel.

    Raises:
        InputError: as `read_mask`.
    """
    pixels, mode = read_mask_pixels(path)
    colours = pixels[..., :3] if mode in ("RGB", "RGBA") else pixels[..., :1] if mode == "LA" else pixels[..., None]
    white = colours[..., 0] == 255
    if mode in ("L", "LA", "RGB", "RGBA") and np.array_equal(colours, white[..., None] * np.full_like(colours, 255)):
        return white.astype(np.uint8)
    return mask_ids(pixels, mode, path)


def mask_ids(pixels: Num[np.ndarray, "h w *c"], mode: str, path: str | Path | io.BytesIO) -> UInt8[np.ndarray, "h w"]:
    """Takes stored values as object ids, or refuses them as `read_mask` says.

    Args:
        pixels: what `read_mask_pixels` gave.
        mode: Pillow's mode of the image.
        path: what the message names.

    Raises:
        InputError: for colours, ids above 255 and anti-aliased edges.
    """
    if pixels.ndim == 3:
        colours = len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0))
        also = ", so many that the edges look anti-aliased," if colours > 32 else ""
        raise InputError(f"mask colours in {path} are not palette indices (mode {mode}, {colours} colours{also}): "
                         "save as indexed PNG, one palette index per object, without anti-aliasing")
    if pixels.size and pixels.max() > 255:
        raise InputError(f"mask {path} has ids up to {pixels.max()}: save as an 8-bit indexed PNG with ids 0..255")
    mask = pixels.astype(np.uint8)
    check_objects(mask, path, max_objects=256 if mode == "P" else 64)
    return mask


def read_mask_pixels(path: str | Path | io.BytesIO) -> tuple[Num[np.ndarray, "h w *c"], str]:
    """Reads the stored values of an image file, with palette indices unresolved.

    Args:
        path: an image in any lossless format that Pillow reads: a file, or one in memory whose `str` the messages name.

    Returns:
        The values, `(h, w)` for indexed, grey and one-bit images and `(h, w, c)` for colours, and Pillow's mode.

    Raises:
        InputError: if the file is missing, unreadable, truncated or a JPEG, which does not keep ids.
    """
    path = path if isinstance(path, io.BytesIO) else Path(path)
    if isinstance(path, Path) and not path.is_file():
        what = "is a folder, not a mask" if path.is_dir() else "does not exist"
        raise InputError(f"mask {path} {what}: give the path of an indexed PNG")
    try:
        with Image.open(path) as image:
            image.load()
            mode, stored_as = image.mode, image.format
            pixels = np.array(image)
    except _PILLOW_ERRORS as error:
        raise InputError(f"mask {path} cannot be read ({error}): the file is damaged or not an image; "
                         "save it again as an indexed PNG") from error
    if stored_as == "JPEG":
        raise InputError(f"mask {path} is a JPEG, which blurs object ids: save it as an indexed PNG")
    if mode == "L" and stored_as == "PNG":
        pixels = pixels // _GREY_STEP.get(_png_bit_depth(path), 1)
    return (pixels.astype(np.uint8) if mode == "1" else pixels), mode


def check_objects(mask: UInt8[np.ndarray, "h w"], path: str | Path | io.BytesIO, *, max_objects: int = 64) -> None:
    """Refuses a mask whose levels are those of smooth edges rather than ids of objects.

    Levels count as smooth edges if there are more than `max_objects` of them, or at least 8 that are nowhere three
    pixels wide and that spread over more than 64 values: ids are few, close together or have an interior.

    Args:
        mask: the id of every pixel.
        path: what the message names.
        max_objects: how many distinct values, background included, a mask may have.

    Raises:
        InputError: if the levels look anti-aliased.
    """
    ids = np.unique(mask)
    centre = mask[1:-1, 1:-1]
    rows, columns = mask.shape
    interior = np.ones(centre.shape, bool)
    for i in range(3 if len(ids) >= 8 else 0):
        for j in range(3):
            interior &= mask[i : rows - 2 + i, j : columns - 2 + j] == centre
    thin = np.setdiff1d(ids, centre[interior])
    smooth = len(thin) >= 8 and int(thin[-1]) - int(thin[0]) > 64
    if len(ids) > max_objects or smooth:
        raise InputError(f"grey levels look anti-aliased in mask {path} ({len(ids)} distinct values): draw it with "
                         "hard edges and save as indexed PNG, one palette index per object")


def check_mask_size(mask: UInt8[np.ndarray, "h w"], size: tuple[int, int], path: str | Path | io.BytesIO) -> None:
    """Refuses a mask that is not of the size of its frame.

    Args:
        mask: the id of every pixel.
        size: height and width of the frame in pixels.
        path: what the message names.

    Raises:
        InputError: if the sizes differ; it names both as width x height.
    """
    if mask.shape != tuple(size):
        raise InputError(f"mask {path} is {mask.shape[1]}x{mask.shape[0]} but its frame is {size[1]}x{size[0]} "
                         "(width x height): resize the mask with nearest-neighbour interpolation")


def write_mask(path: str | Path, mask: UInt8[np.ndarray, "h w"]) -> None:
    """Writes object ids as an indexed PNG with the DAVIS palette, whole or not at all.

    Args:
        path: where to; the format is PNG whatever the suffix. Missing folders are made, an existing file is replaced.
        mask: the id of every pixel.

    Raises:
        InputError: if the file cannot be written.
    """
    image = Image.fromarray(mask)
    image.putpalette(davis_palette().tobytes())  # turns grey into indexed without touching the values
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def _png_bit_depth(path: Path | io.BytesIO) -> int:
    """Returns the bits per sample that the header of a PNG file declares."""
    if isinstance(path, io.BytesIO):
        return path.getvalue()[24]
    with path.open("rb") as file:
        return file.read(25)[24]
