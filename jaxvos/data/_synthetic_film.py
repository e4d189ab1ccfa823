"""From a perfect picture to one that a camera took, and from exact flow to flow that was estimated."""

import numpy as np
from jaxtyping import Float, Int

from jaxvos.data._flow import dis_flow
from jaxvos.data._synthetic_scenes import SyntheticConfig
from jaxvos.data._synthetic_textures import fractal_fields

__all__ = ["degrade_flow", "estimate_flow", "expose", "mask_edges"]


def expose(
    rng: np.random.Generator, images: Float[np.ndarray, "t h w 3"], config: SyntheticConfig
) -> Float[np.ndarray, "t h w 3"]:
    """Puts light, lens and sensor between the scene and the frames.

    Args:
        rng: the source of randomness.
        images: the scene, roughly in [0, 1].
        config: `lights`, `blur`, `photometric` and `noise` are read.

    Returns:
        RGB in [0, 1].
    """
    num_frames, height, width = images.shape[:3]
    flicker_rng, noise_rng = rng.spawn(2)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = y / height - 0.5, x / width - 0.5
    if rng.random() < config.lights:
        place, drift = rng.uniform(-0.6, 0.6, 2), rng.normal(0.0, 0.03, 2)
        reach, colour = rng.uniform(0.08, 0.35), rng.uniform(0.1, 0.5) * rng.uniform(0.6, 1.0, 3)
        time = np.arange(num_frames, dtype=np.float32)[:, None, None]
        away = (x - float(place[0]) - float(drift[0]) * time) ** 2 + (y - float(place[1]) - float(drift[1]) * time) ** 2
        images = images + np.exp(-away / reach**2)[..., None] * colour.astype(np.float32)
    strength = config.photometric
    vignette = 1.0 - strength * rng.uniform(0.0, 1.0) * (x * x + y * y)
    slope = 1.0 + strength * (rng.normal(0.0, 0.15) * x + rng.normal(0.0, 0.15) * y)
    tint = (1.0 + strength * rng.normal(0.0, 0.05, 3)).astype(np.float32)
    gain = np.clip(np.clip(rng.normal(0.46, 0.1), 0.2, 0.7) / max(float(images[0].mean()), 0.05), 0.5, 2.5) ** strength
    unsteady = strength * rng.exponential(0.01)
    contrast = np.float32(np.exp(strength * rng.normal(0.0, 0.2)))
    brightness, gamma = strength * rng.normal(0.0, 0.05), np.exp(strength * rng.normal(0.0, 0.15))
    images = images * (np.float32(gain) * vignette * slope)[..., None] * tint
    for frame in images:  # here and below one by one: a frame does not depend on how many follow
        frame *= np.float32(1.0 + unsteady * flicker_rng.normal())
    images = np.clip((images - 0.5) * contrast + np.float32(0.5 + brightness), 0.0, 1.0)
    if strength > 0.0:
        images **= np.float32(gamma)
    if rng.random() < config.blur:
        weight = rng.uniform(0.2, 1.0)
        images = images + np.float32(weight) * (_smooth(images, radius=int(rng.integers(1, 3))) - images)
    sigma = np.float32(config.noise * rng.uniform(0.0, 1.0) ** 2)
    for frame in images:
        frame += sigma * noise_rng.standard_normal(frame.shape, dtype=np.float32)
    return np.clip(images, 0.0, 1.0, out=images)


def estimate_flow(images: Float[np.ndarray, "u h w 3"]) -> Float[np.ndarray, "t h w 2"]:
    """Estimates forward flow between neighbouring frames (one fewer than `images`) by DIS, as at test time."""
    provider = dis_flow()
    pictures = [(image * 255.0).astype(np.uint8) for image in images]
    pairs = zip(pictures[:-1], pictures[1:], strict=True)
    return np.stack([provider(first, second, name=str(index)) for index, (first, second) in enumerate(pairs)])


