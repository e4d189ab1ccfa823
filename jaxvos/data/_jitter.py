"""Proposals made from the true masks and spoilt as those of a detector are: for training and for tests.

What is made is a mask within a box (`system.Proposals`). A copy of an object reads the object's mask in one box and
puts it into another; the two boxes differ by noise, and the mask may be eroded, dilated or cut besides. Clutter is what
a detector finds where nothing is annotated, or what it joins and divides wrongly.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from jaxvos.errors import InputError
from jaxvos.system import Proposals

__all__ = ["JitterConfig", "jittered_proposals"]

_VOID = 255
_STREAM = 4  # last word of every seed
_CHANGES = ("erode", "dilate", "cut")
_LEAST, _MOST = 0.08, 0.5  # sides of a thing that is no object, relative to those of the frame


@dataclasses.dataclass(frozen=True, kw_only=True)
class JitterConfig:
    """How proposals differ from the objects, and what else is proposed. Probabilities are per frame and object."""

    num_proposals: int = 50
    """Proposals of a frame, padding included; of more the best are kept."""
    mask_size: int = 28
    """Side of a proposal's mask."""
    copies: int = 3
    """Most copies of an object; at least one unless it is missed."""
    shift: float = 0.05
    """Standard deviation of the shift of a copy, relative to its box."""
    scale: float = 0.08
    """Standard deviation of the logarithm of the width and height of a copy, relative to its box."""
    morphology: float = 0.4
    """Probability that a copy is eroded, dilated, or has a part cut off."""
    miss: float = 0.05
    """Probability that an object has no copy."""
    clutter: int = 8
    """Most wrong proposals: parts of objects, two objects in one, and things that are none."""
    score_noise: float = 0.15
    """Standard deviation of the difference between a score and the IoU with the best object."""

    def __post_init__(self) -> None:
        if min(self.num_proposals, self.mask_size, self.copies) < 1 or self.clutter < 0:
            raise InputError(f"num_proposals {self.num_proposals}, mask_size {self.mask_size}, copies {self.copies}, "
                             f"clutter {self.clutter}: want at least 1, 1, 1 and 0")


class _Object(NamedTuple):
    """One annotated object."""

    mask: np.ndarray  # of the whole frame, 0 or 1
    box: np.ndarray
    area: int


class _Candidate(NamedTuple):
    """One proposal before it is padded."""

    box: np.ndarray
    mask: np.ndarray
    score: float


def jittered_proposals(
    seed: int | tuple[int, ...], masks: UInt8[np.ndarray, "t h w"], config: JitterConfig
) -> Proposals:
    """Makes proposals of every frame, with independent noise.

    A score is the IoU with the object, as far as the resolution of the mask tells it, and noise; that of a thing that
    is no object is random, below 0.6, and noise.

    Args:
        seed: decides everything that is random.
        masks: object ids; 0 is the background and 255 void, which counts as background.
        config: how many proposals and how wrong they are.

    Returns:
        NumPy arrays with a leading axis t: the best score first, padded with zeros; boxes in pixels of these frames.
    """
    streams = np.random.default_rng([*np.atleast_1d(seed), _STREAM]).spawn(len(masks))
    frames = [_frame_proposals(rng, ids, config) for rng, ids in zip(streams, masks, strict=True)]
    stacked: list[Any] = [np.stack(field) for field in zip(*frames, strict=True)]
    return Proposals(*stacked)


def _frame_proposals(rng: np.random.Generator, ids: np.ndarray, config: JitterConfig) -> Proposals:
    objects = _find_objects(ids)
    found: list[_Candidate | None] = []
    for each in objects:
        if rng.random() >= config.miss:
            copies = rng.integers(1, config.copies, endpoint=True)
            found += [_copy(rng, each, config) for _ in range(copies)]
    found += [_clutter(rng, objects, ids.shape, config) for _ in range(rng.integers(config.clutter, endpoint=True))]
    kept = sorted((each for each in found if each is not None), key=lambda each: -each.score)[: config.num_proposals]
    count, side = config.num_proposals, config.mask_size
    boxes, masks = np.zeros((count, 4), np.float32), np.zeros((count, side, side), np.float32)
    scores = np.zeros(count, np.float32)
    for place, candidate in enumerate(kept):
        boxes[place], masks[place], scores[place] = candidate
    fields: dict[str, Any] = {"boxes": boxes, "masks": masks, "scores": scores, "valid": np.arange(count) < len(kept)}
    return Proposals(**fields)


def _find_objects(ids: np.ndarray) -> list[_Object]:
    counts = np.bincount(ids.ravel(), minlength=256)[1:_VOID]
    masks = {int(number) + 1: ids == number + 1 for number in np.flatnonzero(counts)}
    return [_Object(mask.astype(np.float32), _tight_box(mask), int(counts[number - 1]))
            for number, mask in masks.items()]


def _tight_box(mask: np.ndarray) -> np.ndarray:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)


