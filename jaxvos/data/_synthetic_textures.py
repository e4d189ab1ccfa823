"""Procedural textures for the synthetic clips: fractal fields, palettes, and what becomes of the two together.

Every texture is a scalar field in [0, 1] pushed through a table of colours. One clip draws a few fractal fields (one
batched inverse FFT) and cuts all its textures from them, which is what makes the generator fast.
"""

import numpy as np
from jaxtyping import Float

__all__ = ["fractal_fields", "make_texture", "palette", "sample_texture"]

_FAMILIES = ("fractal", "mosaic", "stripes", "checker", "gradient", "spots", "plain")
_TABLE = 256
_HUES = (0.05, 0.09, 0.13, 0.22, 0.32, 0.57, 0.61)  # earth, skin, straw, leaves, sky: what is often filmed


def fractal_fields(rng: np.random.Generator, *, count: int, size: int) -> Float[np.ndarray, "n s s"]:
    """Draws periodic random fields with a power-law spectrum, as natural images have (amplitude 1 / f^slope).

    Args:
        rng: the source of randomness.
        count: how many fields; the slope rises from the first (0.8, grain) to the last (2, clouds).
        size: side in texels.

    Returns:
        Fields of zero mean and unit standard deviation.
    """
    rows, cols = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    radius = np.sqrt(rows**2 + cols**2).astype(np.float32)
    radius[0, 0] = 1.0
    slopes = np.linspace(0.8, 2.0, count, dtype=np.float32)[:, None, None]
    amplitude = np.exp(-slopes * np.log(radius))
    amplitude[:, 0, 0] = 0.0
    noise = rng.standard_normal((2, count, *radius.shape), dtype=np.float32)
    fields = np.fft.irfft2(amplitude * (noise[0] + 1j * noise[1]), s=(size, size)).astype(np.float32)
    return fields / fields.std(axis=(1, 2), keepdims=True)


def palette(rng: np.random.Generator, *, count: int = 4, spread: float = 0.22) -> Float[np.ndarray, "n 3"]:
    """Draws colours that go together: near hues, mostly muted, lightness apart by about `spread`; RGB in [0, 1]."""
    base = rng.choice(_HUES) + rng.normal(0.0, 0.03) if rng.random() < 0.6 else rng.uniform()
    hue = base + rng.normal(0.0, rng.choice([0.03, 0.12, 0.4]), count)
    saturation = np.clip(rng.beta(1.3, 4.0) + rng.normal(0.0, 0.1, count), 0.0, 1.0)
    value = np.clip(rng.uniform(0.25, 0.85) + rng.normal(0.0, spread * rng.uniform(0.5, 1.5), count), 0.05, 1.0)
    offsets = np.array([0.0, 2.0 / 3.0, 1.0 / 3.0])
    pure = np.clip(np.abs((hue[:, None] + offsets) % 1.0 * 6.0 - 3.0) - 1.0, 0.0, 1.0)
    return (value[:, None] * (1.0 - saturation[:, None] * (1.0 - pure))).astype(np.float32)


def make_texture(
    rng: np.random.Generator,
    fields: Float[np.ndarray, "n s s"],
    colours: Float[np.ndarray, "m 3"],
    *,
    size: int,
) -> Float[np.ndarray, "size size 3"]:
    """Cuts one texture from the clip's fields and colours it.

    Args:
        rng: the source of randomness.
        fields: what `fractal_fields` drew for this clip.
        colours: RGB in [0, 1].
        size: side in texels, at most that of the fields.

    Returns:
        RGB, roughly in [0, 1].
    """
    field, grain = _cut(rng, fields, size), _cut(rng, fields, size)
    angle, period = rng.uniform(0.0, 2.0 * np.pi), size * np.exp(rng.uniform(np.log(0.03), np.log(0.4)))
    y, x = np.mgrid[:size, :size].astype(np.float32)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = x * cos + y * sin, y * cos - x * sin
    rate, bend = np.float32(2.0 * np.pi / period), np.float32(rng.exponential(0.4))
    match _FAMILIES[rng.choice(len(_FAMILIES), p=[0.24, 0.34, 0.1, 0.04, 0.1, 0.06, 0.12])]:
        case "fractal":
            value = 0.5 + 0.28 * field
        case "mosaic":
            steps = rng.uniform(1.0, 3.0)
            smooth = fields[len(fields) // 2 :]
            tiles = [np.floor(steps * _cut(rng, smooth, size)) for _ in range(2)]
            value = np.abs(np.modf(0.618 * tiles[0] + 0.382 * tiles[1])[0])
        case "stripes":
            value = 0.5 + 0.5 * np.sin(along * rate + bend * field)
        case "checker":
            value = 0.5 + 2.0 * np.sin(along * rate + bend * field) * np.sin(across * rate)
        case "gradient":
            value = (along - along.min()) / np.float32(size) + 0.06 * field
        case "spots":
            value = 0.3 + 0.5 * np.sin(along * rate + bend * field) * np.sin(across * rate + bend * grain)
        case _:
            value = rng.uniform(0.2, 0.8) + 0.08 * field
    coloured = _table(rng, colours)[(np.clip(value, 0.0, 1.0) * (_TABLE - 1)).astype(np.uint8)]
    return coloured * (1.0 + np.float32(rng.uniform(0.04, 0.4)) * grain[..., None])


def sample_texture(
    texture: Float[np.ndarray, "s s 3"], x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"]
) -> Float[np.ndarray, "n 3"]:
    """Reads a texture bilinearly at texel positions; it repeats without end."""
    size = texture.shape[0]
    left, top = np.floor(x), np.floor(y)
    dx, dy = (x - left)[:, None], (y - top)[:, None]
    left, top = left.astype(np.int32) % size, top.astype(np.int32) % size
    right, bottom = (left + 1) % size, (top + 1) % size
    top, bottom, texels = top * size, bottom * size, texture.reshape(-1, 3)
    upper = texels.take(top + left, axis=0)
    upper += (texels.take(top + right, axis=0) - upper) * dx
    lower = texels.take(bottom + left, axis=0)
    lower += (texels.take(bottom + right, axis=0) - lower) * dx
    upper += (lower - upper) * dy
    return upper


def _cut(rng: np.random.Generator, fields: np.ndarray, size: int) -> np.ndarray:
    """One of the fields from a random place, perhaps transposed."""
    field = fields[rng.integers(len(fields))]
    if rng.random() < 0.5:
        field = field.T
    row, col = rng.integers(field.shape[0], size=2)
    reach = np.arange(size)
    return field.take((row + reach) % len(field), axis=0).take((col + reach) % len(field), axis=1)


def _table(rng: np.random.Generator, colours: np.ndarray) -> np.ndarray:
    """A table of 256 colours: blended from one to the next, or in steps."""
    place = np.linspace(0.0, len(colours) - 1.0, _TABLE)
    if rng.random() < 0.35:
        place = np.round(place)
    table = [np.interp(place, np.arange(len(colours)), channel) for channel in colours.T]
    return np.stack(table, axis=-1).astype(np.float32)
