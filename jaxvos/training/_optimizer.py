"""From a configuration to an optax chain."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxvos.errors import InputError
from jaxvos.training._config import OptimizerConfig
from jaxvos.training._paths import check_patterns, flatten, matches

__all__ = ["make_optimizer"]

_POLY_POWER = 0.9


def make_optimizer(config: OptimizerConfig, params: Any, num_steps: int) -> optax.GradientTransformation:
    """Builds the update rule for these parameters (only their names are used, so abstract ones will do).

    The order is PyTorch's: the gradient is clipped, then decayed weights are added to it (or, decoupled, to Adam's
    direction), then each leaf is scaled by its own learning rate. Frozen leaves get zero updates and no moments.

    Args:
        config: the options.
        params: the tree of parameters, or of their shapes.
        num_steps: where the schedule ends.

    Raises:
        InputError: if a regex matches no parameter, or everything is frozen.
    """
    patterns = [pattern for pattern, _ in config.groups]
    check_patterns([*patterns, *config.frozen], params)
    frozen = {name: any(matches(pattern, name) for pattern in config.frozen) for name in flatten(params)}
    if all(frozen.values()):
        raise InputError(f"nothing is left to train: {list(config.frozen)} freeze every parameter")
    names = jax.tree.unflatten(jax.tree.structure(params), list(frozen))
    labels = jax.tree.map(lambda name: "frozen" if frozen[name] else "trained", names)
    rates = jax.tree.map(lambda name: _learning_rate(config, name), names)
    decay = optax.add_decayed_weights(config.weight_decay)
    match config.name:
        case "adam":
            direction = optax.scale_by_adam(config.b1, config.b2)
        case "sgd":
            direction = optax.trace(config.b1)
    trained = optax.chain(
        optax.identity() if config.clip_norm is None else optax.clip_by_global_norm(config.clip_norm),
        *((direction, decay) if config.decoupled else (decay, direction)),
    )
    return optax.chain(
        optax.partition({"trained": trained, "frozen": optax.set_to_zero()}, labels),
        optax.stateless(lambda updates, _: jax.tree.map(lambda update, rate: -rate * update, updates, rates)),
        optax.scale_by_schedule(lambda step: _schedule(config, step, num_steps)),
    )


def _learning_rate(config: OptimizerConfig, name: str) -> float:
    return next((lr for pattern, lr in config.groups if matches(pattern, name)), config.lr)


def _schedule(config: OptimizerConfig, step: Any, num_steps: int) -> Any:
    """The factor on every learning rate, at the update number `step` (from 0)."""
    warmup = jnp.minimum(1.0, (step + 1) / max(config.warmup_steps, 1))
    done = jnp.clip((step - config.warmup_steps) / max(num_steps - config.warmup_steps, 1), 0.0, 1.0)
    match config.schedule:
        case "constant":
            return warmup
        case "poly":
            return warmup * (1 - done) ** _POLY_POWER
        case "cosine":
            return warmup * 0.5 * (1 + jnp.cos(jnp.pi * done))
        case "thirds":
            return warmup * 0.5 ** jnp.floor(3 * jnp.minimum(done, 0.99))