def _copy(rng: np.random.Generator, each: _Object, config: JitterConfig) -> _Candidate | None:
    """An object as a detector finds it: reads its mask in one box and puts it into another."""
    import cv2

    box, change = each.box, None
    if rng.random() < config.morphology:
        change = _CHANGES[rng.integers(len(_CHANGES))]
        box = _part(rng, box, rng.uniform(0.5, 0.9)) if change == "cut" else box
        box = _stretch(box, np.full(2, 1.15)) if change == "dilate" else box
    amount = rng.uniform(0.0, 2.0)
    read, put = _fit(_move(rng, box, amount, config), _move(rng, box, amount, config), each.mask.shape)
    if not _is_visible(put):
        return None
    mask = _average(each.mask, read, config.mask_size)
    if change in ("erode", "dilate"):
        reach = int(rng.integers(1, max(1, config.mask_size // 14), endpoint=True))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
        mask = (cv2.erode if change == "erode" else cv2.dilate)(mask, kernel)
    return _scored(rng, mask, put, _iou(mask, put, each), config)


def _clutter(
    rng: np.random.Generator, objects: list[_Object], size: tuple[int, ...], config: JitterConfig
) -> _Candidate | None:
    """A thing that is no object, a part of an object, or two objects in one."""
    match rng.integers(min(len(objects), 2), endpoint=True):
        case 0:
            sides = np.exp(rng.uniform(np.log(_LEAST), np.log(_MOST), 2)) * size[::-1]
            corner = rng.uniform(0.0, size[::-1] - sides)
            return _scored(rng, _blob(rng, config.mask_size), np.concatenate([corner, corner + sides]),
                           rng.uniform(0.0, 0.6), config)
        case 1:
            one = objects[rng.integers(len(objects))]
            box, mask, parents = _part(rng, one.box, rng.uniform(0.2, 0.5)), one.mask, [one]
        case _:
            parents = [objects[index] for index in rng.choice(len(objects), 2, replace=False)]
            first, second = parents
            box = np.concatenate([np.minimum(first.box, second.box)[:2], np.maximum(first.box, second.box)[2:]])
            mask = first.mask + second.mask
    crop = _average(mask, box, config.mask_size)
    return _scored(rng, crop, box, max(_iou(crop, box, each) for each in parents), config)


def _scored(
    rng: np.random.Generator, mask: np.ndarray, box: np.ndarray, quality: float, config: JitterConfig
) -> _Candidate | None:
    """Adds noise to the score; a mask that is empty is no proposal."""
    score = min(max(quality + config.score_noise * rng.normal(), 0.0), 1.0)
    return _Candidate(box, mask, score) if mask.max() > 0.5 else None


def _move(rng: np.random.Generator, box: np.ndarray, amount: float, config: JitterConfig) -> np.ndarray:
    away = amount * config.shift * rng.standard_normal(2) * (box[2:] - box[:2])
    return _stretch(box, np.exp(amount * config.scale * rng.standard_normal(2))) + np.concatenate([away, away])


def _stretch(box: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Stretches a box about its centre."""
    centre, reach = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * factor
    return np.concatenate([centre - reach, centre + reach])


def _part(rng: np.random.Generator, box: np.ndarray, share: float) -> np.ndarray:
    """Keeps a share of a box at one of its four sides."""
    part, side = box.copy(), rng.integers(4)
    part[side] = box[side - 2] + (box[side] - box[side - 2]) * share
    return part


def _fit(read: np.ndarray, put: np.ndarray, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a box at the border of the frame, and the same share of what is read for it."""
    cut = np.minimum(np.maximum(put, 0.0), [*size[::-1], *size[::-1]])
    scale = (read[2:] - read[:2]) / (put[2:] - put[:2])
    return read + (cut - put) * np.concatenate([scale, scale]), cut


def _is_visible(box: np.ndarray) -> bool:
    return bool((box[2:] - box[:2] >= 1).all())


def _iou(mask: np.ndarray, box: np.ndarray, each: _Object) -> float:
    """Compares a proposal with an object at the resolution of the proposal's mask."""
    cell = (box[2] - box[0]) * (box[3] - box[1]) / mask.size
    shared = np.minimum(mask, _average(each.mask, box, len(mask))).sum() * cell
    return float(shared / (mask.sum() * cell + each.area - shared))


def _average(mask: np.ndarray, box: np.ndarray, side: int) -> np.ndarray:
    """Averages a mask in each of side x side cells of a box; beyond the frame lies nothing."""
    left, top, right, bottom = box.tolist()
    columns, across = _overlaps(left, right, mask.shape[1], side)
    rows, down = _overlaps(top, bottom, mask.shape[0], side)
    return np.minimum(down @ mask[rows, columns] @ across.T, 1.0)


def _overlaps(low: float, high: float, length: int, side: int) -> tuple[slice, np.ndarray]:
    """Returns which pixels lie between two edges, and the share that each of them has of each of the cells there."""
    start, stop = max(math.floor(low), 0), min(math.ceil(high), length)
    edges = np.arange(side + 1, dtype=np.float32) * np.float32((high - low) / side) + np.float32(low)
    before = np.subtract.outer(edges, np.arange(start, stop, dtype=np.float32))
    before = np.minimum(np.maximum(before, 0.0, out=before), 1.0, out=before)  # of each pixel, left of each edge
    return slice(start, max(start, stop)), (before[1:] - before[:-1]) * np.float32(side / (high - low))


def _blob(rng: np.random.Generator, side: int) -> np.ndarray:
    """A random shape that fills much of its box."""
    import cv2

    bumps = cv2.resize(rng.normal(0.0, 0.5, (5, 5)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    away = np.linspace(-1.0, 1.0, side, dtype=np.float32) ** 2
    return np.clip(0.5 + 3.0 * (0.8 - away - away[:, None] + bumps), 0.0, 1.0)
