"""One update, as a pure function: no device, no input or output."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from jaxvos.system import Clip, LossOutput, System
from jaxvos.training._paths import matches
from jaxvos.training._state import TrainState
from jaxvos.typing import Key

__all__ = ["all_finite", "train_step"]


def train_step(
    state: TrainState, clip: Clip, *, system: System, tx: optax.GradientTransformation, frozen: tuple[str, ...] = (),
    accumulate: int = 1, ema: float | None = None,
) -> tuple[TrainState, dict[str, Array]]:  # fmt: skip
    """Takes one step down the gradient of the system's loss.

    Args:
        state: the state before.
        clip: a batch.
        system: whose loss is minimised.
        tx: the update rule.
        frozen: regexes of the parameters and running statistics that stay as they are; no gradient is computed
            for these parameters (others still get theirs through them).
        accumulate: parts that the batch is dealt out to, clip by clip, and that are computed one after the other;
            losses and gradients are means over them, and running statistics see one after the other.
        ema: decay of the mean of the parameters, where the state has one; smaller in the first steps.

    Returns:
        The state after, and scalars: `loss`, `grad_norm` (before clipping) and what the system reports.
    """
    key = jax.random.fold_in(state.key, state.step)
    params, rest = state.variables["params"], {k: x for k, x in state.variables.items() if k != "params"}

    def compute(rest: dict[str, Any], clip: Clip, key: Key) -> tuple[LossOutput, dict[str, Any], Any]:
        def loss(params):
            params = _where_frozen(frozen, jax.lax.stop_gradient, lambda leaf: leaf, params)
            output = system.loss({**rest, "params": params}, clip, key=key, step=state.step)
            return output.loss, output

        (_, output), grads = jax.value_and_grad(loss, has_aux=True)(params)
        changed = {
            name: _where_frozen(frozen, lambda new, old: old, lambda new, old: new, new, rest.get(name, new))
            for name, new in output.model_state.items()
            if name != "params"
        }
        return output._replace(model_state={}), {**rest, **changed}, grads

    if accumulate == 1:
        output, rest, grads = compute(rest, clip, key)
    else:
        zeros = jax.tree.map(jnp.zeros_like, params)
        output, rest, grads = _in_parts(compute, rest, zeros, clip, key, accumulate)
    updates, opt_state = tx.update(grads, state.opt_state, params)
    params = optax.apply_updates(params, updates)
    average = state.average
    if ema is not None:
        decay = jnp.minimum(ema, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, params)
    scalars = {**output.scalars, "loss": output.loss, "grad_norm": optax.global_norm(grads)}
    return TrainState(state.step + 1, {**rest, "params": params}, opt_state, state.key, average), scalars


def _in_parts(
    compute: Any, rest: dict[str, Any], zeros: Any, clip: Clip, key: Key, count: int
) -> tuple[LossOutput, Any, Any]:
    """The same as `compute`, of the mean over parts of the batch; `zeros` are of the shape of a gradient."""
    parts = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0), clip)

    def one(carry: Any, part: Any) -> Any:
        rest, total = carry
        output, rest, grads = compute(rest, *part)
        return (rest, jax.tree.map(jnp.add, total, grads)), output

    (rest, total), outputs = jax.lax.scan(one, (rest, zeros), (parts, jax.random.split(key, count)))
    mean = jax.tree.map(lambda x: x.mean(axis=0), outputs)
    return mean, rest, jax.tree.map(lambda x: x / count, total)


def all_finite(tree: Any) -> Bool[Array, ""]:
    """Tells whether no leaf holds a NaN or an infinity."""
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.array([jnp.isfinite(leaf).all() for leaf in floats]).all()


def _where_frozen(frozen: tuple[str, ...], if_frozen: Any, otherwise: Any, tree: Any, *rest: Any) -> Any:
    def pick(path, *leaves):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return (if_frozen if any(matches(pattern, name) for pattern in frozen) else otherwise)(*leaves)

    return jax.tree_util.tree_map_with_path(pick, tree, *rest)