def degrade_flow(
    rng: np.random.Generator, flow: Float[np.ndarray, "t h w 2"], owner: Int[np.ndarray, "t h w"]
) -> Float[np.ndarray, "t h w 2"]:
    """Makes flow err as estimators do.

    Small objects may be missed, borders wander and blur, weakly textured regions drift, patches go astray where the
    brightness changed.

    Args:
        rng: the source of randomness.
        flow: pixels.
        owner: the slot that each pixel belongs to.

    Returns:
        Flow of the same shape.
    """
    height, width = flow.shape[1:3]
    short = min(height, width)
    flow = _miss_objects(rng, flow, owner)
    wander, drift = short * rng.uniform(0.0, 0.03), short * rng.exponential(0.001)
    radius = int(short * rng.uniform(0.0, 0.03))
    astray = rng.uniform(0.0, 0.05) if rng.random() < 0.4 else 0.0
    y, x = np.mgrid[:height, :width]
    size = max(height, width)
    degraded = np.empty_like(flow)
    for index, frame in enumerate(flow):
        fields = _low_fields(rng, count=5, size=size)[:, :height, :width]
        row = np.clip(y + wander * 0.5 * fields[0], 0, height - 1).astype(np.intp)
        col = np.clip(x + wander * 0.5 * fields[1], 0, width - 1).astype(np.intp)
        moved = frame[row, col]
        if radius:
            moved = _smooth(moved[None], radius=radius)[0]
        moved = moved + drift * np.stack([fields[2], fields[3]], axis=-1)
        wrong = np.clip(2.0 * (fields[4] - np.quantile(fields[4][::4, ::4], 1.0 - astray)), 0.0, 1.0)
        degraded[index] = moved + wrong[..., None] * rng.normal(0.0, 0.03 * short, 2)
    return degraded


def mask_edges(foreground: Float[np.ndarray, "*t h w"]) -> Float[np.ndarray, "*t h w"]:
    """Marks the pixels whose Sobel gradient is not zero: a band two pixels wide (TransportNet's edge target).

    Args:
        foreground: 1 on the objects, 0 elsewhere; borders are continued by replication.

    Returns:
        1 on the band, 0 elsewhere.
    """
    pad = [(0, 0)] * (foreground.ndim - 2) + [(1, 1), (1, 1)]
    full = np.pad(foreground, pad, mode="edge")
    rows = full[..., :-2, :] + 2.0 * full[..., 1:-1, :] + full[..., 2:, :]
    cols = full[..., :-2] + 2.0 * full[..., 1:-1] + full[..., 2:]
    across, down = rows[..., 2:] - rows[..., :-2], cols[..., 2:, :] - cols[..., :-2, :]
    return (np.abs(across) + np.abs(down) > 0).astype(np.float32)


def _miss_objects(rng: np.random.Generator, flow: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Gives a small object, now and then, the flow of what surrounds it."""
    flow = flow.copy()
    for slot in range(1, int(owner.max()) + 1):
        inside = owner == slot
        if inside.any() and inside.mean() < 0.02 and rng.random() < 0.4:
            for frame, mask, outside in zip(flow, inside, owner == 0, strict=True):
                if outside.any():
                    frame[mask] = np.median(frame[outside], axis=0)
    return flow


def _low_fields(rng: np.random.Generator, *, count: int, size: int) -> np.ndarray:
    """Smooth fields of about unit size, drawn small and enlarged."""
    coarse = fractal_fields(rng, count=count, size=32)
    place = np.arange(size) * (31.0 / size)
    low = place.astype(int)
    part = (place - low).astype(np.float32)
    rows = coarse[:, low] + (coarse[:, low + 1] - coarse[:, low]) * part[:, None]
    return rows[..., low] + (rows[..., low + 1] - rows[..., low]) * part


def _smooth(images: np.ndarray, *, radius: int) -> np.ndarray:
    """Box blur of side 2 radius + 1, twice, with replicated borders."""
    side = 2 * radius + 1
    for axis in (1, 2, 1, 2):
        pad = [(0, 0)] * images.ndim
        pad[axis] = (radius + 1, radius)
        sums = np.cumsum(np.pad(images, pad, mode="edge"), axis=axis, dtype=np.float32)
        length = images.shape[axis]
        images = (np.take(sums, np.arange(side, side + length), axis=axis)
                  - np.take(sums, np.arange(length), axis=axis)) / side
    return images
