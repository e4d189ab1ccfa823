"""Distances of estimated optical flow to known flow."""

from collections.abc import Mapping
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvos.ops import known_flow, resize_sparse_flow

__all__ = ["end_point_loss", "multiscale_flow_loss"]


def end_point_loss(
    flow: Float[Array, "h w 2"],
    target: Float[Array, "h w 2"],
    *,
    kind: Literal["epe", "sq", "charbonnier"] = "epe",
    epsilon: float = 1e-3,
    power: float = 0.45,
    reduction: Literal["mean", "sum"] = "mean",
) -> Float[Array, ""]:
    """Judges flow where the true one is known: finite, and no component beyond 1e9.

    Args:
      flow: estimated vectors.
      target: true ones, in the same units.
      kind: `epe`, the distance `sqrt(d^2 + epsilon^2)`; `sq`, its square `d^2`, which SegFlow's Eq. 2 calls end-point
        error and which a few fast pixels decide; `charbonnier`, the robust `(d^2 + epsilon^2)^power`.
      epsilon: keeps the gradient finite where the flow is right.
      power: of `charbonnier`.
      reduction: over the known pixels; the mean of none is 0.
    """
    distance, known = _distance(flow, target, kind=kind, epsilon=epsilon, power=power)
    total = jnp.sum(distance)
    return total / jnp.maximum(jnp.sum(known), 1) if reduction == "mean" else total


def multiscale_flow_loss(
    flows: Mapping[int, Array],
    target: Float[Array, "h w 2"],
    *,
    weights: tuple[tuple[int, float], ...] = ((6, 0.32), (5, 0.08), (4, 0.02), (3, 0.01), (2, 0.005)),
    scale: float = 20.0,
    kind: Literal["epe", "sq", "charbonnier"] = "epe",
) -> Float[Array, ""]:
    """Judges the flow of all levels of a flow network, each at its own size.

    The published sums over cells are divided by the number of cells of the largest level, so that the loss does not
    depend on the size of the frame.

    Args:
      flows: level to flow `(y, x, 2)`, in units of `scale` pixels of the frame, whatever the level's size.
      target: true flow in pixels of the frame; unknown vectors as in `end_point_loss`. A cell has the mean of the known
        vectors around it, weighted as `resize` shrinks; where there are none, it does not count.
      weights: of the levels.
      scale: the unit.
      kind: as in `end_point_loss`.

    Source: Dosovitskiy et al., "FlowNet" (ICCV 2015); Sun et al., "PWC-Net" (CVPR 2018), Eq. 5.
    """
    (h, w), total = target.shape[:2], jnp.zeros(())
    for level, weight in weights:
        y, x = flows[level].shape[:2]
        cells = resize_sparse_flow(target, (y, x)) * jnp.array([w / x, h / y]) / scale  # in pixels of the frame
        total = total + weight * end_point_loss(flows[level], cells, kind=kind, reduction="sum")
    largest = max(flows[level].shape[0] * flows[level].shape[1] for level, _ in weights)
    return total / largest


def _distance(
    flow: Float[Array, "h w 2"],
    target: Float[Array, "h w 2"],
    *,
    kind: Literal["epe", "sq", "charbonnier"],
    epsilon: float,
    power: float,
) -> tuple[Float[Array, "h w"], Bool[Array, "h w"]]:
    """The distance of every vector, 0 where the true one is unknown, and where it is known."""
    known = known_flow(target)
    squared = jnp.sum((flow - jnp.where(known[..., None], target, 0)) ** 2, axis=-1)
    match kind:
        case "sq":
            distance = squared
        case "epe":
            distance = jnp.sqrt(squared + epsilon**2)
        case "charbonnier":
            distance = (squared + epsilon**2) ** power
    return jnp.where(known, distance, 0), known
