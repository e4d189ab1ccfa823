"""Entropic optimal transport by Sinkhorn's iterations: balanced or not, masked, with unrolled or implicit gradients."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import logsumexp
from jaxtyping import Array, Bool, Float, Int

from jaxvos.solvers._checks import check_choice, check_cost, check_marginals, check_positive
from jaxvos.solvers._implicit import attach_adjoint
from jaxvos.solvers._log_domain import Marginals, column_error, log_domain, log_masses, masses
from jaxvos.solvers._scaling import scale, scale_until

__all__ = ["SinkhornSolution", "sinkhorn"]

_NOTHING = -1e30  # log kernel where there is no mass: finite, so that gradients are; its exponential is exactly 0
_CONVERGED = 1e-3  # what `converged` means when no tolerance was asked for
_STAGE = 10  # iterations at each of the larger epsilons of an annealed start


class SinkhornSolution(NamedTuple):
    """A transport plan, its potentials and how far it came.

    With a dustbin the arrays have one more row and column, the last: the bins.

    Attributes:
      plan: `exp((f + g - cost) / epsilon)`; rows sum to `a` exactly (they are updated last) when `tau_a` is 1.
      f: row potentials; 0 where a row has no mass.
      g: column potentials; 0 where a column has no mass.
      value: the dual objective at these potentials: the least entropic cost once converged, below it before. Its
        gradient is the envelope's, whatever `diff` is: `plan` with respect to the cost, `f` to `a`, `g` to `b`.
      error: L1 distance of the column sums from what their update would make them, relative to the mass of `b`.
        Balanced, that is the error of the column marginal.
      num_iters: iterations made.
      converged: whether `error` is at most `tolerance` (1e-3 when none was given).
    """

    plan: Float[Array, "n m"]
    f: Float[Array, "n"]
    g: Float[Array, "m"]
    value: Float[Array, ""]
    error: Float[Array, ""]
    num_iters: Int[Array, ""]
    converged: Bool[Array, ""]


def _solve(
    L: Float[Array, "n m"],
    phi: Float[Array, "n"],
    of: Marginals,
    num_iters: int,
    mass_error: Float[Array, ""] | None,
    domain: Literal["stabilized", "log"],
) -> tuple[Float[Array, "n"], Float[Array, "m"], Float[Array, "n m"], Int[Array, ""]]:
    if domain == "log" or of.tau_a < 1 or of.tau_b < 1 or of.capped:
        return log_domain(L, phi, of, num_iters, mass_error)
    if mass_error is None:
        return *scale(L, phi, of.a, of.b, num_iters), jnp.int32(num_iters)
    return scale_until(L, phi, of.a, of.b, num_iters, mass_error)


def _annealed(
    L: Float[Array, "n m"], phi: Float[Array, "n"], of: Marginals, stages: int, domain: Literal["stabilized", "log"]
) -> Float[Array, "n"]:
    """Row potentials to start from: those of ever smaller epsilons, each twice the next, each started from the last."""

    @jax.checkpoint
    def stage(phi: Float[Array, "n"], factor: Float[Array, ""]) -> tuple[Float[Array, "n"], None]:
        phi, *_ = _solve(L / factor, phi / factor, of, _STAGE, None, domain)
        return phi * factor, None

    return lax.scan(stage, phi, 2.0 ** jnp.arange(stages, 0, -1, dtype=L.dtype))[0]


def _capped_start(L: Float[Array, "n m"], of: Marginals) -> Float[Array, "n"]:
    """Row potentials to start from under caps, which a constant added to a row of the cost does not disturb.

    Prices of columns approach the solution fast where their total has to grow, slowly where it has to fall. So they
    start at zero, with rows that are met. Where all columns will be full only differences of prices count: there the
    rows start as far up as keeps all prices below zero, and caps are marginals.
    """
    phi = jnp.where(of.a > 0, log_masses(of.a) - logsumexp(L, axis=1), 0)
    sums = logsumexp(L + phi[:, None], axis=0) - log_masses(of.b)
    full = of.a.sum() >= (1 - 1e-6) * of.b.sum()
    return phi - 4 * jnp.where(full & (of.b > 0), sums, 0).min(initial=0)


def _dual(
    L: Float[Array, "n m"], f: Float[Array, "n"], g: Float[Array, "m"], of: Marginals, epsilon: Float[Array, ""]
) -> Float[Array, ""]:
    """The dual objective; only `L`, the masses and epsilon are differentiated."""
    f, g = lax.stop_gradient((f, g))

    def side(a: Float[Array, "n"], f: Float[Array, "n"], tau: float) -> Float[Array, ""]:
        if tau == 1:
            return jnp.vdot(a, f)
        rho = epsilon * tau / (1 - tau)
        return -rho * jnp.vdot(a, jnp.expm1(-f / rho))

    mass = jnp.exp(L + (f / epsilon)[:, None] + g / epsilon).sum()
    return side(of.a, f, of.tau_a) + side(of.b, g, of.tau_b) - epsilon * mass


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
    capped: bool = False,
    dustbin: float | Float[Array, ""] | None = None,
    f_init: Float[Array, "n2"] | None = None,
    anneal: int = 0,
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
    section 3.3). `capped` asks `P^T 1 <= b`. One iteration updates the columns (`g`), then the rows (`f`): ott-jax's
    order.

    The gradient is that of the plan, `f` and `g` with respect to `cost`, `a`, `b`, `epsilon` and `dustbin`.
    `diff="unroll"`: the exact derivative of the iterations that were made, whether they converged or not.
    `diff="implicit"`: the derivative of the fixed point at the plan that was reached, by at most 30 conjugate-gradient
    steps; it is the gradient of the solution as far as the plan has converged, and cheaper and more accurate than the
    unrolled one on sharp plans. Balanced potentials are defined up to a constant added to `f` and taken from `g`:
    implicit gradients are those of quantities that do not depend on it, and gradients with respect to `a` and `b` mean
    changes that keep `a.sum() == b.sum()`. Both forms work in reverse mode; forward mode needs
    `domain="log", diff="unroll"`. The gradient of `value` is the plan, the potentials, and needs neither.

    The convergence slows down as `epsilon` becomes small beside the differences of the costs (`anneal` helps, and so
    does `f_init`): watch `error`. Costs must be finite wherever they are not masked.

    Args:
      cost: `(n, m)` costs. Half precision is computed, and answered, in float32.
      a: `(n,)` masses of the rows, not negative, of any sum; uniform probabilities over the unmasked rows by default.
        A row of zero mass is left out like a masked one (its entry of `a` gets no gradient).
      b: `(m,)` masses of the columns, of the same sum (`capped`: of at least that sum; with a soft marginal or a
        dustbin: of any); uniform probabilities by default.
      epsilon: strength of the entropy, in units of the cost; may be traced and learned.
      num_iters: iterations, at least one; the most of them where `tolerance` is given.
      tolerance: stop when `error` is at most this. Gradients then need `diff="implicit"`: `"unroll"` is forward only.
      tau_a: 1 for hard row marginals, in (0, 1) for soft ones.
      tau_b: the same for the columns.
      capped: columns receive at most `b`, not `b`.
      dustbin: what it costs to leave a unit of mass unmatched; may be traced and learned. A row and a column are added
        at this cost (also to each other) that can take all the mass of the other side, so that the plan and the
        potentials have one more entry on each axis (Sarlin et al., "SuperGlue", 2020, section 3.2).
      f_init: row potentials to start from, for example those of a similar problem. The columns are updated first, so
        theirs are not needed. By default zero; under caps, those at which rows are met and no column has a price.
      anneal: stages of ten iterations each, before the others, at `epsilon` times `2^anneal, ..., 4, 2`.
      row_mask: rows that exist. The others get a plan of exactly zero, whatever their costs are (NaN included).
      col_mask: columns that exist.
      domain: `"stabilized"` multiplies by a kernel that absorbs the potentials every ten iterations (balanced problems;
        with a `tau` below 1 the plan may lose so much mass that no kernel holds it, so the log domain is used, and so
        it is with caps); `"log"` takes log-sum-exps throughout: slower, and the reference.
      diff: how gradients are found, as above.

    Returns:
      A `SinkhornSolution`.

    Raises:
      ValueError: for shapes that do not fit, costs that are not finite, masses that are negative or of different sums,
        an `epsilon` or `tau` out of range, no iterations, or an unknown `domain` or `diff`. Values are checked unless
        they are being traced.
    """
    check_cost("sinkhorn", cost, row_mask, col_mask)
    soft = tau_a < 1 or tau_b < 1 or dustbin is not None
    sums = "any" if soft else "at most" if capped else "equal"
    check_marginals("sinkhorn", a, b, cost.shape, row_mask, col_mask, sums=sums)
    check_positive("sinkhorn", "epsilon", epsilon)
    if num_iters < 1 or anneal < 0:
        raise ValueError(
            f"sinkhorn needs at least one iteration and no negative number of stages, got num_iters={num_iters}, "
            f"anneal={anneal}"
        )
    if not (0 < tau_a <= 1 and 0 < tau_b <= 1) or (capped and tau_b < 1):
        raise ValueError(f"tau must lie in (0, 1], and be 1 where capped, got tau_a={tau_a}, tau_b={tau_b}")
    check_choice("sinkhorn", "domain", domain, ("stabilized", "log"))
    check_choice("sinkhorn", "diff", diff, ("unroll", "implicit"))

    dtype = jnp.promote_types(cost.dtype, jnp.float32)
    rows = jnp.ones(cost.shape[0], bool) if row_mask is None else row_mask
    cols = jnp.ones(cost.shape[1], bool) if col_mask is None else col_mask
    a, b, cost = masses(a, rows, cols, dtype), masses(b, cols, rows, dtype), cost.astype(dtype)
    if dustbin is not None:
        cost = jnp.pad(cost, (0, 1)).at[-1].set(dustbin).at[:, -1].set(dustbin)
        a, b = jnp.append(a, b.sum()), jnp.append(b, a.sum())
    of = Marginals(a, b, tau_a, tau_b, capped)
    epsilon = jnp.asarray(epsilon, dtype)
    if f_init is not None and f_init.shape != a.shape:
        raise ValueError(f"sinkhorn: f_init has shape {f_init.shape}, and there are {a.shape} rows")

    def where_alive(values: Float[Array, "n m"], otherwise: float) -> Float[Array, "n m"]:
        return jnp.where((a > 0)[:, None], jnp.where(b > 0, values, otherwise), otherwise)

    L = where_alive(-where_alive(cost, 0.0) / epsilon, _NOTHING)
    phi = jnp.zeros_like(a) if f_init is None else jnp.where(a > 0, f_init.astype(dtype) / epsilon, 0)
    mass = jnp.maximum(b.sum(), jnp.finfo(dtype).tiny)
    mass_error = None if tolerance is None else tolerance * lax.stop_gradient(mass)

    def solve(
        L: Float[Array, "n m"], phi: Float[Array, "n"], of: Marginals
    ) -> tuple[Float[Array, "n"], Float[Array, "m"], Float[Array, "n m"], Int[Array, ""]]:
        if capped and f_init is None:
            phi = _capped_start(L, of)
        if anneal:
            phi = _annealed(L, phi, of, anneal, domain)
        return _solve(L, phi, of, num_iters, mass_error, domain)

    if diff == "implicit":
        fixed = Marginals(*lax.stop_gradient((a, b)), tau_a, tau_b, capped)
        phi, gamma, _, count = solve(*lax.stop_gradient((L, phi)), fixed)
        tau = jnp.where(gamma < 0, 1.0, 0.0) if capped else jnp.full_like(b, tau_b)
        phi, gamma = attach_adjoint(tau_a, tau, L, a, b, phi, gamma)  # pyright: ignore[reportGeneralTypeIssues]
        plan = jnp.exp(L + phi[:, None] + gamma)
    else:
        phi, gamma, plan, count = solve(L, phi, of)
    if tau_a == tau_b == 1 and not capped:
        error = jnp.abs(plan.sum(0) - b).sum()
    else:
        error = column_error(logsumexp(L + phi[:, None], axis=0), gamma, of)
    error = lax.stop_gradient(error / mass)
    converged = error <= (_CONVERGED if tolerance is None else tolerance)
    f, g = epsilon * phi, epsilon * gamma
    return SinkhornSolution(plan, f, g, _dual(L, f, g, of, epsilon), error, count + _STAGE * anneal, converged)
