"""When an evaluation has stopped getting better."""

from typing import Literal

import jax
import jax.numpy as jnp

from jaxvos.typing import Variables

__all__ = ["Plateau"]


class Plateau:
    """Remembers the best variables, and counts the evaluations since.

    Args:
        patience: evaluations without a better value after which it is over; None for never.
        min_delta: by how much a value must be better to count as such.
        mode: whether the best is the highest or the lowest.
    """

    def __init__(self, *, patience: int | None, min_delta: float, mode: Literal["max", "min"]):
        self._patience, self._min_delta, self._sign = patience, min_delta, 1.0 if mode == "max" else -1.0
        self._best, self._stale = -float("inf"), 0
        self.variables: Variables | None = None

    def update(self, value: float, variables: Variables) -> bool:
        """Takes the value of the latest evaluation; returns whether it is over."""
        if self._patience is None:
            return False
        if self._sign * value > self._best + self._min_delta:
            self._best, self._stale = self._sign * value, 0
            self.variables = jax.tree.map(jnp.copy, variables)
        else:
            self._stale += 1
        return self._stale >= self._patience
