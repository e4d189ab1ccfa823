"""A next frame made from one frame and a mask: the object moves a little, and the flow is known exactly."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxvos.ops._augment import random_affine
from jaxvos.ops._instance_masks import mask_boxes
from jaxvos.ops._resize import resize
from jaxvos.ops._warp import warp
from jaxvos.typing import Key

__all__ = ["NextFrame", "synthesise_next_frame"]

_MOST_ELASTIC = 0.1  # at which the bend is still inverted, to 1e-4 of the box, by so many steps
_INVERSION_STEPS = 10


class NextFrame(NamedTuple):
    """A made frame, and how the given one moves into it."""

    image: Float[Array, "h w 3"]
    """The made frame."""
    mask: Float[Array, "h w"]
    """The object in it, zeros and ones."""
    flow: Float[Array, "h w 2"]
    """Of each pixel of the given frame, to the made one: the motion of the object on it, that of the background beside
    it, known everywhere."""
    occluded: Bool[Array, "h w"]
    """Pixels of the given frame's background that the object hides in the made one."""


class _Motion(NamedTuple):
    """The object's: `A(p) = R (p + bend(p) - c) + c + tau`."""

    R: Float[Array, "2 2"]
    inverse: Float[Array, "2 2"]
    c: Float[Array, "2"]
    tau: Float[Array, "2"]
    bend: Callable[[Float[Array, "h w 2"]], Float[Array, "h w 2"]] | None


def synthesise_next_frame(
    key: Key,
    image: Float[Array, "h w 3"],
    mask: Float[Array, "h w"],
    *,
    rotation: float = 5.0,
    shift: float = 0.05,
    scale: tuple[float, float] = (0.95, 1.05),
    hole: Literal["black", "mean", "inpaint"] = "black",
    background: float = 0.0,
    elastic: float = 0.0,
) -> NextFrame:
    """Turns, grows and moves the object about its centroid, over a background that rests.

    The object is what is above 0.5 in the mask; beyond the frame there is none. With `A` its motion, pixel q of the
    made frame is `image(A^-1 q)` where the object is now, the hole's colour where it was, and `image(q)` elsewhere. An
    empty mask gives the image back.

    The shift is shortened, in steps of a twentieth, until at least half of the object's pixels stay in the frame;
    growth alone can still push more than half of a large object out of it.

    Source: Cheng et al., "SegFlow" (ICCV 2017), section 4.2, which says no more than that the object is slightly
    deformed and the hole left black. All sizes, and the options from `hole` on, are ours.

    Args:
      key: randomness.
      image: frame.
      mask: object, in [0, 1].
      rotation: largest angle in degrees, either way.
      shift: largest movement along each axis, either way, as a share of the sides of the object's box.
      scale: smallest and largest magnification.
      hole: what is seen where the object was: zero; the mean colour of the background; or the background around it,
        drawn over the hole smoothly. Where all is object, the whole frame stands for the background.
      background: largest movement of the background along each axis, as a share of the frame, whose edge is repeated.
        The object's motion does not change.
      elastic: amplitude of a wave-like bend of the object, as a share of the sides of its box, along which there is
        about half a wave; at most 0.1, so that it never folds.

    Raises:
      ValueError: `elastic` is negative or above 0.1.
    """
    if not 0 <= elastic <= _MOST_ELASTIC:
        raise ValueError(f"elastic = {elastic} folds the object: give a number between 0 and {_MOST_ELASTIC}")
    h, w = mask.shape
    object_key, background_key = jax.random.split(key)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(float(w)), jnp.arange(float(h))), axis=-1)
    drift = jax.random.uniform(background_key, (2,), minval=-background, maxval=background) * jnp.array([w, h])

    M = mask > 0.5
    motion = _draw_motion(object_key, M, grid, rotation=rotation, shift=shift, scale=scale, elastic=elastic)
    source = _backward(motion, grid)
    moved = warp(jnp.concatenate([image, mask[..., None]], axis=-1), source - grid, border="nearest")
    M_next = (moved[..., 3] > 0.5) & _within(source, h, w)

    rest = jnp.where(M[..., None], _hole_colour(image, ~M, hole), image)
    hidden = M_next
    if background:
        rest = warp(rest, jnp.broadcast_to(-drift, grid.shape), border="nearest")
        source = _backward(motion, grid + drift)
        there = warp(mask[..., None], source - grid, border="nearest")[..., 0] > 0.5
        hidden = there & _within(source, h, w) & _within(grid + drift, h, w)
    return NextFrame(
        image=jnp.where(M_next[..., None], moved[..., :3], rest).astype(image.dtype),
        mask=M_next.astype(mask.dtype),
        flow=jnp.where(M[..., None], _forward(motion, grid) - grid, drift),
        occluded=hidden & ~M,
    )


