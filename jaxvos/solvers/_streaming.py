"""Balanced Sinkhorn between large sets of features: costs by blocks of rows, and never a whole plan."""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxvos.solvers._checks import check_choice, check_marginals, check_mask, check_positive
from jaxvos.solvers._implicit import conjugate_gradients
from jaxvos.solvers._log_domain import masses

__all__ = ["StreamingSolution", "streaming_sinkhorn"]

_NOTHING = -1e30  # log kernel of a column without mass
_CONVERGED = 1e-3

_dot = partial(jnp.dot, precision=lax.Precision.HIGHEST)


class StreamingSolution(NamedTuple):
    """What a plan that was never held moved, and its potentials.

    Attributes:
      values: `plan @ values`.
      f: row potentials; 0 where a row has no mass.
      g: column potentials; 0 where a column has no mass.
      error: L1 distance of the column sums of the plan from `b`, relative to the mass of `b`.
      num_iters: iterations made.
      converged: whether `error` is at most `tolerance` (1e-3 when none was given).
    """

    values: Float[Array, "n d"]
    f: Float[Array, "n"]
    g: Float[Array, "m"]
    error: Float[Array, ""]
    num_iters: Int[Array, ""]
    converged: Bool[Array, ""]


def _reciprocal(a: Float[Array, "n"]) -> Float[Array, "n"]:
    return jnp.where(a > 0, 1 / jnp.where(a > 0, a, 1), 0)


def _log(a: Float[Array, "n"]) -> Float[Array, "n"]:
    return jnp.log(jnp.maximum(a, jnp.finfo(a.dtype).tiny))


def _blocks(block_size: int, *arrays: Array) -> tuple[Array, ...]:
    """Rows in blocks, the last one filled with zeros (rows without mass)."""
    n = arrays[0].shape[0]
    size = min(block_size, n)
    return tuple(
        jnp.pad(z, ((0, -n % size),) + ((0, 0),) * (z.ndim - 1)).reshape(-1, size, *z.shape[1:]) for z in arrays
    )


def _whole(blocks: Array, n: int) -> Array:
    return blocks.reshape(-1, *blocks.shape[2:])[:n]


def _first_columns(
    x: Float[Array, "p q c"], y: Float[Array, "m c"], phi: Float[Array, "p q"], a: Float[Array, "p q"]
) -> Float[Array, "m"]:
    """Log-sum-exps of the columns of `x y^T + phi`, with a running maximum."""

    def step(carry: Any, block: Any) -> tuple[Any, None]:
        x, phi, a = block
        top, total = carry
        S = _dot(x, y.T) + jnp.where(a > 0, phi, _NOTHING)[:, None]
        new = jnp.maximum(top, S.max(0))
        return (new, total * jnp.exp(top - new) + jnp.exp(S - new).sum(0)), None

    start = jnp.full(y.shape[0], _NOTHING, y.dtype), jnp.zeros(y.shape[0], y.dtype)
    (top, total), _ = lax.scan(step, start, (x, phi, a))
    return top + _log(total)


def _rows(x: Float[Array, "q c"], y: Float[Array, "m c"], gamma: Float[Array, "m"], a: Float[Array, "q"]) -> Any:
    """A block of rows updated: the plan before its rows are scaled, the scales, and the potentials."""
    S = _dot(x, y.T) + gamma
    top = S.max(1)
    E = lax.optimization_barrier(jnp.exp(S - top[:, None]))  # or XLA makes the exponentials once for each of their uses
    total = E.sum(1)
    return E, a / total, jnp.where(a > 0, jnp.log(jnp.where(a > 0, a, 1) / total) - top, 0)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _stream(
    num_iters: int,
    block_size: int,
    x: Float[Array, "n c"],
    y: Float[Array, "m c"],
    values: Float[Array, "m d"],
    a: Float[Array, "n"],
    b: Float[Array, "m"],
    phi: Float[Array, "n"],
    mass_error: Float[Array, ""],
) -> tuple[Float[Array, "n d"], Float[Array, "n"], Float[Array, "m"], Float[Array, "m"], Int[Array, ""]]:
    """Sinkhorn on the kernel `exp(x y^T)` from `phi`: plan @ values, both potentials, column sums, iterations."""
    n = x.shape[0]
    xs, phis, as_ = _blocks(block_size, x, phi, a)
    dead = jnp.where(b > 0, 0, _NOTHING)

    def column_masses(gamma: Float[Array, "m"]) -> Float[Array, "m"]:
        def step(c: Float[Array, "m"], block: Any) -> tuple[Float[Array, "m"], None]:
            E, scales, _ = _rows(block[0], y, gamma + dead, block[1])
            return c + _dot(scales, E), None

        return lax.scan(step, jnp.zeros_like(b), (xs, as_))[0]

    def iterate(state: Any) -> Any:  # a pass over the rows finds the error of this iteration and the next columns
        gamma, count, _ = state
        c = column_masses(gamma)
        done = jnp.abs(c - b).sum() <= mass_error
        new = jnp.where(b > 0, gamma + _log(b) - _log(c), 0)
        return jnp.where(done, gamma, new), count + ~done, done

    def apply(c: Float[Array, "m"], block: Any) -> tuple[Float[Array, "m"], Any]:
        E, scales, phi = _rows(block[0], y, gamma + dead, block[1])
        return c + _dot(scales, E), (scales[:, None] * _dot(E, values), phi)

    gamma = jnp.where(b > 0, _log(b) - _first_columns(xs, y, phis, as_), 0)
    start = gamma, jnp.int32(1), jnp.asarray(False)
    gamma, count, _ = lax.while_loop(lambda state: ~state[2] & (state[1] < num_iters), iterate, start)
    c, (out, phi) = lax.scan(apply, jnp.zeros_like(b), (xs, as_))
    return _whole(out, n), _whole(phi, n), gamma, c, count


