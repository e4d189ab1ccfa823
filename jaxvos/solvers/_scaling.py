"""Balanced Sinkhorn in the kernel domain: scalings of an absorbed kernel, and the exact adjoint of what they did."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import logsumexp
from jaxtyping import Array, Bool, Float, Int

__all__ = ["scale", "scale_until"]

_ABSORB = 10  # iterations between two absorptions: one column entry grows by at most a factor n in each of them


def _columns(K: Float[Array, "n m"], u: Float[Array, "n"]) -> Float[Array, "m"]:
    return jnp.dot(u, K, precision=lax.Precision.HIGHEST)


def _rows(K: Float[Array, "n m"], v: Float[Array, "m"]) -> Float[Array, "n"]:
    return jnp.dot(K, v, precision=lax.Precision.HIGHEST)


def _dead(a: Float[Array, "n"]) -> Float[Array, "n"]:
    """One where there is no mass, so that a division by a row sum of zero reads 0 / 1."""
    return (a == 0).astype(a.dtype)


@jax.checkpoint
def _first_columns(L: Float[Array, "n m"], phi: Float[Array, "n"], b: Float[Array, "m"]) -> Float[Array, "m"]:
    """The first update of the columns, in the log domain."""
    return jnp.where(b > 0, jnp.log(jnp.where(b > 0, b, 1)) - logsumexp(L + phi[:, None], axis=0), 0)


def _first_rows(L: Float[Array, "n m"], gamma: Float[Array, "m"], a: Float[Array, "n"]) -> Float[Array, "n"]:
    """Any phi that keeps every row of the kernel in range; the rows are rescaled before it matters."""
    return lax.stop_gradient(jnp.where(a > 0, -jnp.max(L + gamma, axis=1), 0))


def _kernel(L: Float[Array, "n m"], phi: Float[Array, "n"], gamma: Float[Array, "m"]) -> Float[Array, "n m"]:
    return jnp.exp(L + phi[:, None] + gamma)


def _iterate(
    K: Float[Array, "n m"], a: Float[Array, "n"], b: Float[Array, "m"], length: int
) -> tuple[Float[Array, "t n"], Float[Array, "t m"], Float[Array, "n"], Float[Array, "m"]]:
    """Rows and columns `length` times, then the rows once more.

    Returns the reciprocals of every row and column sum met on the way: the scalings are `u = a * rho`, `v = b * sigma`.
    """

    def step(v: Float[Array, "m"], _: None) -> tuple[Float[Array, "m"], Any]:
        rho = 1 / (_rows(K, v) + _dead(a))
        sigma = 1 / (_columns(K, a * rho) + _dead(b))
        return b * sigma, (rho, sigma)

    v, (rho, sigma) = lax.scan(step, jnp.ones_like(b), length=length)
    return rho, sigma, 1 / (_rows(K, v) + _dead(a)), v


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _block(
    length: int,
    with_plan: bool,
    L: Float[Array, "n m"],
    phi: Float[Array, "n"],
    gamma: Float[Array, "m"],
    a: Float[Array, "n"],
    b: Float[Array, "m"],
) -> tuple[Float[Array, "n"], Float[Array, "m"], Float[Array, "n m"] | None]:
    """Absorb the potentials in the kernel, iterate, and hand back the potentials (and the plan).

    `phi` only conditions the kernel: the first thing done is to recompute the rows. The result depends on `gamma`.
    """
    return _block_forward(length, with_plan, L, phi, gamma, a, b)[0]


def _block_forward(length: int, with_plan: bool, L: Any, phi: Any, gamma: Any, a: Any, b: Any) -> tuple[Any, Any]:
    K = _kernel(L, phi, gamma)
    rho, sigma, last, v = _iterate(K, a, b, length)
    u = a * last
    plan = K * u[:, None] * v if with_plan else None
    new_phi, new_gamma = phi + jnp.log(u + _dead(a)), gamma + jnp.log(v + _dead(b))
    return (new_phi, new_gamma, plan), (L, phi, gamma, a, b, rho, sigma, last, v)


def _block_backward(length: int, with_plan: bool, residuals: Any, cotangents: Any) -> tuple[Any, ...]:
    L, phi, gamma, a, b, rho, sigma, last, v = residuals
    phi_bar, gamma_bar, plan_bar = cotangents
    K = _kernel(L, phi, gamma)
    u = a * last
    u_bar, v_bar = phi_bar / (u + _dead(a)), gamma_bar / (v + _dead(b))
    if with_plan:
        G = plan_bar * K
        u_bar, v_bar = u_bar + _rows(G, v), v_bar + _columns(G, u)

    def row_step(u_bar: Any, rho: Any) -> Any:
        return -u_bar * a * rho**2

    def step(v_bar: Any, reciprocals: Any) -> tuple[Any, Any]:
        rho, sigma = reciprocals
        s_bar = -v_bar * b * sigma**2
        u_bar = _rows(K, s_bar)
        r_bar = row_step(u_bar, rho)
        return _columns(K, r_bar), (r_bar, s_bar, u_bar * rho, v_bar * sigma)

    r_last = row_step(u_bar, last)
    v_first, (r_bar, s_bar, a_bar, b_bar) = lax.scan(step, v_bar + _columns(K, r_last), (rho, sigma), reverse=True)
    # dL/dK is a sum of outer products over the iterations: one thin matrix product instead of an update per iteration.
    left = jnp.concatenate([r_bar, r_last[None], a * rho])
    right = jnp.concatenate([jnp.ones_like(b)[None], b * sigma, s_bar])
    K_bar = jnp.einsum("tn,tm->nm", left, right, precision=lax.Precision.HIGHEST)
    if with_plan:
        K_bar = K_bar + plan_bar * u[:, None] * v
    return K * K_bar, jnp.zeros_like(phi), v_first, a_bar.sum(0) + u_bar * last, b_bar.sum(0)


_block.defvjp(_block_forward, _block_backward)


def scale(
    L: Float[Array, "n m"], phi: Float[Array, "n"], a: Float[Array, "n"], b: Float[Array, "m"], num_iters: int
) -> tuple[Float[Array, "n"], Float[Array, "m"], Float[Array, "n m"]]:
    """Scales `exp(L + phi)` to the marginals `a` and `b` (zero: no mass there) by a fixed number of iterations.

    Columns go first, rows last. The first column update is made in the log domain; then blocks of at most `_ABSORB`
    iterations are matrix-vector products on a kernel in which the potentials so far are absorbed, so there is one `exp`
    per entry and block (Schmitzer, "Stabilized sparse scaling algorithms for entropy regularized transport problems",
    2019, section 3.1). The gradient is the exact derivative of these iterations: each block keeps its row and column
    sums only, rebuilds its kernel, and collects the cotangent of the kernel in one product.

    Returns:
      `phi`, `gamma`, and the plan `exp(L + phi + gamma)`, whose rows sum to `a`.
    """
    gamma = _first_columns(L, phi, b)
    phi = _first_rows(L, gamma, a)
    full = max(0, -(-(num_iters - 1) // _ABSORB) - 1)

    def body(carry: Any, _: None) -> tuple[Any, None]:
        phi, gamma, _ = _block(_ABSORB, False, L, *carry, a, b)  # pyright: ignore[reportGeneralTypeIssues]
        return (phi, gamma), None

    if full:
        (phi, gamma), _ = lax.scan(body, (phi, gamma), length=full)
    return _block(num_iters - 1 - full * _ABSORB, True, L, phi, gamma, a, b)


def scale_until(
    L: Float[Array, "n m"],
    phi: Float[Array, "n"],
    a: Float[Array, "n"],
    b: Float[Array, "m"],
    num_iters: int,
    mass_error: Float[Array, ""],
) -> tuple[Float[Array, "n"], Float[Array, "m"], Float[Array, "n m"], Int[Array, ""]]:
    """As `scale`, until the column marginal is within `mass_error` (L1); at most `num_iters`; forward only.

    The error is free: the column sums of the next update are the marginal of the present plan.
    """
    gamma = _first_columns(L, phi, b)
    phi = _first_rows(L, gamma, a)

    def unfinished(count: Int[Array, ""], error: Float[Array, ""]) -> Bool[Array, ""]:
        return (count < num_iters) & (error > mass_error)

    def iterate(K: Any, state: Any) -> Any:
        v, _, count, within = state
        u = a / (_rows(K, v) + _dead(a))
        s = _columns(K, u)
        return b / (s + _dead(b)), jnp.abs(v * s - b).sum(), count + 1, within + 1

    def block(state: Any) -> Any:
        phi, gamma, error, count = state
        K = _kernel(L, phi, gamma)
        start = jnp.ones_like(b), error, count, jnp.int32(0)
        v, error, count, _ = lax.while_loop(
            lambda state: unfinished(state[2], state[1]) & (state[3] < _ABSORB), partial(iterate, K), start
        )
        u = a / (_rows(K, v) + _dead(a))
        return phi + jnp.log(u + _dead(a)), gamma + jnp.log(v + _dead(b)), error, count

    start = phi, gamma, jnp.asarray(jnp.inf, L.dtype), jnp.int32(1)
    phi, gamma, _, count = lax.while_loop(lambda state: unfinished(state[3], state[2]), block, start)
    K = _kernel(L, phi, gamma)
    u = a / (K.sum(1) + _dead(a))
    return phi + jnp.log(u + _dead(a)), gamma, K * u[:, None], count
