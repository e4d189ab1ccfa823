"""Objects that a person marks on a frame: from ids, of any values, to slots and back, and who has which slot when."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from jaxvos.data import check_mask_size, read_annotation
from jaxvos.errors import InputError

__all__ = ["Slots", "ToldMask", "plan_slots", "read_told_mask"]

_VOID = 255


class Slots(NamedTuple):
    """The slots after that of the background, and who has them."""

    ids: tuple[int, ...]  # of the objects, 0 where a slot is free

    def without(self, removed: Collection[int]) -> "Slots":
        """Frees the slots of objects; an id that is not followed is an `InputError`."""
        _check_followed(removed, self.ids)
        return Slots(tuple(0 if value in removed else value for value in self.ids))

    def joined(self, ids: Collection[int]) -> "Slots":
        """Gives the first free slots to those of the ids that have none; too few free ones are an `InputError`."""
        slots, new = list(self.ids), [value for value in ids if value not in self.ids]
        if len(new) > slots.count(0):
            raise InputError(f"{len(slots) - slots.count(0) + len(new)} objects at once do not fit into {len(slots)} "
                             "slots: make room for more with slots=, or remove one first")  # fmt: skip
        for value in new:
            slots[slots.index(0)] = value
        return Slots(tuple(slots))

    def one_hot(self, labels: UInt8[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w k"]:
        """Masks of the background and of each slot; that of a free one is empty."""
        masks = [labels == value if value else np.zeros_like(labels) for value in self.ids]
        return np.stack([labels == 0, *masks], axis=-1).astype(np.float32)

    @property
    def palette(self) -> UInt8[np.ndarray, "k"]:
        """The id of each slot, that of the background first."""
        return np.array((0, *self.ids), np.uint8)


class ToldMask(NamedTuple):
    """What a person marked on one frame."""

    ids: tuple[int, ...]  # of the objects, as the file has them
    labels: UInt8[np.ndarray, "h w"]  # ids, 0 where nothing is told; void counts as that

    @property
    def masks(self) -> Float32[np.ndarray, "h w k"]:
        """One-hot slots; their number is a power of two and one for the background, the last ones may be empty."""
        return Slots((0,) * _slots_for(len(self.ids))).joined(self.ids).one_hot(self.labels)


def read_told_mask(mask: str | Path | np.ndarray, *, size: tuple[int, int], frame: int = 0) -> ToldMask:
    """Reads the objects that are marked on a frame.

    Args:
      mask: an indexed PNG whose values are object ids (a binary one, 0 and 255, is one object), or an array of ids. The
        ids may be any of 1 to 254; 255 in an indexed PNG is void.
      size: height and width of the frame.
      frame: its number, for messages about an array.

    Raises:
      InputError: it cannot be read, is of another size than the frame, or holds no object.
    """
    which = "the first mask" if frame == 0 else f"the mask of frame {frame}"
    if isinstance(mask, str | Path):
        labels, which = read_annotation(mask), str(mask)
        check_mask_size(labels, size, mask)
    else:
        labels = np.asarray(mask)
        are_ids = labels.ndim == 2 and labels.size > 0 and labels.dtype.kind in "biu"
        if not are_ids or labels.min() < 0 or labels.max() > 255:
            raise InputError(f"{which} is {labels.dtype}{list(labels.shape)}: give ids 0..255 of shape (h, w)")
        labels = labels.astype(np.uint8)
        check_mask_size(labels, size, f"of frame {frame}")
    labels = np.where(labels == _VOID, 0, labels).astype(np.uint8)
    ids = tuple(int(value) for value in np.unique(labels) if value)
    if not ids:
        raise InputError(f"{which} holds no object: mark each object with an id from 1 to 254 of its own")
    return ToldMask(ids, labels)


def plan_slots(told: Mapping[int, ToldMask], removals: Mapping[int, Collection[int]]) -> int:
    """Counts the slots that a video needs whose masks and removals are known beforehand, by number of the frame.

    Returns:
      the most objects that are followed at once, rounded up to a power of two, so that few numbers are compiled for:
      one for all videos of 5 to 8 objects, say. On one frame removals come first.

    Raises:
      InputError: an object is removed that is not followed on that frame.
    """
    followed, most = set(), 1
    for frame in sorted({*told, *removals}):
        removed = removals.get(frame, ())
        try:
            _check_followed(removed, followed)
        except InputError as error:
            raise InputError(f"frame {frame}: {error}") from None
        followed = followed.difference(removed).union(told[frame].ids if frame in told else ())
        most = max(most, len(followed))
    return _slots_for(most)


def _slots_for(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _check_followed(removed: Collection[int], followed: Collection[int]) -> None:
    for value in removed:
        if value == 0 or value not in followed:
            known = ", ".join(str(other) for other in sorted(followed) if other) or "none"
            raise InputError(f"object {value} is not followed there, so it cannot be removed: name one that a mask "
                             f"told of before (followed are: {known})")  # fmt: skip