def _forward(num_iters: int, block_size: int, *inputs: Any) -> tuple[Any, Any]:
    outputs: Any = _stream(num_iters, block_size, *inputs)
    return outputs, (*inputs[:5], *outputs[:4])


def _backward(num_iters: int, block_size: int, residuals: Any, cotangents: Any) -> tuple[Any, ...]:
    """The dense implicit rule with every product by the plan rebuilt in blocks: one pass per conjugate gradient."""
    x, y, values, a, b, out, phi, gamma, c = residuals
    out_bar, phi_bar, gamma_bar, *_ = cotangents
    phi_bar = phi_bar + jnp.sum(out_bar * out, axis=1)
    ir, ic = _reciprocal(a), jnp.sqrt(_reciprocal(c))
    columns = jnp.where(b > 0, gamma, _NOTHING)
    rows = _blocks(block_size, x, jnp.where(a > 0, phi, _NOTHING), ir, phi_bar, out_bar)

    def plan(x: Float[Array, "q c"], phi: Float[Array, "q"]) -> Float[Array, "q m"]:
        return jnp.exp(_dot(x, y.T) + phi[:, None] + columns)

    def direct(carry: Any, block: Any) -> tuple[Any, None]:
        x, phi, ir, phi_bar, out_bar = block
        rhs, values_bar = carry
        P = plan(x, phi)
        rhs = rhs + jnp.sum(P * _dot(out_bar, values.T), axis=0) - _dot(ir * phi_bar, P)
        return (rhs, values_bar + _dot(P.T, out_bar)), None

    def gram(z: Float[Array, "m"]) -> Float[Array, "m"]:
        def step(total: Float[Array, "m"], block: Any) -> tuple[Float[Array, "m"], None]:
            P = plan(block[0], block[1])
            return total + _dot(block[2] * _dot(P, ic * z), P), None

        return z - ic * lax.scan(step, jnp.zeros_like(z), rows)[0]

    def through(y_bar: Float[Array, "m c"], block: Any) -> tuple[Float[Array, "m c"], Any]:
        x, phi, ir, phi_bar, out_bar = block
        P = plan(x, phi)
        alpha = ir * (phi_bar - _dot(P, beta))
        L_bar = P * (_dot(out_bar, values.T) - alpha[:, None] - beta)
        return y_bar + _dot(L_bar.T, x), (_dot(L_bar, y), alpha)

    (rhs, values_bar), _ = lax.scan(direct, (gamma_bar, jnp.zeros_like(values)), rows)
    null = jnp.sqrt(c) / jnp.sqrt(jnp.maximum(c.sum(), jnp.finfo(c.dtype).tiny))
    beta = ic * conjugate_gradients(gram, ic * rhs, lambda z: z - jnp.vdot(null, z) * null)
    y_bar, (x_bar, alpha) = lax.scan(through, jnp.zeros_like(y), rows)
    x_bar, alpha = _whole(x_bar, len(a)), _whole(alpha, len(a))
    return x_bar, y_bar, values_bar, alpha, beta * c * _reciprocal(b), jnp.zeros_like(a), jnp.zeros(())


_stream.defvjp(_forward, _backward)


