"""Dykstra's algorithm: the projection onto an intersection, from the projections onto its sets."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

__all__ = ["DykstraSolution", "dykstra"]

_CONVERGED = 1e-3  # what `converged` means when no tolerance was asked for
_UNROLLED = 5  # rounds that are compiled together: twice as fast as one by one on a CPU, forward and backward


class DykstraSolution(NamedTuple):
    """A point near the intersection, and how far the algorithm came.

    Attributes:
      x: the point, which is in the last set exactly.
      corrections: what each projection took away, to start again from.
      error: the most by which one projection changed an entry of the point in the last round (the criterion of Birgin
        and Raydan, 2005). It is 0 at the solution only, while `x` alone can stand still for many rounds before; every
        set is at most as many errors away from `x` as there are sets.
      num_iters: rounds made.
      converged: whether `error` is at most `tolerance` (1e-3 when none was given).
    """

    x: Float[Array, "..."]
    corrections: tuple[Float[Array, "..."], ...]
    error: Float[Array, ""]
    num_iters: Int[Array, ""]
    converged: Bool[Array, ""]


def dykstra(
    x: Float[Array, "..."],
    projections: tuple[Callable[[Float[Array, "..."]], Float[Array, "..."]], ...],
    *,
    num_iters: int,
    tolerance: float | None = None,
    corrections: tuple[Float[Array, "..."], ...] | None = None,
) -> DykstraSolution:
    """The point of an intersection of convex sets that is nearest to `x`.

    Solves `min_z |z - x|^2` over `z` in every set (Boyle and Dykstra, 1986; the inner loop of algorithm 1 of DMM-Net,
    ICCV 2019). One round goes through the sets in order: the correction of a set is added to the point, the sum is
    projected, and what the projection took away is the new correction. Without corrections the rounds end somewhere in
    the intersection, not at its nearest point. For half-spaces, boxes and planes the error falls geometrically in the
    end, at a rate that depends on the angles between them and can be close to one; where the sets have no common point
    the corrections grow for ever and `error` does not reach zero.

    The gradient is the exact derivative of the rounds that were made, in both modes, through the derivatives of the
    projections; the backward pass keeps what those need. With a `tolerance` only forward mode works.

    Args:
      x: the point to project.
      projections: for each set, the map of a point to the nearest point of the set.
      num_iters: rounds, at least one; the most of them where `tolerance` is given.
      tolerance: stop when `error` is at most this.
      corrections: those to start from, zero by default. With those of an earlier answer, the answer is the projection
        of `x` plus all of them.

    Returns:
      A `DykstraSolution`.

    Raises:
      ValueError: for no projections, fewer than one round, or another number of corrections than of projections.
    """
    if not projections:
        raise ValueError("dykstra needs at least one projection")
    if num_iters < 1:
        raise ValueError(f"dykstra needs at least one round, got num_iters={num_iters}")
    if corrections is None:
        corrections = (jnp.zeros_like(x),) * len(projections)
    if len(corrections) != len(projections):
        raise ValueError(f"dykstra: {len(corrections)} corrections for {len(projections)} projections")

    def round_of(x: Float[Array, "..."], corrections: tuple[Float[Array, "..."], ...]):
        left, error = [], jnp.zeros((), x.dtype)
        for project, correction in zip(projections, corrections, strict=True):
            corrected = x + correction
            projected = project(corrected)
            left.append(corrected - projected)
            error = jnp.maximum(error, lax.stop_gradient(jnp.abs(projected - x).max(initial=0)))
            x = projected
        return x, tuple(left), error

    start = x, corrections, jnp.asarray(jnp.inf, x.dtype)
    if tolerance is None:
        (x, corrections, error), _ = lax.scan(
            lambda state, _: (round_of(*state[:2]), None), start, length=num_iters, unroll=min(num_iters, _UNROLLED)
        )
        count = jnp.int32(num_iters)
    else:
        (x, corrections, error), count = lax.while_loop(
            lambda state: (state[1] < num_iters) & (state[0][2] > tolerance),
            lambda state: (round_of(*state[0][:2]), state[1] + 1),
            (start, jnp.int32(0)),
        )
    converged = error <= (_CONVERGED if tolerance is None else tolerance)
    return DykstraSolution(x, corrections, error, count, converged)