def _draw_motion(
    key: Key,
    M: Bool[Array, "h w"],
    grid: Float[Array, "h w 2"],
    *,
    rotation: float,
    shift: float,
    scale: tuple[float, float],
    elastic: float,
) -> _Motion:
    affine_key, angle_key, phase_key = jax.random.split(key, 3)
    inverse, offset = random_affine(affine_key, rotation=rotation, scale=scale, shift=shift)
    box = mask_boxes(M[None])[0]
    sides = box[2:] - box[:2]
    c = jnp.sum(jnp.where(M[..., None], grid, 0), axis=(0, 1)) / jnp.maximum(jnp.sum(M), 1)
    bend = None
    if elastic:
        angles = jax.random.uniform(angle_key, (2,), maxval=2 * jnp.pi)
        directions = jnp.pi / jnp.maximum(sides, 1) * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)
        phases = jax.random.uniform(phase_key, (2,), maxval=2 * jnp.pi)
        bend = lambda p: elastic * sides * jnp.sin(_apply(directions, p - c) + phases)  # noqa: E731
    R = inverse.T / jnp.sum(inverse[0] ** 2)  # of a rotation and a magnification
    motion = _Motion(R, inverse, c, jnp.zeros(2), bend)
    return motion._replace(tau=_shortened(offset * sides, _forward(motion, grid), M))


def _shortened(tau: Float[Array, "2"], moved: Float[Array, "h w 2"], M: Bool[Array, "h w"]) -> Float[Array, "2"]:
    """Returns as much of tau as leaves half of the object in the frame."""
    shares = jnp.linspace(0.0, 1.0, 21)
    stay = jax.vmap(lambda share: jnp.sum(M & _within(moved + share * tau, *M.shape)))(shares)
    return jnp.max(jnp.where(2 * stay >= jnp.sum(M), shares, 0)) * tau


def _forward(motion: _Motion, p: Float[Array, "h w 2"]) -> Float[Array, "h w 2"]:
    bent = p if motion.bend is None else p + motion.bend(p)
    return _apply(motion.R, bent - motion.c) + motion.c + motion.tau


def _backward(motion: _Motion, q: Float[Array, "h w 2"]) -> Float[Array, "h w 2"]:
    """Returns where the motion takes q from; a bend is undone by fixed-point iteration."""
    bent = _apply(motion.inverse, q - motion.c - motion.tau) + motion.c
    if motion.bend is None:
        return bent
    return lax.fori_loop(0, _INVERSION_STEPS, lambda _, p: bent - motion.bend(p), bent)


def _apply(matrix: Float[Array, "2 2"], vectors: Float[Array, "h w 2"]) -> Float[Array, "h w 2"]:
    return jnp.matmul(vectors, matrix.T, precision=lax.Precision.HIGHEST)  # tf32 would lose half a pixel


def _within(points: Float[Array, "h w 2"], h: int, w: int) -> Bool[Array, "h w"]:
    return jnp.all((points >= -0.5) & (points <= jnp.array([w, h]) - 0.5), axis=-1)


def _hole_colour(
    image: Float[Array, "h w 3"], background: Bool[Array, "h w"], hole: Literal["black", "mean", "inpaint"]
) -> Float[Array, "h w 3"] | Float[Array, "3"]:
    if hole == "black":
        return jnp.zeros(3)
    known = (background | ~jnp.any(background))[..., None].astype(jnp.float32)
    if hole == "mean":
        return jnp.sum(image * known, axis=(0, 1)) / jnp.sum(known)
    return _fill(image * known, known)


def _fill(total: Float[Array, "h w 3"], weight: Float[Array, "h w 1"]) -> Float[Array, "h w 3"]:
    """Pull-push (Gortler et al., "The Lumigraph", 1996): averages ever larger cells, and fills each from the larger."""
    h, w = weight.shape[:2]
    if h == w == 1:
        return total / weight
    cells = jnp.pad(jnp.concatenate([total, weight], axis=-1), ((0, h % 2), (0, w % 2), (0, 0)))
    cells = cells.reshape(-(-h // 2), 2, -(-w // 2), 2, 4).mean((1, 3))
    coarse = _fill(cells[..., :3], cells[..., 3:])
    return total + (1 - weight) * resize(coarse, (2 * coarse.shape[0], 2 * coarse.shape[1]))[:h, :w]
