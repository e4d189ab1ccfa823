"""Euclidean projections onto the sets that matching problems are made of, one set each."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jaxvos.solvers._checks import check_positive

__all__ = ["project_columns", "project_columns_printed", "project_nonnegative", "project_rows", "project_simplex"]


def _masked(
    x: Float[Array, "n m"], row_mask: Bool[Array, "n"] | None, col_mask: Bool[Array, "m"] | None
) -> tuple[Float[Array, "n m"], Bool[Array, "n m"], Float[Array, ""], Float[Array, ""]]:
    """`x` with 0 where nothing exists, which entries do, and how many rows and columns (one at least, to divide by)."""
    n, m = x.shape
    rows = jnp.ones(n, bool) if row_mask is None else row_mask
    cols = jnp.ones(m, bool) if col_mask is None else col_mask
    height, width = (jnp.maximum(mask.sum(), 1).astype(x.dtype) for mask in (rows, cols))
    alive = rows[:, None] & cols
    return jnp.where(alive, x, 0), alive, height, width


def project_rows(
    x: Float[Array, "n m"], *, row_mask: Bool[Array, "n"] | None = None, col_mask: Bool[Array, "m"] | None = None
) -> Float[Array, "n m"]:
    """The nearest matrix whose rows sum to one: P1 of DMM-Net (ICCV 2019, eq. 5), `x - (x 1 - 1) 1^T / m`.

    Masked entries are ignored (NaN included) and 0 in the answer; the mean is that over the columns that exist. The map
    is affine: its gradient takes the mean of each row away.
    """
    x, alive, _, width = _masked(x, row_mask, col_mask)
    return jnp.where(alive, x - ((x.sum(1) - 1) / width)[:, None], 0)


def project_columns(
    x: Float[Array, "n m"],
    *,
    cap: float | Float[Array, "m"] = 1.0,
    row_mask: Bool[Array, "n"] | None = None,
    col_mask: Bool[Array, "m"] | None = None,
) -> Float[Array, "n m"]:
    """The nearest matrix whose columns sum to at most `cap` each; columns below it are left alone.

    DMM-Net (ICCV 2019) means this by P2, and its released code does it; `project_columns_printed` is what eq. 6 says.
    Masks are as in `project_rows`. The gradient takes the mean of each column away that was above its cap.
    """
    x, alive, height, _ = _masked(x, row_mask, col_mask)
    excess = x.sum(0) - cap
    return jnp.where(alive, x - jnp.where(excess > 0, excess / height, 0), 0)


def project_columns_printed(
    x: Float[Array, "n m"],
    *,
    cap: float | Float[Array, "m"] = 1.0,
    row_mask: Bool[Array, "n"] | None = None,
    col_mask: Bool[Array, "m"] | None = None,
) -> Float[Array, "n m"]:
    """P2 as DMM-Net prints it (ICCV 2019, eq. 6): one column above its cap, and *every* column is moved onto its own.

    This is not the projection: columns with room to spare are filled up as well, so `x` goes to the plane where every
    column is full. With more columns than rows no matrix there has rows that sum to one, and Dykstra's rounds stall at
    a distance from the projection. It is kept to show that. Masks are as in `project_rows`.
    """
    x, alive, height, _ = _masked(x, row_mask, col_mask)
    excess = x.sum(0) - cap
    return jnp.where(alive & (excess > 0).any(), x - excess / height, x)


def project_nonnegative(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The nearest array without negative entries: P3 of DMM-Net (eq. 7). The gradient at 0 is 0."""
    return jnp.where(x > 0, x, 0)


def project_simplex(
    x: Float[Array, "m"], *, total: float | Float[Array, ""] = 1.0, mask: Bool[Array, "m"] | None = None
) -> Float[Array, "m"]:
    """The nearest vector without negative entries that sums to `total`; rows of a matrix go through `jax.vmap`.

    It is `max(x - theta, 0)` (Held, Wolfe and Crowder, "Validation of subgradient optimization", 1974). Newton's method
    on the piecewise linear, convex equation for `theta` climbs from below and is exact as soon as a step drops no entry
    from the support: a few steps, at most `m`, and no sort. The gradient is exact in both modes: on the support, the
    cotangent less its mean; zero elsewhere; `total` gets the mean.

    Args:
      x: `(m,)` values, of any size (the largest is taken away first, so nothing cancels).
      total: what the answer sums to, above zero.
      mask: entries that exist; the others are ignored (NaN included) and 0 in the answer.

    Returns:
      `(m,)` values; all 0 where nothing exists.

    Raises:
      ValueError: for a `total` that is not above zero.
    """
    check_positive("project_simplex", "total", total)
    alive = jnp.ones(x.shape, bool) if mask is None else mask
    x = jnp.where(alive, x, 0)
    total = jnp.asarray(total, x.dtype)
    top = lax.stop_gradient(jnp.where(alive, x, -jnp.inf).max(initial=-jnp.inf))
    x = x - jnp.where(jnp.isfinite(top), top, 0)
    # An entry that trails the largest by the total or more is outside every support: its exact value is not needed.
    fixed = lax.stop_gradient(total)
    bounded = lax.stop_gradient(jnp.where(alive, jnp.maximum(x, -fixed), -fixed))

    def newton(state: tuple[Float[Array, ""], Int[Array, ""], Int[Array, ""]]):
        theta, count, _ = state
        support = bounded > theta
        new = jnp.maximum(support.sum(), 1).astype(jnp.int32)
        return (jnp.where(support, bounded, 0).sum() - fixed) / new, new, count

    start = newton((-fixed, jnp.int32(x.size + 2), jnp.int32(0)))
    theta, _, _ = lax.while_loop(lambda state: state[1] < state[2], newton, start)
    support = alive & (bounded > theta)
    mean = (jnp.where(support, x, 0).sum() - total) / jnp.maximum(support.sum(), 1)
    return jnp.where(support, x - mean, 0)
