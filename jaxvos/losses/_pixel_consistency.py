"""Pixels of two aligned frames must point at the same places of a third (Zhang et al., CVPR 2023, Eq. 5-7).

The papers' letters: `b` clips, `a` anchors of each. Clips come as a batch, since the anchors of all are the negatives
of each: they must be of different videos.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxvos.errors import InputError
from jaxvos.ops import Keys
from jaxvos.ops import similarity as l2_similarity
from jaxvos.typing import Key

__all__ = ["grid_anchors", "pixel_consistency", "view_consistency"]

_NEVER = -1e30  # score of a pair that cannot be; finite, so that rows without any pair are too

Similarity = Callable[[Keys, Keys], Array]


def grid_anchors(key: Key, *, size: tuple[int, int], grid: int = 8, cell: int | None = None) -> Int[Array, "a"]:
    """Places of a clip's anchors: a regular grid, shifted by one random offset of less than a cell.

    A frame is divided into whole cells from its upper left corner, and what is left of it has no anchor.

    Args:
      key: randomness, another one for each clip.
      size: height and width of the map of keys.
      grid: cells along each side, the reading of the released code.
      cell: side of a cell in places of the map, in place of `grid`: the reading of the paper's pseudo-code (8).

    Returns:
      Indices into the flattened map, row by row.

    Raises:
      InputError: if the map is smaller than the grid, or than a cell.
    """
    (h, w), side = size, grid if cell is None else cell
    if not 1 <= side <= min(size):
        asked = f"a grid of {grid} x {grid} anchors" if cell is None else f"a cell of {cell} x {cell} keys"
        raise InputError(f"{asked} does not fit a map of {h} x {w} keys: choose one between 1 and {min(size)}")
    ch, cw = (h // grid, w // grid) if cell is None else (cell, cell)
    offset_y, offset_x = jax.random.randint(key, (2,), 0, jnp.array([ch, cw]))
    rows, columns = (grid, grid) if cell is None else (h // cell, w // cell)
    y, x = jnp.arange(rows) * ch + offset_y, jnp.arange(columns) * cw + offset_x
    return (y[:, None] * w + x).ravel()


def pixel_consistency(
    first: Keys,
    second: Keys,
    remote: Keys,
    anchors: Int[Array, "b a"],
    *,
    similarity: Similarity = l2_similarity,
    valid: Bool[Array, "b h w"] | None = None,
) -> Float[Array, ""]:
    """Cross-entropy of the second frame's anchors against those that the first frame chooses.

    A pixel of the first frame names the most similar anchor of its own clip, without gradient; the same pixel of the
    second frame is to find it among the anchors of all clips. Pixels of equal index must show the same thing: frames
    are adjacent and share their augmentation, or are aligned by a warp.

    Alone this loss has collapsed solutions, such as equal keys everywhere; `view_consistency` or a loss of masks stands
    against them.

    Args:
      first: keys `(b, h, w, c)` of the frame that names anchors, as queries.
      second: keys of the frame that is judged, as queries.
      remote: keys of a distant frame of the same clips, as a memory.
      anchors: indices into the flattened map of `remote`, of `grid_anchors`.
      similarity: the one that the host reads its memory by: queries `(q, c)` and entries `(n, c)` to scores `(q, n)`.
      valid: pixels that count, such as those that the warp has a source for; by default all.

    Returns:
      The mean over the pixels that count; 0 if there are none.

    Source: Zhang et al., "Boosting Video Object Segmentation via Space-time Correspondence Learning" (CVPR 2023), Eq.
    5-7; the logarithm is taken of the softmax, which the supplement's pseudo-code leaves out.
    """
    first, second, remote = (_flat(keys) for keys in (first, second, remote))
    memory = _gather(remote, anchors)
    own = jnp.argmax(jax.vmap(similarity)(first, memory), axis=-1)
    label = (own + anchors.shape[1] * jnp.arange(len(anchors))[:, None]).ravel()
    chance = jax.nn.log_softmax(similarity(_joined(second), _joined(memory)), axis=-1)
    loss = -jnp.take_along_axis(chance, label[:, None], axis=-1)[:, 0]
    return jnp.mean(loss) if valid is None else _mean(loss, valid.ravel())


def view_consistency(
    first: Keys,
    second: Keys,
    anchors: Int[Array, "b a"],
    *,
    similarity: Similarity = l2_similarity,
    valid: Bool[Array, "b h w"] | None = None,
) -> Float[Array, ""]:
    """Tells each anchor of a view from all others in another, aligned view of the same frame: InfoNCE.

    The regulariser of the released code, which keeps keys from becoming equal. The softmax runs over the second view.

    Args:
      first: keys `(b, h, w, c)`, as queries.
      second: keys of the view that is aligned with the first, as a memory.
      anchors: indices into the flattened map, the same for both, of `grid_anchors`.
      similarity: as in `pixel_consistency`.
      valid: pixels that both views show; anchors elsewhere neither count nor are compared with.

    Returns:
      The mean over the anchors that count; 0 if there are none.

    Source: the released code of Zhang et al. (CVPR 2023), after Araslanov et al., "Dense Unsupervised Learning for
    Video Segmentation" (NeurIPS 2021).
    """
    scores = similarity(_joined(_gather(_flat(first), anchors)), _joined(_gather(_flat(second), anchors)))
    if valid is None:
        return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(scores, axis=-1)))
    counts = jnp.take_along_axis(valid.reshape(len(valid), -1), anchors, axis=1).ravel()
    chance = jax.nn.log_softmax(jnp.where(counts, scores, _NEVER), axis=-1)
    return -_mean(jnp.diagonal(chance), counts)


def _flat(keys: Keys) -> Keys:
    """One axis in place of rows and columns: `(b, h w, c)`, and a shrinkage `(b, h w)`."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:]), keys)


def _gather(keys: Keys, anchors: Int[Array, "b a"]) -> Keys:
    return jax.tree.map(lambda x: jax.vmap(lambda entries, index: entries[index])(x, anchors), keys)


def _joined(keys: Keys) -> Keys:
    """One axis in place of clips and places."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), keys)


def _mean(values: Float[Array, "n"], counts: Bool[Array, "n"]) -> Float[Array, ""]:
    return jnp.sum(jnp.where(counts, values, 0)) / jnp.maximum(jnp.sum(counts), 1)
