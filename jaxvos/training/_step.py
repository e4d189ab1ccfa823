"""One update, as a pure function: no device, no input or output."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from jaxvos.system import Clip, System
from jaxvos.training._paths import matches
from jaxvos.training._state import TrainState

__all__ = ["all_finite", "train_step"]


def train_step(
    state: TrainState, clip: Clip, *, system: System, tx: optax.GradientTransformation, frozen: tuple[str, ...] = ()
) -> tuple[TrainState, dict[str, Array]]:
    """Takes one step down the gradient of the system's loss.

    Args:
        state: the state before.
        clip: a batch.
        system: whose loss is minimised.
        tx: the update rule.
        frozen: regexes of the parameters and running statistics that stay as they are; no gradient is computed
            for these parameters (others still get theirs through them).

    Returns:
        The state after, and scalars: `loss`, `grad_norm` (before clipping) and what the system reports.
    """
    key = jax.random.fold_in(state.key, state.step)
    params = state.variables["params"]

    def loss(params):
        params = _where_frozen(frozen, jax.lax.stop_gradient, lambda leaf: leaf, params)
        output = system.loss({**state.variables, "params": params}, clip, key=key, step=state.step)
        return output.loss, output

    (_, output), grads = jax.value_and_grad(loss, has_aux=True)(params)
    updates, opt_state = tx.update(grads, state.opt_state, params)
    model_state = {
        name: _where_frozen(frozen, lambda new, old: old, lambda new, old: new, new, state.variables.get(name, new))
        for name, new in output.model_state.items()
        if name != "params"
    }
    variables = {**state.variables, **model_state, "params": optax.apply_updates(params, updates)}
    scalars = {**output.scalars, "loss": output.loss, "grad_norm": optax.global_norm(grads)}
    return TrainState(state.step + 1, variables, opt_state, state.key), scalars


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Tells whether no leaf holds a NaN or an infinity."""
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.array([jnp.isfinite(leaf).all() for leaf in floats]).all()


def _where_frozen(frozen: tuple[str, ...], if_frozen: Any, otherwise: Any, tree: Any, *rest: Any) -> Any:
    def pick(path, *leaves):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return (if_frozen if any(matches(pattern, name) for pattern in frozen) else otherwise)(*leaves)

    return jax.tree_util.tree_map_with_path(pick, tree, *rest)