def streaming_sinkhorn(
    x: Float[Array, "n c"],
    y: Float[Array, "m c"],
    values: Float[Array, "m d"],
    a: Float[Array, "n"] | None = None,
    b: Float[Array, "m"] | None = None,
    *,
    epsilon: float | Float[Array, ""],
    cost: Literal["cosine", "sqeuclidean"] = "cosine",
    num_iters: int = 50,
    tolerance: float | None = None,
    block_size: int = 128,
    row_mask: Bool[Array, "n"] | None = None,
    col_mask: Bool[Array, "m"] | None = None,
) -> StreamingSolution:
    """Moves `values` by the Sinkhorn plan between two sets of features, without ever holding the plan or the cost.

    The problem, its order of updates and its answer are those of `sinkhorn` on the cost matrix of the features; memory
    is `block_size` rows of it. An iteration is one pass over the rows: a block of costs gives the row potentials by a
    softmax and, from the same exponentials, its share of the column sums, which update the columns (Feydy et al.,
    "Interpolating between optimal transport and MMD using Sinkhorn divergences", 2019, compute such costs on the fly).

    The gradient, with respect to `x`, `y`, `values`, `a`, `b` and `epsilon`, is that of `sinkhorn` with
    `diff="implicit"`: of the fixed point at the plan that was reached, by at most 30 conjugate-gradient steps, each one
    pass; memory does not depend on the number of iterations. Reverse mode only. A transport within groups of a map is
    `factorized_transport` with a `match` that calls this.

    Args:
      x: `(n, c)` features of the rows. Half precision is computed, and answered, in float32.
      y: `(m, c)` features of the columns.
      values: `(m, d)` what the columns hold; row `i` of the answer is `sum_j plan_ij values_j`.
      a: `(n,)` masses of the rows; uniform probabilities over the unmasked rows by default.
      b: `(m,)` masses of the columns, of the same sum; uniform probabilities by default.
      epsilon: strength of the entropy in units of the cost; may be traced and learned.
      cost: `"cosine"`: `1 - cos(x_i, y_j)`; `"sqeuclidean"`: `|x_i - y_j|^2`.
      num_iters: iterations, at least one; the most of them where `tolerance` is given.
      tolerance: stop when `error` is at most this.
      block_size: rows of the cost that exist at a time; the answer does not depend on it.
      row_mask: rows that exist; the others answer zero.
      col_mask: columns that exist.

    Returns:
      A `StreamingSolution`.

    Raises:
      ValueError: for shapes that do not fit, masses that are negative or of different sums, an `epsilon` that is not
        above zero, no iterations, or an unknown `cost`.
    """
    name = "streaming_sinkhorn"
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or values.ndim != 2 or len(values) != len(y):
        raise ValueError(f"{name} needs x (n, c), y (m, c) and values (m, d), got {x.shape}, {y.shape}, {values.shape}")
    shape = len(x), len(y)
    check_mask(name, "row_mask", row_mask, shape[0], shape)
    check_mask(name, "col_mask", col_mask, shape[1], shape)
    check_marginals(name, a, b, shape, row_mask, col_mask, sums="equal")
    check_positive(name, "epsilon", epsilon)
    check_choice(name, "cost", cost, ("cosine", "sqeuclidean"))
    if num_iters < 1 or block_size < 1:
        raise ValueError(f"{name} needs an iteration and a row, got num_iters={num_iters}, block_size={block_size}")

    dtype = jnp.promote_types(x.dtype, jnp.float32)
    x, y, values = x.astype(dtype), y.astype(dtype), values.astype(dtype)
    epsilon = jnp.asarray(epsilon, dtype)
    rows = jnp.ones(len(x), bool) if row_mask is None else row_mask
    cols = jnp.ones(len(y), bool) if col_mask is None else col_mask
    a, b = masses(a, rows, cols, dtype), masses(b, cols, rows, dtype)
    x, y = jnp.where((a > 0)[:, None], x, 0), jnp.where((b > 0)[:, None], y, 0)
    if cost == "cosine":  # the cost is of_x + of_y - <x, y>: potentials take the first two over
        x, y = (z * lax.rsqrt(jnp.sum(z**2, axis=1, keepdims=True) + 1e-12) for z in (x, y))
        of_x, of_y = jnp.ones_like(a), jnp.zeros_like(b)
    else:
        center = lax.stop_gradient(b @ y / jnp.maximum(b.sum(), jnp.finfo(dtype).tiny))
        x, y = x - center, y - center
        of_x, of_y = jnp.sum(x**2, axis=1), jnp.sum(y**2, axis=1)
        x = 2 * x
    mass = jnp.maximum(b.sum(), jnp.finfo(dtype).tiny)
    mass_error = lax.stop_gradient(-jnp.ones(()) if tolerance is None else tolerance * mass)
    out, phi, gamma, c, count = _stream(  # pyright: ignore[reportGeneralTypeIssues]
        num_iters, block_size, x / epsilon, y, values, a, b, lax.stop_gradient(-of_x / epsilon), mass_error
    )
    f = jnp.where(a > 0, epsilon * phi + of_x, 0)
    g = jnp.where(b > 0, epsilon * gamma + of_y, 0)
    error = lax.stop_gradient(jnp.abs(c - b).sum() / mass)
    converged = error <= (_CONVERGED if tolerance is None else tolerance)
    return StreamingSolution(out, f, g, error, count, converged)
