"""The painter of the synthetic clips: layers over a plane, with the owner and the exact flow of every pixel.

A sprite is a list of layers; a layer is a star-shaped contour (a table of radii over the angle) with a texture and a
pose for every time. A pixel of a layer knows its place on the layer, so its flow is the place's next position minus
this one: exact, with no estimation anywhere.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxvos.data._synthetic_figures import Part
from jaxvos.data._synthetic_textures import sample_texture

__all__ = ["Canvas", "Layer", "blank_canvas", "paint_layer", "paint_plane"]

Pose = Callable[[float], np.ndarray]  # time in frames -> 3x3 matrix from layer units to pixels


class Canvas(NamedTuple):
    """What the painter paints on; every field is written in place."""

    image: Float[np.ndarray, "h w 3"]
    owner: Int[np.ndarray, "h w"]  # slot of the topmost layer with at least half coverage
    flow: Float[np.ndarray, "h w 2"]


class Layer(NamedTuple):
    """A part in the world: where it is, what covers it, whom it belongs to."""

    slot: int  # -1 tints what lies below and leaves owner and flow alone (a shadow)
    part: Part
    pose: Pose
    texture: Float[np.ndarray, "s s 3"]
    softness: float = 1.0  # width of the border in pixels
    opacity: float = 1.0
    light: tuple[float, float] = (0.0, 0.0)  # shading across the contour


def blank_canvas(height: int, width: int) -> Canvas:
    """Returns a black canvas that belongs to the background."""
    return Canvas(np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.int32),
                  np.zeros((height, width, 2), np.float32))


def paint_plane(canvas: Canvas, texture: Float[np.ndarray, "s s 3"], pose: Pose, time: float) -> None:
    """Covers the whole canvas with a plane whose unit is a texel; `pose` may be any homography."""
    height, width = canvas.owner.shape
    y, x = np.mgrid[:height, :width].reshape(2, -1).astype(np.float32)
    u, v = _apply(np.linalg.inv(pose(time)), x, y)
    canvas.image[:] = sample_texture(texture, u, v).reshape(height, width, 3)
    canvas.owner[:] = 0
    next_x, next_y = _apply(pose(time + 1.0), u, v)
    canvas.flow[..., 0] = (next_x - x).reshape(height, width)
    canvas.flow[..., 1] = (next_y - y).reshape(height, width)


def paint_layer(canvas: Canvas, layer: Layer, time: float) -> None:
    """Paints a layer over the canvas, with a soft border in the image and a hard one in owner and flow."""
    pose, contour = layer.pose(time) @ layer.part.pose(time), layer.part.contour(time)
    height, width = canvas.owner.shape
    reach = contour.max() * np.abs(pose[:2, :2]).sum(axis=1) + layer.softness + 1.0
    low = np.maximum(np.floor(pose[:2, 2] - reach), 0).astype(int)
    high = np.minimum(np.ceil(pose[:2, 2] + reach) + 1, [width, height]).astype(int)
    if (high <= low).any():
        return
    y, x = np.mgrid[low[1]:high[1], low[0]:high[0]].reshape(2, -1).astype(np.float32)
    u, v = _apply(np.linalg.inv(pose), x, y)
    radius = np.sqrt(u * u + v * v)
    turns = np.arctan2(v, u) * np.float32(len(contour) / (2.0 * np.pi))
    limit = _read_table(contour, turns)
    scale = np.float32(np.sqrt(abs(np.linalg.det(pose[:2, :2]))))
    slope = (np.roll(contour, -1) - np.roll(contour, 1)) * np.float32(len(contour) / (4.0 * np.pi))
    upright = _read_table(contour / np.sqrt(contour**2 + slope**2), turns)  # radial to perpendicular distance
    coverage = np.clip(0.5 + (limit - radius) * upright * (scale / np.float32(layer.softness)), 0.0, 1.0)
    seen = np.flatnonzero(coverage > 0.0)
    if not seen.size:
        return
    x, y, u, v, turns, limit, coverage = (a[seen] for a in (x, y, u, v, turns, limit, coverage))
    rest = _read_table(layer.part.radii, turns) / limit
    size = layer.texture.shape[0]
    texels = np.float32(0.45 * size / layer.part.radii.max())
    colour = sample_texture(layer.texture, u * rest * texels + size / 2, v * rest * texels + size / 2)
    colour *= (1.0 + (u * np.float32(layer.light[0]) + v * np.float32(layer.light[1])) / limit)[:, None]
    place = y.astype(np.intp) * width + x.astype(np.intp)
    pixels = canvas.image.reshape(-1, 3)
    below = pixels[place]
    pixels[place] = below + (colour - below) * (coverage * np.float32(layer.opacity))[:, None]
    if layer.slot < 0:
        return
    inside: Bool[np.ndarray, "n"] = coverage >= 0.5
    x, y, u, v, turns, limit, place = (a[inside] for a in (x, y, u, v, turns, limit, place))
    stretch = _read_table(layer.part.contour(time + 1.0), turns) / limit
    next_x, next_y = _apply(layer.pose(time + 1.0) @ layer.part.pose(time + 1.0), u * stretch, v * stretch)
    canvas.owner.reshape(-1)[place] = layer.slot
    canvas.flow.reshape(-1, 2)[place] = np.stack([next_x - x, next_y - y], axis=-1)


def _apply(matrix: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps points by a 3x3 matrix, in single precision."""
    m = matrix.astype(np.float32)
    u, v = m[0, 0] * x + m[0, 1] * y + m[0, 2], m[1, 0] * x + m[1, 1] * y + m[1, 2]
    if m[2, 0] == 0.0 and m[2, 1] == 0.0:
        return u, v
    depth = m[2, 0] * x + m[2, 1] * y + m[2, 2]
    return u / depth, v / depth


def _read_table(radii: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Reads a periodic table of radii between its entries."""
    low = np.floor(turns)
    index = low.astype(np.int32) % len(radii)
    first = radii[index]
    return first + (radii[(index + 1) % len(radii)] - first) * (turns - low)
