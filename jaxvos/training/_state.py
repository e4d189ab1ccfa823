"""Everything that changes while training."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int32

from jaxvos.system import Clip, System
from jaxvos.typing import Key, Variables

__all__ = ["TrainState", "create_state"]


class TrainState(NamedTuple):
    """The state of a run after `step` updates: all that the next one needs, beside the data."""

    step: Int32[Array, ""]
    variables: Variables  # `params`, and the collections that the system updates itself
    opt_state: Any
    key: Key  # never changes: each step folds its number into it
    average: Any = None  # running mean of the parameters, where the run keeps one

    @property
    def result(self) -> Variables:
        """What the run has to give: the variables, with the mean of their parameters where there is one."""
        return self.variables if self.average is None else {**self.variables, "params": self.average}


def create_state(
    key: Key, clip: Clip, *, system: System, tx: optax.GradientTransformation, averaged: bool = False
) -> TrainState:
    """Makes the state before the first update, for clips of this shape; `averaged` adds a mean of the parameters."""
    init_key, step_key = jax.random.split(key)
    variables = jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), system.init(init_key, clip))
    average = jax.tree.map(jnp.copy, variables["params"]) if averaged else None
    return TrainState(jnp.zeros((), jnp.int32), dict(variables), tx.init(variables["params"]), step_key, average)
