"""Where what is seen now is hidden in the next frame."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxvos.ops._warp import warp, warp_coverage

__all__ = ["forward_backward_occlusion"]

_INSIDE = 0.999  # of what is fetched must lie within the frame


def forward_backward_occlusion(
    forward: Float[Array, "h w 2"], backward: Float[Array, "h w 2"], *, alpha: float = 0.01, beta: float = 0.5
) -> Bool[Array, "h w"]:
    """Marks the pixels whose flow does not lead back to them, and those that leave the frame or whose flow is unknown.

    A pixel is hidden where `|w_f + w_b(x + w_f)|^2 > alpha (|w_f|^2 + |w_b(x + w_f)|^2) + beta`.

    Args:
      forward: flow to the next frame, pixels.
      backward: flow from the next frame to this one.
      alpha: how much the two may differ, relative to their length.
      beta: and in any case, pixels squared.

    Source: Sundaram, Brox and Keutzer (ECCV 2010), Eq. 5.
    """
    back = warp(backward, forward, border="nearest")
    length = lambda flow: jnp.sum(flow * flow, axis=-1)  # noqa: E731
    excess = length(forward + back) - alpha * (length(forward) + length(back))  # NaN if a vector is not finite
    return ~((excess <= beta) & (warp_coverage(forward) >= _INSIDE))
