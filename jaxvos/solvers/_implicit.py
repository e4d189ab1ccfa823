"""The derivative of Sinkhorn's fixed point: one symmetric linear system, solved matrix-free by conjugate gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ["attach_adjoint", "conjugate_gradients"]

_CG_STEPS = 30
_CG_STOP = 1e-13  # of the squared relative residual in float32; the square of it in float64

Potentials = tuple[Float[Array, "n"], Float[Array, "m"]]


def conjugate_gradients(
    A: Callable[[Float[Array, "m"]], Float[Array, "m"]],
    rhs: Float[Array, "m"],
    project: Callable[[Float[Array, "m"]], Float[Array, "m"]],
) -> Float[Array, "m"]:
    """Solves `A z = rhs` for a positive semi-definite `A` whose null space `project` removes, at every step.

    It stops where rounding has eaten the curvature: a plan in several blocks has more null directions.
    """
    stop = _CG_STOP if rhs.dtype == jnp.float32 else _CG_STOP**2
    r = project(rhs)
    target = stop * jnp.vdot(r, r)

    def step(state: Any) -> Any:
        z, r, p, rr, count = state
        Ap = project(A(p))
        curvature = jnp.vdot(p, Ap)
        curved = curvature > jnp.finfo(rr.dtype).eps * jnp.vdot(p, p)
        alpha = jnp.where(curved, rr / jnp.where(curved, curvature, 1), 0)
        z, r = z + alpha * p, project(r - alpha * Ap)
        new = jnp.where(curved, jnp.vdot(r, r), 0)
        return z, r, project(r + new / rr * p), new, count + 1

    start = jnp.zeros_like(r), r, r, jnp.vdot(r, r), 0
    return lax.while_loop(lambda state: (state[3] > target) & (state[4] < _CG_STEPS), step, start)[0]


def _adjoint(
    P: Float[Array, "n m"],
    phi_bar: Float[Array, "n"],
    gamma_bar: Float[Array, "m"],
    tau_a: float,
    tau_b: Float[Array, "m"],
) -> Potentials:
    """Solves `[[r / tau_a, P], [P^T, c / tau_b]] (alpha, beta) = (phi_bar, gamma_bar)` through its Schur complement.

    With `beta = z sqrt(tau_b / c)` the columns' equation is `(I - S^T S) z = ...`, where
    `S = sqrt(tau_a / r) P sqrt(tau_b / c)`.
    Balanced, `(1, -1)` is in the kernel of the system (the gauge of the potentials) and `sqrt(c)` in that of its
    complement; it is projected out of every direction. A column whose potential does not move has a `tau_b` of 0.
    """
    r, c = P.sum(1), P.sum(0)
    ir = jnp.where(r > 0, tau_a / jnp.where(r > 0, r, 1), 0)
    ic = jnp.sqrt(jnp.where(c > 0, tau_b / jnp.where(c > 0, c, 1), 0))
    balanced = (tau_a == 1) & jnp.all((tau_b == 1) | (c == 0))
    null = jnp.where(balanced, jnp.sqrt(c) / jnp.sqrt(jnp.maximum(c.sum(), jnp.finfo(c.dtype).tiny)), 0)

    def times(v: Float[Array, "m"]) -> Float[Array, "n"]:
        return jnp.dot(P, v, precision=lax.Precision.HIGHEST)

    def times_transposed(u: Float[Array, "n"]) -> Float[Array, "m"]:
        return jnp.dot(u, P, precision=lax.Precision.HIGHEST)

    def project(z: Float[Array, "m"]) -> Float[Array, "m"]:
        return z - jnp.vdot(null, z) * null

    rhs = ic * (gamma_bar - times_transposed(ir * phi_bar))
    z = conjugate_gradients(lambda z: z - ic * times_transposed(ir * times(ic * z)), rhs, project)
    beta = ic * z
    return ir * (phi_bar - times(beta)), beta


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def attach_adjoint(
    tau_a: float,
    tau_b: Float[Array, "m"],
    L: Float[Array, "n m"],
    a: Float[Array, "n"],
    b: Float[Array, "m"],
    phi: Float[Array, "n"],
    gamma: Float[Array, "m"],
) -> Potentials:
    """The potentials unchanged, as functions of `L`, `a` and `b` through the equations that they solve.

    The equations are `log r = log a - (1 / tau_a - 1) phi` and the same for the columns, where `r` and `c` are the row
    and column sums of `P = exp(L + phi + gamma)`; `gamma = 0` in a column whose `tau_b` is 0. Balanced, a cotangent
    along the gauge `(1, -1)` is projected out.
    """
    return phi, gamma


def _forward(tau_a: float, tau_b: Any, L: Any, a: Any, b: Any, phi: Any, gamma: Any) -> tuple[Any, Any]:
    return (phi, gamma), (tau_b, L, a, b, phi, gamma)


def _backward(tau_a: float, residuals: Any, cotangents: Any) -> tuple[Any, ...]:
    tau_b, L, a, b, phi, gamma = residuals
    P = jnp.exp(L + phi[:, None] + gamma)
    phi_bar, gamma_bar = cotangents
    alpha, beta = _adjoint(P, phi_bar, gamma_bar, tau_a, tau_b)
    a_bar = alpha * jnp.where(a > 0, P.sum(1) / jnp.where(a > 0, a, 1), 0)
    b_bar = beta * jnp.where(b > 0, P.sum(0) / jnp.where(b > 0, b, 1), 0)
    return jnp.zeros_like(tau_b), -P * (alpha[:, None] + beta), a_bar, b_bar, jnp.zeros_like(phi), jnp.zeros_like(gamma)


attach_adjoint.defvjp(_forward, _backward)
