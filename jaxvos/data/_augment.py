"""Augmentation of clips on the host: one geometry for images, masks, flow and boxes, and one change of colours.

Geometry is as in `jaxvos.ops`: pixel centres are whole numbers, maps turn about the centre of the frame, and beyond its
border lies no motion. Every frame is resampled once, by the product of resizing, crop, flip and affine maps.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8

from jaxvos.data._warp import move_boxes, move_flow, resample, resample_nearest, shift_map
from jaxvos.errors import InputError

__all__ = ["AffineRange", "Augmentation", "ClipSample", "ColourRange", "augment_clip", "object_areas", "static_clip"]

_TRIES = 10
_LUMA = np.array([0.299, 0.587, 0.114])
_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


@dataclasses.dataclass(frozen=True, kw_only=True)
class AffineRange:
    """Limits of a random affine map about the centre of the frame."""

    rotation: float = 0.0
    """Largest angle in degrees, either way."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest magnification."""
    shear: float = 0.0
    """Largest angle in degrees by which upright lines lean, either way."""
    shift: float = 0.0
    """Largest shift, either way, as a share of the width and of the height."""

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise InputError(f"scale {self.scale}: want 0 < smallest <= largest")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColourRange:
    """Limits of a random change of colours."""

    brightness: float = 0.0
    """Largest relative change, either way."""
    contrast: float = 0.0
    """Largest relative change, either way, about middle grey, so that a clip does not flicker with its content."""
    saturation: float = 0.0
    """Largest relative change, either way."""
    hue: float = 0.0
    """Largest turn of the hue, either way, as a share of the circle."""
    grey: float = 0.0
    """Probability of losing all colour."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What may happen to a clip. The defaults change nothing."""

    flip: float = 0.0
    """Probability of a horizontal flip of the clip."""
    vertical_flip: float = 0.0
    """Probability of a vertical flip of the clip."""
    clip: AffineRange = AffineRange()
    """The same for all frames of a clip."""
    frame: AffineRange = AffineRange()
    """For each frame anew: motion, where the clip is one image."""
    clip_colour: ColourRange = ColourRange()
    """The same for all frames of a clip."""
    frame_colour: ColourRange = ColourRange()
    """For each frame anew."""
    blur: float = 0.0
    """Probability that all frames of a clip are blurred."""
    blur_sigma: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest standard deviation of the blur, in pixels of the result."""

    def __post_init__(self) -> None:
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise InputError(f"blur_sigma {self.blur_sigma}: want 0 < smallest <= largest")


class ClipSample(NamedTuple):
    """The frames of one clip, all of one size."""

    images: UInt8[np.ndarray, "t h w 3"]
    masks: UInt8[np.ndarray, "t h w"] | None = None  # object ids, 255 for void
    flow: Float32[np.ndarray, "t h w 2"] | None = None  # to the frame that follows, pixels
    boxes: Float[np.ndarray, "t n 4"] | None = None  # left, top, right, bottom: edges, of which pixel i has i and i + 1


def augment_clip(
    seed: int,
    sample: ClipSample,
    config: Augmentation,
    *,
    size: tuple[int, int],
    crop: tuple[float, float] | None = None,
    min_area: float = 0.0,
) -> ClipSample:
    """Augments a clip and brings it to one size.

    Images are interpolated linearly (averaged where they shrink) and reflected at their border; of masks the nearest
    pixel is taken, with background beyond the border. Flow is resampled, and its vectors follow the maps of the two
    frames they join: a pair that the flow explained before is explained by it after. Boxes become the boxes of their
    moved corners, cut at the border: tight but for rotation and shear, and without area if they have left the frame.

    Args:
        seed: decides everything that is random.
        sample: the clip as it was read.
        config: what may happen to it.
        size: height and width of the result.
        crop: smallest and largest side of a random window of the shape of `size`, relative to the largest one in the
            frame; the whole frame, its aspect not kept, where it is None. With masks, a few geometries are drawn until
            one shows an object, in the first frame that has any; else the one that shows most is taken.
        min_area: share of the frame that an object must cover to count as shown.

    Returns:
        The clip, with the fields that `sample` has.
    """
    geometry_rng, colour_rng = np.random.default_rng(seed).spawn(2)
    matrices = _choose_geometry(geometry_rng, sample, config, size=size, crop=crop, min_area=min_area)
    here, there = matrices[:-1], matrices[1:]
    images = [resample(image, matrix, size) for image, matrix in zip(sample.images, here, strict=True)]
    masks = flow = boxes = None
    if sample.masks is not None:
        masks = np.stack([resample_nearest(mask, m, size) for mask, m in zip(sample.masks, here, strict=True)])
    if sample.flow is not None:
        flow = np.stack([move_flow(*each, size) for each in zip(sample.flow, here, there, strict=True)])
    if sample.boxes is not None:
        boxes = np.stack([move_boxes(each, m, size) for each, m in zip(sample.boxes, here, strict=True)])
    return ClipSample(np.stack(_recolour(colour_rng, images, config)), masks, flow, boxes)


def static_clip(
    seed: int,
    image: UInt8[np.ndarray, "h w 3"],
    mask: UInt8[np.ndarray, "h w"] | None,
    config: Augmentation,
    *,
    num_frames: int,
    size: tuple[int, int],
    crop: tuple[float, float] | None = None,
    min_area: float = 0.0,
) -> ClipSample:
    """Makes a clip of one image, moved anew for each frame by `config.frame`, with its flow.

    The flow of the last frame leads to one that was drawn but is not shown. Other arguments are those of
    `augment_clip`.

    Source: the pre-training on static images of Oh et al., "Fast User-Guided Video Object Segmentation" and "Video
    Object Segmentation using Space-Time Memory Networks" (ICCV 2019), as STCN (NeurIPS 2021) has it.
    """
    images, masks, still = (
        None if array is None else np.broadcast_to(array, (num_frames, *array.shape))
        for array in (image, mask, np.zeros((*image.shape[:2], 2), np.float32))
    )
    assert images is not None
    sample = ClipSample(images, masks, still)
    return augment_clip(seed, sample, config, size=size, crop=crop, min_area=min_area)


def object_areas(mask: UInt8[np.ndarray, "h w"]) -> Float[np.ndarray, "254"]:
    """Returns the share of the frame that each of the ids 1..254 covers."""
    return np.bincount(mask.ravel(), minlength=256)[1:255] / mask.size


def _choose_geometry(
    rng: np.random.Generator,
    sample: ClipSample,
    config: Augmentation,
    *,
    size: tuple[int, int],
    crop: tuple[float, float] | None,
    min_area: float,
) -> np.ndarray:
    """Draws geometries, all but the first about a pixel of an object, until one shows enough of an object."""
    masks = () if sample.masks is None else sample.masks
    judged = next((t for t, mask in enumerate(masks) if object_areas(mask).any()), None)
    chosen = _draw_geometry(rng, sample, config, size=size, crop=crop, aim=None)
    if judged is None:
        return chosen
    matrices, most = chosen, -1.0
    for _ in range(_TRIES):
        area = float(object_areas(resample_nearest(masks[judged], matrices[judged], size)).max())
        if area > most:
            chosen, most = matrices, area
        if most > 0 and most >= min_area:
            break
        pixels = np.argwhere((masks[judged] > 0) & (masks[judged] < 255))
        matrices = _draw_geometry(rng, sample, config, size=size, crop=crop, aim=rng.choice(pixels))
    return chosen


def _draw_geometry(
    rng: np.random.Generator,
    sample: ClipSample,
    config: Augmentation,
    *,
    size: tuple[int, int],
    crop: tuple[float, float] | None,
    aim: np.ndarray | None,
) -> np.ndarray:
    """Draws the map of every frame and of the one after the last, from pixels as read to those of the result."""
    window = _draw_window(rng, sample.images.shape[1:3], size, crop, aim)
    flips = np.diag([*np.where(rng.random(2) < (config.flip, config.vertical_flip), -1.0, 1.0), 1.0])
    whole = _draw_affine(rng, config.clip, size) @ flips
    frames = [_draw_affine(rng, config.frame, size) for _ in range(len(sample.images) + 1)]
    centre = shift_map((size[1] - 1) / 2, (size[0] - 1) / 2)
    return np.stack([centre @ frame @ whole @ np.linalg.inv(centre) @ window for frame in frames])


def _draw_window(
    rng: np.random.Generator,
    source: Sequence[int],
    size: tuple[int, int],
    crop: tuple[float, float] | None,
    aim: np.ndarray | None,
) -> np.ndarray:
    """Draws which part of the frame is seen, with the pixel `aim` (row, column) in it, as a map to the result."""
    sides = np.array(source, float)
    if crop is not None:
        sides = rng.uniform(*crop) * min(source[0] / size[0], source[1] / size[1]) * np.array(size)
    first, last = np.zeros(2), source - sides
    if aim is not None:
        first, last = np.clip([aim + 1 - sides, aim], first, last)
    top, left = rng.uniform(first, last)
    scale = np.diag([size[1] / sides[1], size[0] / sides[0], 1.0])
    return shift_map(-0.5, -0.5) @ scale @ shift_map(0.5 - left, 0.5 - top)


def _draw_affine(rng: np.random.Generator, limits: AffineRange, size: tuple[int, int]) -> np.ndarray:
    """Draws shear, then rotation, zoom and shift, about the origin."""
    lean, angle, dx, dy = rng.uniform(-1, 1, 4) * (limits.shear, limits.rotation, limits.shift, limits.shift)
    zoom = rng.uniform(*limits.scale)
    cos, sin = zoom * np.cos(np.deg2rad(angle)), zoom * np.sin(np.deg2rad(angle))
    rotate = np.array([[cos, sin, dx * size[1]], [-sin, cos, dy * size[0]], [0, 0, 1]])
    return rotate @ np.array([[1, np.tan(np.deg2rad(lean)), 0], [0, 1, 0], [0, 0, 1]])


def _recolour(rng: np.random.Generator, images: list[np.ndarray], config: Augmentation) -> list[np.ndarray]:
    import cv2

    whole = _draw_colours(rng, config.clip_colour)
    blurred, sigma = rng.random() < config.blur, rng.uniform(*config.blur_sigma)
    result = []
    for image in images:
        if blurred:
            image = cv2.GaussianBlur(image, (0, 0), sigma)
        colours = _draw_colours(rng, config.frame_colour) @ whole
        result.append(image if np.array_equal(colours, np.eye(4)) else cv2.transform(image, colours[:3]))
    return result


def _draw_colours(rng: np.random.Generator, limits: ColourRange) -> np.ndarray:
    """Draws an affine map of RGB values 0..255: hue, saturation, brightness, then contrast."""
    changes = (limits.brightness, limits.contrast, limits.saturation, 2 * np.pi * limits.hue)
    brightness, contrast, saturation, angle = rng.uniform(-1, 1, 4) * changes + (1, 1, 1, 0)
    if rng.random() < limits.grey:
        saturation = 0.0
    turn = np.eye(3)
    turn[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    hue = np.linalg.solve(_YIQ, turn @ _YIQ) if angle else turn
    colours = np.eye(4)
    colours[:3, :3] = contrast * brightness * (saturation * np.eye(3) + (1 - saturation) * _LUMA) @ hue
    colours[:3, 3] = 127.5 * (1 - contrast)
    return colours
