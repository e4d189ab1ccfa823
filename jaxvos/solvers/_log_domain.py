"""Marginals that are met, soft or capped, and Sinkhorn's iterations for them by log-sum-exps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import logsumexp
from jaxtyping import Array, Bool, Float, Int

__all__ = ["Marginals", "column_error", "log_domain", "log_masses", "masses"]


class Marginals(NamedTuple):
    """What is asked of the row and column sums of a plan; an entry of zero mass does not take part.

    Attributes:
      a: masses of the rows.
      b: masses of the columns.
      tau_a: 1 where they are met, below 1 where they are soft.
      tau_b: the same for the columns.
      capped: columns receive at most `b`.
    """

    a: Float[Array, "n"]
    b: Float[Array, "m"]
    tau_a: float
    tau_b: float
    capped: bool


def masses(
    given: Float[Array, "n"] | None, alive: Bool[Array, "n"], others: Bool[Array, "m"], dtype: Any
) -> Float[Array, "n"]:
    """The masses of one side: uniform probabilities by default, zero where masked or where the other side is empty."""
    alive = alive & others.any()
    if given is None:
        return alive / jnp.maximum(alive.sum(), 1).astype(dtype)
    return jnp.where(alive & (given > 0), given, 0).astype(dtype)


def log_masses(a: Float[Array, "n"]) -> Float[Array, "n"]:
    """Logarithms of the masses, 0 where there is none."""
    return jnp.log(jnp.where(a > 0, a, 1))


def _update_rows(lse: Float[Array, "n"], of: Marginals) -> Float[Array, "n"]:
    return jnp.where(of.a > 0, of.tau_a * (log_masses(of.a) - lse), 0)


def _update_columns(lse: Float[Array, "m"], of: Marginals) -> Float[Array, "m"]:
    gamma = of.tau_b * (log_masses(of.b) - lse)
    return jnp.where(of.b > 0, jnp.minimum(gamma, 0) if of.capped else gamma, 0)


def column_error(lse: Float[Array, "m"], gamma: Float[Array, "m"], of: Marginals) -> Float[Array, ""]:
    """How much mass the next column update would move, from the log-sum-exp that it starts with."""
    now, then = jnp.exp(lse + gamma), jnp.exp(lse + _update_columns(lse, of))
    return jnp.where(of.b > 0, jnp.abs(now - then), 0).sum()


def log_domain(
    L: Float[Array, "n m"],
    phi: Float[Array, "n"],
    of: Marginals,
    num_iters: int,
    mass_error: Float[Array, ""] | None,
) -> tuple[Float[Array, "n"], Float[Array, "m"], Float[Array, "n m"], Int[Array, ""]]:
    """Columns, then rows, `num_iters` times or until the columns are within `mass_error`; then also forward only.

    Returns:
      `phi`, `gamma`, the plan `exp(L + phi + gamma)` and the iterations made.
    """

    def columns(phi: Float[Array, "n"]) -> Float[Array, "m"]:
        return logsumexp(L + phi[:, None], axis=0)

    def rows(gamma: Float[Array, "m"]) -> Float[Array, "n"]:
        return _update_rows(logsumexp(L + gamma, axis=1), of)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        gamma = _update_columns(columns(carry[0]), of)
        return (rows(gamma), gamma), None

    def step_until(state: Any) -> Any:
        phi, gamma, lse, _, count = state
        gamma = _update_columns(lse, of)
        phi = rows(gamma)
        lse = columns(phi)
        return phi, gamma, lse, column_error(lse, gamma, of), count + 1

    gamma, count = jnp.zeros_like(of.b), jnp.int32(num_iters)
    if mass_error is None:
        (phi, gamma), _ = lax.scan(jax.checkpoint(step), (phi, gamma), length=num_iters)
    else:
        start = phi, gamma, columns(phi), jnp.asarray(jnp.inf, L.dtype), jnp.int32(0)
        phi, gamma, _, _, count = lax.while_loop(
            lambda state: (state[4] < num_iters) & (state[3] > mass_error), step_until, start
        )
    return phi, gamma, jnp.exp(L + phi[:, None] + gamma), count
