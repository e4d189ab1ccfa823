"""Clips for training: which frames of a sequence, and which of its objects in which slots."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from jaxvos.data._augment import AffineRange, Augmentation, ClipSample, augment_clip, object_areas, static_clip
from jaxvos.data._sequences import AnnotatedSequence
from jaxvos.errors import InputError
from jaxvos.system import Clip, Proposals

__all__ = ["ClipConfig", "ClipSource", "can_sample", "largest_skip", "sample_clip"]

_TRIES = 10
_VOID = 255


@runtime_checkable
class ClipSource(Protocol):
    """What clips are made of: frames in any order, read by several threads at once; `AnnotatedSequence` is such."""

    @property
    def name(self) -> str: ...

    @property
    def annotated(self) -> tuple[int, ...]: ...  # frames with a mask, in order

    def __len__(self) -> int: ...

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]: ...

    def mask(self, index: int) -> UInt8[np.ndarray, "h w"]: ...

    def flow(self, index: int) -> Float32[np.ndarray, "h w 2"]: ...  # to frame `index + 1`, pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """What a clip is."""

    num_frames: int = 3
    """Frames of a clip."""
    size: tuple[int, int] = (384, 384)
    """Height and width of its frames."""
    num_objects: int = 2
    """Slots for objects, besides that of the background; of more objects in a clip some are drawn."""
    masks: bool = True
    """Draw annotated frames alone, and count strides in them; otherwise any frame, and leave the masks out."""
    num_proposals: int | None = None
    """Give so many proposals of each frame, from the files of the sequences; then frames are seen as a whole."""
    flow: bool = False
    """Give the flow from each frame to the next of the sequence; clips are then consecutive frames in their order."""
    static: bool = False
    """Make each clip of one frame, which moves as `augmentation.frame` says."""
    max_skip: tuple[tuple[int, int], ...] = ((0, 1),)
    """Pairs of a step and the largest stride from then on; strides are drawn from `min_skip` up to it."""
    min_skip: int = 1
    """Smallest stride, but that of an `adjacent` pair; as far as a sequence goes where that is less."""
    adjacent: Literal["none", "first", "last"] = "none"
    """Which two frames of a clip follow one another, forwards or backwards, whatever the other strides."""
    reverse: float = 0.0
    """Probability that a clip runs backwards."""
    crop: tuple[float, float] | None = None
    """Side of a random window of the shape of `size`, relative to the largest in the frame; the whole frame if None."""
    min_area: float = 0.0
    """Share of the cropped frame that an object must cover, in the frame it is chosen by, to be given a slot."""
    first_frame: bool = True
    """Choose the objects by the first frame, where they all must be; otherwise by any frame of the clip."""
    binary: bool = False
    """Take all objects for one."""
    augmentation: Augmentation = Augmentation()
    """What may happen to a clip."""

    def __post_init__(self) -> None:
        steps, skips = [step for step, _ in self.max_skip], [skip for _, skip in self.max_skip]
        if self.num_frames < 1 or self.num_objects < 1:
            raise InputError(f"{self.num_frames} frames and {self.num_objects} objects: a clip has one of each")
        if steps[:1] != [0] or sorted(set(steps)) != steps or min(skips) < 1:
            raise InputError(f"max_skip {self.max_skip}: want (step, stride) pairs from step 0 on, strides at least 1")
        if not 1 <= self.min_skip <= min(skips):
            raise InputError(f"min_skip {self.min_skip}: want at least 1, and no more than max_skip {self.max_skip}")
        if self.crop is not None and not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise InputError(f"crop {self.crop}: want 0 < smallest <= largest <= 1")
        if self.num_proposals is not None and (self.crop is not None or self.static or not _stays(self.augmentation)):
            raise InputError("proposals are of whole frames as they are: set neither crop, static nor augmentation")
        if self.flow and not self.static and (max(skips) > 1 or self.reverse > 0):
            raise InputError("flow leads to the next frame of the sequence: set max_skip ((0, 1),) and reverse 0")

    @property
    def needs(self) -> str:
        """What a sequence must have."""
        count = 1 if self.static else self.num_frames
        frames = f"{count}{' annotated' * self.masks} frame{'s' * (count > 1)}"
        return f"{frames} in a row with a frame after them" if self.flow and not self.static else frames


def largest_skip(skips: Sequence[tuple[int, int]], step: int) -> int:
    """The largest stride at a step, of pairs of a step and the stride from then on."""
    return [skip for begin, skip in skips if begin <= step][-1]


def can_sample(source: ClipSource, config: ClipConfig) -> bool:
    """Tells whether a sequence is long enough for a clip: in annotated frames, if the clip has masks."""
    return len(_starts(source, config)) > 0


def sample_clip(seed: int | tuple[int, ...], source: ClipSource, config: ClipConfig, *, step: int = 0) -> Clip:
    """Makes a batch of one clip, as NumPy arrays.

    Void counts as background, and so do objects without a slot. Slots are in the order of the ids. Frames without any
    object to choose are drawn again a few times; after that, the clip has no object that is alive.

    Args:
        seed: decides, with `step`, everything that is random.
        source: what it is a clip of.
        config: what the clip is.
        step: of the training, for the strides.

    Returns:
        The clip, with a batch axis of one; `masks`, `alive` and `flow` are None where `config` leaves them out.

    Raises:
        InputError: the sequence is too short, frames, masks and flow differ in size, or as the source does.
    """
    if not can_sample(source, config):
        raise InputError(f"sequence {source.name} has not {config.needs}: leave it out or ask for shorter clips")
    rng = np.random.default_rng([*np.atleast_1d(seed), 1])  # a last 0 would not tell (s,) from (s, 0)
    window, masks = _draw_frames(rng, source, config, step)
    sample = _augmented(int(rng.integers(2**63)), source, config, window, masks)
    fields: dict[str, Any] = {
        "images": sample.images[None] / np.float32(255),
        "valid": np.ones((1, config.num_frames), bool),
        "flow": sample.flow[None] if config.flow and sample.flow is not None else None,
        "proposals": None if config.num_proposals is None else _proposals(source, window, config),
    }
    if sample.masks is not None:
        slots, count = _fill_slots(rng, sample.masks, config)
        each = [slots == slot for slot in range(config.num_objects + 1)]  # many times faster than indexing an identity
        fields["masks"] = np.stack(each, axis=-1)[None].astype(np.float32)
        fields["alive"] = np.arange(config.num_objects + 1)[None] <= count
    return Clip(**fields)


def _starts(source: ClipSource, config: ClipConfig) -> np.ndarray:
    """Returns where, among the frames that may be drawn, a clip of the smallest stride can start."""
    frames = np.array(source.annotated if config.masks else range(len(source)))
    if config.static:
        return np.arange(len(frames))
    ends = frames[config.num_frames - 1 :]
    if not config.flow:
        return np.arange(len(ends))
    whole = ends - frames[: len(ends)] == config.num_frames - 1
    return np.flatnonzero(whole & (ends < len(source) - 1))


def _draw_frames(
    rng: np.random.Generator, source: ClipSource, config: ClipConfig, step: int
) -> tuple[list[int], list[np.ndarray]]:
    """Draws frames until an object is seen where objects are chosen; also returns their masks."""
    window, masks = [], []
    for _ in range(_TRIES if config.masks else 1):
        window = _draw_window(rng, source, config, step)
        masks = [source.mask(index) for index in window] if config.masks else []
        if any(object_areas(mask).any() for mask in (masks[:1] if config.first_frame else masks)):
            break
    if config.binary:
        masks = [np.where(mask == _VOID, mask, mask > 0).astype(np.uint8) for mask in masks]
    return window, masks


def _draw_window(rng: np.random.Generator, source: ClipSource, config: ClipConfig, step: int) -> list[int]:
    frames = source.annotated if config.masks else range(len(source))
    if config.static or config.flow:
        start = int(rng.choice(_starts(source, config)))
        return [frames[start + offset] for offset in range(1 if config.static else config.num_frames)]
    strides = _draw_strides(rng, len(frames), config, largest_skip(config.max_skip, step))
    offsets = [0, *itertools.accumulate(strides.tolist())]
    start = int(rng.integers(len(frames) - offsets[-1]))
    if rng.random() < config.reverse:
        offsets = [offsets[-1] - offset for offset in offsets]
    return [frames[start + offset] for offset in offsets]


def _draw_strides(rng: np.random.Generator, length: int, config: ClipConfig, largest: int) -> np.ndarray:
    """Draws strides that a sequence of this length has room for: each has an equal share of it."""
    gaps, pairs = config.num_frames - 1, int(config.adjacent != "none")
    share = max(1, (length - 1 - pairs) // max(1, gaps - pairs))
    smallest = min(config.min_skip, share)
    if config.adjacent == "last":
        share = (length - 1) // max(1, gaps)  # a last pair keeps the share of any other stride
    strides = rng.integers(smallest, max(smallest, min(largest, share)), gaps, endpoint=True)
    match config.adjacent:
        case "first":
            strides[:1] = 1
        case "last":
            strides[-1:] = 1
        case "none":
            pass
    return strides


def _augmented(
    seed: int, source: ClipSource, config: ClipConfig, window: list[int], masks: list[np.ndarray]
) -> ClipSample:
    """Reads what else the clip has, and augments it."""
    images = [source.image(index) for index in window]
    flow = [source.flow(index) for index in window] if config.flow and not config.static else []
    sizes = {array.shape[:2] for array in (*images, *masks, *flow)}
    if len(sizes) > 1:
        found = " and ".join(f"{width}x{height}" for height, width in sorted(sizes))
        raise InputError(f"frames, masks and flow of {source.name} are {found} (width x height): make them of one size")
    geometry: dict[str, Any] = {"size": config.size, "crop": config.crop, "min_area": config.min_area}
    if config.static:
        mask = masks[0] if masks else None
        return static_clip(seed, images[0], mask, config.augmentation, num_frames=config.num_frames, **geometry)
    sample = ClipSample(np.stack(images), *(np.stack(arrays) if arrays else None for arrays in (masks, flow)))
    return augment_clip(seed, sample, config.augmentation, **geometry)


def _stays(augmentation: Augmentation) -> bool:
    """Tells whether every pixel stays where it is."""
    moves = augmentation.flip, augmentation.vertical_flip, augmentation.clip, augmentation.frame
    return moves == (0.0, 0.0, AffineRange(), AffineRange())


def _proposals(source: ClipSource, window: list[int], config: ClipConfig) -> Proposals:
    """Stacks the proposals of the frames of a clip, with boxes at the size of the clip."""
    if config.num_proposals is None or not isinstance(source, AnnotatedSequence):
        raise InputError(f"sequence {source.name} has no proposals: set num_proposals to None")
    found = [source.proposals(index, num_proposals=config.num_proposals) for index in window]
    height, width = source.size
    scale = np.array([config.size[1] / width, config.size[0] / height] * 2, np.float32)
    stacked = Proposals(*(np.stack(field)[None] for field in zip(*found, strict=True)))
    return stacked._replace(boxes=stacked.boxes * scale)


def _fill_slots(rng: np.random.Generator, masks: np.ndarray, config: ClipConfig) -> tuple[np.ndarray, int]:
    """Replaces ids by slots; also returns how many slots are taken."""
    areas = np.max([object_areas(mask) for mask in (masks[:1] if config.first_frame else masks)], axis=0)
    ids = np.flatnonzero((areas > 0) & (areas >= config.min_area)) + 1
    if len(ids) > config.num_objects:
        ids = np.sort(rng.choice(ids, config.num_objects, replace=False))
    slot_of = np.zeros(256, np.uint8)
    slot_of[ids] = np.arange(1, len(ids) + 1)
    return slot_of[masks], len(ids)
