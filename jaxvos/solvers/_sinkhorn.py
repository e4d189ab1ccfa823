"""Entropic optimal transport by Sinkhorn's iterations: balanced or not, masked, with unrolled or implicit gradients."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import logsumexp
from jaxtyping import Array, Bool, Float, Int

from jaxvos.solvers._implicit import attach_adjoint
from jaxvos.solvers._scaling import scale, scale_until

__all__ = ["SinkhornSolution", "sinkhorn"]

_NOTHING = -1e30  # log kernel where there is no mass: finite, so that gradients are; its exponential is exactly 0
_CONVERGED = 1e-3  # what `converged` means when no tolerance was asked for


class SinkhornSolution(NamedTuple):
    """A transport plan, its potentials and how far it came.

    Attributes:
      plan: `exp((f + g - cost) / epsilon)`; rows sum to `a` exactly (they are updated last) when `tau_a` is 1.
      f: row potentials; 0 where a row has no mass.
      g: column potentials; 0 where a column has no mass.
      error: L1 distance of the column sums from what their update would make them, relative to the mass of `b`.
        Balanced, that is the error of the column marginal.
      num_iters: iterations made.
      converged: whether `error` is at most `tolerance` (1e-3 when none was given).
    """

    plan: Float[Array, "n m"]
    f: Float[Array, "n"]
    g: Float[Array, "m"]
    error: Float[Array, ""]
    num_iters: Int[Array, ""]
    converged: Bool[Array, ""]


def _marginal(
    given: Float[Array, "n"] | None, alive: Bool[Array, "n"], others: Bool[Array, "m"], dtype: Any
) -> Float[Array, "n"]:
    """The masses of one side: uniform probabilities by default, zero where masked or where the other side is empty."""
    alive = alive & others.any()
    if given is None:
        return alive / jnp.maximum(alive.sum(), 1).astype(dtype)
    return jnp.where(alive & (given > 0), given, 0).astype(dtype)


def _log(a: Float[Array, "n"]) -> Float[Array, "n"]:
    return jnp.log(jnp.where(a > 0, a, 1))


def _update(a: Float[Array, "n"], lse: Float[Array, "n"], tau: float) -> Float[Array, "n"]:
    return jnp.where(a > 0, tau * (_log(a) - lse), 0)


def _error(lse: Float[Array, "m"], gamma: Float[Array, "m"], b: Float[Array, "m"], tau_b: float) -> Float[Array, ""]:
    """How much mass the next column update would move, from the log-sum-exp that it starts with."""
    now, then = jnp.exp(lse + gamma), jnp.exp(tau_b * _log(b) + (1 - tau_b) * lse)
    return jnp.where(b > 0, jnp.abs(now - then), 0).sum()


def _log_domain(
    L: Float[Array, "n m"],
    a: Float[Array, "n"],
    b: Float[Array, "m"],
    tau_a: float,
    tau_b: float,
    num_iters: int,
    mass_error: Float[Array, ""] | None,
) -> tuple[Float[Array, "n"], Float[Array, "m"], Float[Array, "n m"], Int[Array, ""]]:
    def columns(phi: Float[Array, "n"]) -> Float[Array, "m"]:
        return logsumexp(L + phi[:, None], axis=0)

    def rows(gamma: Float[Array, "m"]) -> Float[Array, "n"]:
        return _update(a, logsumexp(L + gamma, axis=1), tau_a)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        gamma = _update(b, columns(carry[0]), tau_b)
        return (rows(gamma), gamma), None

    def step_until(state: Any) -> Any:
        phi, gamma, lse, _, count = state
        gamma = _update(b, lse, tau_b)
        phi = rows(gamma)
        lse = columns(phi)
        return phi, gamma, lse, _error(lse, gamma, b, tau_b), count + 1

    phi, gamma, count = jnp.zeros_like(a), jnp.zeros_like(b), jnp.int32(num_iters)
    if mass_error is None:
        (phi, gamma), _ = lax.scan(jax.checkpoint(step), (phi, gamma), length=num_iters)
    else:
        start = phi, gamma, columns(phi), jnp.asarray(jnp.inf, L.dtype), jnp.int32(0)
        phi, gamma, _, _, count = lax.while_loop(
            lambda state: (state[4] < num_iters) & (state[3] > mass_error), step_until, start
        )
    return phi, gamma, jnp.exp(L + phi[:, None] + gamma), count


def sinkhorn(
    cost: Float[Array, "n m"],
    a: Float[Array, "n"] | None = None,
    b: Float[Array, "m"] | None = None,
    *,
    epsilon: float | Float[Array, ""],
    num_iters: int = 50,
    tolerance: float | None = None,
    tau_a: float = 1.0,
    tau_b: float = 1.0,
    row_mask: Bool[Array, "n"] | None = None,
    col_mask: Bool[Array, "m"] | None = None,
    domain: Literal["stabilized", "log"] = "stabilized",
    diff: Literal["unroll", "implicit"] = "unroll",
) -> SinkhornSolution:
    """Transports the masses `a` of the rows to the masses `b` of the columns at the least cost, entropy included.

    Solves `min_P <P, C> - epsilon H(P)` with `H(P) = -sum P (log P - 1)`, subject to `P 1 = a` and `P^T 1 = b`
    (Cuturi, "Sinkhorn distances", 2013, eq. 2 and algorithm 1). With `tau < 1` a marginal is only asked for:
    `rho KL(P 1 | a)`, `rho = epsilon tau / (1 - tau)`, takes the place of the constraint and every update of that
    potential is multiplied by `tau` (Chizat et al., "Scaling algorithms for unbalanced transport problems", 2018,
    section 3.3). One iteration updates the columns (`g`), then the rows (`f`): ott-jax's order.

    The gradient is that of the plan, `f` and `g` with respect to `cost`, `a`, `b` and `epsilon`. `diff="unroll"`: the
    exact derivative of the iterations that were made, whether they converged or not. `diff="implicit"`: the derivative
    of the fixed point at the plan that was reached, by at most 30 conjugate-gradient steps; it is the gradient of the
    solution as far as the plan has converged, and cheaper and more accurate than the unrolled one on sharp plans.
    Balanced potentials are defined up to a constant added to `f` and taken from `g`: implicit gradients are those of
    quantities that do not depend on it, and gradients with respect to `a` and `b` mean changes that keep
    `a.sum() == b.sum()`. Both forms work in reverse mode; forward mode needs `domain="log", diff="unroll"`.

    The convergence slows down as `epsilon` becomes small beside the differences of the costs, and it does not happen
    when the masses differ and both `tau` are 1: watch `error`. Costs must be finite wherever they are not masked.

    Args:
      cost: `(n, m)` costs. Half precision is computed, and answered, in float32.
      a: `(n,)` masses of the rows, not negative, of any sum; uniform probabilities over the unmasked rows by default.
        A row of zero mass is left out like a masked one (its entry of `a` gets no gradient).
      b: `(m,)` masses of the columns, of the same sum; uniform probabilities by default.
      epsilon: strength of the entropy, in units of the cost; may be traced and learned.
      num_iters: iterations, at least one; the most of them where `tolerance` is given.
      tolerance: stop when `error` is at most this. Gradients then need `diff="implicit"`: `"unroll"` is forward only.
      tau_a: 1 for hard row marginals, in (0, 1) for soft ones.
      tau_b: the same for the columns.
      row_mask: rows that exist. The others get a plan of exactly zero, whatever their costs are (NaN included).
      col_mask: columns that exist.
      domain: `"stabilized"` multiplies by a kernel that absorbs the potentials every ten iterations (balanced problems;
        with a `tau` below 1 the plan may lose so much mass that no kernel holds it, so the log domain is used);
        `"log"` takes log-sum-exps throughout: slower, and the reference.
      diff: how gradients are found, as above.

    Returns:
      A `SinkhornSolution`.

    Raises:
      ValueError: for fewer than one iteration, a `tau` outside (0, 1], or an unknown `domain` or `diff`.
    """
    if num_iters < 1:
        raise ValueError(f"sinkhorn needs at least one iteration, got num_iters={num_iters}")
    if not (0 < tau_a <= 1 and 0 < tau_b <= 1):
        raise ValueError(f"tau must lie in (0, 1], got tau_a={tau_a}, tau_b={tau_b}")
    if domain not in ("stabilized", "log"):
        raise ValueError(f"unknown domain {domain!r}: 'stabilized' or 'log'")
    if diff not in ("unroll", "implicit"):
        raise ValueError(f"unknown diff {diff!r}: 'unroll' or 'implicit'")
    n, m = cost.shape
    dtype = jnp.promote_types(cost.dtype, jnp.float32)
    rows = jnp.ones(n, bool) if row_mask is None else row_mask
    cols = jnp.ones(m, bool) if col_mask is None else col_mask
    a, b = _marginal(a, rows, cols, dtype), _marginal(b, cols, rows, dtype)
    epsilon = jnp.asarray(epsilon, dtype)

    def where_alive(values: Float[Array, "n m"], otherwise: float) -> Float[Array, "n m"]:
        return jnp.where((a > 0)[:, None], jnp.where(b > 0, values, otherwise), otherwise)

    L = where_alive(-where_alive(cost.astype(dtype), 0.0) / epsilon, _NOTHING)
    mass = jnp.maximum(b.sum(), jnp.finfo(dtype).tiny)
    mass_error = None if tolerance is None else tolerance * lax.stop_gradient(mass)

    def solve(
        L: Float[Array, "n m"], a: Float[Array, "n"], b: Float[Array, "m"]
    ) -> tuple[Float[Array, "n"], Float[Array, "m"], Float[Array, "n m"], Int[Array, ""]]:
        if domain == "log" or tau_a < 1 or tau_b < 1:
            return _log_domain(L, a, b, tau_a, tau_b, num_iters, mass_error)
        if mass_error is None:
            phi, gamma, plan = scale(L, a, b, num_iters)
            return phi, gamma, plan, jnp.int32(num_iters)
        return scale_until(L, a, b, num_iters, mass_error)

    if diff == "implicit":
        phi, gamma, _, count = solve(lax.stop_gradient(L), lax.stop_gradient(a), lax.stop_gradient(b))
        phi, gamma = attach_adjoint(tau_a, tau_b, L, a, b, phi, gamma)  # pyright: ignore[reportGeneralTypeIssues]
        plan = jnp.exp(L + phi[:, None] + gamma)
    else:
        phi, gamma, plan, count = solve(L, a, b)
    if tau_a == tau_b == 1:
        error = jnp.abs(plan.sum(0) - b).sum()
    else:
        error = _error(logsumexp(L + phi[:, None], axis=0), gamma, b, tau_b)
    error = lax.stop_gradient(error / mass)
    converged = error <= (_CONVERGED if tolerance is None else tolerance)
    return SinkhornSolution(plan, epsilon * phi, epsilon * gamma, error, count, converged)
