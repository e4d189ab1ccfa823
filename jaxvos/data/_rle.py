"""Masks as run lengths: COCO's way to write a mask into JSON, as a list of numbers or as a short string.

The runs go down the columns and alternate between outside and inside, outside first. In the string, every number from
the fourth on is its difference to the number two before; numbers are cut into pieces of five bits, the lowest first, in
two's complement, and a piece is the character 48 + its bits, + 32 if more of the number follows (`maskApi.c` of COCO).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from jaxvos.errors import InputError

__all__ = ["decode_rle", "encode_rle"]

_PIECES = np.arange(7)  # of five bits: numbers up to 2^34
_TOO_MANY = 2**34  # pixels


def encode_rle(mask: Bool[np.ndarray, "h w"]) -> dict[str, Any]:
    """Writes a mask as COCO's compressed run lengths, character for character as `pycocotools` does.

    Returns:
        `{"size": [h, w], "counts": string}`.
    """
    pixels = mask.ravel(order="F")
    borders = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    starts = [0, 0] if pixels[:1].any() else [0]
    counts = np.diff(np.concatenate([starts, borders, [pixels.size]]))
    return {"size": list(mask.shape), "counts": _compress(counts)}


def decode_rle(segmentation: Mapping[str, Any]) -> Bool[np.ndarray, "h w"]:
    """Reads COCO's run lengths.

    Args:
        segmentation: `{"size": [h, w], "counts": counts}`, where counts are a string (or bytes) or a list of numbers.

    Returns:
        True inside the mask.

    Raises:
        InputError: if a field is missing or of another type, or if the runs do not make up `h * w` pixels.
    """
    size: Any = segmentation.get("size")
    counts: Any = segmentation.get("counts")
    if not (_whole_numbers(size) and len(size) == 2 and min(size) > 0):
        raise InputError(f"a mask in run lengths needs its size [height, width] in pixels, this one has {size}")
    if isinstance(counts, str | bytes):
        runs = _expand(counts.encode() if isinstance(counts, str) else counts)
    elif _whole_numbers(counts):
        runs = np.array(counts, np.int64)
    else:
        raise InputError("the counts of a mask in run lengths must be a string or a list of whole numbers")
    h, w = size
    if np.any(runs < 0) or runs.sum() != h * w:
        raise InputError(f"the run lengths of a mask do not make up its {w}x{h} pixels: the file is damaged, make it "
                         "again")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(w, h).T


def _compress(counts: Int64[np.ndarray, "n"]) -> str:
    differences = counts.copy()
    differences[3:] -= counts[1:-2]
    pieces = (differences[:, None] >> 5 * _PIECES) & 31
    rest = differences[:, None] >> 5 * (_PIECES + 1)
    last = np.argmax(rest == np.where(pieces & 16, -1, 0), axis=1)[:, None]  # its highest bit is the sign
    characters = 48 + pieces + 32 * (_PIECES < last)
    return characters[_PIECES <= last].astype(np.uint8).tobytes().decode()


def _expand(text: bytes) -> Int64[np.ndarray, "n"]:
    pieces = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(pieces & 32 == 0)
    lengths = np.diff(ends, prepend=-1)
    whole = len(pieces) > 0 and ends.size > 0 and ends[-1] == len(pieces) - 1
    if not whole or pieces.min() < 0 or pieces.max() > 63 or lengths.max() > len(_PIECES):
        raise InputError("the counts of a mask are not COCO's compressed run lengths: the file is damaged, make it "
                         "again")
    starts = ends - lengths + 1
    position = np.arange(len(pieces)) - np.repeat(starts, lengths)
    counts = np.add.reduceat((pieces & 31) << 5 * position, starts)
    counts -= np.where(pieces[ends] & 16, np.int64(1) << 5 * lengths, 0)
    for first in (1, 2):
        counts[first::2] = np.cumsum(counts[first::2])
    return counts


def _whole_numbers(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(type(value) is int and 0 <= value < _TOO_MANY for value in values)
