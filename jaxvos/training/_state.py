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


def create_state(key: Key, clip: Clip, *, system: System, tx: optax.GradientTransformation) -> TrainState:
    """Makes the state before the first update, for clips of this shape."""
    init_key, step_key = jax.random.split(key)
    variables = jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), system.init(init_key, clip))
    return TrainState(jnp.zeros((), jnp.int32), dict(variables), tx.init(variables["params"]), step_key)
