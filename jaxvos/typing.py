"""Array types and the conventions that every room keeps.

Axes, always by these letters: `b` batch, `t` time, `h w` pixels (rows, columns), `c` channels, `k` object slots
(slot 0 is the background), `n m` tokens or templates x proposals. Layout is BTHWC. Images are float in [0, 1], RGB.
Flow is `(dx, dy)` in pixels of the image it belongs to: `dx` to the right, `dy` downwards. Masks are one-hot along the
last axis. Randomness is called `key` and comes first.
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Float, PRNGKeyArray, UInt32

__all__ = ["Cost", "Edges", "Flow", "Image", "Key", "Masks", "Plan", "Variables"]

Image = Float[Array, "h w 3"]
Masks = Float[Array, "h w k"]
Edges = Float[Array, "h w"]
Flow = Float[Array, "h w 2"]
Cost = Float[Array, "n m"]
Plan = Float[Array, "n m"]
Key = PRNGKeyArray | UInt32[Array, "2"]
Variables = Mapping[str, Any]
