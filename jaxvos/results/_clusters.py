"""Clusters of a video as a picture."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8

from jaxvos.drawing import contact_sheet, evenly_spaced, overlay
from jaxvos.ops import resize

__all__ = ["cluster_sheet"]

_COLUMNS, _TILE = 6, 240


def cluster_sheet(
    frames: Sequence[UInt8[np.ndarray, "h w 3"]],
    labels: Sequence[Integer[np.ndarray, "y x"]],
    kept: Bool[np.ndarray, "m"],
    shares: Float[np.ndarray, "m"],
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Draws the clusters of a video, one a row, over up to six evenly spaced frames, one a column.

    Kept clusters come first, the largest first, with the numbers and colours of their masks
    (`jaxvos.systems.cluster_masks`); dropped ones follow without colour.

    Args:
      frames: RGB.
      labels: the cluster of every cell of each frame, at any resolution.
      kept: clusters that are taken for objects.
      shares: of the video's cells.

    Raises:
      ValueError: for no frames, or not as many labels.
    """
    if not len(frames) or len(frames) != len(labels):
        raise ValueError(f"cluster_sheet: {len(frames)} frames and labels of {len(labels)}: as many, and one at least")
    picked = evenly_spaced(len(frames), _COLUMNS)
    drawn = [_enlarge(labels[index], len(kept), frames[index].shape[:2]) for index in picked]
    tiles, texts = [], []
    for row, cluster in enumerate(np.lexsort((-shares, ~kept)), 1):
        texts += [_describe(row, bool(kept[cluster]), float(shares[cluster]))] + [""] * (len(picked) - 1)
        for index, label in zip(picked, drawn, strict=True):
            tiles.append(_paint(frames[index], label == cluster, row if kept[cluster] else 0))
    gap = 4
    return contact_sheet(tiles, columns=len(picked), labels=texts, width=gap + len(picked) * (_TILE + gap), gap=gap)


def _describe(number: int, kept: bool, share: float) -> str:
    size = f"{share:.0%}" if share >= 0.01 else f"{share:.1%}"
    size = size.replace("%", " %")
    if kept:
        return f"cluster {number}: {size} kept"
    return f"{size} dropped" if share > 0 else "empty"


def _enlarge(labels: Integer[np.ndarray, "y x"], count: int, size: tuple[int, ...]) -> Integer[np.ndarray, "h w"]:
    return np.asarray(jnp.argmax(resize(jax.nn.one_hot(labels, count), size), axis=-1))


def _paint(
    image: UInt8[np.ndarray, "h w 3"], inside: Bool[np.ndarray, "h w"], number: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Darkens what is outside, and tints what is inside, with grey where it has no number."""
    grey = np.repeat(0.5 * image.mean(axis=-1, keepdims=True) + 80, 3, axis=-1)
    lit = np.where(inside[..., None], image if number else grey, 0.3 * image).astype(np.uint8)
    return overlay(lit, np.where(inside, number, 0))
