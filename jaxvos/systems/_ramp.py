"""What grows with the steps of a training."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["ramp"]


def ramp(step: Any, between: tuple[int, int]) -> Float[Array, ""]:
    """From 0 to 1 between two steps; `step` may be traced."""
    return jnp.clip((step - between[0]) / max(between[1] - between[0], 1), 0.0, 1.0)
