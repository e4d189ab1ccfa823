"""Objects that a person marked on the first frame: from ids, of any values, to slots and back."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from jaxvos.data import check_mask_size, read_annotation
from jaxvos.errors import InputError

__all__ = ["FirstMask", "read_first_mask"]

_VOID = 255


class FirstMask(NamedTuple):
    """Masks of the first frame, one slot for each object after that of the background."""

    ids: tuple[int, ...]  # of the objects, as the file has them
    labels: UInt8[np.ndarray, "h w"]  # ids, 0 for the background; void counts as background

    @property
    def masks(self) -> Float32[np.ndarray, "h w k"]:
        """One-hot slots; their number is a power of two and one for the background, the last ones may be empty.

        So few numbers of slots are compiled for: one for all videos of 5 to 8 objects, say.
        """
        slots = 1 << (len(self.ids) - 1).bit_length()
        ids = (0, *self.ids, *(-1 for _ in range(slots - len(self.ids))))
        return np.stack([self.labels == value for value in ids], axis=-1).astype(np.float32)


def read_first_mask(mask: str | Path | np.ndarray, *, size: tuple[int, int]) -> FirstMask:
    """Reads the objects to follow.

    Args:
      mask: an indexed PNG whose values are object ids (a binary one, 0 and 255, is one object), or an array of ids. The
        ids may be any of 1 to 254; 255 in an indexed PNG is void.
      size: height and width of the frame.

    Raises:
      InputError: it cannot be read, is of another size than the frame, or holds no object.
    """
    where = mask if isinstance(mask, str | Path) else "the first mask"
    if isinstance(mask, str | Path):
        labels = read_annotation(mask)
    else:
        labels = np.asarray(mask)
        are_ids = labels.ndim == 2 and labels.size > 0 and labels.dtype.kind in "biu"
        if not are_ids or labels.min() < 0 or labels.max() > 255:
            raise InputError(f"the first mask is {labels.dtype}{list(labels.shape)}: give ids 0..255 of shape (h, w)")
        labels = labels.astype(np.uint8)
    check_mask_size(labels, size, where)
    labels = np.where(labels == _VOID, 0, labels).astype(np.uint8)
    ids = tuple(int(value) for value in np.unique(labels) if value)
    if not ids:
        raise InputError(f"{where} holds no object: mark each object with an id from 1 to 254 of its own")
    return FirstMask(ids, labels)
